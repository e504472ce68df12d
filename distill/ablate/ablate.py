"""One student for each way of declaring the tools, trained on the same rows and scored alike.

RUN/ablate/full, names and none are run folders of their own: RUN's data, linked, and a training and
an evaluation of their own. They are locked, resumed and found stale as any run is, and whatever
takes a run folder takes them. RUN itself stays as it is.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from distill.ablate.advice import Predictions, contests, recommend
from distill.ablate.model import MODES, Ablation, Declarations, ModeResult, PromptTokens
from distill.errors import RunError, StaleRunError, StudentError, WriteError
from distill.evaluate.arms import predict_student
from distill.evaluate.predict import render_prompts
from distill.evaluate.score import Scores, cases_of, score
from distill.evaluate.tables import scores_json
from distill.files import read_records, write_json, write_records
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

DATA = tuple(stage.name for stage in earlier(train.STAGE))
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

    `data`: what is scored instead of gold and the test split. What was done before is kept, unless
    it is to be redone. A mode that the student has no room for is a row that says so.
    Raises RunError for a run without data or without rows to score, StudentError when no mode
    fits, StaleRunError when a mode was trained with other settings or data.
    """
    require_before(run, train.STAGE)
    datasets = data or _datasets(run)
    student = load_run_student(run)
    # Loaded now, so that the seconds of the first training do not hold it.
    import distill.train.trainer  # noqa: F401

    folders = [_folder(run, mode) for mode in MODES if mode in modes]
    tried = [_measured(run, folder, student, datasets) for folder in folders]
    _require_one(tried)
    said: dict[Declarations, Predictions] = {}
    for at, (folder, mode) in enumerate(zip(folders, tried, strict=True)):
        named = _Named(watcher, mode.declarations)
        if mode.problem:
            named.notice(mode.problem)
            continue
        with locked(folder.path, create=True):
            if redo:
                redo_from(folder, train.STAGE)
            _train(run, folder, named)
            _evaluate(folder, student, datasets, data is None, named)
        said[mode.declarations] = _said(folder, datasets)
        tried[at] = _scored(folder, mode, said[mode.declarations])
    found = _compared(student, tried, said)
    write_json(run.path / layout.ABLATION, found.model_dump(mode="json"))
    return found


def _datasets(run: RunFolder) -> Datasets:
    """Gold and the test split, as far as they hold rows."""
    test = cases_of(read_records(run.path / layout.SPLITS["test"], Example))
    found = {name: rows for name, rows in (("gold", run.workflow.gold), ("test", test)) if rows}
    if not found:
        raise RunError(
            "there is nothing to score students on: no gold, and an empty test split",
            place=run.path,
            hint="give rows with --data, or make more data: distill gen with a larger --target",
        )
    return found


def _folder(run: RunFolder, mode: Declarations) -> RunFolder:
    """The run of one mode, with nothing of it written."""
    train = run.config.train.model_copy(update={"declarations": mode})
    config = run.config.model_copy(update={"train": train})
    settings = run.settings.model_copy(update={"config": config})
    return RunFolder(run.path / layout.ABLATE / mode, settings, run.workflow)


def _measured(
    run: RunFolder, folder: RunFolder, student: Student, datasets: Datasets
) -> ModeResult:
    """What the mode's prompts cost, and whether there is a row that the student has room for."""
    mode = folder.config.train.declarations
    assert mode is not None
    try:
        renderer = student_renderer(student, folder)
    except StudentError as error:
        return ModeResult(declarations=mode, problem=error.problems[0].cause)
    room = Recipe.of(folder.config.train, student).max_length
    examples = read_records(run.path / layout.SPLITS["train"], Example)
    rows = render_rows(examples, renderer, room)
    problem = ""
    if rows.rejected and not rows.kept:
        problem = f"no training row fits: {rows.rejected[0].detail}"
    return ModeResult(
        declarations=mode,
        prompt_tokens={name: _tokens(renderer, cases) for name, cases in datasets.items()},
        problem=problem,
        trained=len(rows.kept),
        rejected=len(rows.rejected),
    )


def _tokens(renderer: Renderer, cases: Sequence[Case]) -> PromptTokens:
    """Of the prompts that can be rendered, however long they are; 0 where none can."""
    prompts, _ = render_prompts(renderer, cases, ARM, float("inf"))
    lengths = [len(ids) for ids in prompts.values()] or [0]
    return PromptTokens(mean=sum(lengths) / len(lengths), max=max(lengths))


def _require_one(modes: Sequence[ModeResult]) -> None:
    """Raise StudentError when the student cannot be trained in any of `modes`."""
    if any(not mode.problem for mode in modes):
        return
    shortest = modes[-1]
    raise StudentError(
        f"with {shortest.declarations}, {shortest.problem}",
        hint="shorten the tools' declarations, raise max_length, or choose a student with more "
        "positions",
    )


def _train(run: RunFolder, folder: RunFolder, watcher: Watcher) -> None:
    """The mode's training, gone on with where it was interrupted; nothing where it is done."""
    _carry(run, folder)
    state = stage_status(train.STAGE, folder)
    if state.state in ("stale", "altered"):
        raise StaleRunError(
            f"its training is {state.state}: {state.detail}",
            place=folder.path,
            hint="use the same settings, or make it again, with the flags that you gave: "
            f"distill ablate {shlex.quote(str(run.path))} --redo",
        )
    run_stages(folder, watcher, train.STAGE)


def _carry(run: RunFolder, folder: RunFolder) -> None:
    """Give the mode's folder the settings, inputs and data of the run, and their entries."""
    theirs, own = run.manifest.stages, folder.manifest.stages
    data = {name: theirs[name] for name in DATA if name in theirs}
    if (folder.path / layout.CONFIG).exists() and all(own.get(n) == data.get(n) for n in DATA):
        return
    folder.forget(DATA)
    try:
        shutil.copytree(run.path / layout.INPUTS, folder.path / layout.INPUTS, dirs_exist_ok=True)
        for name in (name for entry in data.values() for name in entry.outputs):
            _link(run.path / name, folder.path / name)
    except OSError as error:
        raise WriteError.from_os(error, folder.path) from None
    folder.record()
    for name, entry in data.items():
        folder.remember(name, entry)


def _link(source: Path, target: Path) -> None:
    """The same file in another place, or a copy where the file system has no links.

    A stage replaces its files and never writes into one, so neither place changes the other's.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _evaluate(
    run: RunFolder, student: Student, datasets: Datasets, of_run: bool, watcher: Watcher
) -> None:
    """Score the mode's student; `of_run`: on the run's own data, as its stage evaluate.

    Base and baselines are left out: `distill eval RUN/ablate/full --redo` adds them.
    """
    work = partial(_predict, student=student, datasets=datasets)
    stage = replace(evaluate.STAGE, work=work)
    context = Context(run, watcher)
    if not of_run:
        watcher.begins(stage.name)
        stage.work(context)
    elif stage_status(stage, run).state != "done":
        redo_from(run, evaluate.STAGE)
        run_stage(stage, context)


def _said(run: RunFolder, datasets: Datasets) -> Predictions:
    return {
        name: read_records(run.path / layout.predictions(name, ARM), Prediction)
        for name in datasets
    }


def _predict(context: Context, student: Student, datasets: Datasets) -> Json:
    """Predict and score every data set; the right-tool shares for the manifest."""
    run = context.run
    progress = adapt_threads(run.config.train.threads, context.watcher.progress)
    everything = [case for cases in datasets.values() for case in cases]
    rest = iter(predict_student(run, student, ARM, everything, progress))
    shares: dict[str, Scores] = {}
    for name, cases in datasets.items():
        made = list(islice(rest, len(cases)))
        shares[name] = score(made)
        write_records(run.path / layout.predictions(name, ARM), made)
        write_json(run.path / layout.scores(name), scores_json(name, {ARM: shares[name]}))
    return {name: {ARM: scores.tool_accuracy} for name, scores in shares.items()}


def _scored(run: RunFolder, mode: ModeResult, said: Predictions) -> ModeResult:
    """The mode with what came of its training."""
    found = {name: score(rows) for name, rows in said.items()}
    seconds = run.manifest.stages[train.STAGE.name].seconds
    return mode.model_copy(update={"scores": found, "seconds": seconds})


def _compared(
    student: Student, modes: Sequence[ModeResult], said: Mapping[Declarations, Predictions]
) -> Ablation:
    found = tuple(contests(said))
    advice = recommend([mode for mode in modes if not mode.problem], found)
    return Ablation(
        student=student.name,
        modes=tuple(modes),
        contests=found,
        choice=advice.choice,
        advice=advice.line,
    )


class _Named:
    """A watcher who is told which mode a stage belongs to."""

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
