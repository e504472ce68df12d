"""Parses the body of a chat completion into a reply, or the typed reason why there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError, ValidatorFunctionWrapHandler, field_validator

from distill.records import FailureReason
from distill.teachers.base import ChatReply, ChatRequest, ReplyError, Usage
from distill.teachers.openai.limits import estimate_tokens
from distill.teachers.openai.retry import TransientError


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message | None = None
    finish_reason: str | None = None


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Completion(BaseModel):
    """The fields of a completion that are read; servers add many others."""

    choices: list[_Choice] | None = None
    model: str | None = None
    usage: _Usage | None = None

    @field_validator("usage", mode="wrap")
    @classmethod
    def _invalid_usage_is_none(
        cls, value: Any, validate: ValidatorFunctionWrapHandler
    ) -> _Usage | None:
        # A reply is not lost because its server counts tokens in some other way.
        try:
            return validate(value)  # type: ignore[no-any-return]
        except ValidationError:
            return None


def read_completion(
    body: bytes, request: ChatRequest, model: str, redact: Callable[[str], str]
) -> ChatReply:
    """The reply in the body of a response, with secrets redacted.

    Raises ReplyError, with its usage, for a refusal or a reply that is empty or cut short, and
    TransientError for a body that is no chat completion.
    """
    completion = _parse(body, redact)
    choice = completion.choices[0] if completion.choices else _Choice()
    message = choice.message or _Message()
    usage = _usage(completion.usage, request, (message.content or "") + (message.refusal or ""))
    failure = _failure(completion, message, choice.finish_reason)
    if failure:
        reason, detail = failure
        raise ReplyError(reason, redact(detail), usage)
    return ChatReply(
        text=redact(message.content or ""), model=redact(completion.model or model), usage=usage
    )


def _parse(body: bytes, redact: Callable[[str], str]) -> _Completion:
    try:
        return _Completion.model_validate_json(body)
    except ValidationError:
        pass
    # Python's parser takes what pydantic's does not: lone surrogates, NaN, invalid UTF-8.
    text = body.decode("utf-8", "replace")
    try:
        return _Completion.model_validate(json.loads(text))
    except (ValueError, RecursionError):
        detail = f"the server's reply is no chat completion: {redact(text)[:80]!r}"
        raise TransientError(FailureReason.SERVER, detail) from None


def _failure(
    completion: _Completion, message: _Message, finish_reason: str | None
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


def _usage(counted: _Usage | None, request: ChatRequest, text: str) -> Usage:
    if counted is None:
        return Usage(
            prompt_tokens=sum(estimate_tokens(message.content) for message in request.messages),
            completion_tokens=estimate_tokens(text),
            estimated=True,
        )
    details = counted.prompt_tokens_details or _PromptDetails()
    prompt_tokens = max(0, counted.prompt_tokens)
    return Usage(
        prompt_tokens=prompt_tokens,
        cached_tokens=min(max(0, details.cached_tokens or 0), prompt_tokens),
        completion_tokens=max(0, counted.completion_tokens),
    )
