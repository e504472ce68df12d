"""A tool's schema for strict structured output, and the reverse mapping of replies.

Strict mode wants every object closed and each of its properties required. So an optional argument
becomes one that must be given and may be null, and its null is dropped again when the reply is
read. An optional argument that may be null of itself loses its null too: strict mode cannot tell
the two apart, and tools read them alike.

Keywords that servers refuse or get wrong are left out of what is sent. `maxLength` is one: grammar
back ends break strings at it. Nothing is lost by that, as replies are validated against the tool's
own schema. An object whose properties the tool leaves open stays open; strict servers refuse it,
and the client then falls back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from distill.records import Json, digest
from distill.workflow.model import Tool
from distill.workflow.schema import ArgumentsSchema, schema_of

_KEPT = (
    "type",
    "description",
    "enum",
    "const",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minItems",
    "maxItems",
)
_FORMATS = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"],
)


def strict_call_schema(
    tool: Tool,
    definitions: Json,
    fixed: Mapping[str, Any] = {},
    required: Collection[str] = (),
) -> Json:
    """The schema of one call of `tool`: its name and arguments.

    definitions: receives what the schema refers to, for `$defs` of the schema around it
    fixed: arguments whose values are given
    required: optional arguments that this call must have all the same
    """
    arguments = _Converter(tool, definitions).object(tool.parameters, fixed, required)
    return closed_object({"name": {"type": "string", "const": tool.name}, "arguments": arguments})


def drop_nulls(tool: Tool, arguments: Json) -> Json:
    """`arguments` without the nulls that stand for optional arguments left out."""
    schema = schema_of(tool)
    dropped = _dropped(arguments, schema.root, schema)
    return dropped if isinstance(dropped, dict) else arguments


def closed_object(properties: Json, definitions: Json | None = None) -> Json:
    """The schema of an object with exactly these properties, as strict mode wants it."""
    schema: Json = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {**schema, "$defs": definitions} if definitions else schema


class _Converter:
    def __init__(self, tool: Tool, definitions: Json) -> None:
        self.tool = tool
        self.definitions = definitions

    def object(
        self, node: Json, fixed: Mapping[str, Any] = {}, demanded: Collection[str] = ()
    ) -> Json:
        required = {*_required(node), *demanded}
        properties: Json = {}
        for name, schema in _properties(node).items():
            if name in fixed and _is_scalar(fixed[name]):
                properties[name] = _constant(fixed[name])
            else:
                converted = self.schema(schema)
                properties[name] = converted if name in required else _nullable(converted)
        return closed_object(properties)

    def schema(self, node: Any) -> Json:
        if not isinstance(node, dict):
            return {}  # `true`: anything goes
        if isinstance(node.get("$ref"), str):
            return {"$ref": self._hoisted(node["$ref"])}
        kept: Json = {key: node[key] for key in _KEPT if key in node}
        if kept.get("format") not in _FORMATS:
            kept.pop("format", None)
        for key in ("anyOf", "oneOf"):
            if key in node:
                kept["anyOf"] = [self.schema(branch) for branch in node[key]]
        if len(node.get("allOf", ())) == 1:
            kept = {**self.schema(node["allOf"][0]), **kept}
        if isinstance(node.get("items"), dict):
            kept["items"] = self.schema(node["items"])
        if "properties" in node or node.get("additionalProperties") is False:
            kept |= self.object(node)
        return kept

    def _hoisted(self, reference: str) -> str:
        """The reference under which the reply's own schema holds the same definition."""
        slug = reference.removeprefix("#/").replace("$defs/", "").replace("/", ".") or "#"
        if "%" in slug:
            slug = digest(reference)  # else it would be unescaped once more
        name = f"{self.tool.name}.{slug}"
        if name not in self.definitions:
            self.definitions[name] = {}  # a definition may refer to itself
            self.definitions[name] = self.schema(schema_of(self.tool).resolve(reference))
        return "#/$defs/" + name.replace("~", "~0").replace("/", "~1")


def _dropped(value: Any, schema: Any, whole: ArgumentsSchema) -> Any:
    if not isinstance(schema, dict):
        return value
    if isinstance(schema.get("$ref"), str):
        return _dropped(value, whole.resolve(schema["$ref"]), whole)
    for key in ("anyOf", "oneOf", "allOf"):
        for branch in schema.get(key, ()):
            tried = _dropped(value, branch, whole)
            if whole.is_valid(tried, branch):
                value = tried
                break
    if isinstance(value, dict):
        known, required = _properties(schema), _required(schema)
        return {
            name: _dropped(item, known.get(name), whole)
            for name, item in value.items()
            if item is not None or name in required or name not in known
        }
    if isinstance(value, list):
        return [_dropped(item, schema.get("items"), whole) for item in value]
    return value


def _nullable(schema: Json) -> Json:
    kind = schema.get("type")
    if not schema or kind == "null" or (isinstance(kind, list) and "null" in kind):
        return schema
    return {"anyOf": [schema, {"type": "null"}]}


def _constant(value: Any) -> Json:
    return {"type": _type_name(value), "const": value}


def _type_name(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
    return "null"


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _properties(node: Json) -> Json:
    found = node.get("properties")
    return found if isinstance(found, dict) else {}


def _required(node: Json) -> list[str]:
    found = node.get("required")
    return [str(name) for name in found] if isinstance(found, list) else []
