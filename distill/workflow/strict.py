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
from distill.workflow.patterns import SlowPatternError
from distill.workflow.schema import (
    ArgumentsSchema,
    Node,
    item_schema,
    member_schemas,
    schema_of,
)

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
    arguments = _Converter(tool, definitions).object(schema_of(tool).root, fixed, required)
    return closed_object({"name": {"type": "string", "const": tool.name}, "arguments": arguments})


def drop_nulls(tool: Tool, arguments: Json) -> Json:
    """`arguments` without the nulls that stand for optional arguments left out.

    A null under a name that the schema does not know says nothing either. Nulls that the arguments
    need to be valid stay.
    """
    schema = schema_of(tool)
    try:
        dropped: Json = _NullDropper(schema).dropped(arguments, [schema.root])
    except (RecursionError, SlowPatternError):  # such arguments are not valid either
        return arguments
    # The arguments take only what is named, also where the schema names nothing.
    dropped = {n: v for n, v in dropped.items() if v is not None or schema.accepts_name(n)}
    return arguments if schema.errors(dropped) and not schema.errors(arguments) else dropped


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
        self.merging = set[int]()

    def object(
        self, node: Json, fixed: Mapping[str, Any] = {}, demanded: Collection[str] = ()
    ) -> Json:
        compiled = schema_of(self.tool)
        required = {*compiled.required_of(node), *demanded}
        properties: Json = {}
        for name, schema in compiled.properties_of(node).items():
            if name in fixed and _is_scalar(fixed[name]):
                properties[name] = _constant(fixed[name])
            else:
                converted = self.schema(schema)
                properties[name] = converted if name in required else _nullable(converted)
        return closed_object(properties)

    def schema(self, node: Any) -> Json:
        if not isinstance(node, dict):
            return {}  # `true`: anything goes
        sources = ("$ref" in node) + len(node.get("allOf", ())) + ("properties" in node)
        if sources > 1 and schema_of(self.tool).properties_of(node):
            return self._merged(node)
        if "$ref" in node:
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

    def _merged(self, node: Json) -> Json:
        """One object with the properties of all that apply: strict mode has no `allOf`."""
        if id(node) in self.merging:
            return {}  # it is a part of itself: anything goes below
        self.merging.add(id(node))
        try:
            return self.object(node)
        finally:
            self.merging.remove(id(node))

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


class _NullDropper:
    """Takes nulls of optional properties out of a value.

    Each part is done once for the schemas that apply to it: below alternatives, schemas that refer
    to themselves would have it done twice at every depth.
    """

    def __init__(self, whole: ArgumentsSchema) -> None:
        self.whole = whole
        self.done: dict[tuple[int, ...], Any] = {}

    def dropped(self, value: Any, schemas: list[Any]) -> Any:
        """`value`, to which all of `schemas` apply, without the nulls of optional properties."""
        if not isinstance(value, dict | list):
            return value
        key = (id(value), *map(id, schemas))
        if key not in self.done:
            self.done[key] = self._dropped(value, schemas)
        return self.done[key]

    def _dropped(self, value: Json | list[Any], schemas: list[Any]) -> Any:
        parts = self._applicable(value, schemas)
        if isinstance(value, list):
            return [
                self.dropped(item, [item_schema(part, position) for part in parts])
                for position, item in enumerate(value)
            ]
        optional = {name for schema in schemas for name in self.whole.properties_of(schema)}
        if any("properties" in part for part in parts):
            # Arrow gives an object the names of all others, null where it has none of its own.
            optional |= {name for name in value if not any(member_schemas(p, name) for p in parts)}
        optional -= {name for part in parts for name in part.get("required", ())}
        return {
            name: self.dropped(item, [s for part in parts for s in member_schemas(part, name)])
            for name, item in value.items()
            if item is not None or name not in optional
        }

    def _applicable(self, value: Any, schemas: list[Any]) -> list[Node]:
        """What `value` must meet: of alternatives, the first branch that it meets without nulls."""
        parts = [part for schema in schemas for part in self.whole.conjuncts(schema)]
        for part in parts:  # grows by the branches
            for branches in (part.get("anyOf", ()), part.get("oneOf", ())):
                met = (b for b in branches if self.whole.accepts(b, self.dropped(value, [b])))
                if (branch := next(met, None)) is not None:
                    parts += self.whole.conjuncts(branch)
        return parts


def _nullable(schema: Json) -> Json:
    kind = schema.get("type")
    if not schema or kind == "null" or (isinstance(kind, list) and "null" in kind):
        return schema
    null: Json = {"type": "null"}
    branches = schema.get("anyOf")
    if isinstance(branches, list) and null in branches:
        return schema
    return {"anyOf": [schema, null]}


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
