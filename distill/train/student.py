"""A run's student and its renderer: the same for training, evaluation and export."""

from __future__ import annotations

import shlex

from distill.errors import StaleRunError
from distill.render import Renderer
from distill.run.folder import RunFolder
from distill.students import Student, load_student
from distill.train.processes import process_rank


def load_run_student(run: RunFolder) -> Student:
    """The run's student for inference, whether it was tuned or not."""
    settings = run.config.train
    return load_student(settings.student, run.workflow.tools, attention=settings.attention)


def load_tuned_student(run: RunFolder) -> Student:
    """The student under the run's adapter. Raises StaleRunError when its files have changed."""
    student = load_run_student(run)
    entry = run.manifest.stages.get("train")
    counts = entry.counts if entry else {}
    then, now = counts.get("fingerprint"), student.fingerprint
    # A revision at a hub also changes with a model's card.
    if counts.get("student") == student.name and then != now and not student.from_hub:
        raise StaleRunError(
            "the student's files are not those that it was trained from",
            place=student.name,
            hint=f"restore them, or train again: distill train {shlex.quote(str(run.path))} --redo",
        )
    return student


def load_student_for_training(run: RunFolder) -> Student:
    """The run's student with weights in the dtype that training needs."""
    settings = run.config.train
    # FSDP shards weights of one dtype, and an adapter's are fp32.
    fp32 = settings.tuning == "full" or process_rank().sharded
    return load_student(
        settings.student, run.workflow.tools, attention=settings.attention, fp32=fp32
    )


def student_renderer(student: Student, run: RunFolder) -> Renderer:
    """The one renderer of this run's student: for training, evaluation and serving."""
    declarations = run.config.train.declarations or student.declarations
    return Renderer(student.tokenizer, run.workflow.tools, declarations=declarations)
