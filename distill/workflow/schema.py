"""The one definition of a valid call: a tool's JSON Schema, compiled, and its references.

JSON Schema 2020-12 with one addition, as tools are called by name: an object whose properties the
schema names (by `properties` or `patternProperties`, also through `$ref`, `allOf`, `anyOf` and
`oneOf`) takes no others, at every depth, unless `additionalProperties` or `unevaluatedProperties`
says so. The arguments themselves take only what is named, always. Gold rows, rules, teachers'
replies and training rows are all held to this. Nothing is fetched: a reference stays within the
schema (https://json-schema.org/draft/2020-12/json-schema-core#section-11).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from pydantic import JsonValue
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from distill.errors import WorkflowError
from distill.records import Json, canonical_json
from distill.workflow.model import Tool

# Subschemas of the same value, and of values within it. Conditions (`if`, `not`, `contains`) are
# left as they are: closing them would change what they ask.
_SAME_ARRAYS = ("allOf", "anyOf", "oneOf")
_SAME_VALUES = ("then", "else")
_WITHIN_VALUES = ("additionalProperties", "items", "unevaluatedItems", "unevaluatedProperties")
_WITHIN_MAPPINGS = ("properties", "patternProperties")
_DEFINITIONS = ("$defs", "definitions")
_REQUIRING = ("required", "minProperties", "dependentRequired")


Node = dict[str, Any]
"""A subschema that is an object; the others are true and false."""


class Leaf(NamedTuple):
    """A scalar within a JSON value, and the keys and positions that lead to it."""

    path: tuple[str | int, ...]
    value: JsonValue


def leaves(value: JsonValue, path: tuple[str | int, ...] = ()) -> Iterator[Leaf]:
    """Each scalar within `value`, in order."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    elif isinstance(value, list):
        for position, part in enumerate(value):
            yield from leaves(part, (*path, position))
    else:
        yield Leaf(path, value)


def schema_of(tool: Tool) -> ArgumentsSchema:
    """The schema of the tool's arguments, compiled once."""
    return _compiled(canonical_json(tool.parameters))


@lru_cache(maxsize=1024)
def _compiled(parameters: str) -> ArgumentsSchema:
    return ArgumentsSchema(json.loads(parameters))


class ArgumentsSchema:
    """The schema of a tool's arguments."""

    def __init__(self, parameters: Json) -> None:
        self.root = parameters
        # An empty registry: a schema can send nobody to the network.
        self._resolver = Registry().resolver_with_root(DRAFT202012.create_resource(parameters))

    @cached_property
    def properties(self) -> dict[str, Any]:
        """The arguments that the schema names, each with its subschema."""
        found: dict[str, Any] = {}
        for schema in self.applied(self.root):
            for name, subschema in (schema.get("properties") or {}).items():
                found.setdefault(name, subschema)
        return found

    @cached_property
    def required(self) -> list[str]:
        """Names of the arguments that every call must have."""
        found = self.root.get("required")
        return [str(name) for name in found] if isinstance(found, list) else []

    def accepts_name(self, name: str) -> bool:
        """Whether an argument of this name may be given, whatever its value."""
        for schema in self.applied(self.root):
            if name in (schema.get("properties") or ()):
                return True
            if any(re.search(pattern, name) for pattern in schema.get("patternProperties") or ()):
                return True
            further = (schema.get(key, False) for key in _OPENING)
            if any(value is not False for value in further):
                return True
        return False

    def errors(self, arguments: Json, *, partial: bool = False) -> list[ValidationError]:
        """What the schema has against the arguments, in the order of paths; nothing when valid.

        partial: required arguments may be missing
        Raises WorkflowError where the schema refers to what is not in it.
        """
        infinite = [
            ValidationError(
                f"{value} is not a number that JSON has",
                validator="type",
                path=path,
                instance=value,
                schema={"type": "number"},
                type_checker=Draft202012Validator.TYPE_CHECKER,
            )
            for path, value in leaves(arguments)
            if isinstance(value, float) and not math.isfinite(value)
        ]
        if infinite:
            return infinite
        validator = self._partial if partial else self._whole
        try:
            return sorted(validator.iter_errors(arguments), key=lambda error: error.json_path)
        except Unresolvable as error:
            raise _unresolvable(error) from None

    def is_valid(self, value: JsonValue, subschema: Any) -> bool:
        """Whether a subschema of this schema takes `value`, closed as everything is."""
        validator = self._whole.evolve(schema=self._closed(subschema))
        return bool(validator.is_valid(value))

    def resolve(self, reference: str) -> Any:
        """What a `$ref` points to. Raises WorkflowError where it leads nowhere."""
        try:
            return self._resolver.lookup(reference).contents
        except Unresolvable as error:
            raise _unresolvable(error) from None

    def applied(self, schema: Any) -> Iterator[Node]:
        """`schema` and every subschema that applies to the same value, references followed."""
        waiting, seen = [schema], set[str]()
        while waiting:
            node = waiting.pop(0)
            if not isinstance(node, dict):
                continue
            yield node
            waiting += _same_value(node)
            for reference in _references_of(node):
                if reference not in seen:
                    seen.add(reference)
                    waiting.append(self.resolve(reference))

    def stated_values(self, schema: Any) -> list[JsonValue]:
        """Every enum, const and default value within a subschema, references followed."""
        waiting, seen, values = [schema], set[str](), list[JsonValue]()
        while waiting:
            node = waiting.pop()
            if not isinstance(node, dict):
                continue
            enum = node.get("enum")
            values += enum if isinstance(enum, list) else []
            values += [leaf.value for key in ("const", "default") for leaf in leaves(node.get(key))]
            waiting += DRAFT202012.subresources_of(node)
            for reference in _references_of(node):
                if reference not in seen:
                    seen.add(reference)
                    waiting.append(self.resolve(reference))
        return values

    def reference_faults(self) -> Iterator[tuple[str, str]]:
        """References that lead nowhere, or round in a circle, as predicates with ways out."""
        for node in _subschemas(self.root):
            for reference in _references_of(node):
                try:
                    self._resolver.lookup(reference)
                except Unresolvable:
                    yield (
                        f'refers to "{reference}", which is not in its schema',
                        'define it under "$defs" of the same parameters; nothing is fetched',
                    )
                    return
        for node in _subschemas(self.root):
            if self._is_circular(node, ()):
                yield "refers to itself without end", 'let each "$ref" lead to a schema of its own'
                return

    def _is_circular(self, node: Any, path: tuple[str, ...]) -> bool:
        """Whether applying a schema to one value comes to a reference that it came from."""
        if not isinstance(node, dict):
            return False
        for reference in _references_of(node):
            if reference in path:
                return True
            if self._is_circular(self.resolve(reference), (*path, reference)):
                return True
        return any(self._is_circular(part, path) for part in _same_value(node))

    @cached_property
    def _whole(self) -> Draft202012Validator:
        return Draft202012Validator(self._closed_root(self.root), registry=Registry())

    @cached_property
    def _partial(self) -> Draft202012Validator:
        return Draft202012Validator(self._closed_root(_optional(self.root)), registry=Registry())

    def _closed_root(self, root: Json) -> Json:
        closed = self._closed(root)
        if not root.keys() & {*_OPENING}:
            closed["unevaluatedProperties"] = False
        return dict(closed)

    def _closed(self, schema: Any, *, whole: bool = True) -> Any:
        """The schema with its objects closed; `whole`: it alone describes its value."""
        if not isinstance(schema, dict):
            return schema
        closed = dict(schema)
        for key in _WITHIN_VALUES:
            if key in closed:
                closed[key] = self._closed(closed[key])
        for key in _WITHIN_MAPPINGS:
            if isinstance(closed.get(key), dict):
                closed[key] = {name: self._closed(part) for name, part in closed[key].items()}
        if isinstance(closed.get("prefixItems"), list):
            closed["prefixItems"] = [self._closed(part) for part in closed["prefixItems"]]
        # What applies to the same value is closed with it, around all that names its properties.
        for key in (*_DEFINITIONS, "dependentSchemas"):
            if isinstance(closed.get(key), dict):
                closed[key] = {
                    name: self._closed(part, whole=False) for name, part in closed[key].items()
                }
        for key in _SAME_ARRAYS:
            if isinstance(closed.get(key), list):
                closed[key] = [self._closed(part, whole=False) for part in closed[key]]
        for key in _SAME_VALUES:
            if key in closed:
                closed[key] = self._closed(closed[key], whole=False)
        names = any(part.keys() & {*_WITHIN_MAPPINGS} for part in self.applied(schema))
        if whole and names and not schema.keys() & {*_OPENING}:
            closed["unevaluatedProperties"] = False
        return closed


_OPENING = ("additionalProperties", "unevaluatedProperties")


def _same_value(node: Node) -> list[Any]:
    """The subschemas that apply to the same value, references aside."""
    found: list[Any] = []
    for key in _SAME_ARRAYS:
        parts = node.get(key)
        found += parts if isinstance(parts, list) else []
    found += [node[key] for key in _SAME_VALUES if key in node]
    dependent = node.get("dependentSchemas")
    return [*found, *dependent.values()] if isinstance(dependent, dict) else found


def _references_of(node: Node) -> list[str]:
    keys = ("$ref", "$dynamicRef")
    return [reference for key in keys if isinstance(reference := node.get(key), str)]


def _subschemas(schema: Any) -> Iterator[Node]:
    """Every subschema in a document; values such as `const` and `examples` are none."""
    if isinstance(schema, dict):
        yield schema
        for part in DRAFT202012.subresources_of(schema):
            yield from _subschemas(part)


def _optional(schema: Any) -> Any:
    """The schema without what it requires to be there, below `allOf` and its like too."""
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in _REQUIRING}
    for key in _SAME_ARRAYS:
        if isinstance(kept.get(key), list):
            kept[key] = [_optional(part) for part in kept[key]]
    if isinstance(kept.get("oneOf"), list):
        # Branches that only required different arguments are now alike.
        kept["allOf"] = [*kept.get("allOf", ()), {"anyOf": kept.pop("oneOf")}]
    return kept


def _unresolvable(error: Unresolvable) -> WorkflowError:
    return WorkflowError(
        f"the schema of a tool refers to what is not in it: {error}",
        hint="put the definition into the schema, under $defs",
    )


def path_text(path: Iterable[str | int]) -> str:
    """As `filters.tags[0]`; the arguments as a whole have no path."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "arguments"
