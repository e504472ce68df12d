"""JSON Schema 2020-12 as arguments are held to it: whole, or some of a call's arguments."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

WholeValidator: Any = Draft202012Validator


class PartialArguments(dict[str, Any]):
    """Some of a call's arguments."""


def _unless_partial(keyword: str, otherwise: str | None) -> Any:
    """The check of a keyword; for PartialArguments that of `otherwise`, or none."""

    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        chosen = otherwise if isinstance(instance, PartialArguments) else keyword
        checks: Any = Draft202012Validator.VALIDATORS
        return checks[chosen](validator, value, instance, schema) if chosen else ()

    return check


# Branches that differ in what they require are alike for partial arguments: oneOf becomes anyOf.
PartialValidator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        keyword: _unless_partial(keyword, "anyOf" if keyword == "oneOf" else None)
        for keyword in (
            *("required", "minProperties", "dependentRequired"),
            *("dependentSchemas", "if", "not", "oneOf"),
        )
    },
)
