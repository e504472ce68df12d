"""Predict and score with every arm: base and tuned student, baselines, the teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from distill.evaluate.baselines import Majority, MiniLM, Tfidf
from distill.evaluate.constrained import Constraint, require_constrainable
from distill.evaluate.gate import teacher_arm
from distill.evaluate.predict import Progress, predict
from distill.evaluate.score import Scores, score
from distill.evaluate.served import predict_served, serve_student
from distill.evaluate.tables import scores_json
from distill.files import read_records, write_json, write_records
from distill.records import Case, Example, Prediction
from distill.render import Renderer
from distill.run import layout
from distill.run.folder import RunFolder, read_json
from distill.serving.command import vllm_command
from distill.serving.vllm import Notice
from distill.sharing import bidirectional_start_ids
from distill.students import Student
from distill.students.embedded import PACKAGE, encode
from distill.train.student import load_tuned_student, student_renderer
from distill.train.threads import adapt_threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Cases = Sequence[Case]


def read_scores(folder: Path, dataset: str) -> dict[str, Scores]:
    """The scores by arm in the scores.json of a run's data set."""
    arms = read_json(folder / layout.scores(dataset))["arms"]
    assert isinstance(arms, dict)
    return {arm: Scores.model_validate(scores) for arm, scores in arms.items()}


def score_arms(
    run: RunFolder, datasets: Mapping[str, Cases], progress: Progress, notice: Notice
) -> dict[str, dict[str, Scores]]:
    """Write every arm's predictions and scores of a run with a student; by data set and arm."""
    progress = adapt_threads(run.config.train.threads, progress, notice)
    scores: dict[str, dict[str, Scores]] = {name: {} for name in datasets}
    all_cases = [case for cases in datasets.values() for case in cases]
    for arm, predictions in _predict_arms(run, all_cases, progress, notice):
        remaining = iter(predictions)
        for name, cases in datasets.items():
            rows = list(islice(remaining, len(cases)))
            write_records(run.path / layout.predictions(name, arm), rows)
            scores[name][arm] = score(rows)
    for name, cases in datasets.items():
        scores[name] |= teacher_arm(run, name, cases)
    for name, arms in scores.items():
        write_json(run.path / layout.scores(name), scores_json(name, arms))
    return scores


def _predict_arms(
    run: RunFolder, cases: Cases, progress: Progress, notice: Notice
) -> Iterator[tuple[str, list[Prediction]]]:
    """Each arm's predictions on all cases, one arm after the other."""
    with _student_predictor(run, cases, progress, notice) as predict_arm:
        yield "base", predict_arm("base")
        yield "tuned", predict_arm("tuned")
    rows = read_records(run.path / layout.SPLITS["train"], Example)
    yield "majority", Majority(rows).predict(cases)
    yield "tfidf", Tfidf(rows).predict(cases)
    if find_spec(PACKAGE):
        yield "minilm", MiniLM(rows, encode).predict(cases)


@contextmanager
def _student_predictor(
    run: RunFolder, cases: Cases, progress: Progress, notice: Notice
) -> Iterator[Callable[[str], list[Prediction]]]:
    """A function from `base` or `tuned` to the student's predictions, on the configured backend."""
    settings, teacher = run.config.evaluate, run.config.teacher
    require_constrainable(run.config)
    if settings.backend == "vllm":
        # Checked first: a wrong command fails before the student's tokenizer is loaded.
        run.require_confirmed("vllm_command", "vllm_args")
        command = vllm_command(teacher.vllm_command)
    student = load_tuned_student(run)
    if settings.backend == "transformers":
        yield student_predictor(run, student, cases, progress, notice)
        return
    renderer = student_renderer(student, run)
    with serve_student(
        run,
        command=command,
        arguments=teacher.vllm_args,
        adapter=run.path / layout.ADAPTER,
        log=run.path / layout.STUDENT_LOG,
        start_timeout=teacher.start_timeout,
        notice=notice,
    ) as served:
        yield lambda arm: predict_served(
            served.url,
            getattr(served, arm),
            renderer,
            cases,
            arm=arm,
            max_new_tokens=settings.max_new_tokens,
            context=student.context_length,
            concurrency=teacher.concurrency,
            progress=progress,
        )


def student_predictor(
    run: RunFolder, student: Student, cases: Cases, progress: Progress, notice: Notice
) -> Callable[[str], list[Prediction]]:
    """A function from `base` or `tuned` to the predictions; each call loads the weights."""
    renderer = student_renderer(student, run)
    # Checked first: what cannot be constrained fails before anything is decoded.
    constraint = Constraint(renderer, notice) if run.config.evaluate.constrained == "on" else None

    def predict_arm(arm: str) -> list[Prediction]:
        model = student.load(run.path / layout.ADAPTER if arm == "tuned" else None)
        return predict_cases(run, model, renderer, arm, cases, progress, constraint)

    return predict_arm


def predict_cases(
    run: RunFolder,
    model: PreTrainedModel,
    renderer: Renderer,
    arm: str,
    cases: Cases,
    progress: Progress,
    constraint: Constraint | None = None,
) -> list[Prediction]:
    """The predictions of a loaded model, with the run's evaluation settings.

    constraint: see `predict`
    """
    return predict(
        model,
        renderer,
        cases,
        arm=arm,
        max_new_tokens=run.config.evaluate.max_new_tokens,
        batch_size=run.config.evaluate.batch_size,
        bidirectional_start_ids=bidirectional_start_ids(model),
        constraint=constraint,
        progress=progress,
    )
