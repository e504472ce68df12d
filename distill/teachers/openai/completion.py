"""A chat completion's bytes -> the reply, or the typed reason why it is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError, ValidatorFunctionWrapHandler, field_validator

from distill.records import FailureReason
from distill.teachers.base import ChatReply, ChatRequest, ReplyError, Usage
from distill.teachers.openai.limits import estimate_tokens
from distill.teachers.openai.retry import TransientError


class _Words(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Words | None = None
    finish_reason: str | None = None


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Completion(BaseModel):
    """The parts of a completion that are read; servers add many others."""

    choices: list[_Choice] | None = None
    model: str | None = None
    usage: _Usage | None = None

    @field_validator("usage", mode="wrap")
    @classmethod
    def _odd_usage_is_none(cls, value: Any, read: ValidatorFunctionWrapHandler) -> _Usage | None:
        # A reply is not lost because its tokens were counted in some other way.
        try:
            return read(value)  # type: ignore[no-any-return]
        except ValidationError:
            return None


def read_completion(
    body: bytes, request: ChatRequest, model: str, hide: Callable[[str], str]
) -> ChatReply:
    """The reply that a server's body holds, with secrets hidden.

    Raises ReplyError, with what it cost, for a reply that is a "no", and TransientError for a body
    that is no chat completion.
    """
    completion = _parsed(body, hide)
    choice = completion.choices[0] if completion.choices else _Choice()
    message = choice.message or _Words()
    usage = _usage(completion.usage, request, (message.content or "") + (message.refusal or ""))
    no = _no(completion, message, choice.finish_reason)
    if no:
        raise ReplyError(no[0], hide(no[1]), usage)
    said_by = hide(completion.model or model)
    return ChatReply(text=hide(message.content or ""), model=said_by, usage=usage)


def _parsed(body: bytes, hide: Callable[[str], str]) -> _Completion:
    try:
        return _Completion.model_validate_json(body)
    except ValidationError:
        pass
    # Python's reader takes what pydantic's does not: half surrogate pairs, NaN, stray bytes.
    text = body.decode("utf-8", "replace")
    try:
        return _Completion.model_validate(json.loads(text))
    except (ValueError, RecursionError):
        detail = f"the server's reply is no chat completion: {hide(text)[:80]!r}"
        raise TransientError(FailureReason.SERVER, detail) from None


def _no(
    completion: _Completion, message: _Words, finish_reason: str | None
) -> tuple[FailureReason, str] | None:
    if not completion.choices:
        return FailureReason.EMPTY, "the server sent no choice"
    if message.refusal:
        return FailureReason.REFUSED, message.refusal
    if finish_reason == "content_filter":
        return FailureReason.REFUSED, "the server's content filter stopped the reply"
    if finish_reason == "length":
        return FailureReason.TRUNCATED, "the reply did not fit into max_tokens"
    if not message.content or not message.content.strip():
        return FailureReason.EMPTY, "the reply has no text"
    return None


def _usage(said: _Usage | None, request: ChatRequest, text: str) -> Usage:
    if said is None:
        return Usage(
            prompt_tokens=sum(estimate_tokens(message.content) for message in request.messages),
            completion_tokens=estimate_tokens(text),
            estimated=True,
        )
    details = said.prompt_tokens_details or _Details()
    return Usage(
        prompt_tokens=max(0, said.prompt_tokens),
        cached_tokens=min(max(0, details.cached_tokens or 0), max(0, said.prompt_tokens)),
        completion_tokens=max(0, said.completion_tokens),
    )
