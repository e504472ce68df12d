"""Whether the slots that a rule names exist, and hold what its tool takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from distill.records import Json
from distill.workflow.model import CallSpec, Tool
from distill.workflow.problems import Problems, did_you_mean, excerpt
from distill.workflow.rules import Draft
from distill.workflow.values import (
    InvalidInputError,
    argument_errors,
    is_valid_argument,
    slots_in,
    typed_argument,
)
from distill.workflow.words import WordLists

TOPIC = "topic"


def check_slots(
    draft: Draft, lists: WordLists, tools: Mapping[str, Tool], problems: Problems
) -> None:
    """Add what is wrong with the slots of a rule's action and of its words."""
    subject = f'rule "{draft.rule.id}"'
    for cause, hint in _faults(draft, lists, tools):
        problems.add(draft.then_line, f"{subject} {cause}", hint)
    for item in lists.texts():
        for name in slots_in(item.text):
            if name not in lists.slots:
                problems.of(item.path).add(
                    item.line,
                    f'{subject}: "{excerpt(item.text)}" needs the slot {{{name}}}, '
                    "which no list has",
                    _missing(name, lists),
                )


def _faults(draft: Draft, lists: WordLists, tools: Mapping[str, Tool]) -> Iterator[tuple[str, str]]:
    then = draft.rule.then
    for name in slots_in([then.reply, *(call.arguments for call in then.calls)]):
        if name != TOPIC and name not in lists.slots:
            yield f"needs the slot {{{name}}}, which no list has", _missing(name, lists)
    for call in then.calls:
        for fault in _value_faults(call, lists, tools[call.tool]):
            yield fault.cause, fault.hint


def _missing(name: str, lists: WordLists) -> str:
    if lists.slots:
        hint = did_you_mean(name, lists.slots, "slots")
        if hint.startswith("did"):
            return hint
    return f"add a list under Slots, as: - {name}: one, another"


def _value_faults(call: CallSpec, lists: WordLists, tool: Tool) -> Iterator[InvalidInputError]:
    fixed: Json = {}
    for name, value in call.arguments.items():
        slots = list(slots_in(value))
        if not slots:
            fixed[name] = value
        elif value == f"{{{slots[0]}}}" and slots[0] in lists.slots:
            yield from _list_faults(tool, name, slots[0], lists)
    yield from argument_errors(tool, fixed, partial=True)


def _list_faults(tool: Tool, name: str, slot: str, lists: WordLists) -> Iterator[InvalidInputError]:
    for item in lists.slots[slot]:
        if not is_valid_argument(tool, name, typed_argument(tool, name, item.text)):
            yield InvalidInputError(
                f'fills "{name}" of {tool.name} from the slot {{{slot}}}, '
                f'whose "{item.text}" is not valid there',
                f"correct the list at {item.path}:{item.line}, or the tool's schema",
            )
