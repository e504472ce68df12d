"""scenarios -> candidates and failures: each scenario is asked for, and ends as exactly one.

The label is the plan's. A reply brings the user's words and, for a call, the arguments; which
tools are called, in which order, and what the rule itself says of their arguments are fixed.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

from pydantic import ValidationError

from distill.config import TeacherConfig
from distill.errors import TeacherError
from distill.prompts import render_prompt
from distill.records import (
    Candidate,
    Failure,
    FailureReason,
    Json,
    Message,
    Record,
    Scenario,
    Target,
    ToolCall,
    canonical_json,
    digest,
)
from distill.teachers.base import ChatReply, ChatRequest, ReplyError, Task, Teacher
from distill.workflow.model import CallSpec, Rule, RuleExample, Workflow
from distill.workflow.strict import strict_arguments, without_nulls
from distill.workflow.values import argument_faults, slots_in

R = TypeVar("R", bound=Record)

# Times that a malformed reply is asked for again, with what was wrong shown.
AGAIN = 2
# When this many scenarios in a row failed and none ever succeeded, the teacher is at fault.
HOPELESS = 10
# Examples of the rule that one prompt shows.
SHOWN = 4


class ReplyCache(Protocol):
    """Where replies are kept. What was put is durable when `put` returns."""

    def get(self, key: str) -> ChatReply | None:
        """The reply kept under `key`."""

    def put(self, key: str, reply: ChatReply) -> ChatReply:
        """Keep `reply` unless the key has one, and return the one that is kept."""

    def drop(self, keys: Iterable[str]) -> None:
        """Forget these, so that they are asked for again."""


class Generated(NamedTuple):
    """What became of the scenarios, in their order. candidates + failures = scenarios."""

    candidates: list[Candidate]
    failures: list[Failure]


class MalformedReply(ValueError):  # noqa: N818 - it names what the reply is
    """A reply that is not what was asked for; the message is fit to be shown to the model."""


async def generate(
    scenarios: Sequence[Scenario],
    workflow: Workflow,
    teacher: Teacher,
    replies: ReplyCache,
    settings: TeacherConfig,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Generated:
    """One candidate or failure per scenario, at most `settings.concurrency` of them at a time.

    Each reply is kept before it is used, and what is kept is not asked again. Raises TeacherError
    when the teacher is unusable, or when the first scenarios asked for all fail.
    """
    writer = _Writer(workflow, teacher, replies, settings)
    outcomes: dict[int, Candidate | Failure] = {}
    # One iterator for all workers: nobody waits for a wave, and no scenario waits as a task.
    pending = iter(enumerate(scenarios))

    async def work() -> None:
        for index, scenario in pending:
            outcomes[index] = await writer.outcome(scenario)
            progress(len(outcomes), len(scenarios))
            # A teacher that never waits would otherwise keep an interrupt from being noticed.
            await asyncio.sleep(0)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(settings.concurrency, len(scenarios))):
                group.create_task(work())
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    ordered = [outcomes[index] for index in range(len(scenarios))]
    return Generated(
        [outcome for outcome in ordered if isinstance(outcome, Candidate)],
        [outcome for outcome in ordered if isinstance(outcome, Failure)],
    )


def request(scenario: Scenario, workflow: Workflow, settings: TeacherConfig) -> ChatRequest:
    """What the teacher is asked for a scenario."""
    rule = workflow.by_id[scenario.rule]
    task = Task(scenario, rule, workflow)
    used = {name for call in rule.then.calls for name in slots_in(call.arguments)}
    messages = render_prompt(
        "write",
        workflow=workflow,
        scenario=scenario,
        rule=rule,
        calls=rule.then.calls,
        slots={name: values for name, values in rule.words.slots.items() if name in used},
        examples=_shown_examples(rule, scenario.seed),
    )
    return ChatRequest(
        messages=messages,
        reply_schema=reply_schema(task),
        task=task,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        seed=scenario.seed,
    )


def reply_key(teacher: Teacher, request: ChatRequest) -> str:
    """The identity of a reply: requests with one key deserve one reply.

    A teacher that declares `follows_messages = True` answers what is sent and nothing else, so
    that its replies outlive changes of the workflow that the prompt does not show. Any other may
    read `request.task`, and the whole workflow counts.
    """
    parts = [teacher.fingerprint, request.digest]
    if not getattr(teacher, "follows_messages", False):
        parts += [request.task.workflow.fingerprint, request.task.scenario.id]
    return digest(parts)


def reply_schema(task: Task) -> Json:
    """The JSON Schema of a reply, in the subset that strict structured output takes.

    `{"user", "calls"}` with the rule's calls for a call, `{"user", "reply"}` for all else. Strict
    mode has no schema by position: several calls are an array of any of them, and `read_reply`
    holds them to their order.
    """
    user: Json = {"type": "string", "description": "the person's message"}
    if task.scenario.target != "call":
        return _closed({"user": user, "reply": {"type": "string", "description": "the answer"}})
    definitions: Json = {}
    wanted = [_call_schema(call, task, definitions) for call in task.rule.then.calls]
    distinct = [schema for index, schema in enumerate(wanted) if schema not in wanted[:index]]
    calls: Json = {
        "type": "array",
        "items": distinct[0] if len(distinct) == 1 else {"anyOf": list(distinct)},
        "minItems": len(wanted),
        "maxItems": len(wanted),
    }
    schema = _closed({"user": user, "calls": calls})
    return {**schema, "$defs": definitions} if definitions else schema


def read_reply(text: str, task: Task, teacher: str) -> Candidate:
    """The candidate that a teacher's text holds. Raises MalformedReply.

    A code fence or prose around the one JSON object is passed over; nothing else is.
    """
    value = _one_object(text)
    kind = task.scenario.target
    if kind == "call":
        written = _checked(_CallReply, value)
        target = Target(kind=kind, calls=tuple(_calls(written.calls, task)))
        return _candidate(task, written.user, target, teacher)
    said = _checked(_WordsReply, value)
    return _candidate(task, said.user, Target(kind=kind, reply=said.reply), teacher)


class _CallReply(Record):
    user: str
    calls: list[ToolCall]


class _WordsReply(Record):
    user: str
    reply: str


class _Writer:
    """Asks for scenarios one by one, and knows whether the teacher has ever been of use."""

    def __init__(
        self, workflow: Workflow, teacher: Teacher, replies: ReplyCache, settings: TeacherConfig
    ) -> None:
        self.workflow = workflow
        self.teacher = teacher
        self.replies = replies
        self.settings = settings
        self.proven = False
        self.failed: list[ReplyError] = []

    async def outcome(self, scenario: Scenario) -> Candidate | Failure:
        try:
            return await self._candidate(request(scenario, self.workflow, self.settings))
        except ReplyError as error:
            self._count(error)
            return Failure(scenario=scenario, reason=error.reason, detail=error.detail)

    async def _candidate(self, asked: ChatRequest) -> Candidate:
        keys: list[str] = []
        while True:
            keys.append(reply_key(self.teacher, asked))
            kept = self.replies.get(keys[-1])
            reply = kept or self.replies.put(keys[-1], await self.teacher.complete(asked))
            try:
                candidate = read_reply(reply.text, asked.task, self.teacher.name)
            except MalformedReply as error:
                if len(keys) > AGAIN:
                    # The scenario is owed again: the next run must ask, not read these.
                    self.replies.drop(keys)
                    raise ReplyError(FailureReason.MALFORMED, _short(str(error))) from None
                asked = _again(asked, reply.text, error)
            else:
                self.proven = self.proven or kept is None
                return candidate

    def _count(self, error: ReplyError) -> None:
        self.failed.append(error)
        if self.proven or len(self.failed) < HOPELESS:
            return
        reasons = Counter(str(failure.reason) for failure in self.failed).most_common()
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons)
        raise TeacherError(
            f"the first {HOPELESS} scenarios all failed ({counted}); the last: {error.detail}",
            place=self.teacher.name,
            hint=_WAYS_OUT[error.reason] + ", then run the same command again: it goes on",
        )


_WAYS_OUT = {
    FailureReason.MALFORMED: "choose a model that follows a JSON Schema, or a server that holds it",
    FailureReason.REFUSED: "choose a model that writes about this workflow, or reword the rules",
    FailureReason.EMPTY: "look into the server's log",
    FailureReason.TRUNCATED: "raise max_tokens in [teacher]; a model that thinks first needs more",
    FailureReason.TIMEOUT: "raise timeout or lower concurrency in [teacher]",
    FailureReason.SERVER: "look into the server's log",
}


def _again(asked: ChatRequest, text: str, error: MalformedReply) -> ChatRequest:
    """The conversation so far, and what was wrong with its last reply."""
    told = render_prompt("again", error=_short(str(error)))
    said = Message(role="assistant", content=text)
    return replace(asked, messages=(*asked.messages, said, *told))


def _shown_examples(rule: Rule, seed: int) -> list[RuleExample]:
    shown = min(SHOWN, len(rule.examples))
    return random.Random(seed).sample(rule.examples, shown)


def _closed(properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _call_schema(call: CallSpec, task: Task, definitions: Json) -> Json:
    tool = task.workflow.by_name[call.tool]
    arguments = strict_arguments(tool, _fixed(call), call.arguments, definitions)
    return _closed({"name": {"type": "string", "const": tool.name}, "arguments": arguments})


def _fixed(call: CallSpec) -> Json:
    """The arguments that the rule decides; those with `{topic}` or `{slot}` are the teacher's."""
    return {name: value for name, value in call.arguments.items() if not [*slots_in(value)]}


def _calls(written: list[ToolCall], task: Task) -> Iterable[ToolCall]:
    wanted = task.rule.then.calls
    names, given = [call.tool for call in wanted], [call.name for call in written]
    if given != names:
        raise MalformedReply(
            f"calls must be of {', '.join(names)}, in this order; they are of "
            f"{', '.join(given) or 'nothing'}"
        )
    for index, (spec, call) in enumerate(zip(wanted, written, strict=True)):
        yield _call(spec, call, task, f"calls[{index}].arguments")


def _call(spec: CallSpec, call: ToolCall, task: Task, place: str) -> ToolCall:
    tool = task.workflow.by_name[spec.tool]
    fixed = _fixed(spec)
    arguments = without_nulls(tool, call.arguments)
    # A null that the rule itself demands is a value.
    arguments |= {name: None for name in fixed if call.arguments.get(name, fixed) is None}
    for name in spec.arguments:
        if name not in arguments:
            raise MalformedReply(f"{place}.{name} is missing")
        if name in fixed and arguments[name] != fixed[name]:
            raise MalformedReply(f"{place}.{name} must be {canonical_json(fixed[name])}")
    for fault in argument_faults(tool, arguments):
        raise MalformedReply(f"{place}: {fault.cause}; {fault.hint}")
    return ToolCall(name=tool.name, arguments=arguments)


def _candidate(task: Task, user: str, target: Target, teacher: str) -> Candidate:
    said = (Message(role="user", content=user),)
    return Candidate.of(task.scenario, said, target, teacher)


def _checked(kind: type[R], value: Json) -> R:
    try:
        canonical_json(value).encode()
    except UnicodeEncodeError:
        raise MalformedReply("a string holds half of a surrogate pair") from None
    try:
        return kind.model_validate(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MalformedReply(f"{place}: {first['msg']}") from None


def _one_object(text: str) -> Json:
    # Where no text stands before it, the object begins at the first brace, complete or not. After
    # prose, which may have braces of its own, it begins at one that can open an object.
    begin = re.search(r"\A\s*\{|\{(?=\s*[\"}])", text)
    if begin is None:
        raise MalformedReply("there is no JSON object in it")
    start = begin.end() - 1
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise MalformedReply(
            f"it is not valid JSON: {error.msg} at character {error.pos - start}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise MalformedReply(f"it is not valid JSON: {error}") from None
    if re.search(r"\{\s*[\"}]", text[end:]):
        raise MalformedReply("it holds more than one JSON object")
    return dict(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name is given twice in one object")
    return members


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique)


def _short(text: str, limit: int = 500) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
