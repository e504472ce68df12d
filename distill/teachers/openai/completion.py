"""Parses the body of a chat completion into a reply, or the typed reason why there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from distill.records import FailureReason
from distill.teachers.base import ChatReply, ChatRequest, ReplyError, Usage
from distill.teachers.openai.answer import Answer, read_choice
from distill.teachers.openai.limits import estimate_tokens
from distill.teachers.openai.retry import TransientError
from distill.teachers.openai.server_error import ServerError, error_of_reply
from distill.teachers.openai.stream import is_stream, merge_events
from distill.workflow.problems import excerpt

_FILTERED = ("content_filter", "safety", "sensitive", "refusal")
_CUT = ("length", "max_tokens", "max_output_tokens")
# The server gave up in the middle: DeepSeek under load, OpenRouter.
_BROKEN = ("insufficient_system_resource", "error", "abort")
# More tokens than any request has: a number that is none.
_MOST_TOKENS = 2**40
_MOST_NAME = 200


class ErrorReplyError(Exception):
    """A body of status 200 that holds an error. usage: as the server counts it, if it does"""

    def __init__(self, error: ServerError, usage: Usage | None) -> None:
        self.error = error
        self.usage = usage
        super().__init__(error.words)


def read_completion(
    body: bytes, request: ChatRequest, model: str, redact: Callable[[str], str]
) -> ChatReply:
    """The reply in the body of a response, with secrets redacted.

    A stream of events is read as the completion that it makes. Raises ReplyError, with its usage,
    for a refusal or a reply that is empty or cut short, ErrorReplyError for an error instead of a
    completion, and TransientError for a body that is neither.
    """
    completion = _parse(body, redact)
    counted = _counted(completion.get("usage"))
    if error := error_of_reply(completion):
        raise ErrorReplyError(error, counted)
    choices = completion.get("choices")
    if choices is not None and not isinstance(choices, list):
        raise _no_completion(body, redact)
    if not choices:
        detail = f"the server sent no choice: {excerpt(redact(_text(body)), 200)}"
        raise ReplyError(FailureReason.EMPTY, detail, counted)
    answer, finish = read_choice(choices[0]), _finish(choices[0])
    usage = counted or _estimated(request, answer)
    if finish in _BROKEN:
        detail = f"the server stopped in the middle of the reply ({finish})"
        raise TransientError(FailureReason.SERVER, detail, usage=counted)
    failure = _failure(answer, finish, usage, request)
    if failure:
        reason, detail = failure
        cut_by_thoughts = reason is FailureReason.TRUNCATED and _is_thought(answer, completion)
        raise ReplyError(reason, redact(detail), usage, thinking=cut_by_thoughts)
    named = completion.get("model")
    if not (isinstance(named, str) and named.isprintable() and 0 < len(named) <= _MOST_NAME):
        named = model
    return ChatReply(text=redact(answer.text), model=redact(named), usage=usage)


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _parse(body: bytes, redact: Callable[[str], str]) -> dict[str, Any]:
    try:
        # Python's parser takes what others do not: lone surrogates, NaN, invalid UTF-8.
        value = merge_events(body) if is_stream(body) else json.loads(_text(body))
    except (ValueError, RecursionError):
        value = None
    # Gemini puts an error into a list.
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        raise _no_completion(body, redact)
    return value


def _no_completion(body: bytes, redact: Callable[[str], str]) -> TransientError:
    detail = f"the server's reply is no chat completion: {redact(_text(body))[:80]!r}"
    return TransientError(FailureReason.SERVER, detail)


def _finish(choice: Any) -> str:
    finish = choice.get("finish_reason") if isinstance(choice, dict) else None
    return finish.casefold() if isinstance(finish, str) else ""


def _is_thought(answer: Answer, completion: dict[str, Any]) -> bool:
    """Whether thoughts took tokens of a reply that was cut; hidden ones leave no text at all."""
    usage = completion.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    hidden = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return answer.thought or not answer.text.strip() or bool(hidden)


def _failure(
    answer: Answer, finish: str, usage: Usage, request: ChatRequest
) -> tuple[FailureReason, str] | None:
    if answer.refusal:
        return FailureReason.REFUSED, excerpt(answer.refusal, 500)
    if finish in _FILTERED:
        return FailureReason.REFUSED, "the server's content filter stopped the reply"
    empty = not answer.text.strip()
    if finish in _CUT:
        tokens = request.max_tokens if usage.estimated else usage.completion_tokens
        where = " while thinking" if empty else ""
        return FailureReason.TRUNCATED, f"the reply was cut off at {tokens:,} tokens{where}"
    if empty and answer.thought:
        return FailureReason.EMPTY, "the reply is thoughts alone, without an answer"
    if empty and answer.calls:
        return FailureReason.EMPTY, f"the reply is {answer.calls} tool calls and no text"
    return (FailureReason.EMPTY, "the reply has no text") if empty else None


def _counted(usage: Any) -> Usage | None:
    """The tokens that the server counts; None where it counts none, or not in numbers."""
    if not isinstance(usage, dict):
        return None
    prompt = _tokens(usage, "prompt_tokens", "input_tokens")
    completion = _tokens(usage, "completion_tokens", "output_tokens")
    total = _tokens(usage, "total_tokens")
    if completion is None and prompt is not None and total is not None:
        completion = max(0, total - prompt)
    if prompt is None or completion is None or not (prompt or completion):
        return None
    details = usage.get("prompt_tokens_details")
    cached = _tokens(details, "cached_tokens") if isinstance(details, dict) else None
    if cached is None:
        cached = _tokens(usage, "prompt_cache_hit_tokens") or 0
    return Usage(
        prompt_tokens=prompt, cached_tokens=min(cached, prompt), completion_tokens=completion
    )


def _tokens(usage: dict[str, Any], *names: str) -> int | None:
    for name in names:
        number = usage.get(name)
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if abs(number) < _MOST_TOKENS:  # which NaN is not
            return max(0, int(number))
    return None


def _estimated(request: ChatRequest, answer: Answer) -> Usage:
    return Usage(
        prompt_tokens=sum(estimate_tokens(message.content) for message in request.messages),
        completion_tokens=estimate_tokens(answer.text + answer.refusal),
        estimated=True,
    )
