"""What other vendors and Arrow write in schemas, in the words of JSON Schema 2020-12."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distill.records import Json

_ONE = (
    *("items", "contains", "additionalProperties", "unevaluatedProperties", "unevaluatedItems"),
    *("propertyNames", "contentSchema", "not", "if", "then", "else"),
)
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = (
    *("properties", "patternProperties", "dependentSchemas", "dependencies"),
    *("$defs", "definitions"),
)
_TYPES = frozenset(["STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"])
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_NULLABLE = ("nullable", "x-nullable")


def rewritten(schema: Any, change: Callable[[Json], Json]) -> Any:
    """`schema` with each of its subschemas that is an object changed, the outer ones first."""
    if isinstance(schema, list):
        return [rewritten(part, change) for part in schema]
    if not isinstance(schema, dict):
        return schema
    node = dict(change(schema))
    for key in node.keys() & {*_ONE, *_SEVERAL}:
        node[key] = rewritten(node[key], change)
    for key in node.keys() & {*_NAMED}:
        if isinstance(parts := node[key], dict):
            node[key] = {name: rewritten(part, change) for name, part in parts.items()}
    return node


def json_schema(schema: Any) -> Any:
    """`schema` without the nulls that Arrow merges in, with Gemini's types and counts as JSON's.

    Arrow gives every row the keys of all rows, null where a row has none: `"enum": null`, and
    `"properties": {"x": null}` for an argument of another tool. Gemini writes `"type": "STRING"`
    and, as protocol buffers do, `"maxItems": "3"` (https://ai.google.dev/api/caching#Schema).
    """
    return rewritten(schema, _as_json_schema)


def honour_nullable(schema: Any) -> Any:
    """`schema` with OpenAPI's `nullable: true` said by types (https://spec.openapis.org/oas/v3.0.3)."""
    return rewritten(schema, _with_null)


def honour_dependencies(schema: Any) -> Any:
    """`schema` with `dependencies`, of drafts until 7, said by the two keywords that replace it."""
    return rewritten(schema, _with_dependents)


def older_fault(node: Json) -> tuple[str, str] | None:
    """A keyword of an older draft that 2020-12 would ignore, as a predicate and a way out."""
    for keyword, instead in _OLDER.items():
        if keyword in node and (keyword != "additionalItems" or "prefixItems" in node):
            return f'uses "{keyword}", which JSON Schema 2020-12 ignores', f"write {instead}"
    return None


_OLDER = {
    "$recursiveRef": '"$ref": "#", or the "$ref" of what is repeated',
    # Without positions before it, it means nothing in any draft.
    "additionalItems": '"items", which is for the items after those of "prefixItems"',
    "divisibleBy": '"multipleOf"',
    "disallow": '"not", as {"not": {"type": "string"}}',
    "extends": '"allOf", as {"allOf": [{"$ref": "#/$defs/base"}]}',
}


def _with_dependents(node: Json) -> Json:
    older = node.get("dependencies")
    if not isinstance(older, dict):
        return node
    parts: list[Any] = [
        {"dependentRequired" if isinstance(needs, list) else "dependentSchemas": {name: needs}}
        for name, needs in older.items()
    ]
    rest: dict[str, Any] = {key: part for key, part in node.items() if key != "dependencies"}
    return {**rest, "allOf": [*rest.get("allOf", ()), *parts]} if parts else rest


def _as_json_schema(node: Json) -> Json:
    stated = ("const", "default") if _may_be_null(node) else ()
    node = {key: part for key, part in node.items() if part is not None or key in stated}
    kinds = node.get("type")
    if kinds is not None:
        node["type"] = [*map(_json_type, kinds)] if isinstance(kinds, list) else _json_type(kinds)
    for key in _COUNTS:
        if isinstance(count := node.get(key), str) and count.isdecimal() and len(count) < 10:
            node[key] = int(count)
    for key in node.keys() & {*_NAMED}:
        if isinstance(parts := node[key], dict):
            node[key] = {name: part for name, part in parts.items() if not _is_unset(part)}
    return node


def _json_type(kind: Any) -> Any:
    return kind.lower() if isinstance(kind, str) and kind in _TYPES else kind


def _is_unset(part: Any) -> bool:
    """Whether a member is null, or a struct of nulls."""
    return part is None or (
        isinstance(part, dict) and bool(part) and all(map(_is_unset, part.values()))
    )


def _may_be_null(node: Json) -> bool:
    kinds = node.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    return "null" in listed or None in listed or _is_nullable(node)


def _is_nullable(node: Json) -> bool:
    return any(node.get(key) is True for key in _NULLABLE)


def _with_null(node: Json) -> Json:
    if not _is_nullable(node):
        return node
    rest: Json = {key: part for key, part in node.items() if key not in _NULLABLE}
    kinds: Any = rest.get("type")
    if kinds is None or rest.keys() & {"const", "$ref", "not", "if", *_SEVERAL}:
        return {"anyOf": [rest, {"type": "null"}]}
    listed = kinds if isinstance(kinds, list) else [kinds]
    rest["type"] = list(dict.fromkeys([*listed, "null"]))
    if isinstance(values := rest.get("enum"), list) and None not in values:
        rest["enum"] = [*values, None]
    return rest
