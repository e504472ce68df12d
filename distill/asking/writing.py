"""The request to write a conversation for a scenario, and the parser of its reply.

The label is the plan's. A reply adds the user's message and, for a call, the open arguments; the
tools, their order and the arguments that the rule states are fixed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from distill import strict_json
from distill.asking.ask import MalformedReplyError, extract_json_object, validate_record
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
from distill.workflow.model import CallSpec, Workflow
from distill.workflow.schema import json_equal
from distill.workflow.strict import closed_object, drop_nulls, strict_call_schema
from distill.workflow.values import argument_errors, slots_in

# Few-shot examples in one prompt.
MAX_EXAMPLES = 4


def write_request(scenario: Scenario, workflow: Workflow, settings: TeacherConfig) -> ChatRequest:
    """The request to write a conversation for a scenario."""
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
        examples=random.Random(scenario.seed).sample(
            rule.examples, min(MAX_EXAMPLES, len(rule.examples))
        ),
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
    """One request for several scenarios of one rule; `split_batch` splits its reply."""
    tasks = tuple(each.task for each in requests if isinstance(each.task, WriteTask))
    assignments = [each.messages[-1].content for each in requests]
    return replace(
        requests[0],
        messages=(*requests[0].messages[:-1], *render_prompt("batch", assignments=assignments)),
        reply_schema=_batch_schema([each.reply_schema for each in requests]),
        task=BatchTask(tasks),
        max_tokens=sum(each.max_tokens for each in requests),
    )


def split_batch(reply: ChatReply, count: int) -> list[ChatReply]:
    """The replies to the requests of a batch, in order; a missing one has an empty text.

    Each is used as if it had been asked for alone: a malformed one is asked for again. Their
    usage adds up to that of the batch.
    """
    try:
        value = extract_json_object(reply.text)
    except MalformedReplyError:
        value = {}
    parts = [value.get(str(number)) for number in range(1, count + 1)]
    texts = ["" if part is None else strict_json.encode(part) for part in parts]
    usages = _split_usage(reply.usage, count)
    return [
        reply.model_copy(update={"text": text, "usage": usage})
        for text, usage in zip(texts, usages, strict=True)
    ]


def reply_schema(task: WriteTask) -> Json:
    """The JSON Schema of a reply, in the subset that strict structured output supports.

    `{"user", "calls"}` where the target is a call, else `{"user", "reply"}`. Strict mode has no
    `prefixItems`: several calls are an array of any of them, and `read_reply` checks their order.
    """
    user: Json = {"type": "string", "description": "the person's message"}
    if task.scenario.target != "call":
        return closed_object(
            {"user": user, "reply": {"type": "string", "description": "the answer"}}
        )
    definitions: Json = {}
    expected = [
        strict_call_schema(
            task.workflow.by_name[call.tool], definitions, _constant_arguments(call), call.arguments
        )
        for call in task.rule.then.calls
    ]
    distinct = [schema for index, schema in enumerate(expected) if schema not in expected[:index]]
    calls: Json = {
        "type": "array",
        "items": distinct[0] if len(distinct) == 1 else {"anyOf": list(distinct)},
        "minItems": len(expected),
        "maxItems": len(expected),
    }
    return closed_object({"user": user, "calls": calls}, definitions)


def read_reply(text: str, task: WriteTask, teacher: str) -> Candidate:
    """The candidate in a teacher's text. Raises MalformedReplyError.

    A code fence or prose around the one JSON object is ignored; nothing else is.
    """
    value = extract_json_object(text)
    kind = task.scenario.target
    reply: _CallReply | _TextReply
    if kind == "call":
        reply = validate_record(_CallReply, value)
        target = Target(kind=kind, calls=tuple(_checked_calls(reply.calls, task)))
    else:
        reply = validate_record(_TextReply, value)
        target = Target(kind=kind, reply=reply.reply)
    messages = (Message(role="user", content=reply.user),)
    return Candidate.of(task.scenario, messages, target, teacher)


class _CallReply(Record):
    user: str
    calls: list[ToolCall]


class _TextReply(Record):
    user: str
    reply: str


def _batch_schema(schemas: Sequence[Json]) -> Json:
    definitions: Json = {}
    parts: Json = {}
    for number, schema in enumerate(schemas, start=1):
        parts[str(number)] = {key: value for key, value in schema.items() if key != "$defs"}
        found = schema.get("$defs")
        definitions |= found if isinstance(found, dict) else {}
    return closed_object(parts, definitions)


def _split_usage(usage: Usage, count: int) -> list[Usage]:
    """`usage` in `count` parts of whole tokens that add up to it."""

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


def _constant_arguments(call: CallSpec) -> Json:
    """The arguments without a `{topic}` or `{slot}` that the teacher fills."""
    return {name: value for name, value in call.arguments.items() if not [*slots_in(value)]}


def _checked_calls(calls: list[ToolCall], task: WriteTask) -> Iterable[ToolCall]:
    specs = task.rule.then.calls
    expected, found = [spec.tool for spec in specs], [call.name for call in calls]
    if found != expected:
        raise MalformedReplyError(
            f"calls must be of {', '.join(expected)}, in this order; they are of "
            f"{', '.join(found) or 'nothing'}"
        )
    for index, (spec, call) in enumerate(zip(specs, calls, strict=True)):
        yield _checked_call(spec, call, task, f"calls[{index}].arguments")


def _checked_call(spec: CallSpec, call: ToolCall, task: WriteTask, place: str) -> ToolCall:
    tool = task.workflow.by_name[spec.tool]
    constants = _constant_arguments(spec)
    arguments = drop_nulls(tool, call.arguments)
    # A null that the rule itself states is a value.
    arguments |= {name: None for name in constants if call.arguments.get(name, constants) is None}
    for name in spec.arguments:
        if name not in arguments:
            raise MalformedReplyError(f"{place}.{name} is missing")
        if name in constants and not json_equal(arguments[name], constants[name]):
            raise MalformedReplyError(f"{place}.{name} must be {canonical_json(constants[name])}")
    for fault in argument_errors(tool, arguments):
        raise MalformedReplyError(f"{place}: {fault.cause}; {fault.hint}")
    return ToolCall(name=tool.name, arguments=arguments)
