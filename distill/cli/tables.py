"""Scores, forecasts and ablations as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.markup import escape
from rich.table import Table

from distill.ablate.model import Ablation, ModeResult
from distill.cli import terminal
from distill.evaluate.score import Scores
from distill.evaluate.tables import CellFormat, repaired_note, sorted_arms
from distill.ledger.prices import format_usd
from distill.run.folder import RunFolder
from distill.stages.forecast import Forecast
from distill.workflow.own_rows import own_rows_line

CELLS = CellFormat(interval="[{:.1f}, {:.1f}]")
NONE = CELLS.missing
ABLATION_COLUMNS = (
    "tools",
    "data",
    "n",
    "prompt tokens",
    "right tool",
    "full call",
    "malformed",
    "s",
)
ABLATION_LEGEND = (
    "tools: how the prompt declares them; prompt tokens: mean (longest); shares in percent, with "
    "95% Wilson intervals; s: seconds of training"
)


def scores_table(arms: Mapping[str, Scores], title: str = "") -> Table:
    """Base, tuned, then baselines: n, shares with their intervals, F1."""
    drawn = Table(title=title or None, title_justify="left")
    drawn.add_column("arm")
    for heading in ("n", "right tool", "full call", "malformed", "argument F1", "grounding F1"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for arm in sorted_arms(arms):
        drawn.add_row(arm, *map(escape, CELLS.score_cells(arms[arm])))
    drawn.caption = "shares in percent, with 95% Wilson intervals; - where an arm has none"
    if note := repaired_note(arms):
        drawn.caption += f"\n{note}"
    return drawn


def forecast_table(run: RunFolder, found: Forecast) -> Table:
    """What is still to be sent: likely, and if all goes badly."""
    settings, rows = run.config.teacher, []
    for label, amount in (
        ("likely" if found.probe else "first round", found.low),
        ("if all goes badly", found.high),
    ):
        rows.append(
            (
                label,
                f"{amount.scenarios:,}",
                f"{amount.requests:,}",
                f"{amount.prompt_tokens:,}",
                f"{amount.cached_tokens:,}",
                f"{amount.completion_tokens:,}",
                format_usd(amount.usd),
                terminal.duration(amount.seconds),
            )
        )
    columns = ["", "scenarios", "requests", "prompt", "cached", "completion", "money", "time"]
    title = f"{run.path}: {run.config.data.target:,} examples by {settings.model or settings.kind}"
    return terminal.table(title, columns, rows if found.probe else rows[:1])


def forecast_notes(run: RunFolder, found: Forecast) -> list[str]:
    """What a forecast rests on, and how to make it better."""
    from distill.stages.forecast import ASSUMED_LATENCY, CHARS_PER_TOKEN

    notes = [f"{found.planned:,} scenarios in the first round, {found.kept:,} answered already"]
    if run.workflow.rows:
        notes.insert(0, f"{own_rows_line(run.workflow)}; what they leave is generated")
    if found.gate:
        notes.append(f"before that, the teacher routes gold: {found.gate:,} requests")
    probe = found.probe
    if probe:
        each = probe.each
        notes.append(
            f"measured on {probe.asked} scenarios: {probe.accepted} accepted, {probe.failed} "
            f"failed, {each.seconds:.1f} s and {each.completion_tokens:.0f} tokens a reply"
        )
    elif run.config.teacher.kind != "grammar":
        notes.append(
            f"estimated: {CHARS_PER_TOKEN} characters a token, {ASSUMED_LATENCY:g} s a reply, "
            "every prompt in full, no round but the first; --probe 30 measures"
        )
    if found.low.usd is None:
        name = run.config.teacher.model
        notes.append(f'the price of "{name}" is not known: give it under [teacher.prices."{name}"]')
    return notes


def ablation_table(found: Ablation) -> Table:
    """Each way's cost and worth: a row for each data set; why a way was not trained."""
    rows = (row for mode in found.modes for row in _mode_rows(mode))
    drawn = terminal.table(found.student, ABLATION_COLUMNS, rows)
    unfit = [f"{mode.declarations}: {mode.problem}" for mode in found.modes if mode.problem]
    drawn.caption = escape("\n".join([*unfit, ABLATION_LEGEND]))
    drawn.caption_justify = "left"
    return drawn


def _mode_rows(mode: ModeResult) -> Iterator[tuple[str, ...]]:
    """The way's name and its training stand in its first row alone."""
    first, seconds = str(mode.declarations), NONE
    if mode.seconds is not None:
        seconds = f"{mode.seconds:.0f}" if mode.seconds >= 10 else f"{mode.seconds:.1f}"
    for dataset, tokens in mode.prompt_tokens.items():
        length = f"{tokens.mean:.0f} ({tokens.max})"
        yield (first, dataset, *_mode_cells(mode.scores.get(dataset), length), seconds)
        first, seconds = "", ""
    if not mode.prompt_tokens:
        yield (first, *(NONE,) * (len(ABLATION_COLUMNS) - 1))


def _mode_cells(scores: Scores | None, length: str) -> tuple[str, ...]:
    if scores is None:
        return (NONE, length, NONE, NONE, NONE)
    n, *shares = CELLS.score_cells(scores)[:4]
    return (n, length, *shares)
