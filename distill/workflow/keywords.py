"""JSON Schema 2020-12 as arguments are held to it: whole, or some of a call's arguments.

Patterns are searched in bounded time, and multiples are exact: 19.99 is one of 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from distill.workflow.patterns import is_searchable, occurs

_STANDARD: Any = Draft202012Validator.VALIDATORS
_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("regex")
def _is_regex(pattern: object) -> bool:
    return not isinstance(pattern, str) or is_searchable(pattern)


def check_schema(schema: Any) -> None:
    """Raises jsonschema's SchemaError where `schema` is none, or a pattern in it cannot be read."""
    Draft202012Validator.check_schema(schema, format_checker=_FORMATS)


def named_by(schema: Any, name: str) -> list[Any]:
    """The subschemas that `properties` and `patternProperties` give a member of this name."""
    properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    found = [properties[name]] if name in properties else []
    return found + [part for pattern, part in patterns.items() if occurs(pattern, name)]


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not occurs(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    for name, item in instance.items() if isinstance(instance, dict) else ():
        for part in named_by({"patternProperties": patterns}, name):
            yield from validator.descend(item, part, path=name)


def _additional_properties(
    validator: Any, further: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        rest = {name: item for name, item in instance.items() if not named_by(schema, name)}
        yield from _STANDARD["additionalProperties"](validator, further, rest, {})


def _unevaluated_properties(
    validator: Any, further: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        evaluated = set(_evaluated(validator, instance, schema))
        rest = {name: item for name, item in instance.items() if name not in evaluated}
        yield from _STANDARD["unevaluatedProperties"](validator, further, rest, {})


def _evaluated(validator: Any, instance: Any, schema: Any) -> Iterator[str]:
    """The names that the schema, or what applies beside it, has evaluated."""
    if not isinstance(schema, dict):
        return
    yield from (name for name in instance if named_by(schema, name))
    for keyword in schema.keys() & {"additionalProperties", "unevaluatedProperties"}:
        inner = validator.evolve(schema=schema[keyword])
        yield from (name for name, item in instance.items() if inner.is_valid(item))
    for keyword in schema.keys() & {"$ref", "$dynamicRef"}:
        found = validator._resolver.lookup(schema[keyword])
        inner = validator.evolve(schema=found.contents, _resolver=found.resolver)
        yield from _evaluated(inner, instance, found.contents)
    parts = [part for key in ("allOf", "anyOf", "oneOf") for part in schema.get(key, ())]
    parts += [part for n, part in schema.get("dependentSchemas", {}).items() if n in instance]
    if "if" in schema:
        met = validator.evolve(schema=schema["if"]).is_valid(instance)
        parts += [schema["if"], schema.get("then")] if met else [schema.get("else")]
    for part in parts:
        if isinstance(part, dict) and validator.evolve(schema=part).is_valid(instance):
            yield from _evaluated(validator, instance, part)


def _multiple_of(
    validator: Any, divisor: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "number"):
        return
    if isinstance(instance, float) and not math.isfinite(instance):
        return  # refused beside this: JSON has no such number
    if (_exact(instance) / _exact(divisor)).denominator != 1:
        yield ValidationError(f"{instance!r} is not a multiple of {divisor!r}")


def _exact(number: float) -> Fraction:
    """The number as it is written: 0.01 is a hundredth."""
    return Fraction(number if isinstance(number, int) else repr(number))


WholeValidator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "unevaluatedProperties": _unevaluated_properties,
        "multipleOf": _multiple_of,
    },
)


class PartialArguments(dict[str, Any]):
    """Some of a call's arguments."""


def _unless_partial(keyword: str, otherwise: str | None) -> Any:
    """The check of a keyword; for PartialArguments that of `otherwise`, or none."""

    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        chosen = otherwise if isinstance(instance, PartialArguments) else keyword
        return _STANDARD[chosen](validator, value, instance, schema) if chosen else ()

    return check


# Branches that differ in what they require are alike for partial arguments: oneOf becomes anyOf.
PartialValidator: Any = extend(  # type: ignore[no-untyped-call]
    WholeValidator,
    {
        keyword: _unless_partial(keyword, "anyOf" if keyword == "oneOf" else None)
        for keyword in (
            *("required", "minProperties", "dependentRequired"),
            *("dependentSchemas", "if", "not", "oneOf"),
        )
    },
)
