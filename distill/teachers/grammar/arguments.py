"""Fills the arguments of a rule's calls from its templates, its slots, or the tool's schema."""

from __future__ import annotations

import re
from collections.abc import Iterable
from random import Random
from typing import Any, TypeVar

from pydantic import JsonValue

from distill import strict_json
from distill.errors import TeacherError
from distill.records import Json
from distill.strict_json import JsonError
from distill.teachers.base import WriteTask
from distill.teachers.grammar.surface import Span
from distill.workflow.fillable import argument_schemas, is_free_text
from distill.workflow.model import CallSpec, Rule
from distill.workflow.schema import Node, schema_of

Value = TypeVar("Value", bound=JsonValue)
_FIELD = re.compile(r"\{([\w-]+)\}")


def said_in(text: str, values: Iterable[Value]) -> list[Value]:
    """The values that a text says, in its order; none that is a part of another there."""
    by_text = {str(value).casefold(): value for value in values}
    longest_first = sorted((re.escape(key) for key in by_text if key), key=len, reverse=True)
    pattern = rf"(?<!\w)(?:{'|'.join(longest_first) or '(?!)'})(?!\w)"
    found = re.findall(pattern, text.casefold())
    return [by_text[key] for key in dict.fromkeys(found)]


class SlotValues:
    """A rule's slot lists, and the values drawn from each for this request."""

    def __init__(self, rule: Rule, rng: Random) -> None:
        self._rule, self._rng = rule, rng
        self._drawn: dict[str, list[str]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._rule.words.slots

    def fill(self, template: str) -> str:
        """The template with a value for each `{slot}`; a slot named twice gets two values."""
        return _FIELD.sub(lambda field: self._draw(field[1]), template)

    def value(self, name: str, text: str) -> str:
        """The first value drawn from the slot; else one that `text` says, or one drawn now."""
        if name not in self._drawn and (said := said_in(text, self._rule.words.slots[name])):
            self._drawn[name] = [said[0]]
        return self._drawn[name][0] if name in self._drawn else self._draw(name)

    def _draw(self, name: str) -> str:
        values = self._rule.words.slots.get(name, ())
        if not values:
            raise TeacherError(
                f'the words use {{{name}}}, and "{name}" has no values',
                place=f'rule "{self._rule.id}"',
                hint=f'add "- {name}: first, second, third" under Slots in its words',
            )
        drawn = self._drawn.setdefault(name, [])
        drawn.append(self._rng.choice([v for v in values if v not in drawn] or values))
        return drawn[-1]


class ArgumentFiller:
    """Fills the calls of one request.

    text: the request so far
    mentions: what the request must also say for its arguments to be grounded in it
    said: the values that it says already
    """

    def __init__(
        self, task: WriteTask, slots: SlotValues, text: str, topic: str, rng: Random
    ) -> None:
        self._task, self._slots, self._rng = task, slots, rng
        self._text, self._topic = text, topic
        self.mentions: list[Span] = []
        self.said: list[str] = []

    def calls(self, given: Json) -> list[JsonValue]:
        """The rule's calls; `given`, the arguments of an example, belong to the first."""
        specs = self._task.rule.then.calls
        return [
            {"name": spec.tool, "arguments": self._arguments(spec, {} if number else given)}
            for number, spec in enumerate(specs)
        ]

    def fill(self, template: str) -> str:
        """A template with `{topic}` and slots filled; other braces stay as they are."""
        return _FIELD.sub(lambda field: self._field(field[1], field[0]), template)

    def _field(self, name: str, as_written: str) -> str:
        if name == "topic":
            return self._topic
        return self._slots.value(name, self._text) if name in self._slots else as_written

    def _arguments(self, spec: CallSpec, given: Json) -> Json:
        tool = self._task.workflow.by_name[spec.tool]
        schemas = argument_schemas(tool)
        stated = {
            name: self._fill_value(name, value, schemas.get(name, {}))
            for name, value in spec.arguments.items()
            if name not in given
        }
        known = {**stated, **given}
        open_names = [name for name in schema_of(tool).required if name not in known]
        filled = self._open_arguments(spec, open_names, schemas)
        ordered = dict.fromkeys([*schemas, *known, *filled])
        return {name: {**known, **filled}[name] for name in ordered if name in {**known, **filled}}

    def _fill_value(self, name: str, value: JsonValue, schema: Json) -> JsonValue:
        match value:
            case str():
                text = self.fill(value)
                for slot in _FIELD.findall(value):
                    if slot in self._slots:
                        self._mention(name, self._slots.value(slot, self._text))
                return _cast(text, schema) if text != value else value
            case list():
                return [self._fill_value(name, item, {}) for item in value]
            case dict():
                return {key: self._fill_value(key, item, {}) for key, item in value.items()}
            case _:
                return value

    def _open_arguments(self, spec: CallSpec, names: list[str], schemas: dict[str, Node]) -> Json:
        filled = {name: self._from_schema(name, schemas.get(name, {})) for name in names}
        left = [name for name, value in filled.items() if value is None]
        if len(left) > 1 or any(not is_free_text(schemas.get(name, {})) for name in left):
            name = next((n for n in left if not is_free_text(schemas.get(n, {}))), left[0])
            raise TeacherError(
                f'the grammar teacher cannot fill the argument "{name}" of "{spec.tool}"',
                place=f'rule "{self._task.rule.id}"',
                hint=f'give it a value in Then ("{{topic}}" is one), or a slot list named "{name}"',
            )
        return {name: self._topic if value is None else value for name, value in filled.items()}

    def _from_schema(self, name: str, schema: Any) -> JsonValue:
        """A value from the slot of that name or from the schema; None if neither has one."""
        if name in self._slots:
            text = self._slots.value(name, self._text)
            self._mention(name, text)
            return _cast(text, schema)
        value = _choice(schema, self._rng, self._text)
        if value is not None and "const" not in schema:
            self._mention(name, value)
        return value

    def _mention(self, name: str, value: JsonValue) -> None:
        label = re.sub(r"[_\W]+", " ", name)
        if isinstance(value, bool):
            words = label if value else f"not {label}"
        elif said_in(self._text, [value]):
            self.said.append(str(value))
            return
        else:
            words = self._rng.choice(
                (f"{label} {value}", f"{label}: {value}", f"{label} is {value}")
            )
        text = self._rng.choice((f", {words}", f" ({words})", f" - {words}", f" with {words}"))
        self._text += text
        self.mentions.append(Span(text, fixed=True))


def _choice(schema: Json, rng: Random, text: str) -> JsonValue:
    """One of the schema's values, one that the text says if it says any; None without values."""
    values = schema.get("enum")
    if isinstance(values, list) and values:
        said = said_in(text, (value for value in values if isinstance(value, str)))
        return rng.choice(said[:1] or [value for value in values if value is not None] or values)
    if "const" in schema:
        return schema["const"]
    match schema.get("type"):
        case "boolean":
            return rng.random() < 0.5
        case "integer":
            return rng.randint(*_bounds(schema, step=1))
        case "number":
            low, high = _bounds(schema, step=0)
            return round(rng.uniform(low, high), 1) if high - low >= 1 else (low + high) / 2
        case _:
            return None


def _bounds(schema: Any, step: int) -> tuple[int, int]:
    """The minimum and maximum to draw between; ten values where one end is open."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + step
    if high is None and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - step
    if low is None:
        low = 1 if high is None or high >= 1 else high - 9
    return low, (low + 9 if high is None else high)


def _cast(text: str, schema: Any) -> JsonValue:
    """A slot's text as a value of the schema's type, where it can be parsed as one."""
    if schema.get("type") in ("integer", "number", "boolean"):
        try:
            value: JsonValue = strict_json.decode(text.lower())
        except JsonError:
            return text
        return value
    return text
