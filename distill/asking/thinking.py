"""Room for the thoughts that some models write before each reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from distill.records import FailureReason
from distill.teachers.base import (
    ChatReply,
    ChatRequest,
    ReplyError,
    Teacher,
    Usage,
    WrappedTeacher,
)

# Tokens for a reply and the thoughts before it. A larger bound from the start would be reserved of
# a budget for every model, and does not fit into a small context.
THINKING_TOKENS = 8192


class ThinkingRoom:
    """Whether a model's replies need room for thoughts: found out once, by one request.

    notice: called when they are found to
    """

    def __init__(self, notice: Callable[[str], None]) -> None:
        self.notice = notice
        self.needed: bool | None = None
        """None until a reply is cut short by thoughts; False where more room did not help."""
        self.failed = ""
        """Where it did not: what was tried, and what came of it."""
        self.probing = asyncio.Lock()


class ThinkingTeacher(WrappedTeacher):
    """`inner`, whose replies have room for thoughts once one was cut short by them.

    The first such request is asked again with THINKING_TOKENS. When that helps, every later
    request has as many from the start; when it does not, none is asked twice.
    """

    def __init__(self, inner: Teacher, room: ThinkingRoom) -> None:
        super().__init__(inner)
        self._room = room

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The inner teacher's reply. Raises what the inner teacher raises."""
        tokens = max(THINKING_TOKENS, 2 * request.max_tokens)
        roomy = replace(request, max_tokens=tokens)
        if self._room.probing.locked():
            # What is sent meanwhile would be cut short as well, and paid for.
            async with self._room.probing:
                pass
        if self._room.needed:
            return await self._inner.complete(roomy)
        try:
            return await self._inner.complete(request)
        except ReplyError as error:
            if not error.thinking:
                raise
            cut = error
        async with self._room.probing:
            if self._room.needed is None:
                return await self._probe(roomy, cut)
        if self._room.needed:
            return await self._inner.complete(roomy)
        raise self._cut_short(cut, cut.usage)

    async def _probe(self, roomy: ChatRequest, cut: ReplyError) -> ChatReply:
        room = self._room
        try:
            reply = await self._inner.complete(roomy)
        except ReplyError as error:
            room.needed = False
            room.failed = f"with {roomy.max_tokens:,} allowed: {error.detail}"
            raise self._cut_short(cut, error.usage) from None
        room.needed = True
        room.notice(
            f"the model thinks before it replies ({cut.detail}): a request may take "
            f"{roomy.max_tokens:,} tokens; more is max_tokens in [teacher]"
        )
        return reply

    def _cut_short(self, cut: ReplyError, usage: Usage | None) -> ReplyError:
        """The error of a reply that was cut short, with what came of more room."""
        return ReplyError(FailureReason.TRUNCATED, f"{cut.detail}; {self._room.failed}", usage)
