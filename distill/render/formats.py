"""Tool-call formats of chat models (FunctionGemma, Hermes, Llama, plain JSON): write and parse."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distill import strict_json
from distill.records import ToolCall
from distill.render import functiongemma
from distill.render.syntax import (
    MAX_DEPTH,
    ArgumentSyntax,
    MalformedError,
    RenderError,
    TurnContent,
)
from distill.strict_json import JsonError


@dataclass(frozen=True)
class Format:
    """How tool calls are written in an assistant turn."""

    name: str
    write: Callable[[Sequence[ToolCall]], str]
    """The calls as text; raises RenderError for what the format cannot express."""
    read: Callable[[str], TurnContent]
    """Parses a complete turn without its stop token; raises MalformedError."""
    syntax: ArgumentSyntax
    """How `write` writes arguments."""
    markers: tuple[str, ...]
    """What neither a reply nor an argument may hold, as `read` would take it for something else."""
    stops: tuple[str, ...] = ()
    """Stop tokens after calls, in addition to the ordinary end of turn."""
    invalid_markers: tuple[str, ...] = ()
    """Special tokens that no valid turn contains: generation may stop at them."""


# The prompt may already have opened <think>; a call may quote </think> in an argument.
_THINKING = re.compile(r"\A\s*+(?!<tool_call>|[{\[])(?:<think>)?.*?</think>", re.DOTALL)
_JSON_PREFIX = re.compile(r"\A(?:<\|python_tag\|>|\[TOOL_CALLS\])?[\s;]*")
_CALL_START, _CALL_END = "<tool_call>", "</tool_call>"


def _write_hermes(calls: Sequence[ToolCall]) -> str:
    return "\n".join(
        f"{_CALL_START}\n{_call_json(call, 'arguments')}\n{_CALL_END}" for call in calls
    )


def _read_hermes(text: str) -> TurnContent:
    """Text before the first call is the reply; text between or after calls is malformed."""
    text = _THINKING.sub("", text).strip()
    reply, start, rest = text.partition(_CALL_START)
    if _CALL_END in reply:
        raise MalformedError(f"{_CALL_END} without {_CALL_START}")
    if not start:
        return TurnContent(reply=reply)
    return TurnContent(calls=tuple(_hermes_calls(start + rest)), reply=reply.strip())


def _hermes_calls(text: str) -> Iterator[ToolCall]:
    while text:
        if not text.startswith(_CALL_START):
            raise MalformedError(f"expected {_CALL_START} at {text[:30]!r}")
        value, rest = _decode_json(text[len(_CALL_START) :].lstrip())
        if not rest.startswith(_CALL_END):
            raise MalformedError(f"expected {_CALL_END} at {rest[:30]!r}")
        yield _tool_call(value)
        text = rest[len(_CALL_END) :].lstrip()


def _write_llama(calls: Sequence[ToolCall]) -> str:
    return "; ".join(_call_json(call, "parameters") for call in calls)


def _write_json(calls: Sequence[ToolCall]) -> str:
    return "\n".join(_call_json(call, "arguments") for call in calls)


def _read_json(text: str) -> TurnContent:
    """JSON objects with a name and arguments (or parameters), one after another or in an array."""
    text = _THINKING.sub("", text).strip()
    rest = text[_JSON_PREFIX.match(text).end() :]  # type: ignore[union-attr]
    if not rest.startswith(("{", "[")):
        return TurnContent(reply=text)
    values: list[Any] = []
    while rest:
        value, rest = _decode_json(rest)
        values += value if isinstance(value, list) else [value]
        rest = rest.lstrip("; \t\r\n")
    if not values:
        raise MalformedError("an empty list of calls")
    return TurnContent(calls=tuple(map(_tool_call, values)))


def _call_json(call: ToolCall, arguments_key: str) -> str:
    try:
        return strict_json.encode({"name": call.name, arguments_key: call.arguments})
    except (ValueError, RecursionError):
        raise RenderError(f"the arguments of {call.name} are not JSON") from None


def _decode_json(text: str) -> tuple[Any, str]:
    """The JSON value at the start of the text, and the rest without leading whitespace."""
    try:
        value, end = strict_json.decode_prefix(text)
    except JsonError as error:
        near = "" if error.offset is None else f" at {text[error.offset :][:30]!r}"
        raise MalformedError(f"not JSON: {error}{near}") from None
    if _too_deep(value):
        raise MalformedError(f"nested more than {MAX_DEPTH} deep")
    return value, text[end:].lstrip()


def _too_deep(value: Any) -> bool:
    # Level by level: a recursive walk would itself fail on what the decoder lets through.
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for parent in level for child in _children(parent)]
    return bool(level)


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _tool_call(value: Any) -> ToolCall:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise MalformedError(f"a call without a name: {str(value)[:60]}")
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments, rest = _decode_json(arguments.strip())
        if rest:
            raise MalformedError(f"more than one value in the arguments: {rest[:30]!r}")
    if not isinstance(arguments, dict):
        raise MalformedError(f"the call of {value['name']} has no object of arguments")
    if unknown := value.keys() - {"name", "arguments", "parameters", "type", "id"}:
        raise MalformedError(f"a call with an unknown field: {min(unknown)}")
    return ToolCall(name=value["name"], arguments=arguments)


def _json_text(value: Any) -> str:
    try:
        return strict_json.encode(value)
    except JsonError as error:
        raise RenderError(f"a value is not JSON: {error}") from None


_JSON_SYNTAX = ArgumentSyntax(
    comma=", ",
    colon=": ",
    quote='"',
    # What `strict_json.encode` escapes; it writes \u00XX for the other control characters.
    character=r'(?:[^"\\\x00-\x1F]|\\["\\bfnrt])',
    plain=r'[^"\\\x00-\x1F]',
    key=_json_text,
    value=_json_text,
    key_quote='"',
)
_END_OF_THOUGHT = "</think>"

FUNCTION_GEMMA = Format(
    "functiongemma",
    functiongemma.write,
    functiongemma.read,
    functiongemma.SYNTAX,
    functiongemma.MARKERS,
    functiongemma.STOPS,
    functiongemma.INVALID_MARKERS,
)
HERMES = Format(
    "hermes", _write_hermes, _read_hermes, _JSON_SYNTAX, (_CALL_START, _CALL_END, _END_OF_THOUGHT)
)
LLAMA = Format("llama", _write_llama, _read_json, _JSON_SYNTAX, (_END_OF_THOUGHT,), ("<|eom_id|>",))
JSON = Format("json", _write_json, _read_json, _JSON_SYNTAX, (_END_OF_THOUGHT,))

FORMATS = (FUNCTION_GEMMA, HERMES, LLAMA, JSON)
"""In the order in which format detection tries them on a chat template's output."""
