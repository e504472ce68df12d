"""A teacher is one method: `async complete(ChatRequest) -> ChatReply`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from distill.records import FailureReason, Json, Message, Record, Scenario, digest
from distill.workflow.model import Rule, Workflow


@dataclass(frozen=True)
class Task:
    """What a request is for, as data: the embedded grammar teacher reads this, not the messages."""

    scenario: Scenario
    rule: Rule
    workflow: Workflow


@dataclass(frozen=True)
class ChatRequest:
    """What is asked of a chat model."""

    messages: tuple[Message, ...]
    reply_schema: Json
    """The JSON Schema that the reply's text must meet."""
    task: Task
    temperature: float = 1.0
    max_tokens: int = 512
    seed: int | None = None

    @property
    def digest(self) -> str:
        """The identity of what is sent: two requests with one digest deserve one reply."""
        said = [message.model_dump() for message in self.messages]
        return digest([said, self.reply_schema, self.temperature, self.max_tokens, self.seed])


class ChatReply(Record):
    """What a teacher answered, and what it cost."""

    text: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ReplyError(Exception):
    """A teacher's typed "no" to one request: it becomes a Failure, never ends the run by itself."""

    def __init__(self, reason: FailureReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class Teacher(Protocol):
    """Anything that answers a ChatRequest."""

    @property
    def name(self) -> str:
        """For people and provenance, as `grammar` or `openai:gpt-5-mini`."""

    @property
    def fingerprint(self) -> str:
        """Two teachers with one fingerprint give equally good replies to one request."""

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises ReplyError for this request alone, TeacherError for the whole run."""

    async def close(self) -> None:
        """Release connections."""
