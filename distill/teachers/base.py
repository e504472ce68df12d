"""A teacher is one method: `async complete(ChatRequest) -> ChatReply`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from distill.records import Case, FailureReason, Json, Message, Record, Scenario, digest
from distill.workflow.model import Rule, Workflow


@dataclass(frozen=True)
class WriteTask:
    """Write a conversation for a scenario. The grammar teacher reads this, not the messages."""

    scenario: Scenario
    rule: Rule
    workflow: Workflow

    @property
    def id(self) -> str:
        return self.scenario.id


@dataclass(frozen=True)
class BatchTask:
    """Write conversations for several scenarios of one workflow in one reply."""

    tasks: tuple[WriteTask, ...]

    @property
    def id(self) -> str:
        return digest([task.id for task in self.tasks])

    @property
    def workflow(self) -> Workflow:
        return self.tasks[0].workflow


@dataclass(frozen=True)
class RouteTask:
    """Route a case by the rules, as a student will."""

    case: Case
    workflow: Workflow

    @property
    def id(self) -> str:
        return self.case.id


@lru_cache(maxsize=64)
def cached_text_digest(text: str) -> str:
    """`digest`, cached: thousands of requests begin with the same system prompt."""
    return digest(text)


@dataclass(frozen=True)
class ChatRequest:
    """A request to a chat model."""

    messages: tuple[Message, ...]
    reply_schema: Json
    """The JSON Schema that the reply's text must meet."""
    task: WriteTask | BatchTask | RouteTask
    temperature: float = 1.0
    max_tokens: int = 512
    seed: int | None = None

    @property
    def digest(self) -> str:
        """The identity of the request: those with equal digests may share one reply."""
        messages = [
            [message.role, cached_text_digest(message.content)] for message in self.messages
        ]
        return digest([messages, self.reply_schema, self.temperature, self.max_tokens, self.seed])


class Usage(Record):
    """Tokens of one request, as the server counts them; `estimated` where it does not."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the server had in its prefix cache."""
    completion_tokens: int = 0
    estimated: bool = False

    def plus(self, other: Usage) -> Usage:
        """The usage of both."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            estimated=self.estimated or other.estimated,
        )


class ChatReply(Record):
    """A teacher's reply and its usage."""

    text: str
    model: str
    usage: Usage = Usage()


class ReplyError(Exception):
    """One request failed: it becomes a Failure, and the run goes on.

    usage: what the server charges all the same, as for a refusal or a reply cut short
    thinking: whether a reply was cut short by the thoughts that the model writes first
    """

    def __init__(
        self,
        reason: FailureReason,
        detail: str,
        usage: Usage | None = None,
        *,
        thinking: bool = False,
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.usage = usage
        self.thinking = thinking
        super().__init__(f"{reason}: {detail}")

    @property
    def is_server_failure(self) -> bool:
        """Whether the server gave no reply, rather than one that cannot be used."""
        return self.reason in (FailureReason.SERVER, FailureReason.TIMEOUT)


class DrainingError(Exception):
    """The run is being stopped, and this request was not sent."""


class Teacher(Protocol):
    """Anything that replies to a ChatRequest."""

    @property
    def name(self) -> str:
        """For people and provenance, such as `grammar` or `openai:gpt-5-mini`."""

    @property
    def fingerprint(self) -> str:
        """Teachers with equal fingerprints may share their replies."""

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises ReplyError for this request alone, TeacherError for the whole run.

        After `drain`, requests that are not in flight raise DrainingError.
        """

    def drain(self) -> None:
        """Send nothing more: requests in flight end, those that wait raise DrainingError."""

    async def close(self) -> None:
        """Release connections, and stop a server that was started."""


class WrappedTeacher:
    """A teacher around `inner`, which answers for all that a subclass does not change."""

    def __init__(self, inner: Teacher) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        # Attributes that only some teachers have, as `messages_only`.
        return getattr(self._inner, name)

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def fingerprint(self) -> str:
        return self._inner.fingerprint

    def drain(self) -> None:
        self._inner.drain()

    async def close(self) -> None:
        await self._inner.close()
