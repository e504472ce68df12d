"""The data that flows between stages: frozen, closed records with content for identity.

A stage reads records of one kind from a file and writes records of the next kind. Nothing here
imports anything of distill's but `strict_json`; everything else may import this.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from distill import strict_json

Json = dict[str, JsonValue]
TargetKind = Literal["call", "ask", "answer", "refuse"]
TARGET_KINDS: tuple[TargetKind, ...] = ("call", "ask", "answer", "refuse")
Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
OWN = "rows"
"""The name, in place of a teacher's, of who wrote the team's own rows."""


def canonical_json(value: Any) -> str:
    """One text for one value: keys sorted, no blanks, characters as they are."""
    return strict_json.encode(value, sort_keys=True, separators=(",", ":"))


def digest(value: Any) -> str:
    """The identity of a JSON value: 16 hex digits of the SHA-256 of its canonical JSON."""
    # Lone surrogates are legal in JSON text and illegal in UTF-8; hash them as their escapes.
    text = canonical_json(value).encode("utf-8", "backslashreplace")
    return hashlib.sha256(text).hexdigest()[:16]


class Record(BaseModel):
    """Frozen, and closed to unknown fields."""

    # NaN is no null: whoever writes it is refused, see `strict_json`.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class ToolCall(Record):
    """One call of one tool."""

    name: str
    arguments: Json = {}


class Message(Record):
    """One turn of a conversation, as chat APIs have it."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    """On a tool's message: the tool that answered."""


class Conversation(Record):
    """Messages in order, up to the turn that is to be decided."""

    messages: tuple[Message, ...]

    @property
    def last_user(self) -> str:
        """The user's last message; empty where there is none."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def said(self) -> str:
        """Everything that the user and tools said, a line for each: what arguments come from."""
        return "\n".join(m.content for m in self.messages if m.role in ("user", "tool"))

    @property
    def key(self) -> str:
        """A text that two conversations share only when they are the same; near ones resemble.

        Of a single user turn it is that turn as it stands, else the JSON of all turns.
        """
        if len(self.messages) == 1:
            only = self.messages[0]
            plain = Message(role="user", content=only.content)
            if only == plain and not only.content.startswith(_SEVERAL):
                return only.content
        turns = [
            [
                message.role,
                *([message.name] if message.name is not None else []),
                message.content,
                *([call.name, call.arguments] for call in message.tool_calls),
            ]
            for message in self.messages
        ]
        return _SEVERAL + canonical_json(turns)

    def without_system(self) -> Conversation:
        """The same without system turns: what the workflow's owner wrote, not its users."""
        return Conversation(messages=tuple(m for m in self.messages if m.role != "system"))

    def __str__(self) -> str:
        """For people: a single user turn as it stands, else a line for each turn."""
        if [message.role for message in self.messages] == ["user"]:
            return self.last_user
        return "\n".join(f"{m.role}: {' '.join(_parts(m))}" for m in self.messages)


# Begins the key of a conversation that is more than one user turn.
_SEVERAL = "\0"


def _parts(message: Message) -> list[str]:
    calls = [f"{call.name} {canonical_json(call.arguments)}" for call in message.tool_calls]
    return [part for part in (message.content, *calls) if part]


class Target(Record):
    """The right action for a conversation: tool calls, or a reply in words, never both."""

    kind: TargetKind
    calls: tuple[ToolCall, ...] = ()
    reply: str = ""

    @model_validator(mode="after")
    def _calls_or_reply(self) -> Self:
        if (self.kind == "call") != bool(self.calls):
            raise ValueError(f"a target of kind {self.kind} with {len(self.calls)} calls")
        if self.kind == "call" and self.reply:
            raise ValueError("a target of kind call with a reply")
        return self


class Cell(NamedTuple):
    """The unit of a quota: one rule, and the action that must follow."""

    rule: str
    target: TargetKind

    def __str__(self) -> str:
        return f"{self.rule or 'no rule'}/{self.target}"


class Scenario(Record):
    """One cell of the plan: what is asked of the teacher, with the label already decided."""

    id: str
    rule: str
    target: TargetKind
    tools: tuple[str, ...]
    """Names of the tools that the conversation offers."""
    shape: Literal["single"] = "single"
    style: str
    language: str = "en"
    difficulty: Literal["plain"] = "plain"
    topic: str
    """What the request is about: one of the rule's own things, actions, phrases or examples.

    Of an own row, all that is said in it.
    """
    seed: int

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """A scenario whose id is the digest of its other fields."""
        draft = cls(id="", **fields)
        return draft.model_copy(update={"id": digest(draft.model_dump(exclude={"id"}))})

    @property
    def cell(self) -> Cell:
        return Cell(self.rule, self.target)

    @property
    def family(self) -> str:
        """Scenarios about one topic of one rule: the split never parts them."""
        return digest([self.rule, self.topic])


class Candidate(Record):
    """What the teacher wrote for a scenario, or one of the team's own rows."""

    id: str
    scenario: Scenario
    messages: tuple[Message, ...]
    """The conversation up to, and without, the turn that the target describes."""
    target: Target
    teacher: str
    """The name of the teacher that wrote it; `rows` of the team's own rows."""
    tools: tuple[Json, ...] | None = None
    """An own row's own tools, as OpenAI function schemas; None means the workflow's."""
    split: Split | None = None
    """Where an own row belongs, if it says so."""
    place: str = ""
    """Where an own row stands, as file:line; empty for what a teacher wrote."""

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        messages: tuple[Message, ...],
        target: Target,
        teacher: str,
        *,
        tools: tuple[Json, ...] | None = None,
        split: Split | None = None,
        place: str = "",
    ) -> Self:
        """A candidate whose id is the digest of scenario, conversation, target and own tools."""
        said = [message.model_dump() for message in messages]
        own = [] if tools is None else [list(tools)]
        return cls(
            id=digest([scenario.id, said, target.model_dump(), *own]),
            scenario=scenario,
            messages=messages,
            target=target,
            teacher=teacher,
            tools=tools,
            split=split,
            place=place,
        )

    @property
    def conversation(self) -> Conversation:
        return Conversation(messages=self.messages)

    @property
    def is_own(self) -> bool:
        """Whether it is one of the team's own rows, whose label no plan decided."""
        return self.teacher == OWN


class Example(Candidate):
    """A candidate that survived every check so far: what is trained on."""

    @classmethod
    def promote(cls, candidate: Candidate) -> Self:
        return cls(**dict(candidate))


class Reason(StrEnum):
    """Why a candidate was rejected."""

    EMPTY_PROMPT = "empty_prompt"
    PROMPT_TOO_LONG = "prompt_too_long"
    BAD_CHARACTERS = "bad_characters"
    WRONG_TARGET = "wrong_target"
    UNKNOWN_TOOL = "unknown_tool"
    INVALID_ARGUMENTS = "invalid_arguments"
    UNGROUNDED_ARGUMENT = "ungrounded_argument"
    EMPTY_REPLY = "empty_reply"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    IN_GOLD = "in_gold"
    OVER_QUOTA = "over_quota"
    UNRENDERABLE = "unrenderable"
    TOO_LONG_FOR_STUDENT = "too_long_for_student"


class Rejection(Record):
    """A candidate that did not survive: kept, counted, shown."""

    stage: Literal["validate", "dedup", "balance", "train"]
    reason: Reason
    detail: str
    item: Candidate

    @property
    def told(self) -> str:
        """The detail, behind the place of an own row."""
        return f"{self.item.place}: {self.detail}" if self.item.place else self.detail


class FailureReason(StrEnum):
    """Why the teacher never answered a scenario usefully."""

    MALFORMED = "malformed"
    REFUSED = "refused"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    TIMEOUT = "timeout"
    SERVER = "server"


class Failure(Record):
    """A scenario without a usable answer: owed again on the next run."""

    scenario: Scenario
    reason: FailureReason
    detail: str


T = TypeVar("T")


class Sifted(NamedTuple, Generic[T]):
    """What a sieving stage returns. Conservation: in = kept + rejected."""

    kept: list[T]
    rejected: list[Rejection]


class StageCount(Record):
    """What went into a stage and what came out: came_in = kept + all of dropped."""

    stage: str
    came_in: int
    kept: int
    dropped: dict[str, int] = {}
    """How many by reason."""

    @classmethod
    def of(cls, stage: str, kept: int, dropped: Iterable[Rejection | Failure]) -> StageCount:
        reasons = Counter(item.reason.value for item in dropped)
        return cls(
            stage=stage,
            came_in=kept + reasons.total(),
            kept=kept,
            dropped=dict(sorted(reasons.items())),
        )


class ExpectedCall(Record):
    """A call that a case expects; `arguments=None` leaves the arguments unscored."""

    name: str
    arguments: Json | None = None


class Case(Record):
    """One row that a student is evaluated on: from gold, from the test split or from a file."""

    id: str
    messages: tuple[Message, ...]
    kind: TargetKind
    calls: tuple[ExpectedCall, ...] = ()
    rule: str | None = None
    tools: tuple[Json, ...] | None = None
    """The row's own tools, as OpenAI function schemas; None means the workflow's."""
    place: str = ""
    """Where it came from, as file:line."""
    unscored: int = Field(exclude=True, default=0)
    """How many turns of its row come after the one that is scored."""
    reply: str = Field(exclude=True, default="")
    """The words that its row expects, or that stand beside its calls; they are not scored."""

    @property
    def conversation(self) -> Conversation:
        return Conversation(messages=self.messages)


class Outcome(StrEnum):
    """What became of a case, exclusive: the tutorial's four outcomes and those beyond calls."""

    RIGHT = "right tool alone"
    EXTRA = "right tool, but another one too"
    MISSING = "expected tool missing"
    WRONG = "wrong tool"
    RIGHT_WORDS = "no call, as expected"
    OVER_CALL = "called when it should not"
    MALFORMED = "malformed output"


class Prediction(Record):
    """What one arm said to one case, and what that is worth."""

    case: str
    arm: str
    prompt: str
    kind: TargetKind
    """The action that the case expects."""
    expected: tuple[ExpectedCall, ...]
    rule: str | None
    raw: str
    """The arm's output as it came, special tokens included; empty for arms that only classify."""
    calls: tuple[ToolCall, ...]
    reply: str
    malformed: bool | None
    """None for arms that write no text."""
    outcome: Outcome
    tool_correct: bool
    full_correct: bool | None
    """None where the row or the arm has no arguments."""
    argument_f1: float | None
    grounding_f1: float | None
    detail: str = ""
    """Why the output is malformed, or what else has to be known of it."""
    repaired: bool = False
    """Whether the answer was no valid call or reply, and was decoded again under constraint."""
    confidence: float | None = None
    """The probability that the arm does what it did: opens a call of this tool, or of none."""
    label_nll: float | None = None
    """The loss of the expected call, per token; None where it is not known or was not computed."""
