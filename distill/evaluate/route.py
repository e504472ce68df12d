"""One request, routed by a run's tuned student."""

from __future__ import annotations

import math
from typing import NamedTuple

from distill.errors import UsageError
from distill.evaluate.arms import predict_cases
from distill.evaluate.confidence import CallPrefixes, Confidence, tool_probabilities
from distill.evaluate.constrained import Constraint
from distill.evaluate.predict import render_prompts
from distill.records import Case, Message, ToolCall
from distill.render import Parsed
from distill.run import layout
from distill.run.folder import RunFolder
from distill.serving.vllm import Notice
from distill.sharing import bidirectional_start_ids
from distill.sharing.decode import context_length
from distill.sharing.openings import supports_path_scoring
from distill.train.student import load_tuned_student, student_renderer
from distill.train.threads import set_threads


class Routed(NamedTuple):
    """A student's answer to one request."""

    calls: tuple[ToolCall, ...]
    """The tool calls; none for a reply in words or malformed output."""
    reply: str
    malformed: bool
    detail: str
    """Why it is malformed, or was."""
    raw: str
    """The output as generated, special tokens included."""
    confidence: float | None
    """The probability of calling this tool, or none; None if malformed or the tool is unknown."""
    probabilities: Confidence | None
    """Of each tool, and of no call."""
    repaired: bool = False
    """Whether the answer was no valid call or reply, and was decoded again; `detail` says why."""


class Router:
    """The student of a run that has one (see `pipeline.require_trained`), loaded once."""

    def __init__(self, run: RunFolder, notice: Notice) -> None:
        set_threads(run.config.train.threads)
        self._run = run
        student = load_tuned_student(run)
        self._model = student.load(run.path / layout.ADAPTER)
        self._renderer = student_renderer(student, run)
        self._notice = notice
        self._constraint: Constraint | None = None

    def route(self, text: str, *, constrained: bool | None = None) -> Routed:
        """The student's answer to one request.

        constrained: whether an answer that is no valid call or reply is decoded again so that it is
            one; None: as the setting [evaluate] constrained says
        What it cannot be asked, as it is too long or no Unicode, is malformed: `detail` says why,
        and `raw` is empty. Raises UsageError for a blank request, or what is no text.
        """
        if not isinstance(text, str):
            raise UsageError(
                f"is {type(text).__name__}, not text", place="TEXT", hint="give a request in words"
            )
        if not text.strip():
            raise UsageError("is blank", place="TEXT", hint="give a request in words")
        model, renderer = self._model, self._renderer
        case = Case(id="", messages=(Message(role="user", content=text),), kind="answer")
        limit = context_length(model) or math.inf
        prompts, refused = render_prompts(renderer, [case], "tuned", limit)
        if not prompts:
            return Routed((), "", True, refused[0].detail, "", None, None)
        if constrained is None:
            constrained = self._run.config.evaluate.constrained == "on"
        if constrained and self._constraint is None:
            self._constraint = Constraint(renderer, self._notice)
        constraint = self._constraint if constrained else None
        (answer,) = predict_cases(
            self._run, model, renderer, "tuned", [case], lambda *_: None, constraint
        )
        parsed = Parsed(answer.calls, answer.reply, bool(answer.malformed), answer.detail)
        confidence: Confidence | None = None
        room = limit - len(prompts[0])
        has_room = CallPrefixes(renderer, renderer.tools).longest <= room
        scored = answer.confidence is not None or (answer.malformed and has_room)
        if scored and supports_path_scoring(model):
            (confidence,) = tool_probabilities(
                model,
                renderer,
                [prompts[0]],
                renderer.tools,
                bidirectional_start_ids=bidirectional_start_ids(model),
            )
        return Routed(
            *parsed,
            raw=answer.raw,
            confidence=confidence.of(parsed) if confidence else answer.confidence,
            probabilities=confidence,
            repaired=answer.repaired,
        )
