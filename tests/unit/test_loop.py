"""Coroutines run by code that is not asynchronous, inside a running event loop as well."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from distill.asking.loop import LoopRunner


async def where() -> tuple[str, str]:
    await asyncio.sleep(0)
    return threading.current_thread().name, type(asyncio.get_running_loop()).__name__


def test_outside_of_a_loop_it_runs_in_the_callers_thread() -> None:
    with LoopRunner() as runner:
        assert runner.run(where())[0] == threading.current_thread().name


def test_inside_a_running_loop_it_runs_in_a_thread_and_returns_the_result() -> None:
    async def cell() -> tuple[str, str]:
        outer = asyncio.get_running_loop()
        with LoopRunner() as runner:
            found = [runner.run(where()) for _ in range(2)]
        assert asyncio.get_running_loop() is outer
        assert asyncio.get_event_loop() is outer
        return found[0]

    assert asyncio.run(cell())[0].startswith("distill")


def test_what_is_kept_between_runs_belongs_to_one_loop() -> None:
    async def cell() -> None:
        async def make() -> asyncio.Future[str]:
            return asyncio.get_running_loop().create_future()

        async def use(future: asyncio.Future[str]) -> str:
            future.set_result("same loop")
            return await future

        with LoopRunner() as runner:
            assert runner.run(use(runner.run(make()))) == "same loop"

    asyncio.run(cell())


def test_errors_come_out_as_they_are() -> None:
    async def fail() -> None:
        raise LookupError("no such thing")

    async def cell() -> None:
        with LoopRunner() as runner, pytest.raises(LookupError, match="no such thing"):
            runner.run(fail())

    asyncio.run(cell())


@pytest.mark.parametrize("interrupts", [1, 2])
def test_an_interrupt_cancels_the_coroutine_and_is_raised(interrupts: int) -> None:
    """One interrupt lets the coroutine finish what it shields, the second one does not."""
    ends: list[str] = []

    async def careful() -> None:
        for _ in range(2):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                ends.append("cancelled")
                if len(ends) == interrupts:
                    raise

    def interrupt() -> None:
        for number in range(interrupts):
            while len(ends) < number:
                time.sleep(0.01)
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)

    async def cell() -> None:
        with LoopRunner() as runner:
            runner.run(careful())

    # asyncio.run has a handler of its own; in Jupyter it is Python's, as here.
    def sync_in_loop() -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(cell())
        finally:
            loop.close()

    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        sync_in_loop()
    sender.join()
    assert ends == ["cancelled"] * interrupts
