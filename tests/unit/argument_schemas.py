"""Schemas of arguments, for hypothesis: every one of them has a valid value that is short."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = st.one_of(
    st.sampled_from(["a", "city", "a b", "größe", 'q"', "x<y", "$ref"]),
    st.text("abc_", min_size=1, max_size=4),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-50, 50),
    st.sampled_from([0.5, 1e-7, "", "red", 'a "b" \\ c', "line\nend", "é", "<escape", "1"]),
)

MEETING = (
    {"type": ["string", "null"], "enum": ["a", 1, None, "bcd"], "maxLength": 2},
    {"allOf": [{"type": "integer", "minimum": 3}, {"minimum": 7, "maximum": 9}]},
    {"allOf": [{"type": "number", "maximum": 3}, {"minimum": 1, "maximum": 9}]},
    {"allOf": [{"type": "string", "maxLength": 3}, {"minLength": 2, "maxLength": 9}]},
)
"""Schemas whose keywords narrow each other."""


@st.composite
def limits(draw: st.DrawFn, least: str, most: str, high: int) -> dict[str, int]:
    low, size = draw(st.integers(0, high)), draw(st.integers(0, high))
    found = {least: low, most: low + size}
    return {key: found[key] for key in draw(st.sets(st.sampled_from(sorted(found))))}


def leaf() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(lambda values: {"enum": values}, st.lists(SCALARS, min_size=1, max_size=3)),
        st.builds(lambda value: {"const": value}, SCALARS),
        st.builds(lambda more: {"type": "string", **more}, limits("minLength", "maxLength", 5)),
        st.builds(lambda more: {"type": "integer", **more}, limits("minimum", "maximum", 300)),
        st.builds(lambda more: {"type": "number", **more}, limits("minimum", "maximum", 3)),
        st.sampled_from(
            [
                *MEETING,
                {"type": "boolean"},
                {"type": "null"},
                {"type": ["null", "integer"]},
                {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5},
                {"type": "integer", "exclusiveMaximum": -7, "multipleOf": 7},
                {"type": "string", "format": "email"},
                {"type": "string", "format": "date-time"},
                {"type": "string", "pattern": "a|^b+$"},
                {"type": "string", "pattern": r"[\w/]\d{2}", "maxLength": 6},
                {"type": "string", "nullable": True},
                {"type": "object"},
                {},
            ]
        ),
    )


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named = st.dictionaries(NAMES, inner, max_size=3)
    return st.one_of(
        st.builds(
            lambda item, more: {"type": "array", "items": item, **more},
            inner,
            limits("minItems", "maxItems", 2),
        ),
        st.builds(objects, named, st.integers(0, 3)),
        st.builds(lambda one, two: {"anyOf": [one, two]}, inner, inner),
        st.builds(lambda one: {"allOf": [one], "description": "The same."}, inner),
        st.builds(lambda one: {"type": "object", "additionalProperties": one}, inner),
        st.builds(
            lambda one, two: {"type": "array", "prefixItems": [one, two], "items": False},
            inner,
            inner,
        ),
    )


def objects(properties: dict[str, Any], required: int) -> Any:
    return {"type": "object", "properties": properties, "required": sorted(properties)[:required]}


PARAMETERS = st.builds(
    objects,
    st.dictionaries(NAMES, st.recursive(leaf(), larger, max_leaves=4), max_size=3),
    st.integers(0, 3),
)
