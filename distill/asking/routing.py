"""What a teacher is asked for a case that it is to route, and how its reply is read.

Unlike a teacher that writes, one that routes is not told the label: it has the rules, the tools and
the conversation, as a student will, and decides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from distill.asking.ask import MalformedReplyError, checked, extract_json_object
from distill.config import TeacherConfig
from distill.prompts import render_prompt
from distill.records import TARGET_KINDS, Case, Json, Message, Record, TargetKind, ToolCall
from distill.render import Parsed
from distill.teachers.base import ChatRequest, RouteTask
from distill.workflow.model import Tool, Workflow
from distill.workflow.problems import listed, start_of
from distill.workflow.strict import closed, strict_arguments, without_nulls


def route_request(case: Case, workflow: Workflow, settings: TeacherConfig) -> ChatRequest:
    """What the teacher is asked for a case: the likeliest reply, with the rules before it."""
    tools = _tools(case, workflow)
    messages = render_prompt(
        "route",
        workflow=workflow,
        tools="\n".join(_inert(tool.openai()) for tool in tools),
        conversation="\n".join(_inert(_turn(message)) for message in case.messages),
    )
    return ChatRequest(
        messages=messages,
        reply_schema=_reply_schema(workflow, tools),
        task=RouteTask(case, workflow),
        temperature=0.0,
        max_tokens=settings.max_tokens,
        seed=0,
    )


def read_route(text: str, case: Case, workflow: Workflow) -> Parsed:
    """The calls or the words that a teacher's text holds; the detail names rule and reason.

    Raises MalformedReplyError. Arguments that break the tool's schema do not make a reply
    malformed: as for a student, they are scored, and are not asked for again.
    """
    said = checked(_Route, extract_json_object(text))
    offered = {tool.name: tool for tool in _tools(case, workflow)}
    if said.rule is not None and said.rule not in workflow.by_id:
        known = listed(workflow.by_id)
        raise MalformedReplyError(f'rule: there is no "{start_of(said.rule)}"; there are {known}')
    if (said.action == "call") != bool(said.calls):
        raise MalformedReplyError(
            f"the action is {said.action} and calls has {len(said.calls)} calls"
        )
    for index, call in enumerate(said.calls):
        if call.name not in offered:
            known = listed(offered) or "none"
            raise MalformedReplyError(
                f'calls[{index}].name: no tool "{call.name}"; there are {known}'
            )
    calls = tuple(
        ToolCall(name=call.name, arguments=without_nulls(offered[call.name], call.arguments))
        for call in said.calls
    )
    decided = f"rule {said.rule}" if said.rule else "no rule"
    because = f": {start_of(said.because, 200)}" if said.because.strip() else ""
    return Parsed(calls, said.reply, detail=f"{said.action} by {decided}{because}")


class _Route(Record):
    because: str = ""
    rule: str | None = None
    action: TargetKind
    calls: list[ToolCall] = []
    reply: str = ""


def _tools(case: Case, workflow: Workflow) -> Sequence[Tool]:
    if case.tools is None:
        return workflow.tools
    return [Tool.model_validate(schema["function"]) for schema in case.tools]


def _turn(message: Message) -> Json:
    turn: Json = {"role": message.role}
    if message.name:
        turn["name"] = message.name
    if message.content or not message.tool_calls:
        turn["content"] = message.content
    if message.tool_calls:
        turn["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    return turn


def _inert(value: Json) -> str:
    """A line of JSON that can close no tag around it: `<` stands in strings alone, as an escape."""
    line = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
    # These end a line for some readers, and JSON leaves them as they are.
    for char in "\x85\u2028\u2029":
        line = line.replace(char, f"\\u{ord(char):04x}")
    return line


def _reply_schema(workflow: Workflow, tools: Sequence[Tool]) -> Json:
    """The schema of `_Route`, strict; without tools there is no call to be made.

    The order is that of a decision: the fact, the rule that it points to, what follows.
    """
    definitions: Json = {}
    rules: Json = {"type": "string", "enum": list(workflow.by_id)}
    properties: Json = {
        "because": {"type": "string", "description": "the fact that decides, in a short sentence"},
        "rule": {"anyOf": [rules, {"type": "null"}]},
        "action": {
            "type": "string",
            "enum": [kind for kind in TARGET_KINDS if tools or kind != "call"],
        },
    }
    if tools:
        wanted = [_call_schema(tool, definitions) for tool in tools]
        items: Json = wanted[0] if len(wanted) == 1 else {"anyOf": list(wanted)}
        properties["calls"] = {"type": "array", "items": items}
    properties["reply"] = {"type": "string", "description": "the words to the person, if any"}
    schema = closed(properties)
    return {**schema, "$defs": definitions} if definitions else schema


def _call_schema(tool: Tool, definitions: Json) -> Json:
    arguments = strict_arguments(tool, {}, (), definitions)
    return closed({"name": {"type": "string", "const": tool.name}, "arguments": arguments})
