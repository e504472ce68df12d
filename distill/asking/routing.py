"""The request to route a case, and the parser of its reply.

Unlike a teacher that writes, one that routes is not given the label: it has the rules, the tools
and the conversation, as a student will, and decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from distill import strict_json
from distill.asking.ask import MalformedReplyError, extract_json_object, validate_record
from distill.config import TeacherConfig
from distill.prompts import render_prompt
from distill.records import TARGET_KINDS, Case, Json, Message, Record, TargetKind, ToolCall
from distill.render import Parsed
from distill.teachers.base import ChatRequest, RouteTask
from distill.workflow.model import Tool, Workflow
from distill.workflow.problems import comma_list, excerpt
from distill.workflow.strict import closed_object, drop_nulls, strict_call_schema


def route_request(case: Case, workflow: Workflow, settings: TeacherConfig) -> ChatRequest:
    """The request to route a case by the workflow's rules, at temperature 0."""
    tools = _tools(case, workflow)
    messages = render_prompt(
        "route",
        workflow=workflow,
        tools="\n".join(_tag_safe_json(tool.openai()) for tool in tools),
        conversation="\n".join(_tag_safe_json(_message_json(message)) for message in case.messages),
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
    """The calls or the text of a teacher's reply; `detail` names the rule and the reason.

    Raises MalformedReplyError. Arguments that do not meet the tool's schema do not make a reply
    malformed: as a student's, they are scored, and not asked for again.
    """
    route = validate_record(_Route, extract_json_object(text))
    offered = {tool.name: tool for tool in _tools(case, workflow)}
    if route.rule is not None and route.rule not in workflow.by_id:
        known = comma_list(workflow.by_id)
        raise MalformedReplyError(f'rule: there is no "{excerpt(route.rule)}"; there are {known}')
    if (route.action == "call") != bool(route.calls):
        raise MalformedReplyError(
            f"the action is {route.action} and calls has {len(route.calls)} calls"
        )
    for index, call in enumerate(route.calls):
        if call.name not in offered:
            known = comma_list(offered) or "none"
            raise MalformedReplyError(
                f'calls[{index}].name: no tool "{call.name}"; there are {known}'
            )
    calls = tuple(
        ToolCall(name=call.name, arguments=drop_nulls(offered[call.name], call.arguments))
        for call in route.calls
    )
    decided = f"rule {route.rule}" if route.rule else "no rule"
    because = f": {excerpt(route.because, 200)}" if route.because.strip() else ""
    return Parsed(calls, route.reply, detail=f"{route.action} by {decided}{because}")


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


def _message_json(message: Message) -> Json:
    turn: Json = {"role": message.role}
    if message.name:
        turn["name"] = message.name
    if message.content or not message.tool_calls:
        turn["content"] = message.content
    if message.tool_calls:
        turn["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    return turn


def _tag_safe_json(value: Json) -> str:
    """One line of JSON that cannot close a tag of the prompt: `<` is escaped."""
    line = strict_json.encode(value).replace("<", "\\u003c")
    # Unicode line ends, which JSON does not escape.
    for char in "\x85\u2028\u2029":
        line = line.replace(char, f"\\u{ord(char):04x}")
    return line


def _reply_schema(workflow: Workflow, tools: Sequence[Tool]) -> Json:
    """The schema of `_Route` in strict mode, without `calls` where there are no tools.

    Models write properties in this order, and so decide in it: the fact, the rule, what follows.
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
        calls = [strict_call_schema(tool, definitions) for tool in tools]
        items: Json = calls[0] if len(calls) == 1 else {"anyOf": list(calls)}
        properties["calls"] = {"type": "array", "items": items}
    properties["reply"] = {"type": "string", "description": "the words to the person, if any"}
    return closed_object(properties, definitions)
