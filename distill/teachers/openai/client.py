"""The one client for every OpenAI-compatible server.

An attempt passes the gate (gate.py), is put in words that the server understands (dialect.py), and
is read as a completion (completion.py); what an error means is decided here, and whether it is
tried again in retry.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from distill.errors import TeacherError
from distill.records import FailureReason
from distill.teachers.base import ChatReply, ChatRequest, DrainingError, ReplyError, Usage
from distill.teachers.openai.address import Address
from distill.teachers.openai.completion import read_completion
from distill.teachers.openai.dialect import Dialect, EncodedRequest, UnsupportedError
from distill.teachers.openai.limits import Outcome, TokenEstimator
from distill.teachers.openai.retry import (
    FIRST_WAIT,
    TransientError,
    is_retryable,
    retries,
    retry_after,
)
from distill.teachers.openai.slots import RequestLimiter

if TYPE_CHECKING:
    import openai

# Errors that the same account meets again whatever it asks, beside their status.
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")
_SERVER_ERRORS_THAT_STAY = (501, 505)


class Stats(NamedTuple):
    """What a teacher is doing, and has done so far."""

    in_flight: int
    waiting: int
    """Attempts that wait for a slot, a rate limit or a retry."""
    limit: int
    """Attempts that may be under way at one time, as things are."""
    attempts: int
    retries: int
    rate_limited: int


class OpenAITeacher:
    """A chat model behind an OpenAI-compatible server.

    base_url: "" for OpenAI's own
    timeout: seconds for one attempt, from sending to the last byte
    attempts: tries of one request that the server fails, the first included
    patience: seconds that one request waits for rate limits, in all
    concurrency: attempts under way at one time, at most
    notice: told, once each, what the server was found not to support
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
        first_wait: float = FIRST_WAIT,
    ) -> None:
        self._model = model
        self._address = Address(base_url or "https://api.openai.com/v1", api_key)
        self._timeout = timeout
        self._attempts = attempts
        self._patience = patience
        self._key_env = key_env
        self._first_wait = first_wait
        self._slots = RequestLimiter(
            concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
        self._dialect = Dialect(model, notice)
        self._guess = TokenEstimator()
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
        slots = self._slots
        return Stats(
            in_flight=slots.in_flight,
            waiting=slots.waiting,
            limit=slots.limit,
            attempts=slots.started,
            retries=self._retries,
            rate_limited=self._rate_limited,
        )

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply, after as many attempts as it takes and is allowed.

        Raises ReplyError for this request alone, TeacherError for the whole run: then nothing more
        is sent for any other request either. Raises DrainingError after `drain`.
        """
        policy = retries(
            self._attempts, self._patience, sleep=self._slots.pause, first_wait=self._first_wait
        )
        try:
            async for attempt in policy:
                with attempt:
                    again = attempt.retry_state.attempt_number > 1
                    return await self._settled(request, again=again)
        except TransientError as error:
            raise ReplyError(error.reason, error.detail) from None
        raise AssertionError("the policy ends with a reply or an error")

    def drain(self) -> None:
        """Send nothing more: requests under way end, those that wait raise DrainingError."""
        self._slots.shut(DrainingError)

    async def close(self) -> None:
        """Release connections; the next request opens new ones, in whatever loop it runs."""
        self._slots.rest()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _settled(self, request: ChatRequest, *, again: bool) -> ChatReply:
        """One attempt, repeated only to settle what the server understands."""
        while True:
            wording = self._dialect.put(request)
            self._retries += again
            try:
                reply = await self._attempt(request, wording, again=again)
            except UnsupportedError as error:
                self._dialect.refused(wording, error)
                again = True
                continue
            self._dialect.heard(wording, reply.text)
            return reply

    async def _attempt(
        self, request: ChatRequest, wording: EncodedRequest, *, again: bool
    ) -> ChatReply:
        size = sum(len(message.content) for message in request.messages)
        slot = await self._slots.enter(self._guess.of(size, request.max_tokens), again=again)
        try:
            body = await self._sent(wording)
            reply = read_completion(body, request, self._model, self._address.hide)
        except TransientError as error:
            self._rate_limited += error.limited
            until = error.retry_after if error.limited and is_retryable(error) else None
            self._slots.leave(slot, error.outcome, retry_after=until)
            raise
        except ReplyError as error:
            self._slots.leave(slot, Outcome.ANSWERED, spent=self._learned(size, error.usage))
            raise
        except UnsupportedError:
            self._slots.leave(slot, Outcome.ANSWERED, spent=0.0)
            raise
        except TeacherError as error:
            problems = error.problems
            self._slots.shut(lambda: TeacherError.of(problems))
            self._slots.leave(slot, None)
            raise
        except BaseException:
            self._slots.leave(slot, None)
            raise
        self._slots.leave(slot, Outcome.ANSWERED, spent=self._learned(size, reply.usage))
        return reply

    def _learned(self, size: int, usage: Usage | None) -> float:
        """The tokens that a request of so many characters took."""
        if usage is None:
            return 0.0
        if usage.estimated:
            self._dialect.tell("the server does not count tokens; they are estimated from the text")
        tokens = usage.prompt_tokens + usage.completion_tokens
        self._guess.learn(size, tokens)
        return tokens

    async def _sent(self, wording: EncodedRequest) -> bytes:
        import httpx2
        import openai

        from distill.teachers.openai.transport import is_broken_connection

        try:
            async with asyncio.timeout(self._timeout):
                response = await self._opened().post(
                    "/chat/completions", body=wording.body, cast_to=httpx2.Response
                )
        except TimeoutError:
            raise _too_late(f"no reply within {self._timeout:g} s") from None
        except openai.APIConnectionError as error:
            if isinstance(error, openai.APITimeoutError) and not is_broken_connection(error):
                raise _too_late(f"{self._address.place}: no connection in time") from None
            raise self._unreachable(error) from None
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        return response.content

    def _opened(self) -> openai.AsyncOpenAI:
        if self._client is None:
            from distill.teachers.openai.transport import open_client

            self._client = open_client(self._address, self._timeout)
        return self._client

    def _unreachable(self, error: openai.APIConnectionError) -> TransientError:
        cause = f": {error.__cause__}" if error.__cause__ and str(error.__cause__) else ""
        detail = self._clean(f"{self._address.place}: Connection error{cause}")
        return TransientError(FailureReason.SERVER, detail, outcome=Outcome.UNREACHABLE)

    def _refusal(self, error: openai.APIStatusError) -> Exception:
        """What an error status means: for the attempt, for the request, or for the run."""
        status = error.status_code
        detail = self._clean(f"{status}: {_said(error)}")
        hopeless = self._hopeless(error, detail)
        if hopeless:
            return hopeless
        if status in (408, 409, 429) or (status >= 500 and status not in _SERVER_ERRORS_THAT_STAY):
            return _passing(status, detail, retry_after(error.response.headers))
        parameter = _unsupported_parameter(error) if status in (400, 422) else None
        if parameter:
            return UnsupportedError(parameter, detail)
        return ReplyError(FailureReason.SERVER, detail)

    def _hopeless(self, error: openai.APIStatusError, detail: str) -> TeacherError | None:
        """The error that ends the run, if every request would meet this one."""
        place = self._address.place
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

    def _clean(self, text: str) -> str:
        return " ".join(self._address.hide(text).split())[:400]


def _passing(status: int, detail: str, wait: float | None) -> TransientError:
    crowded = status in (408, 429, 503, 504, 529)
    error = TransientError(
        FailureReason.TIMEOUT if status in (408, 504) else FailureReason.SERVER,
        detail,
        outcome=Outcome.OVERLOADED if crowded else Outcome.FAILED,
        limited=status == 429 or (status in (503, 529) and wait is not None),
        retry_after=wait,
    )
    if not is_retryable(error):
        error.detail += f"; the server asks to wait {wait:.0f} s"
    return error


def _too_late(detail: str) -> TransientError:
    return TransientError(FailureReason.TIMEOUT, detail, outcome=Outcome.OVERLOADED)


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
