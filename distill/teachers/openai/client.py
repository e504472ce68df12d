"""The one client for every OpenAI-compatible server.

An attempt passes the limiter (limiter.py), is encoded for the server (dialect.py), and is parsed as
a completion (completion.py). What an error means is decided here; what is retried, in retry.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from distill.errors import TeacherError
from distill.records import FailureReason
from distill.teachers.base import ChatReply, ChatRequest, DrainingError, ReplyError, Usage
from distill.teachers.openai.completion import read_completion
from distill.teachers.openai.dialect import Dialect, EncodedRequest, UnsupportedError
from distill.teachers.openai.endpoint import Endpoint
from distill.teachers.openai.limiter import RequestLimiter
from distill.teachers.openai.limits import Outcome, TokenEstimator
from distill.teachers.openai.retry import (
    FIRST_BACKOFF,
    TransientError,
    is_retryable,
    parse_retry_after,
    retry_policy,
)

if TYPE_CHECKING:
    import openai

# Codes of an account without credit, which come with status 429.
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")
# Not implemented, HTTP version not supported.
_PERMANENT_SERVER_ERRORS = (501, 505)


class Stats(NamedTuple):
    """Counts of a teacher's attempts, now and so far."""

    in_flight: int
    waiting: int
    """Attempts that wait for a slot, a rate limit or a retry."""
    limit: int
    """Attempts that may be in flight, at present."""
    attempts: int
    retries: int
    rate_limited: int


class OpenAITeacher:
    """A chat model behind an OpenAI-compatible server.

    base_url: "" for OpenAI's own
    timeout: seconds for one attempt, from sending to the last byte
    attempts: per request, the first included; refusals for a rate limit do not count
    patience: seconds that one request waits for rate limits, in all
    concurrency: attempts in flight, at most
    notice: called once with each thing that the server does not support
    """

    messages_only = True

    def __init__(
        self,
        model: str,
        base_url: str,
        api_key: str,
        timeout: float = 60.0,
        attempts: int = 8,
        *,
        patience: float = 600.0,
        concurrency: int = 16,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        key_env: str = "OPENAI_API_KEY",
        notice: Callable[[str], None] = logging.getLogger(__name__).warning,
        first_backoff: float = FIRST_BACKOFF,
    ) -> None:
        self._model = model
        self._endpoint = Endpoint(base_url or "https://api.openai.com/v1", api_key)
        self._timeout = timeout
        self._attempts = attempts
        self._patience = patience
        self._key_env = key_env
        self._first_backoff = first_backoff
        self._limiter = RequestLimiter(
            concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
        self._dialect = Dialect(model, notice)
        self._estimator = TokenEstimator()
        self._client: openai.AsyncOpenAI | None = None
        self._retries = self._rate_limited = 0

    @property
    def name(self) -> str:
        return f"openai:{self._model}"

    @property
    def fingerprint(self) -> str:
        # Where a model is served does not change what it answers.
        return f"openai/{self._model}"

    @property
    def stats(self) -> Stats:
        limiter = self._limiter
        return Stats(
            in_flight=limiter.in_flight,
            waiting=limiter.waiting,
            limit=limiter.limit,
            attempts=limiter.started,
            retries=self._retries,
            rate_limited=self._rate_limited,
        )

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply, after as many attempts as the retry policy allows.

        Raises ReplyError for this request alone, TeacherError for the whole run: then nothing is
        sent for any other request either. Raises DrainingError after `drain`.
        """
        policy = retry_policy(
            self._attempts,
            self._patience,
            sleep=self._limiter.sleep,
            first_backoff=self._first_backoff,
        )
        try:
            async for attempt in policy:
                with attempt:
                    retry = attempt.retry_state.attempt_number > 1
                    return await self._negotiate(request, retry=retry)
        except TransientError as error:
            raise ReplyError(error.reason, error.detail) from None
        raise AssertionError("the policy ends with a reply or an error")

    def drain(self) -> None:
        """Send nothing more: requests in flight end, those that wait raise DrainingError."""
        self._limiter.close(DrainingError)

    async def close(self) -> None:
        """Release connections; the next request opens new ones, in whatever loop it runs."""
        self._limiter.cancel_timer()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _negotiate(self, request: ChatRequest, *, retry: bool) -> ChatReply:
        """One attempt, repeated without the parameters that the server does not support."""
        while True:
            encoded = self._dialect.encode(request)
            self._retries += retry
            try:
                reply = await self._attempt(request, encoded, retry=retry)
            except UnsupportedError as error:
                self._dialect.on_unsupported(encoded, error)
                retry = True
                continue
            self._dialect.on_reply(encoded, reply.text)
            return reply

    async def _attempt(
        self, request: ChatRequest, encoded: EncodedRequest, *, retry: bool
    ) -> ChatReply:
        size = sum(len(message.content) for message in request.messages)
        tokens = self._estimator.estimate(size, request.max_tokens)
        limiter = self._limiter
        slot = await limiter.acquire(tokens, retry=retry)
        try:
            body = await self._send(encoded)
            reply = read_completion(body, request, self._model, self._endpoint.redact)
        except TransientError as error:
            self._rate_limited += error.rate_limited
            for_all = error.rate_limited and is_retryable(error)
            retry_after = error.retry_after if for_all else None
            limiter.release(slot, error.outcome, retry_after=retry_after)
            raise
        except ReplyError as error:
            limiter.release(slot, Outcome.ANSWERED, used=self._used_tokens(size, error.usage))
            raise
        except UnsupportedError:
            limiter.release(slot, Outcome.ANSWERED, used=0.0)
            raise
        except TeacherError as error:
            problems = error.problems
            limiter.close(lambda: TeacherError.of(problems))
            limiter.release(slot, None)
            raise
        except BaseException:
            limiter.release(slot, None)
            raise
        limiter.release(slot, Outcome.ANSWERED, used=self._used_tokens(size, reply.usage))
        return reply

    def _used_tokens(self, characters: int, usage: Usage | None) -> float:
        """The tokens that a request used, from which the estimator learns."""
        if usage is None:
            return 0.0
        if usage.estimated:
            self._dialect.notify_once(
                "the server does not count tokens; they are estimated from the text"
            )
        tokens = usage.prompt_tokens + usage.completion_tokens
        self._estimator.update(characters, tokens)
        return tokens

    async def _send(self, encoded: EncodedRequest) -> bytes:
        """The body of the response. Raises what an error means: see `_status_error`."""
        import httpx2
        import openai

        from distill.teachers.openai.transport import is_broken_connection, open_client

        if self._client is None:
            self._client = open_client(self._endpoint, self._timeout)
        place = self._endpoint.url
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.post(
                    "/chat/completions", body=encoded.body, cast_to=httpx2.Response
                )
        except TimeoutError:
            raise _timed_out(f"no reply within {self._timeout:g} s") from None
        except openai.APIConnectionError as error:
            if isinstance(error, openai.APITimeoutError) and not is_broken_connection(error):
                raise _timed_out(f"{place}: no connection in time") from None
            cause = f": {error.__cause__}" if error.__cause__ and str(error.__cause__) else ""
            detail = self._redact(f"{place}: Connection error{cause}")
            raise TransientError(
                FailureReason.SERVER, detail, outcome=Outcome.UNREACHABLE
            ) from None
        except openai.APIStatusError as error:
            raise self._status_error(error) from None
        return response.content

    def _status_error(self, error: openai.APIStatusError) -> Exception:
        """What an error status means for the attempt, the request, or the run."""
        status = error.status_code
        detail = self._redact(f"{status}: {_server_message(error)}")
        fatal = self._fatal_error(error, detail)
        if fatal:
            return fatal
        if status in (408, 409, 429) or (status >= 500 and status not in _PERMANENT_SERVER_ERRORS):
            return _transient_error(status, detail, parse_retry_after(error.response.headers))
        parameter = _unsupported_parameter(error) if status in (400, 422) else None
        if parameter:
            return UnsupportedError(parameter, detail)
        return ReplyError(FailureReason.SERVER, detail)

    def _fatal_error(self, error: openai.APIStatusError, detail: str) -> TeacherError | None:
        """The error that ends the run, if every request would fail like this one."""
        place = self._endpoint.url
        if error.status_code == 402 or error.code in _NO_CREDIT or error.type in _NO_CREDIT:
            return TeacherError(
                f"the account has no credit left ({detail})",
                place=place,
                hint="add credit, then run the same command again: it goes on",
            )
        if error.status_code == 401:
            return TeacherError(
                "the server refuses the key (401)",
                place=place,
                hint=f"put a valid key into the environment variable {self._key_env}",
            )
        if error.status_code == 403:
            return TeacherError(
                f"the server refuses access ({detail})",
                place=place,
                hint=f"check what the key in {self._key_env} may use, and the model's name",
            )
        if error.status_code == 404:
            return TeacherError(
                f'there is no model "{self._model}" ({detail})',
                place=place,
                hint="check --model, and --base-url, which usually ends in /v1",
            )
        return None

    def _redact(self, text: str) -> str:
        return " ".join(self._endpoint.redact(text).split())[:400]


def _transient_error(status: int, detail: str, retry_after: float | None) -> TransientError:
    overloaded = status in (408, 429, 503, 504, 529)
    error = TransientError(
        FailureReason.TIMEOUT if status in (408, 504) else FailureReason.SERVER,
        detail,
        outcome=Outcome.OVERLOADED if overloaded else Outcome.FAILED,
        rate_limited=status == 429 or (status in (503, 529) and retry_after is not None),
        retry_after=retry_after,
    )
    if not is_retryable(error):
        error.detail += f"; the server asks to wait {retry_after:.0f} s"
    return error


def _timed_out(detail: str) -> TransientError:
    return TransientError(FailureReason.TIMEOUT, detail, outcome=Outcome.OVERLOADED)


def _server_message(error: openai.APIStatusError) -> str:
    """The server's message, from the field in which it puts it."""
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return error.message


def _unsupported_parameter(error: openai.APIStatusError) -> str | None:
    """The parameter that a 400 is about, if it is one that can be omitted."""
    text = f"{error.param or ''} {_server_message(error)} {error.body}".casefold()
    # Servers have no common code for this: OpenAI names the parameter, vLLM its grammar.
    if any(word in text for word in ("response_format", "json_schema", "json schema", "grammar")):
        return "response_format"
    if error.code in ("unsupported_parameter", "unsupported_value") and error.param in (
        "max_tokens",
        "temperature",
        "seed",
    ):
        return error.param
    return None
