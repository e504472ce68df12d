"""Students: the models that are tuned."""

from distill.students.base import Student, TrainDefaults
from distill.students.load import load_student

__all__ = ["Student", "TrainDefaults", "load_student"]
