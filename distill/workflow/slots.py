"""Checks that the slots which a rule names exist, and that their values are valid arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from distill.records import Json
from distill.workflow.model import CallSpec, Tool
from distill.workflow.problems import Problems, did_you_mean, excerpt
from distill.workflow.rules import ParsedRule
from distill.workflow.schema import schema_of
from distill.workflow.values import (
    InvalidInputError,
    argument_errors,
    is_valid_argument,
    slots_in,
    typed_argument,
)
from distill.workflow.words import TOPIC, Item, WordLists


def check_slots(
    parsed: ParsedRule, lists: WordLists, tools: Mapping[str, Tool], problems: Problems
) -> None:
    """Add a problem for each wrong slot in a rule's Then and in its words."""
    subject = f'rule "{parsed.rule.id}"'
    then = parsed.rule.then
    for name in slots_in([then.said, *(call.arguments for call in then.calls)]):
        if name != TOPIC and name not in lists.slots:
            problems.add(
                parsed.then_line,
                f"{subject} needs the slot {{{name}}}, which no list has",
                _missing_slot_hint(name, lists)
                + ("; or leave it out of the call: the teacher fills it" if then.calls else ""),
            )
    for call in then.calls:
        for error in _argument_errors(call, lists, tools[call.tool]):
            problems.add(parsed.then_line, f"{subject} {error.cause}", error.hint)
        for item, cause in _invalid_by_name(call, lists, tools[call.tool]):
            problems.of(item.path).advise(
                item.line,
                f"{subject} {cause}",
                "the grammar teacher fills it from there: correct the list, or name it otherwise",
            )
    for item in lists.texts():
        for name in slots_in(item.text):
            if name not in lists.slots:
                problems.of(item.path).add(
                    item.line,
                    f'{subject}: "{excerpt(item.text)}" needs the slot {{{name}}}, '
                    "which no list has",
                    _missing_slot_hint(name, lists),
                )


def _missing_slot_hint(name: str, lists: WordLists) -> str:
    if name == TOPIC:
        return (
            "{topic} stands in Then; a phrase has its topic in brackets, as: who wrote [the plan]"
        )
    if lists.slots:
        hint = did_you_mean(name, lists.slots, "slots")
        if hint.startswith("did"):
            return hint
    return f"add a list under Slots, as: - {name}: one, another"


def _argument_errors(call: CallSpec, lists: WordLists, tool: Tool) -> Iterator[InvalidInputError]:
    constants: Json = {}
    for name, value in call.arguments.items():
        slots = list(slots_in(value))
        if not slots:
            constants[name] = value
        elif value == f"{{{slots[0]}}}" and slots[0] in lists.slots:
            for item in lists.slots[slots[0]]:
                if not _is_valid(item, tool, name):
                    yield InvalidInputError(
                        f'fills "{name}" of {tool.name} from the slot {value}, '
                        f'whose "{item.text}" is not valid there',
                        f"correct the list at {item.path}:{item.line}, or the tool's schema",
                    )
    yield from argument_errors(tool, constants, partial=True)


def _invalid_by_name(call: CallSpec, lists: WordLists, tool: Tool) -> Iterator[tuple[Item, str]]:
    """A wrong value of each list that is named as an argument which the rule leaves out."""
    for name in schema_of(tool).required:
        items = lists.slots.get(name, []) if name not in call.arguments else []
        for item in [item for item in items if not _is_valid(item, tool, name)][:1]:
            value = excerpt(item.text)
            yield (
                item,
                f'has "{value}" in the slot list "{name}", which is no {name} of {tool.name}',
            )


def _is_valid(item: Item, tool: Tool, name: str) -> bool:
    return is_valid_argument(tool, name, typed_argument(tool, name, item.text))
