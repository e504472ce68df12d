"""The turns of a conversation, as chat APIs and their exports write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from distill import strict_json
from distill.records import ExpectedCall, Json, Message, ToolCall
from distill.strict_json import JsonError
from distill.workflow.given import decoded, is_absent, require_known_keys, require_readable
from distill.workflow.markup import CALL_FORM, calls_in_text
from distill.workflow.model import Tool
from distill.workflow.problems import comma_list, did_you_mean, excerpt
from distill.workflow.strict import drop_nulls
from distill.workflow.values import InvalidInputError, argument_errors

Offered = Mapping[str, Tool] | None
"""Tools by name; None where any may be named."""
Role = Literal["system", "user", "assistant", "tool"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_WRITE_CALLS = f"write {CALL_FORM}"
_KEYS = ("role", "content", "tool_calls", "function_call", "tool_call_id", "name")
# What other APIs put in a turn: said to be wrong, as the turn would be read without it.
_FOREIGN = {
    "refusal": 'write it as content, and "target": "refuse" in the row',
    "audio": "write what was said as content",
    "parts": "write their text as content",
    "text": "write it as content",
    "tool_call": _WRITE_CALLS,
    "function_calls": _WRITE_CALLS,
    "tool_use": _WRITE_CALLS,
}
# Around a tool's result, in the exports of Hermes and Qwen.
_RESULT = ("<tool_response>", "</tool_response>")
_TEXT_PARTS = (None, "text", "input_text", "output_text")
# Other names of a call's arguments.
_ARGUMENTS = ("args", "argument", "input", "inputs", "kwargs", "parameters", "params")
_ARGUMENTS_FORM = 'write an object, as: "arguments": {"query": "…"}'


@dataclass(frozen=True)
class Turn:
    """A turn as it was read."""

    role: Role
    content: str
    calls: tuple[ExpectedCall, ...] = ()
    ids: tuple[str | None, ...] = ()
    """Of each call, where it has one."""
    answers: str | None = None
    """On a tool's turn, the id of the call that it answers."""
    name: str | None = None
    """On a tool's turn, the tool."""


def read_turns(said: Sequence[Any], offered: Offered) -> list[Turn]:
    """Each turn of a conversation. Raises InvalidInputError."""
    return [_turn(turn, offered) for turn in said]


def context(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """The turns as messages. Raises InvalidInputError where a tool answers no call."""
    messages: list[Message] = []
    pending: list[tuple[str | None, str]] = []
    for turn in turns:
        name = None
        if turn.role == "tool":
            name = _answered(turn, pending)
        elif pending and turn.role == "user" and turn.content.lstrip().startswith(_RESULT[0]):
            raise InvalidInputError(
                "has the result of a call in a message of the user", 'give it the role "tool"'
            )
        elif turn.role != "system":
            pending = [(given, c.name) for given, c in zip(turn.ids, turn.calls, strict=True)]
        calls = (ToolCall(name=call.name, arguments=call.arguments or {}) for call in turn.calls)
        messages.append(
            Message(role=turn.role, content=turn.content, tool_calls=tuple(calls), name=name)
        )
    return tuple(messages)


def expected_call(name: str, arguments: Any, offered: Offered) -> ExpectedCall:
    """A call with its arguments as they are meant: an object or its JSON; None where not given.

    A null for an optional argument is one left out, as in a teacher's reply; so is a null for one
    that the tool has not, which comes from tables that have one column for all rows' arguments.
    """
    if offered is not None and name not in offered:
        raise InvalidInputError(
            f'names unknown tool "{name}"', did_you_mean(name, offered, "tools")
        )
    read = _arguments(arguments)
    require_readable(read)
    if read is not None and offered is not None:
        read = drop_nulls(offered[name], read)
    return ExpectedCall(name=name, arguments=read)


def require_valid(call: ExpectedCall, offered: Offered) -> None:
    """Raise InvalidInputError unless the call's arguments, where known, meet the tool's schema."""
    if call.arguments is not None and offered is not None:
        for fault in argument_errors(offered[call.name], call.arguments):
            raise fault


def _turn(turn: Any, offered: Offered) -> Turn:
    if not isinstance(turn, dict):
        raise InvalidInputError(
            "has messages that are no list of objects", 'write {"role": "user", "content": "…"}'
        )
    given = {key: value for key, value in turn.items() if not is_absent(value)}
    role = _role(given.get("role"))
    require_known_keys(given, _KEYS, _FOREIGN, "a message")
    content = _content(given.get("content"))
    made = [_function(call) for call in _calls(given)]
    if made and role != "assistant":
        raise InvalidInputError(
            f"has a message of the {role} with a tool call", "calls are the assistant's"
        )
    calls = [expected_call(name, arguments, offered) for _, name, arguments in made]
    ids = [identity for identity, _, _ in made]
    if role == "assistant" and not made:
        found = calls_in_text(content, None if offered is None else offered.keys())
        calls = [expected_call(call.name, call.arguments, offered) for call in found]
        ids = [None for _ in calls]
        content = "" if calls else content
    if not calls and not content.strip() and role in ("assistant", "user"):
        raise InvalidInputError(
            f"has an empty turn of the {role}",
            "give it content" + (f" or {CALL_FORM}" if role == "assistant" else ""),
        )
    if role == "tool" and content.strip().startswith(_RESULT[0]):
        content = content.strip().removeprefix(_RESULT[0]).removesuffix(_RESULT[1]).strip()
    answers, name = (given.get(key) if role == "tool" else None for key in ("tool_call_id", "name"))
    return Turn(
        role=role,
        content=content,
        calls=tuple(calls),
        ids=tuple(ids),
        answers=None if answers is None else str(answers),
        name=None if name is None else str(name),
    )


def _role(value: Any) -> Role:
    role = _ROLES.get(value) if isinstance(value, str) else None
    if role is None:
        raise InvalidInputError(
            f"has a message of role {strict_json.encode(value)}",
            f"use one of {comma_list(dict.fromkeys(_ROLES.values()))}",
        )
    return role


def _answered(turn: Turn, pending: list[tuple[str | None, str]]) -> str:
    """The tool whose call a tool's turn answers, which is then no longer pending."""
    for at, (identity, name) in enumerate(pending):
        by_id = turn.answers is not None and identity is not None
        if by_id and turn.answers != identity:
            continue
        if turn.name is not None and turn.name != name:
            continue
        del pending[at]
        return name
    which = " and ".join(
        f'{label} "{excerpt(value)}"'
        for label, value in (("tool_call_id", turn.answers), ("name", turn.name))
        if value is not None
    )
    raise InvalidInputError(
        f"has a tool's message{f' of {which}' if which else ''} that answers no call",
        "put it behind the assistant's turn whose tool_calls it answers, with that call's id",
    )


def _content(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        texts = [part.get("text") for part in parts if part.get("type") in _TEXT_PARTS]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(cast("list[str]", texts))
    raise InvalidInputError(
        "has a message whose content is not text",
        f'give "content" as a string; where it holds a call, write {CALL_FORM} beside it',
    )


def _calls(given: Mapping[str, Any]) -> list[Any]:
    """The calls of a turn, by `tool_calls` or by the older `function_call`."""
    found = decoded(given.get("tool_calls"), "tool_calls", _WRITE_CALLS)
    legacy = decoded(given.get("function_call"), "a function_call", _WRITE_CALLS)
    if found is not None and not isinstance(found, list):
        raise InvalidInputError(
            f"has tool_calls that are no list: {excerpt(strict_json.encode(found))}", _WRITE_CALLS
        )
    calls = [call for call in found or () if not is_absent(call)]
    if legacy is not None and calls:
        raise InvalidInputError(
            "has both tool_calls and function_call in a message", "keep tool_calls"
        )
    return calls if legacy is None else [legacy]


def _function(call: Any) -> tuple[str | None, str, Any]:
    """A tool call's id, name, and arguments as they were given."""
    call = decoded(call, "tool_calls", _WRITE_CALLS)
    given = {k: v for k, v in call.items() if v is not None} if isinstance(call, dict) else {}
    function = given.get("function", given)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise InvalidInputError("has a tool call without a name", _WRITE_CALLS)
    for key in _ARGUMENTS:
        if not is_absent(function.get(key)):
            raise InvalidInputError(
                f'has a tool call with the key "{key}"', 'name its arguments "arguments"'
            )
    identity = given.get("id")
    return None if identity is None else str(identity), name, function.get("arguments")


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
                f"has arguments that are not JSON: {excerpt(str(value))}", _ARGUMENTS_FORM
            ) from None
    if not isinstance(value, dict):
        raise InvalidInputError(
            f"has arguments that are no JSON object: {excerpt(strict_json.encode(value))}",
            _ARGUMENTS_FORM,
        )
    return value
