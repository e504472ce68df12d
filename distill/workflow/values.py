"""Argument values: typed by the tool's JSON Schema, and checked against it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from unicodedata import normalize

from jsonschema.exceptions import ValidationError

from distill import strict_json
from distill.records import Json
from distill.strict_json import JsonError
from distill.workflow.model import Tool
from distill.workflow.problems import did_you_mean, truncate
from distill.workflow.schema import path_text, schema_of
from distill.workflow.wanted import way_out

# Characters of a value that a message quotes.
MAX_QUOTED = 200

_SLOT = re.compile(r"\{([A-Za-z_]\w*)\}")


class InvalidInputError(Exception):
    """A mistake in what a user wrote: a predicate ("calls no tool") and a hint."""

    def __init__(self, cause: str, hint: str) -> None:
        self.cause = cause
        self.hint = hint
        super().__init__(cause)


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
        return _composed(tool, name, text)
    return value if is_valid_argument(tool, name, value) else text


def _composed(tool: Tool, name: str, text: str) -> str:
    """`text`; where it differs from a listed value by the form of its accents alone, that value."""
    schema = schema_of(tool)
    listed = schema.stated_values(schema.properties.get(name, {}))
    same = (
        v for v in listed if isinstance(v, str) and normalize("NFC", v) == normalize("NFC", text)
    )
    return next(same, text)


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
    properties = schema_of(tool).properties
    hint = did_you_mean(name, properties, f"arguments of {tool.name}")
    for whole, schema in properties.items():
        inner = schema.get("properties") if isinstance(schema, Mapping) else None
        if isinstance(inner, Mapping) and name in inner:
            hint = f'it is a part of "{whole}": write `{whole}` = {{"{name}": …}}'
    return InvalidInputError(f'gives {tool.name} the unknown argument "{name}"', hint)


def as_argument(tool: Tool, name: str, value: str) -> str:
    """How a value that the schema of the argument lists, at whatever depth, is written for it."""
    if is_valid_argument(tool, name, value):
        return value
    return strict_json.encode([value]) if is_valid_argument(tool, name, [value]) else "…"


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
    if (number := _number(error)) is not None:  # text that is a number: is it wrong as one?
        refused = schema_of(tool).errors({str(error.path[0]): number}, partial=True)
        if refused:
            yield from (inner for each in refused for inner in _input_errors(tool, each))
            return
    subject = f'"{path_text(error.path)}"' if error.path else "the arguments"
    yield InvalidInputError(
        f"has a wrong value for {subject} of {tool.name}: {truncate(error.message, MAX_QUOTED)}",
        way_out(error),
    )


def _number(error: ValidationError) -> int | float | None:
    text = error.instance
    if error.validator != "type" or len(error.path) != 1 or not isinstance(text, str):
        return None
    try:
        number = strict_json.decode(text)
    except JsonError:
        return None
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return number if is_number else None
