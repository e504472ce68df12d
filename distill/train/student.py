"""A run's student and its renderer: the same for training, evaluation and export."""

from __future__ import annotations

from distill.render import Renderer
from distill.run.folder import RunFolder
from distill.students import Student, load_student
from distill.train.processes import place


def run_student(run: RunFolder) -> Student:
    """The run's student, as it is read to be asked."""
    settings = run.config.train
    return load_student(settings.student, run.workflow.tools, attention=settings.attention)


def student_to_train(run: RunFolder) -> Student:
    """The run's student, as it is read to be trained."""
    settings = run.config.train
    # FSDP shards weights that are of one type, and an adapter's are fp32.
    precise = settings.tuning == "full" or place().spread
    return load_student(
        settings.student, run.workflow.tools, attention=settings.attention, precise=precise
    )


def student_renderer(student: Student, run: RunFolder) -> Renderer:
    """The one renderer of this run's student: for training, evaluation and serving."""
    declarations = run.config.train.declarations or student.declarations
    return Renderer(student.tokenizer, run.workflow.tools, declarations=declarations)
