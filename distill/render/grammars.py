"""Grammars of one tool's calls, in the Lark dialect of llguidance.

Whatever a grammar takes is read back by the renderer, and is valid by the tool's schema as far as a
grammar can say it: types, enumerations, bounds, nested objects, lists, patterns, and names that
count as in `distill.workflow.schema`. It is not the whole language that a schema allows: arguments
stand in one order, of two ways to write a value there is the one that `Format.write` has, and
numbers have no exponents.

Syntax: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from distill import strict_json
from distill.records import Json
from distill.render.patterns import FORMATS, lark_regex, search_regex
from distill.render.syntax import ArgumentSyntax, RenderError
from distill.workflow.patterns import SlowPatternError
from distill.workflow.schema import ArgumentsSchema, Node, member_schemas

_MAX_DEPTH = 16
"""Objects and lists nested deeper than this are not written."""
_MAX_BRANCHES = 64
"""Ways to combine the alternatives of one schema."""
_ANY: Json = {}
_OBJECT: Json = {"type": "object"}
_KINDS = ("string", "number", "boolean", "null", "array", "object")
_IMPLIED = {
    "object": {"properties", "required", "additionalProperties", "patternProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"pattern", "format", "minLength", "maxLength"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
_NUMBERS = _IMPLIED["number"]


class Bounds(NamedTuple):
    """How much of what a schema leaves open may be written; its own limits always count."""

    text: int | None
    """Characters."""
    items: int
    """Items of a list, and members of an object without names."""
    digits: int
    pattern: int | None = None
    """Characters of a text with a pattern or format, which may need more of them."""
    optional: bool = True
    """Whether optional arguments may be given."""


BOUNDS = (
    Bounds(None, 64, 15),
    Bounds(48, 4, 6, pattern=48),
    Bounds(12, 1, 3, pattern=24),
    Bounds(0, 0, 1, pattern=16, optional=False),
    Bounds(0, 0, 1, pattern=64, optional=False),
)
"""Ever tighter: an answer that would not end within one of them is written within the next."""


class UnsupportedSchemaError(ValueError):
    """A schema of which no grammar can be made; str() says why."""


class Words(NamedTuple):
    """What stands around a text, and what it may not hold."""

    pieces: Callable[[str], str]
    """Text as a Lark expression, its special tokens as tokens."""
    markers: Sequence[str]


def call_grammar(
    head: str, schema: ArgumentsSchema, tail: str, syntax: ArgumentSyntax, words: Words, to: Bounds
) -> str:
    """A grammar of `head`, arguments of the schema, `tail`. Raises UnsupportedSchemaError."""
    rules = _Rules(schema, syntax, words, to)
    start = rules.value((schema.root, _OBJECT), _MAX_DEPTH)
    if start is None:
        raise UnsupportedSchemaError("no arguments are valid by it")
    return "\n".join([f"start: {words.pieces(head)} {start} {words.pieces(tail)}", *rules.lines])


def reply_grammar(head: str, tail: str, words: Words) -> str:
    """A grammar of `head`, a reply that begins no call in any format, `tail`."""
    text = rf"/[^\s\[{{;<](?s:.*)/ & ~/call:(?s:.*)/{_without(words.markers)}"
    return f"start: {words.pieces(head)} TEXT {words.pieces(tail)}\nTEXT: {text}"


class _Rules:
    """The rules of a schema's values; `parts` of a value are the schemas that it must meet."""

    def __init__(
        self, schema: ArgumentsSchema, syntax: ArgumentSyntax, words: Words, bounds: Bounds
    ) -> None:
        self.lines: list[str] = []
        self._schema = schema
        self._syntax = syntax
        self._words = words
        self._bounds = bounds
        self._names: dict[str, str] = {}
        self._values: dict[tuple[object, ...], str | None] = {}
        self._kept: list[Any] = []

    def value(self, parts: Sequence[Any], depth: int) -> str | None:
        """The name of the rule of a value; None where no value is valid, or none this deep."""
        key = (depth, *map(id, parts))
        if key not in self._values:
            self._kept.append(parts)
            found = [
                text for nodes in self._branches(parts) for text in self._alternatives(nodes, depth)
            ]
            self._values[key] = self._rule(" | ".join(dict.fromkeys(found))) if found else None
        return self._values[key]

    def _branches(self, parts: Sequence[Any]) -> list[list[Node]]:
        """The conjunctions of schemas, without alternatives, of which a value must meet one."""
        found: list[list[Node]] = [[]]
        for part in parts:
            if part is False:
                return []
            if not isinstance(part, dict):
                continue
            found = [[*nodes, part] for nodes in found]
            references = [part[key] for key in ("$ref", "$dynamicRef") if key in part]
            also = [*map(self._schema.resolve, references), *part.get("allOf", ())]
            for choice in [[one] for one in also] + [
                part[key] for key in ("anyOf", "oneOf") if key in part
            ]:
                further = [more for one in choice for more in self._branches([one])]
                found = [nodes + more for nodes in found for more in further]
                if len(found) > _MAX_BRANCHES:
                    raise UnsupportedSchemaError("its alternatives combine in too many ways")
        return found

    def _alternatives(self, nodes: Sequence[Node], depth: int) -> Iterator[str]:
        listed = [node["enum"] for node in nodes if "enum" in node]
        listed += [[node["const"]] for node in nodes if "const" in node]
        kinds = _kinds(nodes)
        if listed:
            for value in listed[0]:
                if self._accepts(nodes, value):
                    try:
                        yield self._words.pieces(self._syntax.value(value))
                    except RenderError:
                        continue
            return
        for kind in kinds:
            match kind:
                case "string":
                    yield from self._text(nodes)
                case "number" | "integer":
                    yield from self._number(nodes, kind)
                case "boolean":
                    yield '"true" | "false"'
                case "null":
                    yield '"null"'
                case "array":
                    yield from self._list(nodes, depth)
                case _:
                    yield from self._object(nodes, depth)

    def _accepts(self, nodes: Sequence[Node], value: Any) -> bool:
        try:
            return all(self._schema.accepts(node, value) for node in nodes)
        except SlowPatternError:
            return False

    def _text(self, nodes: Sequence[Node]) -> Iterator[str]:
        forms = [search_regex(node["pattern"]) for node in nodes if "pattern" in node]
        forms += [FORMATS[name] for node in nodes if (name := node.get("format")) in FORMATS]
        bound = self._bounds.pattern if forms else self._bounds.text
        low, high = _limits(nodes, "minLength", "maxLength", bound)
        quote = self._words.pieces(self._syntax.quote)
        if low == 0 and not forms:
            yield f"{quote} {quote}"
        if high == 0:
            return
        character = self._syntax.plain if forms else self._syntax.character
        text = f"{character}{{{max(1, low)},{'' if high is None else high}}}"
        shape = " & ".join(map(lark_regex, [*forms, text]))
        name = self._rule(f"{shape}{_without(self._words.markers)}", "TEXT")
        yield f"{quote} {name} {quote}"

    def _number(self, nodes: Sequence[Node], kind: str) -> Iterator[str]:
        limits: dict[str, Any] = {}
        for node in nodes:
            for key in _NUMBERS & node.keys():
                if key == "multipleOf" and limits.get(key, node[key]) != node[key]:
                    raise UnsupportedSchemaError(f"two of its parts have {key}")
                tighter = min if key.lower().endswith("maximum") else max
                limits[key] = tighter(node[key], limits.get(key, node[key]))
        if not limits and kind == "number" and self._bounds.digits > 3:
            digits = self._bounds.digits
            whole = rf"-?(?:0|[1-9][0-9]{{0,{digits - 1}}})"
            yield self._rule(rf"/{whole}(?:\.[0-9]{{1,6}})?/", "NUMBER")
            return
        integer = _with_integer(limits)
        if kind == "number" and integer and (self._bounds.digits <= 6 or not limits):
            kind = "integer"
        most = max(10**self._bounds.digits - 1, limits.get("multipleOf", 0))
        low = limits.get("minimum", limits.get("exclusiveMinimum"))
        high = limits.get("maximum", limits.get("exclusiveMaximum"))
        if low is None:
            limits["minimum"] = -most if high is None else min(-most, high - most)
        if high is None:
            limits["maximum"] = most if low is None else max(most, low + most)
        told = {"type": kind, **limits, "x-guidance": {"whitespace_flexible": False}}
        yield self._rule(f"%json {strict_json.encode(told)}")

    def _list(self, nodes: Sequence[Node], depth: int) -> Iterator[str]:
        low, high = _limits(nodes, "minItems", "maxItems", self._bounds.items)
        assert high is not None
        if low == 0:
            yield '"[" "]"'
        if depth == 0:
            return
        comma = _literal(self._syntax.comma)
        places = max((len(node.get("prefixItems", ())) for node in nodes), default=0)
        if places == 0:
            item = self.value([node["items"] for node in nodes if "items" in node], depth - 1)
            if item and high:
                yield f'"[" {item} {_repeated(f"{comma} {item}", low - 1, high - 1)} "]"'
            return
        items = []
        for place in range(min(high, places + self._bounds.items)):
            item = self.value([_item(node, place) for node in nodes], depth - 1)
            if item is None:
                break
            items.append(item)
        for count in range(max(low, 1), len(items) + 1):
            yield '"[" ' + f" {comma} ".join(items[:count]) + ' "]"'

    def _object(self, nodes: Sequence[Node], depth: int) -> Iterator[str]:
        low, high = _limits(nodes, "minProperties", "maxProperties", self._bounds.items)
        assert high is not None
        required = {name for node in nodes for name in node.get("required", ())}
        optional = self._bounds.optional or len(required) < low
        names = dict.fromkeys(name for node in nodes for name in node.get("properties", ()))
        names |= dict.fromkeys(name for node in nodes for name in node.get("required", ()))
        members: list[tuple[str, bool]] = []
        for name in sorted(names) if self._syntax.sorts_names else names:
            if name not in required and not optional:
                continue
            member = self._member(nodes, name, depth)
            if member is not None:
                members.append((member, name in required))
            elif name in required:
                return
        if members:
            yield f'"{{" {self._sequence(members, empty=low == 0)} "}}"'
            return
        if low == 0:
            yield '"{" "}"'
        further = self._further(nodes, depth == _MAX_DEPTH)
        member = self.value(further, depth - 1) if further and depth and high else None
        if member and not names:
            quote = _literal(self._syntax.key_quote) if self._syntax.key_quote else ""
            key = self._rule("/[A-Za-z_][A-Za-z0-9_]{0,30}/", "KEY")
            pair = self._rule(f"{quote} {key} {quote} {_literal(self._syntax.colon)} {member}")
            more = _repeated(f"{_literal(self._syntax.comma)} {pair}", low - 1, high - 1)
            yield f'"{{" {pair} {more} "}}"'

    def _member(self, nodes: Sequence[Node], name: str, depth: int) -> str | None:
        """A member with its name; None where it cannot be given."""
        parts: list[Any] = []
        for node in nodes:
            own = member_schemas(node, name)
            if not own and node.get("additionalProperties") is False:
                return None
            parts += own
        value = self.value(parts, depth - 1) if depth else None
        if value is None:
            return None
        try:
            key = self._words.pieces(self._syntax.key(name))
        except RenderError:
            return None
        return f"{key} {_literal(self._syntax.colon)} {value}"

    def _sequence(self, members: Sequence[tuple[str, bool]], *, empty: bool) -> str:
        """Members in order with commas between, the optional ones given or left out.

        empty: whether all of them may be left out
        """
        comma = _literal(self._syntax.comma)
        # What may follow where no member stands yet, and where one does.
        first, next_ = ('""' if empty else None), '""'
        for member, required in reversed(members):
            skipped = [] if required else [first, next_]
            given = (f"{member} {next_}", f"{comma} {member} {next_}")
            first = self._rule(" | ".join(filter(None, [given[0], *skipped[:1]])))
            next_ = self._rule(" | ".join(filter(None, [given[1], *skipped[1:]])))
        assert first is not None
        return first

    def _further(self, nodes: Sequence[Node], root: bool) -> list[Any]:
        """The schemas of members without a name of their own; none where there can be none."""
        keys = ("additionalProperties", "unevaluatedProperties")
        found = [node[key] for node in nodes for key in keys if key in node]
        named = any("properties" in node or "patternProperties" in node for node in nodes)
        if False in found or (not found and (root or named)):
            return []
        return found or [_ANY]

    def _rule(self, text: str, kind: str = "r") -> str:
        """The name of the rule, or terminal, that stands for `text`."""
        if text not in self._names:
            self._names[text] = f"{kind}{len(self._names)}"
            self.lines.append(f"{self._names[text]}: {text}")
        return self._names[text]


def _kinds(nodes: Sequence[Node]) -> list[str]:
    """The types that all of the nodes allow, by keywords where none is named."""
    found = {*_KINDS, "integer"}
    for node in nodes:
        if "type" in node:
            names = node["type"] if isinstance(node["type"], list) else [node["type"]]
            found &= {*names, *(["integer"] if "number" in names else [])}
    if not any("type" in node for node in nodes):
        keywords = {key for node in nodes for key in node}
        found = {kind for kind, implied in _IMPLIED.items() if implied & keywords} or {*_KINDS}
    if "number" in found:
        found.discard("integer")
    return [kind for kind in (*_KINDS, "integer") if kind in found]


def _limits(
    nodes: Sequence[Node], least: str, most: str, bound: int | None
) -> tuple[int, int | None]:
    low = max((int(node[least]) for node in nodes if least in node), default=0)
    highs = [int(node[most]) for node in nodes if most in node]
    if bound is not None:
        highs.append(max(low, bound))
    return low, min(highs, default=None)


def _with_integer(limits: Json) -> bool:
    """Whether an integer keeps the limits of a number, as far as is known at once."""
    if "multipleOf" in limits:
        return False
    low, high = limits.get("minimum"), limits.get("maximum")
    low = limits.get("exclusiveMinimum") if low is None else low
    high = limits.get("exclusiveMaximum") if high is None else high
    return low is None or high is None or high - low > 1  # type: ignore[operator]


def _item(node: Node, place: int) -> Any:
    prefix = node.get("prefixItems", ())
    return prefix[place] if place < len(prefix) else node.get("items", True)


def _repeated(text: str, low: int, high: int) -> str:
    return f"({text}){{{max(low, 0)},{high}}}" if high > 0 else ""


def _literal(text: str) -> str:
    return strict_json.encode(text)


def _without(markers: Sequence[str]) -> str:
    """The part of a terminal that excludes texts with one of `markers` in them."""
    if not markers:
        return ""
    listed = "|".join(map(re.escape, markers))
    return f" & ~{lark_regex(f'(?s:.*)(?:{listed})(?s:.*)')}"
