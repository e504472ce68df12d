"""Runs coroutines from synchronous code, inside a running event loop as well."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

T = TypeVar("T")


class LoopRunner:
    """`asyncio.Runner` for callers that may themselves be inside a running event loop.

    Jupyter runs every cell inside one, where `asyncio.run` raises RuntimeError. The loop then runs
    in a thread of its own while the caller waits. As in the main thread, Ctrl-C (in Jupyter:
    Interrupt) cancels the coroutine, and a second one cancels its cleanup.
    """

    def __init__(self) -> None:
        # With a factory, the caller's own event loop stays the current one of its thread.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if _inside_loop():
            with _thread() as pool:
                pool.submit(self._runner.close).result()
        else:
            self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises what it raises, and KeyboardInterrupt on Ctrl-C."""
        return self._run_in_thread(work) if _inside_loop() else self._runner.run(work)

    def _run_in_thread(self, work: Coroutine[Any, Any, T]) -> T:
        loop, interrupted = self._runner.get_loop(), False
        with _thread() as pool:
            future = pool.submit(self._runner.run, self._tracked(work))
            while True:
                try:
                    return future.result()
                except asyncio.CancelledError:
                    if interrupted:
                        raise KeyboardInterrupt from None
                    raise
                except KeyboardInterrupt:
                    interrupted = True
                    if self._task is not None:
                        loop.call_soon_threadsafe(self._task.cancel)

    async def _tracked(self, work: Coroutine[Any, Any, T]) -> T:
        self._task = asyncio.current_task()
        return await work


def _inside_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="distill")
