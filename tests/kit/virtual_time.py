"""An event loop whose clock jumps to the next timer: hours pass at once, reproducibly."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector:
    """Never waits: advances the clock by the timeout instead."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        self.now += max(0.0, timeout)
        return self._selector.select(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)


class VirtualLoop(asyncio.SelectorEventLoop):
    """For code that only sleeps and waits for its own tasks: sockets are not waited for."""

    def __init__(self) -> None:
        self._virtual = _Selector(selectors.DefaultSelector())
        super().__init__(self._virtual)  # type: ignore[arg-type]

    def time(self) -> float:
        return self._virtual.now


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run, in virtual time that begins at 0."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
