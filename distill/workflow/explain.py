"""What distill reads in each rule: for an expert to compare with what was meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distill import strict_json
from distill.workflow.model import CallSpec, Rule, Tool, Workflow
from distill.workflow.problems import comma_list, excerpt, truncate
from distill.workflow.schema import schema_of
from distill.workflow.values import slots_in

SHOWN = {"examples": 3, "not": 2, "slots": 2, "notes": 2, "reply": 4, "calls": 2, "remarks": 3}
"""Entries of each kind on the page of a rule, so that it fits a screen."""
HEIGHT = 24
WIDTH = 78
"""Columns of that page."""


def explain(workflow: Workflow) -> list[dict[str, Any]]:
    """Each rule as it is read, all of it, as JSON values."""
    return [_rule(rule, workflow) for rule in workflow.rules]


def explanation_page(reading: dict[str, Any]) -> list[str]:
    """One entry of `explain` for a terminal: at most HEIGHT lines of WIDTH columns."""
    page = [truncate(line, WIDTH) for line in _lines(reading)]
    return page if len(page) <= HEIGHT else [*page[: HEIGHT - 1], "  …         all of it: --json"]


def _rule(rule: Rule, workflow: Workflow) -> dict[str, Any]:
    then = rule.then
    words = rule.words
    return {
        "rule": rule.id,
        "title": rule.title,
        "line": rule.line,
        "when": rule.when,
        "then": {
            "kind": then.kind,
            "text": then.text,
            "reply": then.reply,
            "calls": [_call(call, workflow.by_name[call.tool]) for call in then.calls],
            "remarks": list(then.remarks),
        },
        "slots": {name: list(values) for name, values in words.slots.items()},
        "words": {
            "things": list(words.things),
            "actions": list(words.actions),
            "phrases": list(words.phrases),
        },
        "examples": [
            {
                "line": e.line,
                "request": e.text,
                "arguments": e.arguments,
                "left_out": list(e.left_out),
            }
            for e in rule.examples
        ],
        "not": [
            {"line": e.line, "request": e.text, "winner": e.winner} for e in rule.counter_examples
        ],
        "notes": list(rule.notes),
    }


def _call(call: CallSpec, tool: Tool) -> dict[str, Any]:
    schema = schema_of(tool)
    filled = {name for name, value in call.arguments.items() if any(slots_in(value))}
    left = [name for name in schema.properties if name not in call.arguments]
    return {
        "tool": call.tool,
        "fixed": {name: value for name, value in call.arguments.items() if name not in filled},
        "filled": {name: value for name, value in call.arguments.items() if name in filled},
        "teacher": [name for name in left if name in schema.required],
        "teacher_may": [name for name in left if name not in schema.required],
    }


def _lines(reading: dict[str, Any]) -> Iterator[str]:
    yield f"{reading['rule']}: {reading['title']} (line {reading['line']})"
    yield f"  when      {excerpt(reading['when'], WIDTH - 12)}"
    yield from _then_lines(reading["then"])
    values = [
        f"{name}: {excerpt(comma_list(map(_apart, values)), WIDTH - 20)}"
        for name, values in reading["slots"].items()
    ]
    yield from _listed("slots", values, SHOWN["slots"])
    words = reading["words"].items()
    yield f"  words     {', '.join(f'{len(texts)} {name}' for name, texts in words)}"
    examples = [
        f'"{excerpt(each["request"])}"{_arguments(each["arguments"], each["left_out"])}'
        for each in reading["examples"]
    ]
    yield from _listed("examples", examples, SHOWN["examples"])
    winners = [f'"{excerpt(each["request"])}" → {each["winner"]}' for each in reading["not"]]
    yield from _listed("not", winners, SHOWN["not"])
    yield from _listed("notes", [f'"{excerpt(note)}"' for note in reading["notes"]], SHOWN["notes"])


def _then_lines(then: dict[str, Any]) -> Iterator[str]:
    if then["kind"] != "call":
        words = then["reply"] or f"in words that a model finds: {then['text']}"
        yield from _listed(then["kind"], words.split("\n"), SHOWN["reply"])
        return
    for call in then["calls"][: SHOWN["calls"]]:
        yield f"  call      {call['tool']}"
        fixed = [f"{name} = {_json(value)}" for name, value in call["fixed"].items()]
        filled = [f"{name} = {_json(value)}" for name, value in call["filled"].items()]
        for what, names in (
            ("fixed", fixed),
            ("filled", filled),
            ("teacher", call["teacher"]),
            ("may add", call["teacher_may"]),
        ):
            if names:
                yield f"    {what:<8}{comma_list(names)}"
    if (more := len(then["calls"]) - SHOWN["calls"]) > 0:
        yield f"            and {more} more calls"
    yield from _listed("says", [f'"{excerpt(each)}"' for each in then["remarks"]], SHOWN["remarks"])


def _listed(name: str, entries: list[str], limit: int) -> Iterator[str]:
    for number, entry in enumerate(entries[:limit]):
        for line, text in enumerate(entry.split("\n")):
            yield f"  {name if number == line == 0 else '':<10}{text}"
    if len(entries) > limit:
        yield f"            and {len(entries) - limit} more"


def _arguments(arguments: dict[str, Any] | None, left_out: list[str]) -> str:
    if arguments is None:
        return ""
    given = [f"{name}: {_json(value)}" for name, value in arguments.items()]
    return "\n  → " + ", ".join([*given, *(f"no {name}" for name in left_out)])


def _apart(value: str) -> str:
    """A value of a slot as one of a list by commas."""
    return f'"{value}"' if "," in value else value


def _json(value: object) -> str:
    return strict_json.encode(value)
