"""Examples as token ids to train on; what does not fit is rejected, never truncated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from distill.records import Example, Reason, Rejection
from distill.render import Renderer, RenderError
from distill.render.decisions import Decisions


class Row(NamedTuple):
    """An example to train on, each list as long as `ids`."""

    ids: list[int]
    mask: list[bool]
    """True on the assistant's turn, which has a loss."""
    decision: list[bool]
    """True where the allowed answers part; see `distill.render.decisions`."""

    def labels(self, ignored: int) -> list[int]:
        """The ids, and `ignored` in place of those without a loss."""
        return [id if own else ignored for id, own in zip(self.ids, self.mask, strict=True)]


class Rows(NamedTuple):
    """The examples that came in = `kept` + `rejected`."""

    kept: list[Row]
    rejected: list[Rejection]


def render_rows(examples: Iterable[Example], renderer: Renderer, max_length: int) -> Rows:
    """Each example rendered, or rejected as unrenderable or as longer than `max_length` tokens."""
    rows = Rows([], [])
    decisions = Decisions(renderer)
    for example in examples:
        try:
            row = renderer.example(example.messages, example.target)
        except RenderError as error:
            reason, detail = Reason.UNRENDERABLE, str(error)
        else:
            if len(row.ids) <= max_length:
                rows.kept.append(Row(row.ids, row.mask, decisions.mask(row, example.target)))
                continue
            reason = Reason.TOO_LONG_FOR_STUDENT
            detail = f"{len(row.ids)} tokens, and {max_length} fit"
        rows.rejected.append(Rejection(stage="train", reason=reason, detail=detail, item=example))
    return rows
