"""Rows that a student is evaluated on: gold sets, and any file of prompts with their labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from distill import strict_json
from distill.errors import WorkflowError
from distill.files import json_lines
from distill.records import (
    TARGET_KINDS,
    Case,
    ExpectedCall,
    Json,
    Message,
    TargetKind,
    ToolCall,
    digest,
)
from distill.strict_json import JsonError
from distill.workflow.model import Tool
from distill.workflow.problems import Problems, comma_list, did_you_mean, excerpt
from distill.workflow.strict import drop_nulls
from distill.workflow.tools import make_tools, read_tool_list
from distill.workflow.values import InvalidInputError, argument_errors

FORMS = (
    'write {"user_content": "…", "tool_name": "…", "tool_arguments": {…}}'
    ' or {"messages": […], "tools": […]}'
)
_ROLES = {"developer": "system", "function": "tool"}


@dataclass(frozen=True)
class _Context:
    """What rows may name. None: anything."""

    tools: dict[str, Tool] | None
    rules: tuple[str, ...] | None


@dataclass(frozen=True)
class _Expected:
    kind: TargetKind
    calls: tuple[ExpectedCall, ...] = ()


def read_cases(
    path: Path, *, tools: Sequence[Tool] | None, rules: Collection[str] | None = None
) -> tuple[Case, ...]:
    """The rows of a JSON Lines file, in either form of FORMS; unknown keys are left alone.

    Raises InputFileError for a file that cannot be read, WorkflowError with every wrong row.
    """
    problems = Problems(path)
    known = _Context(
        {tool.name: tool for tool in tools} if tools is not None else None,
        tuple(rules) if rules is not None else None,
    )
    cases: list[Case] = []
    first: dict[str, int] = {}
    rows = 0
    for line, row in json_lines(path):
        rows += 1
        try:
            case = _case(row, known, f"{path.name}:{line}")
            _reject_repeat(case, line, first)
        except InvalidInputError as fault:
            problems.add(line, f"the row {fault.cause}", fault.hint)
        else:
            cases.append(case)
    if not rows:
        problems.add(1, "holds no rows", FORMS)
    if problems.found:
        raise WorkflowError.of(problems.found)
    return tuple(cases)


def _case(row: Any, known: _Context, place: str) -> Case:
    if not isinstance(row, dict):
        raise InvalidInputError("is not a JSON object", FORMS)
    own = _own_tools(row.get("tools"))
    offered = {tool.name: tool for tool in own} if own is not None else known.tools
    if "messages" in row:
        messages, expected = _from_messages(row, offered)
    else:
        messages, expected = _from_prompt(row, offered)
    fields: dict[str, Any] = {
        "messages": messages,
        "kind": expected.kind,
        "calls": expected.calls,
        "rule": _rule(row, known),
        "tools": tuple(tool.openai() for tool in own) if own is not None else None,
    }
    draft = Case(id="", **fields)
    return Case(id=digest(draft.model_dump(mode="json", exclude={"id"})), place=place, **fields)


def _reject_repeat(case: Case, line: int, first: dict[str, int]) -> None:
    said = " ".join(case.conversation.key.split()).casefold()
    key = digest([said, list(case.tools or ())])
    if key in first:
        raise InvalidInputError(
            f'repeats the prompt of line {first[key]}: "{excerpt(case.conversation.last_user)}"',
            "remove one of the two, so that no prompt counts twice",
        )
    first[key] = line


def _own_tools(value: Any) -> tuple[Tool, ...] | None:
    if value is None:
        return None
    problems = Problems(Path())
    try:
        tools = make_tools(read_tool_list(value, problems), problems)
    except InvalidInputError as fault:
        raise InvalidInputError(f'has a "tools" that {fault.cause}', fault.hint) from None
    if problems.found:
        raise InvalidInputError(f"offers: {problems.found[0].cause}", problems.found[0].hint)
    return tools


def _rule(row: Json, known: _Context) -> str | None:
    rule = row.get("rule")
    if rule is None:
        return None
    if not isinstance(rule, str):
        raise InvalidInputError("has a rule that is not text", "give the rule's id")
    if known.rules is not None and rule not in known.rules:
        raise InvalidInputError(
            f'names unknown rule "{rule}"', did_you_mean(rule, known.rules, "rules")
        )
    return rule


def _from_prompt(
    row: Json, offered: dict[str, Tool] | None
) -> tuple[tuple[Message, ...], _Expected]:
    prompt = row.get("user_content")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidInputError("has no user message", FORMS)
    kind = _kind(row)
    name = row.get("tool_name")
    if name == "":
        name = None
    if name is not None and not isinstance(name, str):
        raise InvalidInputError("has a tool_name that is not text", FORMS)
    messages = (Message(role="user", content=prompt),)
    if name is None:
        return messages, _Expected(_reply_kind(kind))
    if kind not in (None, "call"):
        raise InvalidInputError(
            f'names the tool "{name}" and the target "{kind}"', 'keep one, or set "target": "call"'
        )
    call = _expected_call(name, row.get("tool_arguments"), offered)
    return messages, _Expected("call", (call,))


def _kind(row: Json) -> TargetKind | None:
    kind = row.get("target")
    if kind is None:
        return None
    for known in TARGET_KINDS:
        if kind == known:
            return known
    raise InvalidInputError(
        f"has the unknown target {strict_json.encode(kind)}",
        did_you_mean(str(kind), TARGET_KINDS, "targets"),
    )


def _reply_kind(kind: TargetKind | None) -> TargetKind:
    if kind is None or kind == "call":
        raise InvalidInputError(
            "names no tool" + (", and its target is call" if kind else " and no target"),
            'add "tool_name", or "target": "ask", "answer" or "refuse" where no tool may be called',
        )
    return kind


def _expected_call(name: str, arguments: Any, offered: dict[str, Tool] | None) -> ExpectedCall:
    if offered is not None and name not in offered:
        raise InvalidInputError(
            f'names unknown tool "{name}"', did_you_mean(name, offered, "tools")
        )
    read = _arguments(arguments)
    if read is not None and offered is not None:
        read = drop_nulls(offered[name], read)
        for fault in argument_errors(offered[name], read):
            raise fault
    return ExpectedCall(name=name, arguments=read)


def _arguments(value: Any) -> Json | None:
    if value is None:
        return None
    if isinstance(value, str):
        if not value.strip():
            return {}
        try:
            value = strict_json.decode(value)
        except JsonError:
            raise InvalidInputError(
                f"has arguments that are not JSON: {excerpt(str(value))}",
                'write an object, as: "tool_arguments": {"query": "…"}',
            ) from None
    if not isinstance(value, dict):
        raise InvalidInputError(
            f"has arguments that are no JSON object: {excerpt(strict_json.encode(value))}",
            'write an object, as: "tool_arguments": {"query": "…"}',
        )
    return value


def _from_messages(
    row: Json, offered: dict[str, Tool] | None
) -> tuple[tuple[Message, ...], _Expected]:
    said = row["messages"]
    if not isinstance(said, list) or not all(isinstance(message, dict) for message in said):
        raise InvalidInputError("has messages that are no list of objects", FORMS)
    if not said or said[-1].get("role") != "assistant":  # type: ignore[union-attr]
        raise InvalidInputError(
            "does not end with the assistant's turn that is expected",
            "make the last message the assistant's, with tool_calls or content",
        )
    turns = cast("list[dict[str, Any]]", said)
    messages = tuple(_messages(turns[:-1]))
    if not any(m.role == "user" and m.content.strip() for m in messages):
        raise InvalidInputError("has no user message", FORMS)
    return messages, _expected_turn(turns[-1], _kind(row), offered)


def _expected_turn(
    turn: dict[str, Any], kind: TargetKind | None, offered: dict[str, Tool] | None
) -> _Expected:
    calls = [_function(call) for call in turn.get("tool_calls") or ()]
    if not calls and not _content(turn).strip():
        raise InvalidInputError(
            "ends with an empty turn", "give the last message tool_calls or content"
        )
    if not calls:
        return _Expected(_reply_kind(kind or "answer"))
    if kind not in (None, "call"):
        raise InvalidInputError(f'ends with a tool call and has the target "{kind}"', "keep one")
    expected = tuple(_expected_call(name, given, offered) for name, given in calls)
    return _Expected("call", expected)


def _messages(turns: list[dict[str, Any]]) -> list[Message]:
    names: dict[str, str] = {}
    messages = []
    for turn in turns:
        role = _ROLES.get(str(turn.get("role")), turn.get("role"))
        if role not in ("system", "user", "assistant", "tool"):
            roles = ("system", "user", "assistant", "tool")
            raise InvalidInputError(
                f'has a message of role "{role}"', f"use one of {comma_list(roles)}"
            )
        calls = []
        for call in turn.get("tool_calls") or ():
            name, arguments = _function(call)
            names[str(call.get("id"))] = name
            calls.append(ToolCall(name=name, arguments=_arguments(arguments) or {}))
        answering = turn.get("name") or names.get(str(turn.get("tool_call_id")))
        messages.append(
            Message(
                role=role,
                content=_content(turn),
                tool_calls=tuple(calls),
                name=str(answering) if role == "tool" and answering else None,
            )
        )
    return messages


def _content(turn: dict[str, Any]) -> str:
    content = turn.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(cast("list[str]", texts))
    raise InvalidInputError("has a message whose content is not text", 'give "content" as a string')


def _function(call: Any) -> tuple[str, Any]:
    """A tool call's name, and its arguments as they were given."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidInputError(
            "has a tool call without a name",
            'write {"function": {"name": "…", "arguments": "{…}"}}',
        )
    return function["name"], function.get("arguments")
