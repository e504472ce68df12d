"""`distill ablate`: one student for each mode of declaring the tools, on the same rows.

RUN/ablate/full, names and none are run folders: each has hard links to RUN's data, and a training
and an evaluation of its own. They are locked, resumed and found stale as any run, and can be given
to any command that takes a run. RUN itself does not change.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from distill.ablate.advice import Predictions, contests, recommend
from distill.ablate.model import MODES, Ablation, Declarations, ModeResult, PromptTokens
from distill.errors import RunError, StaleRunError, StudentError, WriteError
from distill.evaluate.arms import student_predictor
from distill.evaluate.predict import render_prompts
from distill.evaluate.score import cases_of, score
from distill.evaluate.tables import scores_json
from distill.files import link_or_copy, read_records, write_json, write_records
from distill.records import Case, Example, Json, Prediction
from distill.render import Renderer
from distill.run import layout
from distill.run.folder import RunFolder, locked
from distill.stages import evaluate, train
from distill.stages.pipeline import earlier, require_before, run_stages
from distill.stages.pipeline import redo as redo_from
from distill.stages.stage import Context, run_stage, stage_status
from distill.stages.watcher import Watcher
from distill.students import Student
from distill.train.recipe import Recipe
from distill.train.rows import render_rows
from distill.train.student import load_run_student, student_renderer
from distill.train.threads import adapt_threads

DATA_STAGES = tuple(stage.name for stage in earlier(train.STAGE))
ARM = "tuned"
Datasets = Mapping[str, Sequence[Case]]


def ablate(
    run: RunFolder,
    modes: Sequence[Declarations],
    watcher: Watcher,
    *,
    data: Datasets | None = None,
    redo: bool = False,
) -> Ablation:
    """Train and score the run's student in each of `modes`; write RUN/ablate/ablation.json.

    data: cases to score instead of gold and the test split
    redo: train and score again; otherwise finished modes are kept

    A mode that does not fit the student has a `problem` instead of scores. Raises RunError for a
    run without data or without rows to score, StudentError if no mode fits, StaleRunError if a mode
    was trained with other settings or data.
    """
    require_before(run, train.STAGE)
    datasets = data or _datasets(run)
    student = load_run_student(run)
    # Imported now, so that the first training's seconds do not include it.
    import distill.train.trainer  # noqa: F401

    folders = [_mode_folder(run, mode) for mode in MODES if mode in modes]
    results = [_measure(run, folder, student, datasets) for folder in folders]
    _require_trainable(results)
    predictions: dict[Declarations, Predictions] = {}
    for number, (folder, result) in enumerate(zip(folders, results, strict=True)):
        mode = result.declarations
        prefixed = _PrefixedWatcher(watcher, mode)
        if result.problem:
            prefixed.notice(result.problem)
            continue
        with locked(folder.path, create=True):
            if redo:
                redo_from(folder, train.STAGE)
            _train(run, folder, prefixed)
            _evaluate(folder, student, datasets, data is None, prefixed)
        predictions[mode] = {
            name: read_records(folder.path / layout.predictions(name, ARM), Prediction)
            for name in datasets
        }
        scores = {name: score(rows) for name, rows in predictions[mode].items()}
        seconds = folder.manifest.stages[train.STAGE.name].seconds
        results[number] = result.model_copy(update={"scores": scores, "seconds": seconds})
    found = tuple(contests(predictions))
    advice = recommend([result for result in results if not result.problem], found)
    ablation = Ablation(
        student=student.name,
        modes=tuple(results),
        contests=found,
        choice=advice.choice,
        advice=advice.line,
    )
    write_json(run.path / layout.ABLATION, ablation.model_dump(mode="json"))
    return ablation


def _datasets(run: RunFolder) -> Datasets:
    """Gold and the test split, without empty ones. Raises RunError if both are empty."""
    test = cases_of(read_records(run.path / layout.SPLITS["test"], Example))
    found = {name: rows for name, rows in (("gold", run.workflow.gold), ("test", test)) if rows}
    if not found:
        raise RunError(
            "there is nothing to score students on: no gold, and an empty test split",
            place=run.path,
            hint="give rows with --data, or make more data: distill gen with a larger --target",
        )
    return found


def _mode_folder(run: RunFolder, mode: Declarations) -> RunFolder:
    """The run folder of one mode; nothing is written."""
    train = run.config.train.model_copy(update={"declarations": mode})
    config = run.config.model_copy(update={"train": train})
    settings = run.settings.model_copy(update={"config": config})
    return RunFolder(run.path / layout.ABLATE / mode, settings, run.workflow)


def _measure(run: RunFolder, folder: RunFolder, student: Student, datasets: Datasets) -> ModeResult:
    """The mode's prompt lengths, and the training rows that fit the student."""
    mode = folder.config.train.declarations
    assert mode is not None
    try:
        renderer = student_renderer(student, folder)
    except StudentError as error:
        return ModeResult(declarations=mode, problem=error.problems[0].cause)
    max_length = Recipe.from_config(folder.config.train, student).max_length
    examples = read_records(run.path / layout.SPLITS["train"], Example)
    rows = render_rows(examples, renderer, max_length)
    problem = ""
    if rows.rejected and not rows.kept:
        problem = f"no training row fits: {rows.rejected[0].detail}"
    return ModeResult(
        declarations=mode,
        prompt_tokens={name: _prompt_lengths(renderer, cases) for name, cases in datasets.items()},
        problem=problem,
        trained=len(rows.kept),
        rejected=len(rows.rejected),
    )


def _prompt_lengths(renderer: Renderer, cases: Sequence[Case]) -> PromptTokens:
    """The lengths of all prompts that can be rendered, of any length; 0 if there are none."""
    prompts, _ = render_prompts(renderer, cases, ARM, float("inf"))
    lengths = [len(ids) for ids in prompts.values()] or [0]
    return PromptTokens(mean=sum(lengths) / len(lengths), max=max(lengths))


def _require_trainable(results: Sequence[ModeResult]) -> None:
    """Raise StudentError if the student cannot be trained in any mode."""
    if any(not result.problem for result in results):
        return
    shortest = results[-1]
    raise StudentError(
        f"with {shortest.declarations}, {shortest.problem}",
        hint="shorten the tools' declarations, raise max_length, or choose a student with more "
        "positions",
    )


def _train(run: RunFolder, folder: RunFolder, watcher: Watcher) -> None:
    """Run the mode's training, or resume it. Raises StaleRunError if its settings changed."""
    _link_run_data(run, folder)
    status = stage_status(train.STAGE, folder)
    if status.state in ("stale", "altered"):
        raise StaleRunError(
            f"its training is {status.state}: {status.detail}",
            place=folder.path,
            hint="use the same settings, or make it again, with the flags that you gave: "
            f"distill ablate {shlex.quote(str(run.path))} --redo",
        )
    run_stages(folder, watcher, train.STAGE)


def _link_run_data(run: RunFolder, folder: RunFolder) -> None:
    """Bring the run's settings, inputs and data stages into the mode's folder, if they changed."""
    source, entries = run.manifest.stages, folder.manifest.stages
    data = {name: source[name] for name in DATA_STAGES if name in source}
    same = all(entries.get(name) == data.get(name) for name in DATA_STAGES)
    if same and (folder.path / layout.CONFIG).exists():
        return
    folder.forget(DATA_STAGES)
    try:
        shutil.copytree(run.path / layout.INPUTS, folder.path / layout.INPUTS, dirs_exist_ok=True)
        for name in (name for entry in data.values() for name in entry.outputs):
            # A stage replaces its files and never writes into one: links stay independent.
            target = folder.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            link_or_copy(run.path / name, target)
    except OSError as error:
        raise WriteError.from_os(error, folder.path) from None
    folder.record()
    for name, entry in data.items():
        folder.remember(name, entry)


def _evaluate(
    run: RunFolder, student: Student, datasets: Datasets, as_stage: bool, watcher: Watcher
) -> None:
    """Score the mode's student; `as_stage`: on the run's own data, as its stage evaluate.

    Without base and baselines, which `distill eval RUN/ablate/full --redo` adds.
    """
    work = partial(_predict, student=student, datasets=datasets)
    stage = replace(evaluate.STAGE, work=work)
    context = Context(run, watcher)
    if not as_stage:
        watcher.begins(stage.name)
        stage.work(context)
    elif stage_status(stage, run).state != "done":
        redo_from(run, evaluate.STAGE)
        run_stage(stage, context)


def _predict(context: Context, student: Student, datasets: Datasets) -> Json:
    """Predict and score every data set; the tool accuracies for the manifest."""
    run = context.run
    watcher = context.watcher
    progress = adapt_threads(run.config.train.threads, watcher.progress, watcher.notice)
    all_cases = [case for cases in datasets.values() for case in cases]
    predict = student_predictor(run, student, all_cases, progress, watcher.notice)
    remaining = iter(predict(ARM))
    accuracies: Json = {}
    for name, cases in datasets.items():
        rows = list(islice(remaining, len(cases)))
        scores = score(rows)
        write_records(run.path / layout.predictions(name, ARM), rows)
        write_json(run.path / layout.scores(name), scores_json(name, {ARM: scores}))
        accuracies[name] = {ARM: scores.tool_accuracy}
    return accuracies


class _PrefixedWatcher:
    """Adds the mode to what a watcher is told."""

    def __init__(self, watcher: Watcher, mode: Declarations) -> None:
        self._watcher = watcher
        self._mode = mode

    def begins(self, stage: str) -> None:
        self._watcher.begins(f"{stage} {self._mode}")

    def progress(self, done: int, total: int, note: str = "") -> None:
        self._watcher.progress(done, total, note)

    def ends(self, stage: str, counts: Json, seconds: float) -> None:
        self._watcher.ends(f"{stage} {self._mode}", counts, seconds)

    def notice(self, text: str) -> None:
        self._watcher.notice(f"{self._mode}: {text}")
