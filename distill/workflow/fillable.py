"""What a schema says of each argument by itself: whether it gives values, or takes any text."""

from __future__ import annotations

from typing import Any

from distill.workflow.model import Tool
from distill.workflow.schema import ArgumentsSchema, Node, schema_of

_NULL: Node = {"type": "null"}


def argument_schemas(tool: Tool) -> dict[str, Node]:
    """Each argument's schema in one object, null aside: its own keywords, then those behind `$ref`,
    in `allOf`, and of the one alternative that it has.
    """
    whole = schema_of(tool)
    return {name: _flat(part, whole) for name, part in whole.properties.items()}


def gives_values(schema: Node) -> bool:
    """Whether values can be drawn from one of `argument_schemas`."""
    kind = schema.get("type")
    return bool(schema.keys() & {"enum", "const"}) or kind in ("boolean", "integer", "number")


def is_free_text(schema: Node) -> bool:
    """Whether one of `argument_schemas` accepts any string."""
    fixed = schema.keys() & {"enum", "const", "pattern", "format"}
    return schema.get("type") == "string" and not fixed


def _flat(schema: Any, whole: ArgumentsSchema) -> Node:
    parts = whole.conjuncts(schema)
    for part in parts:  # grows by what is the only alternative
        for key in ("anyOf", "oneOf"):
            branches = [branch for branch in part.get(key, ()) if branch != _NULL]
            if len(branches) == 1:
                parts += whole.conjuncts(branches[0])
    flat: Node = {}
    for part in parts:
        flat = {**part, **flat}
    kinds = flat.get("type")
    if isinstance(kinds, list) and len(left := [kind for kind in kinds if kind != "null"]) == 1:
        flat["type"] = left[0]
    return flat
