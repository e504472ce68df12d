"""The one client for every OpenAI-compatible server, and the one retry policy.

Retried: rate limits (Retry-After is honoured), server errors, timeouts, broken connections, bodies
that are no completion. Not retried: anything that the same request would meet again. Structured
output is asked for as strict JSON Schema, then as any JSON, then in words alone, as far as the
server goes along.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from distill.errors import TeacherError
from distill.prompts import render_prompt
from distill.records import FailureReason, Message, digest
from distill.teachers.base import ChatReply, ChatRequest, ReplyError

if TYPE_CHECKING:
    import openai

# Seconds. Long caps waste the run's last minutes: most rate limits pass within seconds.
FIRST_WAIT = 0.5
LONGEST_WAIT = 8.0
# A server that wants longer than this is not going to answer this run.
LONGEST_RETRY_AFTER = 120.0


class Format(IntEnum):
    """How a reply's shape is asked for, the strictest first."""

    STRICT = 0
    JSON = 1
    WORDS = 2


class OpenAITeacher:
    """A chat model behind an OpenAI-compatible server.

    base_url: "" for OpenAI's own
    timeout: seconds for one attempt, from sending to the last byte
    attempts: tries of one request, the first included
    notice: told, once each, what the server was found not to support
    """

    follows_messages = True

    def __init__(
        self,
        model: str,
        base_url: str,
        api_key: str,
        timeout: float,
        attempts: int,
        *,
        key_env: str = "OPENAI_API_KEY",
        notice: Callable[[str], None] = logging.getLogger(__name__).warning,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        self._model = model
        self._base_url = base_url or "https://api.openai.com/v1"
        self._api_key = api_key
        self._timeout = timeout
        self._attempts = attempts
        self._key_env = key_env
        self._notice = notice
        self._first_wait = first_wait
        self._client: openai.AsyncOpenAI | None = None
        # By schema: a server may refuse one tool's schema and hold all the others.
        self._formats: dict[str, Format] = {}
        self._refused: set[str] = set()
        self._told: set[str] = set()

    @property
    def name(self) -> str:
        return f"openai:{self._model}"

    @property
    def fingerprint(self) -> str:
        # Where a model is served does not change what it answers.
        return f"openai/{self._model}"

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply, after as many attempts as it takes and is allowed.

        Raises ReplyError for this request alone, TeacherError for the whole run.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(self._attempts),
            wait=self._pause,
            reraise=True,
        )
        try:
            return await retrying(self._settled, request)
        except _Passing as error:
            raise ReplyError(error.reason, error.detail) from None

    async def close(self) -> None:
        """Release connections; the next request opens new ones, in whatever loop it runs."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _settled(self, request: ChatRequest) -> ChatReply:
        """One attempt, repeated only to settle what the server understands."""
        schema = digest(request.reply_schema)
        while True:
            format = self._formats.get(schema, Format.STRICT)
            refused = frozenset(self._refused)
            try:
                reply = await self._sent(request, format)
            except _Unsupported as error:
                self._go_without(error, schema, format, refused)
                continue
            # A server that holds the schema can only begin with a brace. The reply is paid for and
            # may be usable all the same; the next ones are asked for in another way.
            if format is Format.STRICT and not reply.text.lstrip().startswith("{"):
                self._plainer(schema, format, "ignores the JSON Schema of the reply")
            return reply

    async def _sent(self, request: ChatRequest, format: Format) -> ChatReply:
        import openai

        client = self._opened()
        try:
            async with asyncio.timeout(self._timeout):
                raw = await client.chat.completions.with_raw_response.create(
                    **self._parameters(request, format)
                )
        except (TimeoutError, openai.APITimeoutError):
            detail = f"no reply within {self._timeout:g} s"
            raise _Passing(FailureReason.TIMEOUT, detail) from None
        except openai.APIConnectionError as error:
            cause = f": {error.__cause__}" if error.__cause__ else ""
            detail = self._clean(f"{self._place}: {error.message.rstrip('.')}{cause}")
            raise _Passing(FailureReason.SERVER, detail) from None
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        return _read_completion(raw.text, self._model)

    def _parameters(self, request: ChatRequest, format: Format) -> dict[str, Any]:
        messages = [_wire(message) for message in request.messages]
        if format is not Format.STRICT:
            [told] = render_prompt("schema", schema=request.reply_schema)
            messages[-1]["content"] += f"\n\n{told.content}"
        wanted: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
        }
        if "max_tokens" in self._refused:
            wanted["max_completion_tokens"] = request.max_tokens
        if format is Format.STRICT:
            held = {"name": "reply", "strict": True, "schema": request.reply_schema}
            wanted["response_format"] = {"type": "json_schema", "json_schema": held}
        elif format is Format.JSON:
            wanted["response_format"] = {"type": "json_object"}
        return {
            name: value
            for name, value in wanted.items()
            if value is not None and name not in self._refused
        }

    def _refusal(self, error: openai.APIStatusError) -> Exception:
        """What an error status means: for the attempt, for the request, or for the run."""
        status = error.status_code
        detail = self._clean(f"{status}: {_said(error)}")
        if status == 401:
            return TeacherError(
                "the server refuses the key (401)", place=self._place, hint=self._key_hint()
            )
        if status == 403:
            return TeacherError(
                f"the server refuses access ({detail})",
                place=self._place,
                hint=f"check what the key in {self._key_env} may use, and the model's name",
            )
        if status == 404:
            return TeacherError(
                f'there is no model "{self._model}" ({detail})',
                place=self._place,
                hint="check --model, and --base-url, which usually ends in /v1",
            )
        if error.code == "insufficient_quota":
            return TeacherError(
                f"the account has no credit left ({detail})",
                place=self._place,
                hint="add credit, then run the same command again: it goes on",
            )
        if status in (408, 409, 429) or status >= 500:
            reason = FailureReason.TIMEOUT if status in (408, 504) else FailureReason.SERVER
            return _Passing(reason, detail, _retry_after(error.response.headers))
        parameter = _unsupported_parameter(error) if status in (400, 422) else None
        if parameter:
            return _Unsupported(parameter, detail)
        return ReplyError(FailureReason.SERVER, detail)

    def _go_without(
        self, error: _Unsupported, schema: str, format: Format, refused: frozenset[str]
    ) -> None:
        """Note what the server does not take. Raises ReplyError where it was not even sent."""
        if error.parameter == "response_format":
            if format is Format.WORDS:
                raise ReplyError(FailureReason.SERVER, error.detail)
            self._plainer(schema, format, "does not take the format of the reply", error.detail)
        elif error.parameter in refused:
            raise ReplyError(FailureReason.SERVER, error.detail)
        else:
            self._refused.add(error.parameter)
            self._tell(f"the server does not take {error.parameter}; it is left out", error.detail)

    def _plainer(self, schema: str, format: Format, why: str, detail: str = "") -> None:
        # Requests in flight find out at the same time: only a step down from here counts.
        if self._formats.get(schema, Format.STRICT) == format:
            self._formats[schema] = Format(format + 1)
        how = "as any JSON" if format is Format.STRICT else "in words alone"
        self._tell(f"the server {why}; it is asked {how}, and replies are checked as ever", detail)

    def _tell(self, text: str, detail: str = "") -> None:
        if text not in self._told:
            self._told.add(text)
            self._notice(f"{text} ({detail})" if detail else text)

    def _pause(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: what the server asks for, else exponential, jittered."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, _Passing) else None
        if asked is not None:
            return asked + random.uniform(0, 0.1 * asked)
        longest = min(LONGEST_WAIT, self._first_wait * 2 ** (state.attempt_number - 1))
        return random.uniform(longest / 2, longest)

    def _opened(self) -> openai.AsyncOpenAI:
        import openai

        if self._client is None:
            self._client = openai.AsyncOpenAI(
                api_key=self._api_key,
                base_url=self._base_url,
                timeout=self._timeout,
                max_retries=0,
            )
        return self._client

    @property
    def _place(self) -> str:
        """The server's address, without what may be secret in it."""
        parts = urlsplit(self._base_url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def _key_hint(self) -> str:
        return f"put a valid key into the environment variable {self._key_env}"

    def _clean(self, text: str) -> str:
        """A server's words without the key, which some servers repeat."""
        text = text.replace(self._api_key, "***") if len(self._api_key) > 4 else text
        return " ".join(text.split())[:400]


class _Passing(Exception):  # noqa: N818 - what has passed by the next attempt, perhaps
    def __init__(
        self, reason: FailureReason, detail: str, retry_after: float | None = None
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after
        super().__init__(detail)


class _Unsupported(Exception):  # noqa: N818 - a parameter, not a failure
    def __init__(self, parameter: str, detail: str) -> None:
        self.parameter = parameter
        self.detail = detail
        super().__init__(detail)


class _Words(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Words | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """The parts of a completion that are read; servers add many others."""

    choices: list[_Choice] | None = None
    model: str | None = None
    usage: _Usage | None = None


def _read_completion(body: str, model: str) -> ChatReply:
    try:
        completion = _Completion.model_validate(json.loads(body))
    except (ValueError, RecursionError, ValidationError):
        detail = f"the server's reply is no chat completion: {body[:80]!r}"
        raise _Passing(FailureReason.SERVER, detail) from None
    if not completion.choices:
        raise ReplyError(FailureReason.EMPTY, "the server sent no choice")
    choice, usage = completion.choices[0], completion.usage or _Usage()
    return ChatReply(
        text=_text(choice.message, choice.finish_reason),
        model=completion.model or model,
        prompt_tokens=usage.prompt_tokens or 0,
        completion_tokens=usage.completion_tokens or 0,
    )


def _text(message: _Words | None, finish_reason: str | None) -> str:
    if message and message.refusal:
        raise ReplyError(FailureReason.REFUSED, message.refusal)
    if finish_reason == "content_filter":
        raise ReplyError(FailureReason.REFUSED, "the server's content filter stopped the reply")
    if finish_reason == "length":
        raise ReplyError(FailureReason.TRUNCATED, "the reply did not fit into max_tokens")
    if not message or not message.content or not message.content.strip():
        raise ReplyError(FailureReason.EMPTY, "the reply has no text")
    return message.content


def _wire(message: Message) -> dict[str, str]:
    # A model's own lone surrogates come back here in a follow-up, and cannot be sent as UTF-8.
    content = message.content.encode("utf-8", "backslashreplace").decode()
    return {"role": message.role, "content": content}


def _may_pass(error: BaseException) -> bool:
    wait = error.retry_after if isinstance(error, _Passing) else None
    return isinstance(error, _Passing) and (wait is None or wait <= LONGEST_RETRY_AFTER)


def _said(error: openai.APIStatusError) -> str:
    """The server's own words, from whichever place it puts them."""
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return error.message


def _unsupported_parameter(error: openai.APIStatusError) -> str | None:
    """The parameter of ours that a 400 is about, if it is about one that can be left out."""
    said = f"{error.param or ''} {_said(error)} {error.body}".casefold()
    # Servers have no common code for this: OpenAI names the parameter, vLLM its grammar.
    if any(word in said for word in ("response_format", "json_schema", "json schema", "grammar")):
        return "response_format"
    if error.code in ("unsupported_parameter", "unsupported_value") and error.param in (
        "max_tokens",
        "temperature",
        "seed",
    ):
        return error.param
    return None


def _retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait, from a number or a date."""
    value: str | None = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
