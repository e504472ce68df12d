"""One command's dealings with its teacher: one event loop, one teacher, one store of replies."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any, Self, TypeVar

from distill.asking.loop import LoopRunner
from distill.asking.thinking import ThinkingRoom, ThinkingTeacher
from distill.ledger.budget import Budget, MeteredTeacher
from distill.ledger.replies import ReplyStore
from distill.run import layout
from distill.run.folder import RunFolder
from distill.teachers.base import Teacher
from distill.teachers.make import make_teacher

T = TypeVar("T")


class TeacherSession:
    """The teacher of a run, asked by one stage after the other. Opened by `with`.

    The teacher is made when it is first needed and lives until the end, so that a server that is
    started for it serves every stage and every round.
    """

    def __init__(self, run: RunFolder, notice: Callable[[str], None]) -> None:
        self._run = run
        self._notice = notice
        self._room = ThinkingRoom(notice)
        self._runner = LoopRunner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if "teacher" in vars(self):
                self._runner.run(self.teacher.close())
        finally:
            self._runner.close()
            if "replies" in vars(self):
                self.replies.close()

    @cached_property
    def replies(self) -> ReplyStore:
        return ReplyStore(self._run.path / layout.REPLIES)

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher itself, whose requests nobody counts."""
        self._run.require_confirmed("base_url", "api_key_env", "vllm_command", "vllm_args")
        log = self._run.path / layout.TEACHER_LOG
        return make_teacher(self._run.config.teacher, notice=self._notice, log=log)

    @cached_property
    def budget(self) -> Budget:
        return Budget.of(self._run.config.teacher, self.replies.entries())

    def metered(self, stage: str) -> Teacher:
        """The teacher, whose requests are charged to `stage`, within the run's budget."""
        metered = MeteredTeacher(self.teacher, self.replies, self.budget, stage)
        return ThinkingTeacher(metered, self._room)

    def note(self) -> str:
        """What is going on at the teacher, for the progress bar."""
        stats = getattr(self.teacher, "stats", None)
        if stats is None:
            return ""
        parts = [f"{stats.in_flight} under way"]
        parts += [f"{stats.waiting} waiting"] * bool(stats.waiting)
        parts += [f"{stats.retries} retries"] * bool(stats.retries)
        return ", ".join([*parts, *self.budget.progress_note()])

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns. Ctrl-C lets requests under way finish; a second one does not."""
        # What is loaded by now stays: looking through it again and again for garbage costs a tenth
        # of the time that a request takes.
        gc.freeze()
        try:
            return self._runner.run(self._interruptible(work))
        finally:
            gc.unfreeze()

    async def _interruptible(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                self._notice(
                    "stopping: replies under way are waited for, as they are paid for; "
                    "Ctrl-C again stops at once"
                )
                task.cancel()
            return await task
