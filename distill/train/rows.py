"""Examples as token ids to train on; what does not fit is rejected, never truncated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from distill.records import Example, Reason, Rejection
from distill.render import Rendered, Renderer, RenderError


class Rows(NamedTuple):
    """The examples that came in = `kept` + `rejected`."""

    kept: list[Rendered]
    rejected: list[Rejection]


def render_rows(examples: Iterable[Example], renderer: Renderer, max_length: int) -> Rows:
    """Each example rendered, or rejected as unrenderable or as longer than `max_length` tokens."""
    rows = Rows([], [])
    for example in examples:
        try:
            row = renderer.example(example.messages, example.target)
        except RenderError as error:
            reason, detail = Reason.UNRENDERABLE, str(error)
        else:
            if len(row.ids) <= max_length:
                rows.kept.append(row)
                continue
            reason = Reason.TOO_LONG_FOR_STUDENT
            detail = f"{len(row.ids)} tokens, and {max_length} fit"
        rows.rejected.append(Rejection(stage="train", reason=reason, detail=detail, item=example))
    return rows
