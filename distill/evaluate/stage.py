"""The stage `evaluate`: what base, tuned and baselines make of test, of gold, or of any file.

8-evaluate/DATASET/ARM.jsonl holds every prediction with its raw output and verdict,
8-evaluate/DATASET/scores.json what they are worth.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distill.errors import InputFileError, RunError
from distill.evaluate.baselines import Majority, MiniLM, Tfidf
from distill.evaluate.confidence import Confidence, tool_probabilities
from distill.evaluate.predict import Progress, predict
from distill.evaluate.score import Scores, cases_of, score
from distill.evaluate.served import predict_served, served_student
from distill.evaluate.tables import scores_object
from distill.evaluate.teacher import teacher_arm
from distill.files import file_digest, read_records, write_json, write_records
from distill.records import Case, Example, Json, Message, Prediction
from distill.render import Parsed, Renderer
from distill.run.folder import RunFolder, read_json
from distill.sharing import opens_of
from distill.students import Student
from distill.students.embedded import PACKAGE, encode
from distill.teachers.vllm import vllm_command
from distill.teachers.vllm_server import Notice
from distill.train.sft import set_threads
from distill.train.stage import run_student, student_renderer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FOLDER = "8-evaluate"
ADAPTER = Path("7-train") / "adapter"
Cases = Sequence[Case]


class Routed(NamedTuple):
    """What a student does with a request."""

    parsed: Parsed
    raw: str
    """Its words as they came."""
    confidence: Confidence | None = None
    """None where what it does has no probability: malformed, or a tool that there is not."""


def run_evaluation(run: RunFolder, progress: Progress, notice: Notice) -> Json:
    """Score every arm on the test split and on gold; the right-tool shares for the manifest."""
    datasets: dict[str, Cases] = {}
    if run.workflow.gold:
        datasets["gold"] = run.workflow.gold
    datasets["test"] = cases_of(read_records(run.path / "6-split" / "test.jsonl", Example))
    kept = {name: cases for name, cases in datasets.items() if cases}
    for name in datasets:
        shutil.rmtree(run.path / FOLDER / name, ignore_errors=True)
    scores = _score_all(run, kept, progress, notice)
    return {name: {arm: one.tool_accuracy for arm, one in s.items()} for name, s in scores.items()}


def evaluate_file(
    run: RunFolder, path: Path, cases: Cases, progress: Progress, notice: Notice
) -> str:
    """Score every arm on the cases of a file; the name under which they are kept.

    Raises InputFileError for a file without cases.
    """
    name = dataset_name(path, cases)
    _score_all(run, {name: cases}, progress, notice)
    return name


def dataset_name(path: Path, cases: Cases) -> str:
    """The name under which a file's cases are kept. Raises InputFileError when there are none."""
    if not cases:
        raise InputFileError("holds no cases", place=path, hint="write one JSON object a line")
    stem = re.sub(r"[^\w-]+", "-", path.stem).strip("-") or "data"
    # Two files of one name are two data sets.
    return f"{stem}-{file_digest(path)[:8]}"


def read_scores(folder: Path, dataset: str) -> dict[str, Scores]:
    """The scores by arm that an evaluation left in a run folder."""
    found = read_json(folder / FOLDER / dataset / "scores.json")["arms"]
    assert isinstance(found, dict)
    return {arm: Scores.model_validate(scores) for arm, scores in found.items()}


def route(run: RunFolder, text: str) -> Routed:
    """What the tuned student does with one request."""
    _require_adapter(run)
    set_threads(run.config.train.threads)
    student = run_student(run)
    model, renderer = student.load(run.path / ADAPTER), student_renderer(student, run)
    case = Case(id="", messages=(Message(role="user", content=text),), kind="answer")
    (said,) = _said(run, model, renderer, "tuned", [case], lambda *_: None)
    parsed = Parsed(said.calls, said.reply, bool(said.malformed), said.detail)
    if said.confidence is None and not said.malformed:
        return Routed(parsed, said.raw)
    prompts = [renderer.prompt(case.messages)]
    found = tool_probabilities(model, renderer, prompts, renderer.tools, opens=opens_of(model))
    return Routed(parsed, said.raw, found[0])


def _score_all(
    run: RunFolder, datasets: Mapping[str, Cases], progress: Progress, notice: Notice
) -> dict[str, dict[str, Scores]]:
    _require_adapter(run)
    set_threads(run.config.train.threads)
    scores: dict[str, dict[str, Scores]] = {name: {} for name in datasets}
    everything = [case for cases in datasets.values() for case in cases]
    for arm, predictions in _arms(run, everything, progress, notice):
        rest = iter(predictions)
        for name, cases in datasets.items():
            own = [next(rest) for _ in cases]
            write_records(run.path / FOLDER / name / f"{arm}.jsonl", own)
            scores[name][arm] = score(own)
    for name, cases in datasets.items():
        scores[name] |= teacher_arm(run, run.path / FOLDER / name, cases)
    for name, arms in scores.items():
        write_json(run.path / FOLDER / name / "scores.json", scores_object(name, arms))
    return scores


def _arms(
    run: RunFolder, cases: Cases, progress: Progress, notice: Notice
) -> Iterator[tuple[str, list[Prediction]]]:
    """Each arm's predictions on all cases, one arm after the other."""
    with _student_arms(run, cases, progress, notice) as says:
        yield "base", says("base")
        yield "tuned", says("tuned")
    rows = read_records(run.path / "6-split" / "train.jsonl", Example)
    yield "majority", Majority(rows).predict(cases)
    yield "tfidf", Tfidf(rows).predict(cases)
    if find_spec(PACKAGE):
        yield "minilm", MiniLM(rows, encode).predict(cases)


@contextmanager
def _student_arms(
    run: RunFolder, cases: Cases, progress: Progress, notice: Notice
) -> Iterator[Callable[[str], list[Prediction]]]:
    """What the student says, `base` or `tuned`, on the backend of the settings."""
    settings, teacher = run.config.evaluate, run.config.teacher
    if settings.backend == "vllm":
        # The server first: a command that is wrong is said before a tokenizer is read.
        command = vllm_command(teacher.vllm_command)
    student = run_student(run)
    if settings.backend == "transformers":
        yield lambda arm: predicted(run, student, arm, cases, progress)
        return
    renderer = student_renderer(student, run)
    with served_student(
        run,
        command=command,
        arguments=teacher.vllm_args,
        adapter=run.path / ADAPTER,
        log=run.path / FOLDER / "vllm.log",
        deadline=teacher.start_timeout,
        notice=notice,
    ) as served:
        yield lambda arm: predict_served(
            served.url,
            getattr(served, arm),
            renderer,
            cases,
            arm=arm,
            max_new_tokens=settings.max_new_tokens,
            context=student.context,
            concurrency=teacher.concurrency,
            progress=progress,
        )


def predicted(
    run: RunFolder, student: Student, arm: str, cases: Cases, progress: Progress
) -> list[Prediction]:
    """What the run's student, `base` or `tuned`, says to every case; its weights are read anew."""
    model = student.load(run.path / ADAPTER if arm == "tuned" else None)
    return _said(run, model, student_renderer(student, run), arm, cases, progress)


def _said(
    run: RunFolder,
    model: PreTrainedModel,
    renderer: Renderer,
    arm: str,
    cases: Cases,
    progress: Progress,
) -> list[Prediction]:
    return predict(
        model,
        renderer,
        cases,
        arm=arm,
        max_new_tokens=run.config.evaluate.max_new_tokens,
        batch_size=run.config.evaluate.batch_size,
        opens=opens_of(model),
        progress=progress,
    )


def _require_adapter(run: RunFolder) -> None:
    if not (run.path / ADAPTER).is_dir():
        raise RunError(
            "no student was trained here yet",
            place=run.path,
            hint=f"train one: distill train {run.path}",
        )
