"""The one definition of a valid call: a tool's JSON Schema, its references, the names it takes.

Arguments are valid where JSON Schema 2020-12 accepts them and every name in them is known. Tools
are called by name, so an object whose properties the schema names (`properties` or
`patternProperties`) takes no others, at every depth, unless `additionalProperties` or
`unevaluatedProperties` allows them; the arguments themselves take only what is named, always. As
with `unevaluatedProperties`, names count wherever they apply to the object: behind `$ref`, in
`allOf`, and in those branches of `anyOf` and `oneOf` that the object meets. A branch that names
nothing, as `{"type": "object"}`, leaves the object open. Conditions (`if`, `not`, `contains`) name
nothing.

Gold rows, rules, teachers' replies and training rows are all held to this. Nothing is fetched:
references stay within the schema
(https://json-schema.org/draft/2020-12/json-schema-core#section-8.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic import JsonValue
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from distill.errors import WorkflowError
from distill.records import Json
from distill.strict_json import decode, encode
from distill.workflow.formats import FORMAT_CHECKER
from distill.workflow.keywords import (
    PartialArguments,
    PartialValidator,
    WholeValidator,
    check_schema,
    named_by,
)
from distill.workflow.model import Tool
from distill.workflow.patterns import SlowPatternError
from distill.workflow.rewrite import (
    honour_dependencies,
    honour_nullable,
    older_fault,
    rewritten,
)

Node = dict[str, Any]
"""A subschema that is an object; the others are true and false."""
Path = tuple[str | int, ...]

_NAMING = ("properties", "patternProperties")
_FURTHER = ("additionalProperties", "unevaluatedProperties")
_ALTERNATIVES = ("anyOf", "oneOf")


class Leaf(NamedTuple):
    """A scalar within a JSON value, and the keys and positions that lead to it."""

    path: Path
    value: JsonValue


def leaves(value: JsonValue, path: Path = ()) -> Iterator[Leaf]:
    """Each scalar within `value`, in order."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    elif isinstance(value, list):
        for position, part in enumerate(value):
            yield from leaves(part, (*path, position))
    else:
        yield Leaf(path, value)


def json_equal(one: JsonValue, other: JsonValue) -> bool:
    """Equality of JSON values: 1 is 1.0, and true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(json_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(json_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def path_text(path: Iterable[str | int]) -> str:
    """As `filters.tags[0]`; the arguments as a whole have no path."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "arguments"


def schema_of(tool: Tool) -> ArgumentsSchema:
    """The schema of the tool's arguments, compiled once.

    Raises WorkflowError where a reference in it cannot be followed; tools that were read from a
    file have been checked for that.
    """
    schema = _compiled(encode(tool.parameters))
    for cause, hint in schema.reference_faults:
        raise WorkflowError(f"tool {encode(tool.name)} {cause}", hint=hint)
    return schema


@lru_cache(maxsize=1024)
def _compiled(parameters: str) -> ArgumentsSchema:
    return ArgumentsSchema(decode(parameters))


class ArgumentsSchema:
    """The schema of a tool's arguments."""

    def __init__(self, parameters: Json) -> None:
        # Every tool is read as 2020-12; `jsonschema` would go by `$schema` below a reference.
        plain = rewritten(parameters, _without_dialect)
        self.root: Node = honour_dependencies(honour_nullable(plain))
        # An empty registry: a reference cannot lead to the network.
        self._resolver = Registry().resolver_with_root(DRAFT202012.create_resource(self.root))
        checks: Any = {"registry": Registry(), "format_checker": FORMAT_CHECKER}
        self._full: Any = WholeValidator(self.root, **checks)
        self._partial: Any = PartialValidator(self.root, **checks)

    @cached_property
    def properties(self) -> dict[str, Any]:
        """The arguments that the schema names, each with its subschema."""
        return self.properties_of(self.root)

    @cached_property
    def required(self) -> list[str]:
        """Names of the arguments that every call must have."""
        return self.required_of(self.root)

    def properties_of(self, schema: Any) -> dict[str, Any]:
        """The properties that a subschema names, its own first, then those of its branches."""
        found: dict[str, Any] = {}
        for part in self.applied(schema):
            for name, subschema in part.get("properties", {}).items():
                found.setdefault(name, subschema)
        return found

    def required_of(self, schema: Any) -> list[str]:
        """The properties that a subschema requires, whatever its branches."""
        parts = self.conjuncts(schema)
        return list(dict.fromkeys(name for part in parts for name in part.get("required", ())))

    def accepts_name(self, name: str) -> bool:
        """Whether some call may have an argument of this name."""
        try:
            return any(
                member_schemas(part, name) or part.get("unevaluatedProperties", False) is not False
                for part in self.applied(self.root)
            )
        except SlowPatternError:  # `errors` tells it
            return True

    def errors(self, arguments: Json, *, partial: bool = False) -> list[ValidationError]:
        """What is wrong with the arguments of a call, in the order of paths; nothing when valid.

        Unknown names are errors of the keyword `unevaluatedProperties`, their list its value.
        partial: these are some of a call's arguments, so that none is missing
        """
        value = PartialArguments(arguments) if partial else arguments
        try:
            unknown = self._unknown_names(value)
            invalid = list((self._partial if partial else self._full).iter_errors(value))
            invalid += [
                _error(f"{leaf} is not a number that JSON has", "type", path, leaf)
                for path, leaf in leaves(arguments)
                if isinstance(leaf, float) and not math.isfinite(leaf)
            ]
        except RecursionError:
            return [_error("the value is nested too deeply", "type", (), arguments)]
        except SlowPatternError as error:
            return [_error(str(error), "pattern", (), arguments)]
        found = {tuple(error.path) for error in unknown}
        invalid = [e for e in invalid if e.validator not in _FURTHER or tuple(e.path) not in found]
        return sorted([*unknown, *invalid], key=lambda error: error.json_path)

    def accepts(self, schema: Any, value: JsonValue) -> bool:
        """Whether JSON Schema accepts `value` for a subschema; unknown names do not count.

        Raises SlowPatternError.
        """
        validator = self._partial if isinstance(value, PartialArguments) else self._full
        return bool(validator.evolve(schema=schema).is_valid(value))

    def resolve(self, reference: str) -> Any:
        """The subschema that a `$ref` points to. Raises LookupError where it leads nowhere."""
        try:
            return self._resolver.lookup(reference).contents
        # `referencing` raises the builtin ones for pointers through scalars and list items.
        except (Unresolvable, AttributeError, TypeError, ValueError):
            raise LookupError(reference) from None

    def conjuncts(self, schema: Any) -> list[Node]:
        """`schema` and the subschemas that its values must meet too: by `$ref` and `allOf`."""
        if not isinstance(schema, dict):
            return []
        found = [schema]
        for part in (*map(self.resolve, _references(schema)), *schema.get("allOf", ())):
            found += self.conjuncts(part)
        return found

    def applied(self, schema: Any) -> Iterator[Node]:
        """`schema` and every subschema that may apply to the same value, breadth first."""
        return _reached(schema, self._in_place)

    def stated_values(self, schema: Any) -> list[JsonValue]:
        """Every enum, const and default value within a subschema, references followed."""
        values: list[JsonValue] = []
        for node in _reached(schema, self._below):
            values += node.get("enum", ())
            values += [leaf.value for key in ("const", "default") for leaf in leaves(node.get(key))]
        return values

    @cached_property
    def reference_faults(self) -> list[tuple[str, str]]:
        """The first reference, or older keyword, that leads nowhere: a predicate, a way out."""
        queue = [*subschemas(self.root)]
        known = {id(node) for node in queue}
        for node in queue:
            if "$id" in node and node is not self.root:
                return [(f'has the "$id" {encode(node["$id"])} below its top', _FLATTEN)]
            if fault := older_fault(node):
                return [fault]
            for reference in _references(node):
                try:
                    target = self.resolve(reference)
                except LookupError:
                    return [(f'refers to "{reference}", which is not in its schema', _DEFINE)]
                if isinstance(target, bool) or id(target) in known:
                    continue
                # Reached by references alone, as below a keyword that JSON Schema does not know.
                try:
                    check_schema(target)
                except SchemaError:
                    return [(f'refers to "{reference}", which is not a schema', _DEFINE)]
                added = [part for part in subschemas(target) if id(part) not in known]
                known.update(map(id, added))
                queue += added
        if self._has_cycle(queue):
            return [("refers to itself without end", 'let each "$ref" lead to a schema of its own')]
        return []

    def _has_cycle(self, nodes: Iterable[Node]) -> bool:
        """Whether a schema applies itself to the same value again (depth-first search)."""
        finished, active = set[int](), set[int]()

        def visit(node: Any) -> bool:
            if not isinstance(node, dict) or id(node) in finished:
                return False
            if id(node) in active:
                return True
            active.add(id(node))
            conditions = (node[key] for key in ("if", "not") if key in node)
            cyclic = any(map(visit, (*self._in_place(node), *conditions)))
            active.remove(id(node))
            finished.add(id(node))
            return cyclic

        return any(map(visit, nodes))

    def _in_place(self, node: Node) -> list[Any]:
        """The subschemas that may apply to the same value, conditions aside."""
        found = [self.resolve(reference) for reference in _references(node)]
        for key in ("allOf", *_ALTERNATIVES):
            found += node.get(key, ())
        found += [node[key] for key in ("then", "else") if key in node]
        return [*found, *node.get("dependentSchemas", {}).values()]

    def _below(self, node: Node) -> list[Any]:
        """Every subschema of a schema, and those that it refers to."""
        found = [self.resolve(reference) for reference in _references(node)]
        return [*found, *DRAFT202012.subresources_of(node)]

    def _unknown_names(self, arguments: Json) -> list[ValidationError]:
        names = self._names(self.root, arguments, ())
        errors = []
        for path in names.closed | {()}:
            value: Any = arguments
            for step in path:
                value = value[step]
            if unknown := [name for name in value if (*path, name) not in names.known]:
                listed = ", ".join(map(repr, unknown))
                verb = "was" if len(unknown) == 1 else "were"
                message = f"Unevaluated properties are not allowed ({listed} {verb} unexpected)"
                errors.append(_error(message, "unevaluatedProperties", path, value, unknown))
        return errors

    def _names(self, schema: Any, value: Any, path: Path) -> _Names:
        """What the schema says of the names within `value`, which is at `path`."""
        names = _Names(set(), set())
        if not isinstance(schema, dict):
            return names
        for part in self._unconditional(schema, value):
            names.add(self._names(part, value, path))
        for key in _ALTERNATIVES:
            if branches := schema.get(key):
                met = [branch for branch in branches if self.accepts(branch, value)]
                found = [self._names(branch, value, path) for branch in met or branches]
                names.known.update(*(each.known for each in found))
                # One branch that leaves an object open is enough.
                names.closed.update(set.intersection(*(each.closed for each in found)))
        if isinstance(value, dict):
            self._add_members(names, schema, value, path)
        elif isinstance(value, list):
            for position, item in enumerate(value):
                names.add(self._names(item_schema(schema, position), item, (*path, position)))
        return names

    def _add_members(self, names: _Names, node: Node, value: Json, path: Path) -> None:
        if any(key in node for key in _NAMING) or any(node.get(key) is False for key in _FURTHER):
            names.closed.add(path)
        unevaluated = node.get("unevaluatedProperties", False)
        for name, item in value.items():
            place = (*path, name)
            members = member_schemas(node, name)
            if not members and place not in names.known and unevaluated is not False:
                members = [unevaluated]
            for member in members:
                names.known.add(place)
                names.add(self._names(member, item, place))

    def _unconditional(self, node: Node, value: Any) -> list[Any]:
        """The subschemas that apply to `value` itself, the branches of alternatives aside."""
        found = [self.resolve(reference) for reference in _references(node)]
        found += node.get("allOf", ())
        if "if" in node:
            found.append(node.get("then" if self.accepts(node["if"], value) else "else"))
        dependent = node.get("dependentSchemas", {}) if isinstance(value, dict) else {}
        return [*found, *(part for name, part in dependent.items() if name in value)]


class _Names(NamedTuple):
    """Paths within a value: of members that are named, and of objects that take no others."""

    known: set[Path]
    closed: set[Path]

    def add(self, other: _Names) -> None:
        self.known.update(other.known)
        self.closed.update(other.closed)


def member_schemas(node: Node, name: str) -> list[Any]:
    """The subschemas of an object's member, by its name; none where the name is not taken."""
    found = named_by(node, name)
    further = node.get("additionalProperties", False)
    return found or ([] if further is False else [further])


def item_schema(node: Node, position: int) -> Any:
    """The subschema of an array's item at `position`; None where there is none."""
    prefix = node.get("prefixItems", ())
    if position < len(prefix):
        return prefix[position]
    return node.get("items", node.get("unevaluatedItems"))


def _without_dialect(node: Json) -> Json:
    return {key: part for key, part in node.items() if key != "$schema"}


def _references(node: Node) -> list[str]:
    return [node[key] for key in ("$ref", "$dynamicRef") if key in node]


def _reached(schema: Any, following: Any) -> Iterator[Node]:
    """`schema` and all that `following` leads to from it, each once, breadth first."""
    queue, seen = [schema], set[int]()
    for node in queue:
        if isinstance(node, dict) and id(node) not in seen:
            seen.add(id(node))
            yield node
            queue += following(node)


def subschemas(schema: Any) -> Iterator[Node]:
    """Every subschema in a document; values such as `const` and `examples` are none."""
    return _reached(schema, DRAFT202012.subresources_of)


def _error(
    message: str, keyword: str, path: Path, instance: Any, keyword_value: Any = None
) -> ValidationError:
    return ValidationError(
        message,
        validator=keyword,
        validator_value=keyword_value,
        path=path,
        instance=instance,
        schema={},
        type_checker=Draft202012Validator.TYPE_CHECKER,
    )


_DEFINE = 'define it under "$defs" of the same parameters; nothing is fetched'
_FLATTEN = "take it out: the parameters are one document, and references stay within it"
