"""What a teacher is asked to write for a scenario, and how its reply is read.

The label is the plan's. A reply brings the user's words and, for a call, the arguments; which
tools are called, in which order, and what the rule itself says of their arguments are fixed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pydantic import JsonValue

from distill.asking.ask import MalformedReplyError, checked, extract_json_object
from distill.config import TeacherConfig
from distill.prompts import render_prompt
from distill.records import (
    Candidate,
    Json,
    Message,
    Record,
    Scenario,
    Target,
    ToolCall,
    canonical_json,
)
from distill.teachers.base import BatchTask, ChatReply, ChatRequest, Usage, WriteTask
from distill.workflow.model import CallSpec, Rule, RuleExample, Workflow
from distill.workflow.strict import closed, strict_arguments, without_nulls
from distill.workflow.values import argument_faults, slots_in

# Examples of the rule that one prompt shows.
SHOWN = 4


def write_request(scenario: Scenario, workflow: Workflow, settings: TeacherConfig) -> ChatRequest:
    """What the teacher is asked for a scenario."""
    rule = workflow.by_id[scenario.rule]
    task = WriteTask(scenario, rule, workflow)
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


def batch_request(requests: Sequence[ChatRequest]) -> ChatRequest:
    """One question for several scenarios: `split_batch` takes its reply apart again."""
    tasks = tuple(asked.task for asked in requests if isinstance(asked.task, WriteTask))
    system = requests[0].messages[:-1]
    told = render_prompt("batch", assignments=[asked.messages[-1].content for asked in requests])
    return replace(
        requests[0],
        messages=(*system, *told),
        reply_schema=_batch_schema([asked.reply_schema for asked in requests]),
        task=BatchTask(tasks),
        max_tokens=sum(asked.max_tokens for asked in requests),
    )


def split_batch(reply: ChatReply, count: int) -> list[ChatReply]:
    """The replies to the scenarios of a batch, in order; what is missing is an empty text.

    Each goes on as if it had been asked for alone: one that cannot be used is asked for again.
    Their usage adds up to that of the whole.
    """
    try:
        value = extract_json_object(reply.text)
    except MalformedReplyError:
        value = {}
    texts = [_part(value.get(str(number))) for number in range(1, count + 1)]
    usages = _shares(reply.usage, count)
    return [
        reply.model_copy(update={"text": text, "usage": usage})
        for text, usage in zip(texts, usages, strict=True)
    ]


def reply_schema(task: WriteTask) -> Json:
    """The JSON Schema of a reply, in the subset that strict structured output takes.

    `{"user", "calls"}` with the rule's calls for a call, `{"user", "reply"}` for all else. Strict
    mode has no schema by position: several calls are an array of any of them, and `read_reply`
    holds them to their order.
    """
    user: Json = {"type": "string", "description": "the person's message"}
    if task.scenario.target != "call":
        return closed({"user": user, "reply": {"type": "string", "description": "the answer"}})
    definitions: Json = {}
    wanted = [_call_schema(call, task, definitions) for call in task.rule.then.calls]
    distinct = [schema for index, schema in enumerate(wanted) if schema not in wanted[:index]]
    calls: Json = {
        "type": "array",
        "items": distinct[0] if len(distinct) == 1 else {"anyOf": list(distinct)},
        "minItems": len(wanted),
        "maxItems": len(wanted),
    }
    schema = closed({"user": user, "calls": calls})
    return {**schema, "$defs": definitions} if definitions else schema


def read_reply(text: str, task: WriteTask, teacher: str) -> Candidate:
    """The candidate that a teacher's text holds. Raises MalformedReplyError.

    A code fence or prose around the one JSON object is passed over; nothing else is.
    """
    value = extract_json_object(text)
    kind = task.scenario.target
    if kind == "call":
        written = checked(_CallReply, value)
        target = Target(kind=kind, calls=tuple(_calls(written.calls, task)))
        return _candidate(task, written.user, target, teacher)
    said = checked(_WordsReply, value)
    return _candidate(task, said.user, Target(kind=kind, reply=said.reply), teacher)


class _CallReply(Record):
    user: str
    calls: list[ToolCall]


class _WordsReply(Record):
    user: str
    reply: str


def _batch_schema(schemas: Sequence[Json]) -> Json:
    definitions: Json = {}
    parts: Json = {}
    for number, schema in enumerate(schemas, start=1):
        parts[str(number)] = {key: value for key, value in schema.items() if key != "$defs"}
        found = schema.get("$defs")
        definitions |= found if isinstance(found, dict) else {}
    whole = closed(parts)
    return {**whole, "$defs": definitions} if definitions else whole


def _part(value: JsonValue) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _shares(usage: Usage, count: int) -> list[Usage]:
    """`usage` in `count` parts of whole tokens."""

    def share(tokens: int, at: int) -> int:
        return tokens * (at + 1) // count - tokens * at // count

    return [
        Usage(
            prompt_tokens=share(usage.prompt_tokens, at),
            cached_tokens=share(usage.cached_tokens, at),
            completion_tokens=share(usage.completion_tokens, at),
            estimated=usage.estimated,
        )
        for at in range(count)
    ]


def _shown_examples(rule: Rule, seed: int) -> list[RuleExample]:
    shown = min(SHOWN, len(rule.examples))
    return random.Random(seed).sample(rule.examples, shown)


def _call_schema(call: CallSpec, task: WriteTask, definitions: Json) -> Json:
    tool = task.workflow.by_name[call.tool]
    arguments = strict_arguments(tool, _fixed(call), call.arguments, definitions)
    return closed({"name": {"type": "string", "const": tool.name}, "arguments": arguments})


def _fixed(call: CallSpec) -> Json:
    """The arguments that the rule decides; those with `{topic}` or `{slot}` are the teacher's."""
    return {name: value for name, value in call.arguments.items() if not [*slots_in(value)]}


def _calls(written: list[ToolCall], task: WriteTask) -> Iterable[ToolCall]:
    wanted = task.rule.then.calls
    names, given = [call.tool for call in wanted], [call.name for call in written]
    if given != names:
        raise MalformedReplyError(
            f"calls must be of {', '.join(names)}, in this order; they are of "
            f"{', '.join(given) or 'nothing'}"
        )
    for index, (spec, call) in enumerate(zip(wanted, written, strict=True)):
        yield _call(spec, call, task, f"calls[{index}].arguments")


def _call(spec: CallSpec, call: ToolCall, task: WriteTask, place: str) -> ToolCall:
    tool = task.workflow.by_name[spec.tool]
    fixed = _fixed(spec)
    arguments = without_nulls(tool, call.arguments)
    # A null that the rule itself demands is a value.
    arguments |= {name: None for name in fixed if call.arguments.get(name, fixed) is None}
    for name in spec.arguments:
        if name not in arguments:
            raise MalformedReplyError(f"{place}.{name} is missing")
        if name in fixed and arguments[name] != fixed[name]:
            raise MalformedReplyError(f"{place}.{name} must be {canonical_json(fixed[name])}")
    for fault in argument_faults(tool, arguments):
        raise MalformedReplyError(f"{place}: {fault.cause}; {fault.hint}")
    return ToolCall(name=tool.name, arguments=arguments)


def _candidate(task: WriteTask, user: str, target: Target, teacher: str) -> Candidate:
    said = (Message(role="user", content=user),)
    return Candidate.of(task.scenario, said, target, teacher)
