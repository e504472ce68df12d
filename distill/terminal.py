"""What a person sees: progress on stderr, results on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from distill.records import Json

# A table in a file or a log is not squeezed into the 80 columns of no terminal.
WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
# Without emoji, as a place like "openai:m:" would become one.
out = Console(soft_wrap=True, highlight=False, emoji=False, width=WIDTH)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


class TerminalWatcher:
    """Tells a person on stderr how a run goes: a bar on a terminal, a line a stage elsewhere."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._bar.add_task("", note="", start=False, visible=False)

    def __enter__(self) -> TerminalWatcher:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begins(self, stage: str) -> None:
        self._bar.reset(
            self._task, description=stage, total=None, completed=0, note="", visible=True
        )

    def progress(self, done: int, total: int, note: str = "") -> None:
        self._bar.update(self._task, completed=done, total=total, note=escape(note))

    def ends(self, stage: str, counts: Json, seconds: float) -> None:
        self._bar.update(self._task, visible=False)
        err.print(f"[bold]{stage:<10}[/bold] {escape(summary(counts))} [dim]{seconds:.1f} s[/dim]")

    def notice(self, text: str) -> None:
        err.print(f"[yellow]note[/yellow] {escape(text)}")


def summary(counts: Json) -> str:
    """A stage's counts on one line: `in 2500, kept 2100, rejected 400 (near_duplicate 400)`."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in counts.items())


def _shown(value: object) -> str:
    if isinstance(value, dict):
        inner = summary(value)
        whole = all(isinstance(number, int) for number in value.values())
        return f"{sum(value.values())}" + f" ({inner})" * bool(inner) if whole else f"({inner})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds for people: 0 s, 45 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table whose cells are shown as they are, without markup."""
    made = Table(title=title or None, title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


def print_json(value: Any) -> None:
    """JSON on stdout for a machine: no colours, no wrapping."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
