"""The tokens that decide, on every format and tokenizer, against a trie of all that is allowed."""

from __future__ import annotations

from itertools import product
from typing import Any

import export_students as tiny
import pytest

from distill.records import JsonValue, Message, Target, ToolCall
from distill.render import Renderer
from distill.render.decisions import Decisions
from distill.workflow.model import Tool

USER = [Message(role="user", content="please do it")]
STATUS = ["open", "opened", "closed"]
OPTIONS = {
    "type": "object",
    "properties": {
        "urgent": {"type": "boolean"},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/status"}},
        "level": {"enum": [1, 10, None]},
    },
    "$defs": {"status": {"enum": STATUS}},
}
TOOLS = [
    Tool(name="set", description="Sets.", parameters=OPTIONS),
    *(
        Tool(
            name=name,
            description="Searches.",
            parameters={"type": "object", "properties": {"query": {"type": "string"}}},
        )
        for name in ("search", "search_web", "search_wiki", "list")
    ),
]
WORDS = Target(kind="answer", reply="Which one?")


def allowed() -> list[Target]:
    """Every answer there is, with one free text."""
    values: list[dict[str, JsonValue]] = [
        {"urgent": urgent, "tags": [first, second], "level": level}
        for urgent, first, second, level in product([True, False], STATUS, STATUS, [1, 10, None])
    ]
    calls = [ToolCall(name="set", arguments=value) for value in values]
    calls += [ToolCall(name=tool.name, arguments={"query": "gate"}) for tool in TOOLS[1:]]
    return [WORDS, *(Target(kind="call", calls=(call,)) for call in calls)]


def branches(completions: set[tuple[int, ...]], own: tuple[int, ...]) -> list[int]:
    """The positions of `own` at which a trie of all completions has several children."""
    found = []
    for at in range(len(own)):
        here = {other[at] for other in completions if other[:at] == own[:at] and len(other) > at}
        if len(here) > 1:
            found.append(at)
    return found


@pytest.mark.parametrize("declarations", ["full", "none"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_decisions_are_the_branches_of_the_trie(family: str, declarations: Any) -> None:
    renderer = Renderer(tiny.tokenizer(family), TOOLS, declarations=declarations)
    decisions = Decisions(renderer)
    rows = [(target, renderer.example(USER, target)) for target in allowed()]
    completions = {tuple(row.completion) for _, row in rows}
    assert len(completions) == len(rows)
    for target, row in rows:
        own = tuple(row.completion)
        start = row.mask.index(True)
        mask = decisions.mask(row, target)
        found = [at - start for at, decides in enumerate(mask) if decides]
        assert found == branches(completions, own), (target, renderer.decode(own))
        assert found


def test_a_row_decides_between_its_own_tools() -> None:
    renderer = Renderer(tiny.tokenizer("qwen3"), TOOLS)
    decisions = Decisions(renderer)
    target = Target(kind="call", calls=(ToolCall(name="search_web", arguments={"query": "x"}),))

    def count(tools: list[Tool]) -> int:
        declared = [tool.openai() for tool in tools]
        return sum(decisions.mask(renderer.example(USER, target, declared), target, declared))

    # Against words alone, a tool of another name, and two that begin alike.
    assert count([TOOLS[2]]) == 1
    assert count([TOOLS[2], TOOLS[4]]) == 2
    assert count(TOOLS[1:]) == 4


def test_each_of_several_calls_decides() -> None:
    renderer = Renderer(tiny.tokenizer("qwen3"), TOOLS)
    first, second = (ToolCall(name=name, arguments={"query": "x"}) for name in ("list", "search"))
    one, two = (Target(kind="call", calls=calls) for calls in ((first,), (first, second)))
    alone, both = (
        Decisions(renderer).mask(renderer.example(USER, target), target) for target in (one, two)
    )
    assert sum(both) > sum(alone)


def test_a_target_without_alternatives_has_one_decision_to_call_at_all() -> None:
    renderer = Renderer(tiny.tokenizer("qwen3"), TOOLS[-1:])
    target = Target(kind="call", calls=(ToolCall(name="list", arguments={"query": "x"}),))
    row = renderer.example(USER, target)
    mask = Decisions(renderer).mask(row, target)
    assert mask.index(True) == row.mask.index(True)
    assert sum(mask) == 1
