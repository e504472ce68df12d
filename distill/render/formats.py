"""The notations for tool calls that students know, each as a writer and a reader."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from distill.records import Json, ToolCall
from distill.render import functiongemma
from distill.render.syntax import MAX_DEPTH, MalformedError, RenderError, TurnContent


@dataclass(frozen=True)
class Format:
    """How calls stand in the assistant's text."""

    name: str
    write: Callable[[Sequence[ToolCall]], str]
    """Raises RenderError for what the notation cannot express."""
    read: Callable[[str], TurnContent]
    """Reads a whole turn, without its end marker; raises MalformedError."""
    stops: tuple[str, ...] = ()
    """Tokens that may end a turn of calls, beside the ordinary end of a turn."""
    invalid_markers: tuple[str, ...] = ()
    """Tokens after which `read` is malformed whatever follows: no need to generate on."""


# A thought may have been opened by the prompt; a call may quote the marker that closes one.
_THOUGHT = re.compile(r"\A\s*(?!<tool_call>|[{\[])(?:<think>)?.*?</think>", re.DOTALL)
_JSON_PREFIX = re.compile(r"\A(?:<\|python_tag\|>|\[TOOL_CALLS\])?[\s;]*")
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


def _write_tagged(calls: Sequence[ToolCall]) -> str:
    return "\n".join(f"{_OPEN}\n{_dump(call, 'arguments')}\n{_CLOSE}" for call in calls)


def _read_tagged(text: str) -> TurnContent:
    """Words before the first call are the reply; none may stand between or after calls."""
    text = _THOUGHT.sub("", text).strip()
    words, opened, rest = text.partition(_OPEN)
    if _CLOSE in words:
        raise MalformedError(f"{_CLOSE} without {_OPEN}")
    if not opened:
        return TurnContent(reply=words)
    return TurnContent(calls=tuple(_tagged(_OPEN + rest)), reply=words.strip())


def _tagged(text: str) -> Iterator[ToolCall]:
    while text:
        if not text.startswith(_OPEN):
            raise MalformedError(f"expected {_OPEN} at {text[:30]!r}")
        value, rest = _decode(text[len(_OPEN) :].lstrip())
        if not rest.startswith(_CLOSE):
            raise MalformedError(f"expected {_CLOSE} at {rest[:30]!r}")
        yield _call(value)
        text = rest[len(_CLOSE) :].lstrip()


def _write_llama(calls: Sequence[ToolCall]) -> str:
    return "; ".join(_dump(call, "parameters") for call in calls)


def _write_json(calls: Sequence[ToolCall]) -> str:
    return "\n".join(_dump(call, "arguments") for call in calls)


def _read_json(text: str) -> TurnContent:
    """Objects with a name and arguments (or parameters), in a row or in an array."""
    text = _THOUGHT.sub("", text).strip()
    rest = text[_JSON_PREFIX.match(text).end() :]  # type: ignore[union-attr]
    if not rest.startswith(("{", "[")):
        return TurnContent(reply=text)
    values: list[Any] = []
    while rest:
        value, rest = _decode(rest)
        values += value if isinstance(value, list) else [value]
        rest = rest.lstrip("; \t\r\n")
    if not values:
        raise MalformedError("an empty list of calls")
    return TurnContent(calls=tuple(map(_call, values)))


def _dump(call: ToolCall, key: str) -> str:
    try:
        return json.dumps(
            {"name": call.name, key: call.arguments}, ensure_ascii=False, allow_nan=False
        )
    except (ValueError, RecursionError):
        raise RenderError(f"the arguments of {call.name} are not JSON") from None


def _decode(text: str) -> tuple[Any, str]:
    """The JSON value that the text starts with, and what follows it without leading blanks."""
    decoder = json.JSONDecoder(
        parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_twins
    )
    try:
        value, end = decoder.raw_decode(text)
    except json.JSONDecodeError as error:
        raise MalformedError(f"not JSON: {error.msg} at {text[error.pos :][:30]!r}") from None
    except RecursionError:
        raise MalformedError(f"nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise MalformedError(str(error)) from None
    if _too_deep(value):
        raise MalformedError(f"nested more than {MAX_DEPTH} deep")
    return value, text[end:].lstrip()


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise MalformedError(f"the number {digits} is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise MalformedError(f"{name} is not a JSON number")


def _no_twins(pairs: list[tuple[str, Any]]) -> Json:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise MalformedError("an argument is given twice")
    return fields


def _call(value: Any) -> ToolCall:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise MalformedError(f"a call without a name: {str(value)[:60]}")
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments, rest = _decode(arguments.strip())
        if rest:
            raise MalformedError(f"more than one value in the arguments: {rest[:30]!r}")
    if not isinstance(arguments, dict):
        raise MalformedError(f"the call of {value['name']} has no object of arguments")
    if unknown := value.keys() - {"name", "arguments", "parameters", "type", "id"}:
        raise MalformedError(f"a call with an unknown field: {min(unknown)}")
    return ToolCall(name=value["name"], arguments=arguments)


FUNCTION_GEMMA = Format(
    "functiongemma",
    functiongemma.write,
    functiongemma.read,
    functiongemma.STOPS,
    functiongemma.INVALID_MARKERS,
)
HERMES = Format("hermes", _write_tagged, _read_tagged)
LLAMA = Format("llama", _write_llama, _read_json, ("<|eom_id|>",))
JSON = Format("json", _write_json, _read_json)

FORMATS = (FUNCTION_GEMMA, HERMES, LLAMA, JSON)
"""In the order in which a chat template is tried against them."""
