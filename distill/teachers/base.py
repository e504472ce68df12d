"""A teacher is one method: `async complete(ChatRequest) -> ChatReply`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from distill.records import Case, FailureReason, Json, Message, Record, Scenario, digest
from distill.workflow.model import Rule, Workflow


@dataclass(frozen=True)
class WriteTask:
    """Write for a scenario: the embedded grammar teacher reads this, not the messages."""

    scenario: Scenario
    rule: Rule
    workflow: Workflow

    @property
    def id(self) -> str:
        return self.scenario.id


@dataclass(frozen=True)
class BatchTask:
    """Write for several scenarios of one workflow in one reply."""

    tasks: tuple[WriteTask, ...]

    @property
    def id(self) -> str:
        return digest([task.id for task in self.tasks])

    @property
    def workflow(self) -> Workflow:
        return self.tasks[0].workflow


@dataclass(frozen=True)
class RouteTask:
    """Route a case by the rules, as a student will have to."""

    case: Case
    workflow: Workflow

    @property
    def id(self) -> str:
        return self.case.id


@lru_cache(maxsize=64)
def cached_text_digest(text: str) -> str:
    """`digest`, remembered: thousands of requests begin with the same text."""
    return digest(text)


@dataclass(frozen=True)
class ChatRequest:
    """What is asked of a chat model."""

    messages: tuple[Message, ...]
    reply_schema: Json
    """The JSON Schema that the reply's text must meet."""
    task: WriteTask | BatchTask | RouteTask
    temperature: float = 1.0
    max_tokens: int = 512
    seed: int | None = None

    @property
    def digest(self) -> str:
        """The identity of what is sent: two requests with one digest deserve one reply."""
        said = [[message.role, cached_text_digest(message.content)] for message in self.messages]
        return digest([said, self.reply_schema, self.temperature, self.max_tokens, self.seed])


class Usage(Record):
    """Tokens of one request, as the server counts them; `estimated` where it does not say."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt's: those that the server had in its prefix cache."""
    completion_tokens: int = 0
    estimated: bool = False


class ChatReply(Record):
    """What a teacher answered, and what it took."""

    text: str
    model: str
    usage: Usage = Usage()


class ReplyError(Exception):
    """A teacher's typed "no" to one request: it becomes a Failure, never ends the run by itself.

    usage: what the server charges for it all the same, as for a refusal or a reply cut short.
    """

    def __init__(self, reason: FailureReason, detail: str, usage: Usage | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.usage = usage
        super().__init__(f"{reason}: {detail}")

    @property
    def is_server_failure(self) -> bool:
        """Whether there was no reply, rather than one that cannot be used."""
        return self.reason in (FailureReason.SERVER, FailureReason.TIMEOUT)


class DrainingError(Exception):
    """The run is being stopped: this request was not sent, and is owed."""


class Teacher(Protocol):
    """Anything that answers a ChatRequest."""

    @property
    def name(self) -> str:
        """For people and provenance, as `grammar` or `openai:gpt-5-mini`."""

    @property
    def fingerprint(self) -> str:
        """Two teachers with one fingerprint give equally good replies to one request."""

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises ReplyError for this request alone, TeacherError for the whole run.

        After `drain`, what is not under way raises DrainingError.
        """

    def drain(self) -> None:
        """Send nothing more: requests under way end, those that wait raise DrainingError."""

    async def close(self) -> None:
        """Release connections, and stop what was started for it."""
