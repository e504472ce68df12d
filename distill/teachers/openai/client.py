"""The one client for every OpenAI-compatible server.

An attempt passes the limiter (limiter.py), is encoded for the server (dialect.py), and is parsed as
a completion (completion.py). What an error means is decided here; what is retried, in retry.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from distill.errors import TeacherError
from distill.records import FailureReason
from distill.teachers.base import ChatReply, ChatRequest, DrainingError, ReplyError, Usage
from distill.teachers.openai.completion import ErrorReplyError, read_completion
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
from distill.teachers.openai.server_error import ServerError, read_error, refused_parameter
from distill.workflow.problems import excerpt

if TYPE_CHECKING:
    import openai

# Codes of an account without credit, which come with status 429.
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")
# Not implemented, HTTP version not supported.
_PERMANENT_SERVER_ERRORS = (501, 505)
# Statuses with which servers refuse a parameter; gateways also call that an error of their own.
_REFUSALS = (400, 422, 500, 501)
# Groq's code of a reply that is no valid JSON.
_INVALID_JSON = "json_validate_failed"


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
        spent = _Spent()
        try:
            async for attempt in policy:
                with attempt:
                    retry = attempt.retry_state.attempt_number > 1
                    reply = await self._negotiate(request, spent, retry=retry)
                    return reply.model_copy(update={"usage": spent.plus(reply.usage)})
        except TransientError as error:
            raise ReplyError(error.reason, error.detail, spent.usage) from None
        except ReplyError as error:
            error.usage = spent.plus(error.usage)
            raise
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

    async def _negotiate(self, request: ChatRequest, spent: _Spent, *, retry: bool) -> ChatReply:
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
            except TransientError as error:
                spent.usage = spent.plus(error.usage)
                raise
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
            reply = await self._exchange(request, encoded)
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

    async def _exchange(self, request: ChatRequest, encoded: EncodedRequest) -> ChatReply:
        body = await self._send(encoded)
        try:
            return read_completion(body, request, self._model, self._endpoint.redact)
        except ErrorReplyError as error:
            raise self._meaning(error.error, encoded, {}, error.usage) from None

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
        import aiohttp
        import httpx2
        import openai

        from distill.teachers.openai.transport import (
            BodyTooLargeError,
            is_broken_connection,
            open_client,
        )

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
        except BodyTooLargeError as error:
            raise ReplyError(FailureReason.SERVER, f"{place}: {error}") from None
        except openai.APIConnectionError as error:
            if isinstance(error, openai.APITimeoutError) and not is_broken_connection(error):
                raise _timed_out(f"{place}: no connection in time") from None
            raise self._unreachable("Connection error", error.__cause__) from None
        except openai.APIStatusError as error:
            found = read_error(error.status_code, error.response.content)
            raise self._meaning(found, encoded, error.response.headers, None) from None
        except (aiohttp.ClientError, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            # A bad status line, a bad header, or bytes in one that are no text.
            raise self._unreachable("no HTTP response", error) from None
        return response.content

    def _unreachable(self, what: str, cause: BaseException | None) -> TransientError:
        said = f": {cause}" if cause and str(cause) else ""
        detail = self._redact(f"{self._endpoint.url}: {what}{said}")
        return TransientError(FailureReason.SERVER, detail, outcome=Outcome.UNREACHABLE)

    def _meaning(
        self,
        error: ServerError,
        encoded: EncodedRequest,
        headers: Mapping[str, str],
        usage: Usage | None,
    ) -> Exception:
        """What an error of the server means for the attempt, the request, or the run."""
        status = error.status
        detail = self._redact(f"{status}: {error.words}")
        if fatal := self._fatal_error(error, detail):
            return fatal
        if status in _REFUSALS and (parameter := refused_parameter(error, encoded.body)):
            return UnsupportedError(parameter, detail)
        if error.code == _INVALID_JSON:
            return ReplyError(FailureReason.MALFORMED, detail, usage)
        if status in (408, 409, 429) or (status >= 500 and status not in _PERMANENT_SERVER_ERRORS):
            return _transient_error(status, detail, parse_retry_after(headers), usage)
        return ReplyError(FailureReason.SERVER, detail, usage)

    def _fatal_error(self, error: ServerError, detail: str) -> TeacherError | None:
        """The error that ends the run, if every request would fail like this one."""
        place = self._endpoint.url
        if error.status == 402 or error.code in _NO_CREDIT or error.type in _NO_CREDIT:
            return TeacherError(
                f"the account has no credit left ({detail})",
                place=place,
                hint="add credit, then run the same command again: it goes on",
            )
        if error.status == 401:
            return TeacherError(
                f"the server refuses the key ({detail})",
                place=place,
                hint=f"put a valid key into the environment variable {self._key_env}",
            )
        if error.status == 403:
            return TeacherError(
                f"the server refuses access ({detail})",
                place=place,
                hint=f"check what the key in {self._key_env} may use, and the model's name",
            )
        if error.status == 404:
            return TeacherError(
                f'there is no model "{self._model}" ({detail})',
                place=place,
                hint="check --model, and --base-url, which usually ends in /v1",
            )
        return None

    def _redact(self, text: str) -> str:
        return excerpt(self._endpoint.redact(text), 400)


@dataclass
class _Spent:
    """What the server counts for the attempts of one request that failed."""

    usage: Usage | None = None

    def plus(self, usage: Usage | None) -> Usage | None:
        if self.usage is None or usage is None:
            return self.usage or usage
        return self.usage.plus(usage)


def _transient_error(
    status: int, detail: str, retry_after: float | None, usage: Usage | None
) -> TransientError:
    overloaded = status in (408, 429, 503, 504, 529)
    error = TransientError(
        FailureReason.TIMEOUT if status in (408, 504) else FailureReason.SERVER,
        detail,
        outcome=Outcome.OVERLOADED if overloaded else Outcome.FAILED,
        rate_limited=status == 429 or (status in (503, 529) and retry_after is not None),
        retry_after=retry_after,
        usage=usage,
    )
    if not is_retryable(error):
        error.detail += f"; the server asks to wait {retry_after:.0f} s"
    return error


def _timed_out(detail: str) -> TransientError:
    return TransientError(FailureReason.TIMEOUT, detail, outcome=Outcome.OVERLOADED)
