"""What a person sees: progress on stderr, results on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from distill import strict_json
from distill.stages.watcher import PlainConsole, ProgressWatcher
from distill.workflow.problems import OBEYED, visible

# A table in a file or a log is not squeezed into the 80 columns of no terminal.
WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
out = PlainConsole(width=WIDTH)
err = PlainConsole(stderr=True)


def watching() -> ProgressWatcher:
    """Progress on stderr: a bar on a terminal, a line a stage elsewhere."""
    return ProgressWatcher(err)


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
        made.add_row(*(escape(visible(str(cell))) for cell in row))
    return made


def print_json(value: Any) -> None:
    """JSON on stdout for a machine: no colours, no wrapping, and nothing that a terminal obeys."""
    text = strict_json.encode(value, indent=2)
    print(OBEYED.sub(lambda found: f"\\u{ord(found.group()):04x}", text))
