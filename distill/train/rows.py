"""Examples as token ids to train on; what does not fit is rejected, never truncated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from distill.records import Example, Reason, Rejection, canonical_json
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
            _require_shown(example, renderer)
            row = renderer.example(example.messages, example.target, example.tools)
        except RenderError as error:
            reason, detail = Reason.UNRENDERABLE, str(error)
        else:
            if len(row.ids) <= max_length:
                rows.kept.append(
                    Row(row.ids, row.mask, decisions.mask(row, example.target, example.tools))
                )
                continue
            reason = Reason.TOO_LONG_FOR_STUDENT
            detail = f"{len(row.ids)} tokens, and {max_length} fit"
        rows.rejected.append(Rejection(stage="train", reason=reason, detail=detail, item=example))
    return rows


def _require_shown(example: Example, renderer: Renderer) -> None:
    """Raise RenderError for a row that chooses among tools which its prompt would not show."""
    own, usual = ({*map(canonical_json, t)} for t in (example.tools or (), renderer.tools))
    if example.tools is not None and renderer.declarations == "none" and own != usual:
        raise RenderError(
            "it has tools of its own, and this student's prompts declare none: "
            "declare them, with --declarations full"
        )
