"""Small workflows, candidates and hypothesis strategies that the tests of the stages share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from distill.records import Candidate, Case, Example, ExpectedCall, Message, Scenario, Target
from distill.records import ToolCall as Call
from distill.workflow.model import CallSpec, Rule, RuleExample, Then, Tool, Workflow


def tool(name: str, properties: dict[str, Any], required: tuple[str, ...] = ()) -> Tool:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return Tool(name=name, description=f"The tool {name}.", parameters=schema)


def rule(name: str, then: Then, *examples: RuleExample) -> Rule:
    return Rule(
        id=name, title=name.title(), when="Always.", then=then, text=f"## {name}", examples=examples
    )


def calls(*specs: CallSpec) -> Then:
    return Then(kind="call", calls=specs, text="Call it.")


SEARCH = tool("search", {"query": {"type": "string"}}, ("query",))
BOOK = tool(
    "book",
    {
        "room": {"type": "string"},
        "seats": {"type": "integer"},
        "size": {"enum": ["small", "large"]},
        "unit": {"type": "string", "default": "minutes"},
        "quiet": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "extra": {"type": "object", "properties": {"floor": {"type": "integer"}}},
        "notes": {"type": "object"},
    },
    ("room",),
)
WORKFLOW = Workflow(
    name="office",
    title="Office: search | book",
    prose="",
    rules=(
        rule(
            "docs",
            calls(CallSpec(tool="search", arguments={"query": "{topic}"})),
            RuleExample(text="How much PTO do I get?", arguments={"query": "vacation allowance"}),
        ),
        rule("rooms", calls(CallSpec(tool="book", arguments={"unit": "hours"}))),
        rule("both", calls(CallSpec(tool="search"), CallSpec(tool="book"))),
        rule("site", calls(CallSpec(tool="search", arguments={"query": "handbook {topic}"}))),
        rule("vague", Then(kind="ask", text="Ask which one.")),
        rule("chat", Then(kind="answer", text="Say hello.")),
        rule("pay", Then(kind="refuse", text="Refuse.")),
    ),
    tools=(SEARCH, BOOK),
)


def scenario(rule: str = "docs", target: str = "call", **fields: Any) -> Scenario:
    """A scenario of WORKFLOW, with every field that does not matter filled in."""
    given = {"tools": ("search", "book"), "style": "question", "topic": "leave", "seed": 0}
    return Scenario.of(rule=rule, target=target, **{**given, **fields})


def search(query: str) -> Target:
    return Target(kind="call", calls=(Call(name="search", arguments={"query": query}),))


def candidate(
    prompt: str | tuple[Message, ...], target: Target | None = None, **fields: Any
) -> Candidate:
    asked = scenario(target=(target or search("")).kind, **fields)
    said = messages_of(prompt)
    prompt = said[-1].content
    return Candidate.of(asked, said, target or search(prompt), "grammar")


def example(
    prompt: str | tuple[Message, ...], target: Target | None = None, **fields: Any
) -> Example:
    return Example.promote(candidate(prompt, target, **fields))


def case(prompt: str | tuple[Message, ...], **fields: Any) -> Case:
    given: dict[str, Any] = {"kind": "call", "calls": (ExpectedCall(name="search"),)}
    return Case(id=f"gold-{prompt}", messages=messages_of(prompt), **{**given, **fields})


def messages_of(prompt: str | tuple[Message, ...]) -> tuple[Message, ...]:
    return (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt


THINGS = ("parental leave policy", "travel budget", "VPN setup guide", "travel budgets")
PLACES = ("in Berlin", "in Berlin?", "in London", "for the whole of Europe", "")
OPENINGS = (
    "What is the",
    "Where do I find the",
    "show me the",
    "WHAT IS THE",
    "please send me the",
)

likely_prompts = st.builds(
    lambda *words: " ".join(words).strip(),
    st.sampled_from(OPENINGS),
    st.sampled_from(THINGS),
    st.sampled_from(PLACES),
)
prompts = likely_prompts | st.text(min_size=1, max_size=30).filter(str.strip)
targets = st.sampled_from(
    [search("budget"), search("leave"), Target(kind="refuse", reply="No."), Target(kind="answer")]
)
examples = st.builds(
    example,
    prompts,
    targets,
    rule=st.sampled_from(["docs", "pay"]),
    topic=st.sampled_from(["a", "b", "c", "d", "e", "f"]),
    style=st.sampled_from(["question", "chatty", "keywords"]),
    seed=st.integers(0, 3),
)
example_lists = st.lists(examples, max_size=40)
cases = st.builds(case, prompts)
