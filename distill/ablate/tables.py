"""An ablation for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.markup import escape

from distill import terminal
from distill.ablate.model import Ablated, Ablation
from distill.evaluate.score import Scores
from distill.evaluate.statistics import Interval

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "tools",
    "data",
    "n",
    "prompt tokens",
    "right tool",
    "full call",
    "malformed",
    "s",
)
NONE = "-"
LEGEND = (
    "tools: how the prompt declares them; prompt tokens: mean (longest); shares in percent, with "
    "95% Wilson intervals; s: seconds of training"
)


def ablation_table(found: Ablation) -> Table:
    """Each way's cost and worth: a row for each data set; why a way was not trained."""
    rows = (row for mode in found.modes for row in _rows(mode))
    drawn = terminal.table(found.student, COLUMNS, rows)
    unfit = [f"{mode.declarations}: {mode.problem}" for mode in found.modes if mode.problem]
    drawn.caption = escape("\n".join([*unfit, LEGEND]))
    drawn.caption_justify = "left"
    return drawn


def _rows(mode: Ablated) -> Iterator[tuple[str, ...]]:
    """The way's name and its training stand in its first row alone."""
    first, seconds = str(mode.declarations), NONE
    if mode.seconds is not None:
        seconds = f"{mode.seconds:.0f}" if mode.seconds >= 10 else f"{mode.seconds:.1f}"
    for dataset, tokens in mode.prompt_tokens.items():
        length = f"{tokens.mean:.0f} ({tokens.max})"
        yield (first, dataset, *_cells(mode.scores.get(dataset), length), seconds)
        first, seconds = "", ""
    if not mode.prompt_tokens:
        yield (first, *(NONE,) * (len(COLUMNS) - 1))


def _cells(scores: Scores | None, length: str) -> tuple[str, ...]:
    if scores is None:
        return (NONE, length, NONE, NONE, NONE)
    return (
        str(scores.n),
        length,
        _share(scores.tool_accuracy, scores.tool_interval),
        _share(scores.full_call_accuracy, scores.full_call_interval),
        _share(scores.malformed_rate, None),
    )


def _share(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return NONE
    around = f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]" if interval else ""
    return f"{100 * value:.1f}{around}"
