"""Who is told how a run goes: a person, a log, or nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol, Self, runtime_checkable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment

from distill.records import Json
from distill.workflow.problems import visible

logger = logging.getLogger("distill")


@runtime_checkable
class Watcher(Protocol):
    """Told of each stage: that it begins, how far it is, what came of it."""

    def begins(self, stage: str) -> None: ...

    def progress(self, done: int, total: int, note: str = "") -> None: ...

    def ends(self, stage: str, counts: Json, seconds: float) -> None: ...

    def notice(self, text: str) -> None: ...


class LogWatcher:
    """Writes to the logger `distill`: results as info, notices as warnings."""

    def begins(self, stage: str) -> None:
        logger.debug("%s begins", stage)

    def progress(self, done: int, total: int, note: str = "") -> None:
        pass

    def ends(self, stage: str, counts: Json, seconds: float) -> None:
        logger.info("%s: %s (%.1f s)", stage, summary(counts), seconds)

    def notice(self, text: str) -> None:
        logger.warning("%s", text)


class PlainConsole(Console):
    """A console of plain text: of what is printed, a terminal obeys nothing.

    Styles and the progress bar are rich's own. Text comes from replies, servers and files as well.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        # Without emoji, as a place like "openai:m:" would become one.
        super().__init__(stderr=stderr, width=width, soft_wrap=True, highlight=False, emoji=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            plain = segment.text if segment.control else visible(segment.text)
            yield segment._replace(text=plain)


class ProgressWatcher:
    """A progress bar and a line a stage on `console`; the lines alone where it is no terminal.

    Opened by `with`.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not (console.is_terminal or console.is_jupyter),
        )
        self._task = self._bar.add_task("", note="", start=False, visible=False)

    def __enter__(self) -> Self:
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
        self._console.print(
            f"[bold]{stage:<10}[/bold] {escape(summary(counts))} [dim]{seconds:.1f} s[/dim]"
        )

    def notice(self, text: str) -> None:
        self._console.print(f"[yellow]note[/yellow] {escape(text)}")


def progress_watcher() -> ProgressWatcher:
    """Progress on stderr, or in the output of a notebook's cell."""
    return ProgressWatcher(PlainConsole(stderr=True))


def summary(counts: Json) -> str:
    """A stage's counts on one line: `in 2500, kept 2100, rejected 400 (near_duplicate 400)`."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in counts.items())


def _shown(value: object) -> str:
    if isinstance(value, dict):
        inner = summary(value)
        whole = all(isinstance(number, int) for number in value.values())
        return f"{sum(value.values())}" + f" ({inner})" * bool(inner) if whole else f"({inner})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
