"""Ask a teacher until its reply can be used; each reply is stored before it is parsed."""

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
from distill.workflow.problems import truncate

T = TypeVar("T")
R = TypeVar("R", bound=Record)

# Times that a malformed reply is asked for again, with its error shown. A server that cuts one
# reply in twenty short, at random, then fails one request in three million.
MAX_REPROMPTS = 4
# Characters of an error that is shown to the model, or to a person.
MAX_ERROR = 500


class ReplyCache(Protocol):
    """A store of replies; those that were put are durable when `put` returns."""

    def get(self, key: str) -> ChatReply | None:
        """The reply stored under `key`."""

    def put(self, key: str, reply: ChatReply) -> ChatReply:
        """Store `reply` unless the key has one, and return the stored one."""

    def put_all(self, replies: Iterable[tuple[str, ChatReply]]) -> None:
        """`put` for several, all of them or none."""

    def drop(self, keys: Iterable[str]) -> None:
        """Delete these replies."""


class MalformedReplyError(ValueError):
    """A reply that does not follow its instructions; the message is fit to be shown to a model."""


async def ask(
    request: ChatRequest, teacher: Teacher, replies: ReplyCache, parse: Callable[[str], T]
) -> tuple[T, bool]:
    """The parsed reply, and whether the teacher was asked: False if the cache had it.

    A reply for which `parse` raises MalformedReplyError is asked for again with the error shown,
    MAX_REPROMPTS times at most. Raises ReplyError when none could be used, and what the teacher
    raises.
    """
    keys: list[str] = []
    attempt, fresh = request, False
    while True:
        keys.append(reply_key(teacher, attempt))
        reply = replies.get(keys[-1])
        if reply is None:
            fresh = True
            reply = replies.put(keys[-1], await teacher.complete(attempt))
        try:
            return parse(reply.text), fresh
        except MalformedReplyError as error:
            if len(keys) > MAX_REPROMPTS:
                # The next run has to ask again, not to read these.
                replies.drop(keys)
                detail = truncate(str(error), MAX_ERROR)
                raise ReplyError(FailureReason.MALFORMED, detail) from None
            attempt = _reprompt(request, reply.text, error, len(keys))


def read_cached(
    request: ChatRequest, teacher: Teacher, replies: ReplyCache, parse: Callable[[str], T]
) -> T | None:
    """The parsed reply from the cache, or None where `ask` would ask the teacher."""
    attempt = request
    for number in range(1, MAX_REPROMPTS + 2):
        reply = replies.get(reply_key(teacher, attempt))
        if reply is None:
            return None
        try:
            return parse(reply.text)
        except MalformedReplyError as error:
            attempt = _reprompt(request, reply.text, error, number)
    return None


def reply_key(teacher: Teacher, request: ChatRequest) -> str:
    """The cache key of the reply to a request.

    A teacher that declares `messages_only = True` reads nothing but the messages, so that its
    replies stay valid when the workflow changes where the prompt does not show it. Any other may
    read `request.task`, and the whole workflow counts.
    """
    parts = [teacher.fingerprint, request.digest]
    if not getattr(teacher, "messages_only", False):
        parts += [request.task.workflow.fingerprint, request.task.id]
    return digest(parts)


def extract_json_object(text: str) -> Json:
    """The one JSON object in `text`, without a code fence or prose around it.

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


def validate_record(kind: type[R], value: Json) -> R:
    """`value` as a record. Raises MalformedReplyError naming the first invalid field."""
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


def _reprompt(
    request: ChatRequest, text: str, error: MalformedReplyError, number: int
) -> ChatRequest:
    """The request, the malformed reply and its error, with the `number`-th other seed."""
    correction = render_prompt("again", error=truncate(str(error), MAX_ERROR))
    reply = Message(role="assistant", content=text)
    seed = None if request.seed is None else request.seed + number
    return replace(request, messages=(*request.messages, reply, *correction), seed=seed)
