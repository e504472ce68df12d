"""Whether the calls that a row expects are those that its rule demands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distill import strict_json
from distill.records import ExpectedCall, Json, Message
from distill.workflow.model import CallSpec, Rule, Tool
from distill.workflow.problems import excerpt
from distill.workflow.schema import json_equal
from distill.workflow.strict import drop_nulls
from distill.workflow.turns import Offered
from distill.workflow.values import InvalidInputError, slots_in


def require_order(
    rule: Rule, expected: Sequence[ExpectedCall], messages: Iterable[Message]
) -> None:
    """Raise InvalidInputError where a later call of the rule is expected before its first."""
    called = {call.name for message in messages for call in message.tool_calls}
    called |= {call.name for call in expected}
    first = rule.then.calls[0].tool if rule.then.calls else None
    if expected and first is not None and first not in called:
        raise InvalidInputError(
            f'expects a call of {expected[0].name}, and its rule "{rule.id}" calls {first} first',
            f"expect {first}; to score a later call, give the messages before it, with the call of "
            f"{first} and its result",
        )


def require_fixed(rule: Rule, expected: Iterable[ExpectedCall], offered: Offered) -> None:
    """Raise InvalidInputError where a call's known arguments contradict what the rule fixes."""
    for call in expected:
        specs = [spec for spec in rule.then.calls if spec.tool == call.name]
        if call.arguments is None or not specs:
            continue
        tool = (offered or {}).get(call.name)
        wrong = [_contradicted(spec, call.arguments, tool) for spec in specs]
        if not all(wrong):
            continue
        name, value = next(iter(wrong[0].items()))
        found = call.arguments.get(name)
        given = f"expects {name} = {_shown(found)}" if found is not None else f"leaves out {name}"
        raise InvalidInputError(
            f'names the rule "{rule.id}", which always calls {call.name} with {name} = '
            f"{_shown(value)}, and {given}",
            "expect what the rule fixes, or take the value out of its Then; without arguments, "
            "only the tool is scored",
        )


def _contradicted(spec: CallSpec, arguments: Json, tool: Tool | None) -> Json:
    """The values that the rule fixes and the arguments have not."""
    fixed = {name: value for name, value in spec.arguments.items() if not any(slots_in(value))}
    # The nulls of the row are dropped, as they say that an argument is left out.
    meant = drop_nulls(tool, fixed) if tool is not None else fixed
    return {n: v for n, v in fixed.items() if not json_equal(arguments.get(n), meant.get(n))}


def _shown(value: object) -> str:
    return excerpt(strict_json.encode(value))
