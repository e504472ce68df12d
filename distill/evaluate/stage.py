"""The stage `evaluate`: what base, tuned and baselines make of test, gold, or any file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill.evaluate.baselines import MajorityBaseline, MiniLMBaseline, TfidfBaseline
from distill.evaluate.predict import predict
from distill.evaluate.score import Scores, cases_of, score
from distill.files import file_digest, read_records, write_json, write_records
from distill.records import Case, Example, Json, Message, Prediction
from distill.render import Parsed, Renderer
from distill.run.folder import RunFolder
from distill.students import load_student
from distill.train.stage import student_renderer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Progress = Callable[[int, int, str], None]
ARMS = ("base", "tuned", "majority", "tfidf", "minilm")
