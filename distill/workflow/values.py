"""Argument values: written by hand in rules.md, checked against the tool's JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jsonschema.exceptions import ValidationError

from distill import strict_json
from distill.records import Json
from distill.strict_json import JsonError
from distill.workflow.model import Tool
from distill.workflow.problems import did_you_mean, truncate
from distill.workflow.schema import path_text, schema_of

# Characters of a value that a message quotes.
MAX_QUOTED = 200

_SLOT = re.compile(r"\{([A-Za-z_]\w*)\}")
_PAIR = re.compile(r"`?([A-Za-z_][\w.-]*)`?\s*[:=]\s*")


class InvalidInputError(Exception):
    """A mistake in what a user wrote: a predicate ("calls no tool") and a hint."""

    def __init__(self, cause: str, hint: str) -> None:
        self.cause = cause
        self.hint = hint
        super().__init__(cause)


class ParsedValue(NamedTuple):
    """A parsed value and its end offset."""

    value: Any
    end: int


def slots_in(value: Any) -> Iterator[str]:
    """The names in `{name}` templates anywhere in a JSON value."""
    if isinstance(value, str):
        yield from _SLOT.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from slots_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from slots_in(item)


def sole_text_argument(tool: Tool) -> str | None:
    """The tool's one required argument, if it takes a string: it needs no name in an example."""
    names = schema_of(tool).required
    if len(names) == 1 and is_valid_argument(tool, names[0], "text"):
        return names[0]
    return None


def typed_argument(tool: Tool, name: str, text: str) -> Any:
    """`text` as the argument's schema wants it: `3` is a number where a number is valid.

    Text that is no JSON value, or not a valid one, stays the string that it is.
    """
    written = text.lower() if text.lower() in ("true", "false", "null") else text
    try:
        value = strict_json.decode(written)
    except JsonError:
        return text
    return value if is_valid_argument(tool, name, value) else text


def is_valid_argument(tool: Tool, name: str, value: Any) -> bool:
    """Whether the argument `name` alone may have this value."""
    return not schema_of(tool).errors({name: value}, partial=True)


def argument_errors(
    tool: Tool, arguments: Json, *, partial: bool = False
) -> list[InvalidInputError]:
    """What is wrong with a call's arguments; `partial` lets required ones be missing."""
    found = schema_of(tool).errors(arguments, partial=partial)
    return [error for each in found for error in _input_errors(tool, each)]


def unknown_argument(tool: Tool, name: str) -> InvalidInputError:
    hint = did_you_mean(name, schema_of(tool).properties, f"arguments of {tool.name}")
    return InvalidInputError(f'gives {tool.name} the unknown argument "{name}"', hint)


def read_arguments(text: str, tool: Tool) -> Json:
    """Arguments as an example gives them: `name: value, …`, a JSON object, or the sole text.

    Raises InvalidInputError.
    """
    text = text.strip()
    if text.startswith("{") and not _SLOT.match(text):
        return _object(text)
    pair = _PAIR.match(text)
    sole = sole_text_argument(tool)
    if pair and (pair[1] in schema_of(tool).properties or not _is_plain_text(text, sole)):
        return _pairs(text, tool)
    if sole is None:
        schema = schema_of(tool)
        names = ", ".join(f"{name}: …" for name in schema.required or schema.properties)
        raise InvalidInputError(
            f'does not say which argument of {tool.name} "{text}" is',
            f"write each with its name, as: {names}" if names else "remove it: there are none",
        )
    return {sole: scan_value(text, 0, tool, sole).value if text.startswith('"') else text}


def scan_value(text: str, start: int, tool: Tool, name: str, stop: str = r"\Z") -> ParsedValue:
    """One value from `start` on: JSON, `code`, or bare words up to `stop`."""
    if text[start : start + 1] in ("`", "“"):
        close = text.find("`" if text[start] == "`" else "”", start + 1)
        if close > 0:
            inner = text[start + 1 : close]
            value = inner if text[start] == "“" else scan_value(inner, 0, tool, name).value
            return ParsedValue(value, close + 1)
    if text[start : start + 1] in ('"', "[", "{") and not _SLOT.match(text, start):
        return _json_value(text, start)
    end = re.compile(stop).search(text, start)
    bare = text[start : end.start() if end else len(text)]
    return ParsedValue(typed_argument(tool, name, bare.strip()), start + len(bare))


def _json_value(text: str, start: int) -> ParsedValue:
    try:
        return ParsedValue(*strict_json.decode_prefix(text, start))
    except JsonError:
        raise InvalidInputError(
            f"has a value that is not complete JSON: {truncate(text[start:], MAX_QUOTED)}",
            'close its quotes and brackets; inside of quotes write \\" and \\\\',
        ) from None


def _object(text: str) -> Json:
    value, end = _json_value(text, 0)
    if text[end:].strip():
        raise InvalidInputError(
            f'goes on with "{text[end:].strip()}" after the arguments',
            "keep one JSON object after the arrow",
        )
    return dict(value)


def _pairs(text: str, tool: Tool) -> Json:
    arguments: Json = {}
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            raise InvalidInputError(
                f'has "{text[position:]}" where an argument\'s name should be',
                'separate arguments by commas, as: name: "value", other: 3',
            )
        name = pair[1]
        if not schema_of(tool).accepts_name(name):
            raise unknown_argument(tool, name)
        if name in arguments:
            raise InvalidInputError(f'gives "{name}" twice', "keep one of them")
        names = "|".join(map(re.escape, schema_of(tool).properties))
        stop = rf"\s*[,;]\s*`?(?:{names})`?\s*[:=]|\s*[,;]?\s*\Z"
        arguments[name], position = scan_value(text, pair.end(), tool, name, stop)
        position = _after_separator(text, position)
    return arguments


def _after_separator(text: str, position: int) -> int:
    rest = re.compile(r"\s*(?:[,;]\s*|\Z)").match(text, position)
    if rest is None:
        raise InvalidInputError(
            f'goes on with "{text[position:].strip()}" after a complete value',
            'separate arguments by commas, as: name: "value", other: 3',
        )
    return rest.end()


def _is_plain_text(text: str, sole: str | None) -> bool:
    # "query: x" with a name that is no argument is a slip; "10:30 meeting" is not.
    return sole is not None and not re.match(r"`?[A-Za-z_][\w.-]*`?\s*[:=](?:\s|$)", text)


def _input_errors(tool: Tool, error: ValidationError) -> Iterator[InvalidInputError]:
    if error.validator == "unevaluatedProperties" and isinstance(error.validator_value, list):
        for name in error.validator_value:
            if error.path:
                cause = f'gives {tool.name} the unknown argument "{path_text((*error.path, name))}"'
                yield InvalidInputError(cause, "take it out, or name it in the tool's schema")
            else:
                yield unknown_argument(tool, name)
        return
    if error.validator == "required" and not error.path:
        # One error for each missing name, which its message alone tells.
        names: Any = error.validator_value
        missing = next(name for name in names if error.message.startswith(f"{name!r} is "))
        cause = f'leaves out "{missing}", which {tool.name} needs'
        yield InvalidInputError(cause, f'add it, as: {missing}: "…"')
        return
    subject = f'"{path_text(error.path)}"' if error.path else "the arguments"
    yield InvalidInputError(
        f"has a wrong value for {subject} of {tool.name}: {truncate(error.message, MAX_QUOTED)}",
        f"the schema wants {_wanted(error.schema)}",
    )


def _wanted(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return "nothing here"
    keep = {key: value for key, value in schema.items() if key not in ("description", "title")}
    return truncate(strict_json.encode(keep), MAX_QUOTED)
