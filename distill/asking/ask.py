"""One question to a teacher, until its reply can be used; each reply is kept before it is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol, TypeVar

from pydantic import ValidationError

from distill.prompts import render_prompt
from distill.records import FailureReason, Json, Message, Record, canonical_json, digest
from distill.strict_json import JsonError, decode_prefix
from distill.teachers.base import ChatReply, ChatRequest, ReplyError, Teacher

T = TypeVar("T")
R = TypeVar("R", bound=Record)

# Times that a malformed reply is asked for again, with what was wrong shown. A server that cuts
# one reply in twenty, at random, then fails one question in three million.
MAX_REPROMPTS = 4


class ReplyCache(Protocol):
    """Where replies are kept. What was put is durable when `put` returns."""

    def get(self, key: str) -> ChatReply | None:
        """The reply kept under `key`."""

    def put(self, key: str, reply: ChatReply) -> ChatReply:
        """Keep `reply` unless the key has one, and return the one that is kept."""

    def put_all(self, replies: Iterable[tuple[str, ChatReply]]) -> None:
        """`put` for several, all of them or none."""

    def drop(self, keys: Iterable[str]) -> None:
        """Forget these, so that they are asked for again."""


class MalformedReplyError(ValueError):
    """A reply that is not what was asked for; the message is fit to be shown to the model."""


async def ask(
    asked: ChatRequest, teacher: Teacher, replies: ReplyCache, read: Callable[[str], T]
) -> tuple[T, bool]:
    """What `read` makes of the reply, and whether it had to be asked for just now.

    A reply that `read` calls malformed is asked for again with the error shown, MAX_REPROMPTS
    times at most. Raises ReplyError when no usable one came, and what the teacher raises.
    """
    keys: list[str] = []
    turn, fresh = asked, False
    while True:
        keys.append(reply_key(teacher, turn))
        reply = replies.get(keys[-1])
        if reply is None:
            fresh = True
            reply = replies.put(keys[-1], await teacher.complete(turn))
        try:
            return read(reply.text), fresh
        except MalformedReplyError as error:
            if len(keys) > MAX_REPROMPTS:
                # The question is owed again: the next run must ask, not read these.
                replies.drop(keys)
                raise ReplyError(FailureReason.MALFORMED, short(str(error))) from None
            turn = _again(asked, reply.text, error, len(keys))


def read_cached(
    asked: ChatRequest, teacher: Teacher, replies: ReplyCache, read: Callable[[str], T]
) -> T | None:
    """What `ask` would return without asking, or None where it would have to ask."""
    turn = asked
    for number in range(1, MAX_REPROMPTS + 2):
        reply = replies.get(reply_key(teacher, turn))
        if reply is None:
            return None
        try:
            return read(reply.text)
        except MalformedReplyError as error:
            turn = _again(asked, reply.text, error, number)
    return None


def reply_key(teacher: Teacher, request: ChatRequest) -> str:
    """The identity of a reply: requests with one key deserve one reply.

    A teacher that declares `messages_only = True` answers what is sent and nothing else, so
    that its replies outlive changes of the workflow that the prompt does not show. Any other may
    read `request.task`, and the whole workflow counts.
    """
    parts = [teacher.fingerprint, request.digest]
    if not getattr(teacher, "messages_only", False):
        parts += [request.task.workflow.fingerprint, request.task.id]
    return digest(parts)


def extract_json_object(text: str) -> Json:
    """The one JSON object in `text`; a code fence or prose around it is passed over.

    Raises MalformedReplyError where there is none, or more than one.
    """
    # Where no text stands before it, the object begins at the first brace, complete or not. After
    # prose, which may have braces of its own, it begins at one that can open an object.
    begin = re.search(r"\A\s*\{|\{(?=\s*[\"}])", text)
    if begin is None:
        raise MalformedReplyError("there is no JSON object in it")
    start = begin.end() - 1
    try:
        value, end = decode_prefix(text, start)
    except JsonError as error:
        at = "" if error.offset is None else f" at character {error.offset - start}"
        raise MalformedReplyError(f"it is not valid JSON: {error}{at}") from None
    if re.search(r"\{\s*[\"}]", text[end:]):
        raise MalformedReplyError("it holds more than one JSON object")
    return dict(value)


def checked(kind: type[R], value: Json) -> R:
    """`value` as a record. Raises MalformedReplyError naming the first field that is wrong."""
    try:
        canonical_json(value).encode()
    except UnicodeEncodeError:
        raise MalformedReplyError("a string holds half of a surrogate pair") from None
    try:
        return kind.model_validate(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MalformedReplyError(f"{place}: {first['msg']}") from None


def short(text: str, limit: int = 500) -> str:
    """`text`, cut where it is too long to be repeated."""
    return text if len(text) <= limit else f"{text[:limit]}…"


def _again(asked: ChatRequest, text: str, error: MalformedReplyError, number: int) -> ChatRequest:
    """The question, the last reply and what was wrong with it; each time another seed."""
    told = render_prompt("again", error=short(str(error)))
    said = Message(role="assistant", content=text)
    seed = None if asked.seed is None else asked.seed + number
    return replace(asked, messages=(*asked.messages, said, *told), seed=seed)
