"""The arguments of a rule's calls: from the rule's templates, its slots, or the tool's schema."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

from pydantic import JsonValue

from distill.errors import TeacherError
from distill.records import Json
from distill.teachers.base import WriteTask
from distill.teachers.grammar.surface import Piece
from distill.workflow.model import CallSpec, Rule

_FIELD = re.compile(r"\{([\w-]+)\}")
_FIXED_STRINGS = ("enum", "const", "pattern", "format")


class SlotValues:
    """A rule's slot lists, and the value that each one took in this request."""

    def __init__(self, rule: Rule, rng: Random) -> None:
        self._rule, self._rng = rule, rng
        self._taken: dict[str, list[str]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._rule.words.slots

    def fill(self, template: str) -> str:
        """The template with a value for each `{slot}`; one named twice takes two values."""
        return _FIELD.sub(lambda field: self._draw(field[1]), template)

    def value(self, name: str) -> str:
        """The value that the slot took first, drawn now if it was not in the request."""
        return self._taken[name][0] if name in self._taken else self._draw(name)

    def _draw(self, name: str) -> str:
        values = self._rule.words.slots.get(name, ())
        if not values:
            raise TeacherError(
                f'the words use {{{name}}}, and "{name}" has no values',
                place=f'rule "{self._rule.id}"',
                hint=f'add "- {name}: first, second, third" under Slots in its words',
            )
        taken = self._taken.setdefault(name, [])
        taken.append(self._rng.choice([v for v in values if v not in taken] or values))
        return taken[-1]


class ArgumentFiller:
    """Fills the calls of one request, and collects what the request must mention for them."""

    def __init__(
        self, task: WriteTask, slots: SlotValues, said: str, topic: str, rng: Random
    ) -> None:
        self._task, self._slots, self._rng = task, slots, rng
        self._said, self._topic = said, topic
        self.mentions: list[Piece] = []

    def calls(self, given: Json) -> list[JsonValue]:
        """The rule's calls; `given`, an example's own arguments, belong to the first."""
        specs = self._task.rule.then.calls
        return [
            {"name": spec.tool, "arguments": self._arguments(spec, {} if number else given)}
            for number, spec in enumerate(specs)
        ]

    def text(self, template: str) -> str:
        """A template with `{topic}` and slots filled; other braces stay as they are."""
        return _FIELD.sub(lambda field: self._field(field[1], field[0]), template)

    def _field(self, name: str, as_written: str) -> str:
        if name == "topic":
            return self._topic
        return self._slots.value(name) if name in self._slots else as_written

    def _arguments(self, spec: CallSpec, given: Json) -> Json:
        parameters = self._task.workflow.by_name[spec.tool].parameters
        schemas: Any = parameters.get("properties") or {}
        required: Any = parameters.get("required") or []
        stated = {
            name: self._stated(name, value, schemas.get(name) or {})
            for name, value in spec.arguments.items()
            if name not in given
        }
        known = {**stated, **given}
        open_names = [name for name in required if name not in known]
        filled = self._open_arguments(spec, open_names, schemas)
        ordered = dict.fromkeys([*schemas, *known, *filled])
        return {name: {**known, **filled}[name] for name in ordered if name in {**known, **filled}}

    def _stated(self, name: str, value: JsonValue, schema: Json) -> JsonValue:
        match value:
            case str():
                text = self.text(value)
                for slot in _FIELD.findall(value):
                    if slot in self._slots:
                        self._mention(name, self._slots.value(slot))
                return _typed(text, schema) if text != value else value
            case list():
                return [self._stated(name, item, {}) for item in value]
            case dict():
                return {key: self._stated(key, item, {}) for key, item in value.items()}
            case _:
                return value

    def _open_arguments(self, spec: CallSpec, names: list[str], schemas: Any) -> Json:
        filled = {name: self._from_schema(name, schemas.get(name) or {}) for name in names}
        left = [name for name, value in filled.items() if value is None]
        if len(left) > 1 or any(not is_free_text(schemas.get(name)) for name in left):
            name = next((n for n in left if not is_free_text(schemas.get(n))), left[0])
            raise TeacherError(
                f'the grammar teacher cannot fill the argument "{name}" of "{spec.tool}"',
                place=f'rule "{self._task.rule.id}"',
                hint=f'give it a value in Then ("{{topic}}" is one), or a slot list named "{name}"',
            )
        return {name: self._topic if value is None else value for name, value in filled.items()}

    def _from_schema(self, name: str, schema: Any) -> JsonValue:
        """A value that the schema or a slot of that name offers; None if there is none."""
        if name in self._slots:
            text = self._slots.value(name)
            self._mention(name, text)
            return _typed(text, schema)
        value = _choice(schema, self._rng)
        if value is not None and "const" not in schema:
            self._mention(name, value)
        return value

    def _mention(self, name: str, value: JsonValue) -> None:
        label = re.sub(r"[_\W]+", " ", name)
        if isinstance(value, bool):
            words = label if value else f"not {label}"
        elif re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", self._said, re.IGNORECASE):
            return
        else:
            words = self._rng.choice(
                (f"{label} {value}", f"{label}: {value}", f"{label} is {value}")
            )
        text = self._rng.choice((f", {words}", f" ({words})", f" - {words}", f" with {words}"))
        self._said += text
        self.mentions.append(Piece(text, fixed=True))


def is_free_text(schema: Any) -> bool:
    """Whether an argument's schema takes any string."""
    if not isinstance(schema, dict) or any(key in schema for key in _FIXED_STRINGS):
        return False
    return schema.get("type") == "string"


def _choice(schema: Json, rng: Random) -> JsonValue:
    values = schema.get("enum")
    if isinstance(values, list) and values:
        return rng.choice([value for value in values if value is not None] or values)
    if "const" in schema:
        return schema["const"]
    match schema.get("type"):
        case "boolean":
            return rng.random() < 0.5
        case "integer":
            return rng.randint(*_limits(schema, step=1))
        case "number":
            low, high = _limits(schema, step=0)
            return round(rng.uniform(low, high), 1) if high - low >= 1 else (low + high) / 2
        case _:
            return None


def _limits(schema: Any, step: int) -> tuple[int, int]:
    """The least and greatest value to choose; at most ten apart where one end is open."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + step
    if high is None and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - step
    if low is None:
        low = 1 if high is None or high >= 1 else high - 9
    return low, (low + 9 if high is None else high)


def _typed(text: str, schema: Any) -> JsonValue:
    """A slot's text as the type that the schema wants, where it can be read as one."""
    if schema.get("type") in ("integer", "number", "boolean"):
        try:
            return json.loads(text.lower())  # type: ignore[no-any-return]
        except ValueError:
            return text
    return text
