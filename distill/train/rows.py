"""Examples as the token ids that are trained on. What does not fit is rejected, never cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from distill.records import Example, Reason, Rejection
from distill.render import Rendered, Renderer, RenderError


class Rows(NamedTuple):
    """Conservation: the examples that came in = `kept` + `rejected`."""

    kept: list[Rendered]
    rejected: list[Rejection]


def render_rows(examples: Iterable[Example], renderer: Renderer, max_length: int) -> Rows:
    """Each example rendered, or rejected as unrenderable or as longer than `max_length` tokens."""
    rows = Rows([], [])
    for example in examples:
        try:
            row = renderer.example(example.messages, example.target)
        except RenderError as error:
            rows.rejected.append(_rejection(example, Reason.UNRENDERABLE, str(error)))
            continue
        if len(row.ids) > max_length:
            detail = f"{len(row.ids)} tokens, and {max_length} fit"
            rows.rejected.append(_rejection(example, Reason.TOO_LONG_FOR_STUDENT, detail))
            continue
        rows.kept.append(row)
    return rows


def _rejection(example: Example, reason: Reason, detail: str) -> Rejection:
    return Rejection(stage="train", reason=reason, detail=detail, item=example)
