"""A small workflow with a rule of every kind, and scenarios for it."""

from __future__ import annotations

from distill.records import Scenario
from distill.teachers.base import WriteTask
from distill.workflow.model import CallSpec, Rule, RuleExample, Then, Tool, Words, Workflow

SEARCH = Tool(
    name="search",
    description="Search documents.",
    parameters={
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "what to look for", "maxLength": 80},
            "scope": {"type": "string", "enum": ["internal", "public"]},
            "limit": {"type": "integer", "minimum": 1, "maximum": 50},
        },
        "required": ["query", "scope"],
    },
)
BOOK = Tool(
    name="book",
    description="Book a room.",
    parameters={
        "type": "object",
        "properties": {
            "room": {"$ref": "#/$defs/room"},
            "people": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["room"],
        "$defs": {
            "room": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "floor": {"type": "integer"}},
                "required": ["name"],
            }
        },
    },
)
PING = Tool(name="ping", description="Check.", parameters={"type": "object", "properties": {}})


def _rule(id: str, then: Then, **more: object) -> Rule:
    text = f"## {id}\n**When** it is about {id}.\n**Then** {then.text}"
    return Rule(id=id, title=id.title(), when=f"it is about {id}", then=then, text=text, **more)


RULES = (
    _rule(
        "documents",
        Then(
            kind="call",
            calls=(CallSpec(tool="search", arguments={"query": "{topic}", "scope": "internal"}),),
            text="call `search` with `query` = {topic}, `scope` = internal",
        ),
        examples=tuple(RuleExample(text=f"where is the {word} policy?") for word in "abcdef"),
        words=Words(things=("the travel policy",)),
    ),
    _rule(
        "meetings",
        Then(
            kind="call",
            calls=(
                CallSpec(tool="book"),
                CallSpec(tool="search", arguments={"scope": "public", "limit": 3}),
                CallSpec(tool="ping"),
            ),
            text="call `book`, then `search`, then `ping`",
        ),
    ),
    _rule("vague", Then(kind="ask", reply="Which one?", text="ask which one")),
    _rule("thanks", Then(kind="answer", reply="You are welcome.", text="answer kindly")),
    _rule("secrets", Then(kind="refuse", reply="I cannot.", text="refuse")),
)
OFFICE = Workflow(
    name="office", title="Office", prose="Be helpful.", rules=RULES, tools=(SEARCH, BOOK, PING)
)


def scenario(rule: str = "documents", seed: int = 0, **more: str) -> Scenario:
    fields = {"style": "question", "topic": "the travel policy", **more}
    kind = OFFICE.by_id[rule].then.kind
    return Scenario.of(rule=rule, target=kind, tools=tuple(OFFICE.by_name), seed=seed, **fields)


def scenarios(count: int) -> list[Scenario]:
    """`count` scenarios, over all the rules in turn."""
    return [scenario(RULES[number % len(RULES)].id, seed=number) for number in range(count)]


def task(rule: str = "documents") -> WriteTask:
    return WriteTask(scenario(rule), OFFICE.by_id[rule], OFFICE)
