"""What a schema wants, in words, and how a value that it refuses is written instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jsonschema.exceptions import ValidationError

from distill import strict_json
from distill.workflow.formats import FORMAT_EXAMPLES
from distill.workflow.problems import comma_list, truncate

MAX_SHOWN = 200
"""Characters of a schema that a message shows."""
_YES = re.compile(r"(?:yes|y|on|enabled|checked|true)", re.IGNORECASE)
_NO = re.compile(r"(?:no|n|off|disabled|unchecked|false)", re.IGNORECASE)
_GROUPED = re.compile(r"(-?\d{1,3}(?:[.,  '’]\d{3})+)(?:[.,](\d{1,2}))?\D*")
_DAY = re.compile(r"date \d{4}-\d\d-\d\d|date-time \d{4}-\d\d-\d\d[Tt ]\d.*")
_BOUNDS = (
    ("minimum", "from {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "up to {}"),
    ("exclusiveMaximum", "below {}"),
    ("multipleOf", "that {} divides"),
)
_TYPES = {
    "boolean": "true or false",
    "string": "text",
    "array": 'a list, as: ["…", "…"]',
    "object": "an object",
    "null": "null",
}


def way_out(error: ValidationError) -> str:
    """How to write what the schema of `error` refused."""
    value, schema = error.instance, error.schema
    if error.validator == "format":
        example = FORMAT_EXAMPLES[str(error.validator_value)]
        if _DAY.fullmatch(f"{error.validator_value} {value}"):
            return f"there is no such day or time; write it as: {example}"
        return f"write it as: {example}"
    wanted = wanted_text(schema)
    written = _rewritten(value, schema) if isinstance(value, str) else ""
    return f"write {written}: the schema wants {wanted}" if written else (
        f"the schema wants {wanted}"
    )  # fmt: skip


def wanted_text(schema: Any) -> str:
    """A schema in words where it is simple, else as JSON."""
    if not isinstance(schema, Mapping):
        return "nothing here"
    if isinstance(listed := schema.get("enum"), list):
        return f"one of {comma_list([_shown(each) for each in listed])}"
    if "const" in schema:
        return _shown(schema["const"])
    types = schema.get("type")
    names = [types] if isinstance(types, str) else types if isinstance(types, list) else []
    told = [_type_text(name, schema) for name in names]
    simple = {"type", "description", "title", "default", "examples", "format", "items"}
    simple |= {"properties", "required", "additionalProperties", *(name for name, _ in _BOUNDS)}
    if told and schema.keys() <= simple:
        return " or ".join(told)
    keep = {key: value for key, value in schema.items() if key not in ("description", "title")}
    return truncate(strict_json.encode(keep), MAX_SHOWN)


def _type_text(name: str, schema: Mapping[str, Any]) -> str:
    if name in ("integer", "number"):
        bounds = [text.format(schema[key]) for key, text in _BOUNDS if key in schema]
        return " ".join(["a whole number" if name == "integer" else "a number", *bounds])
    if name == "object" and isinstance(schema.get("properties"), Mapping):
        inner = ", ".join(f'"{key}": …' for key in schema["properties"])
        return f"an object, as: {{{inner}}}"
    return _TYPES.get(name, name)


def _rewritten(text: str, schema: Any) -> str:
    """What was probably meant by a text where the schema takes none."""
    types = schema.get("type") if isinstance(schema, Mapping) else None
    if isinstance(types, list) and len(other := [each for each in types if each != "null"]) == 1:
        (types,) = other
    if types == "boolean":
        return "true" if _YES.fullmatch(text) else "false" if _NO.fullmatch(text) else ""
    if types in ("integer", "number") and (grouped := _GROUPED.fullmatch(text)):
        cents = f".{grouped[2]}" if grouped[2] else ""
        return re.sub(r"[^\d-]", "", grouped[1]) + cents
    if types == "array":
        parts = [part.strip() for part in re.split(r",|\band\b|;", text) if part.strip()]
        return strict_json.encode(parts) if parts else ""
    return ""


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else strict_json.encode(value)
