"""Parts of a tool's schema that no value can meet, and defaults that are none of its values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distill.strict_json import encode
from distill.workflow.patterns import SlowPatternError
from distill.workflow.problems import excerpt
from distill.workflow.schema import ArgumentsSchema, Node, subschemas

_BOUNDS = (
    ("minimum", "maximum"),
    ("exclusiveMinimum", "maximum"),
    ("minimum", "exclusiveMaximum"),
    ("exclusiveMinimum", "exclusiveMaximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minContains", "maxContains"),
    ("minProperties", "maxProperties"),
)


def contradictions(schema: ArgumentsSchema) -> Iterator[tuple[str, str]]:
    """Each subschema that no value can meet, as a predicate and a way out."""
    for node in subschemas(schema.root):
        for low, high in _BOUNDS:
            if _excludes_all(node, low, high):
                yield (
                    f"has {low} {encode(node[low])} and {high} {encode(node[high])}: "
                    f"no value meets {excerpt(encode(node))}",
                    "correct one of the two",
                )
        for word in ("enum", "const"):
            values: Any = node.get("enum", []) if word == "enum" else [node.get("const")]
            rest = {key: part for key, part in node.items() if key not in ("enum", "const")}
            if word in node and not any(_accepts(schema, rest, value) for value in values):
                yield (
                    f"has {word} {excerpt(encode(node[word]))}, which the rest of "
                    f"{excerpt(encode(node))} rules out",
                    "correct one of the two",
                )


def wrong_defaults(schema: ArgumentsSchema) -> Iterator[Any]:
    """Each default that its own subschema rules out; null says that there is none."""
    for node in subschemas(schema.root):
        default = node.get("default")
        if default is not None and not _accepts(schema, node, default):
            yield default


def _excludes_all(node: Node, low: str, high: str) -> bool:
    if low not in node or high not in node:
        return False
    strict = low.startswith("exclusive") or high.startswith("exclusive")
    return bool(node[low] > node[high] or (strict and node[low] == node[high]))


def _accepts(schema: ArgumentsSchema, node: Node, value: Any) -> bool:
    try:
        return schema.accepts(node, value)
    except (SlowPatternError, RecursionError):
        return True
