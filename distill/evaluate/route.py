"""One request, routed by a run's tuned student."""

from __future__ import annotations

from typing import NamedTuple

from distill.evaluate.arms import predict_cases, require_adapter
from distill.evaluate.confidence import Confidence, tool_probabilities
from distill.records import Case, Message
from distill.render import Parsed
from distill.run import layout
from distill.run.folder import RunFolder
from distill.sharing import opens_of
from distill.train.sft import set_threads
from distill.train.student import run_student, student_renderer


class Routed(NamedTuple):
    """What a student does with a request."""

    parsed: Parsed
    raw: str
    """Its words as they came."""
    confidence: Confidence | None = None
    """None where what it does has no probability: malformed, or a tool that there is not."""


def route(run: RunFolder, text: str) -> Routed:
    """What the tuned student does with one request."""
    require_adapter(run)
    set_threads(run.config.train.threads)
    student = run_student(run)
    model, renderer = student.load(run.path / layout.ADAPTER), student_renderer(student, run)
    case = Case(id="", messages=(Message(role="user", content=text),), kind="answer")
    (answer,) = predict_cases(run, model, renderer, "tuned", [case], lambda *_: None)
    parsed = Parsed(answer.calls, answer.reply, bool(answer.malformed), answer.detail)
    if answer.confidence is None and not answer.malformed:
        return Routed(parsed, answer.raw)
    prompts = [renderer.prompt(case.messages)]
    found = tool_probabilities(model, renderer, prompts, renderer.tools, opens=opens_of(model))
    return Routed(parsed, answer.raw, found[0])
