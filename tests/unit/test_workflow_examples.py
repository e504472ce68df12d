"""The items under Examples and Not: arrows, calls and arguments are read, or refused."""

from __future__ import annotations

import json

import pytest

from distill.data.checks import argument_problem
from distill.errors import DistillError, WorkflowError
from distill.records import ToolCall
from distill.workflow import load_workflow
from distill.workflow.cases import cases_of_rows
from distill.workflow.examples import read_example
from distill.workflow.model import Tool
from distill.workflow.then import read_then
from distill.workflow.values import InvalidInputError, argument_errors

TOOLS = [
    {
        "name": "find_order",
        "description": "Find an order.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}},
            "required": ["query"],
        },
    },
    {
        "name": "book",
        "description": "Book.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "seats": {"type": "integer"}},
            "required": ["place", "seats"],
        },
    },
]
ARROWS = ["→", "->", "-->", "=>", "==>", "⇒", "⟶", "⟹", "—>", "–>", "➡️", "➔", "&rarr;", "-&gt;"]
RIGHT = [
    'find_order(query="order 6")',
    "find_order(query='order 6')",
    "find_order(query=order 6)",
    "find_order(query: order 6)",
    'find_order("order 6")',
    'find_order({"query": "order 6"})',
    '`find_order(query="order 6")`',
    'call find_order(query="order 6").',
    '`find_order`(query="order 6")',
    "`find_order` with `query` = “order 6”",
    "call the tool `find_order` with query: order 6",
    'find_order {"query": "order 6"}',
    "find_order: query: order 6",
    '{"query": "order 6"}',
    "{“query”: “order 6”}",
    "{'query': 'order 6'}",
    '{"name": "find_order", "arguments": {"query": "order 6"}}',
    "query: order 6",
    "query = 'order 6'",
    "`query`: `order 6`",
    "**query**: ‘order 6’",
    'Query: "order 6"',
    "order 6",
    "«order 6»",
]
THEN = {
    "find": "call `find_order`",
    "book": "call `book`",
    "answer": 'answer: "Yes."',
}


def load(folder, then, items, part="Examples", text=""):
    rules = f"## one: One\n\n**When** it is.\n\n**Then** {THEN[then]}\n\n### {part}\n"
    rules += text or "".join(f"- {item}\n" for item in items)
    rules += '\n\n## two: Two\n\n**When** not.\n\n**Then** answer: "No."\n'
    (folder / "rules.md").write_text(rules, encoding="utf-8")
    (folder / "tools.json").write_text(json.dumps(TOOLS), encoding="utf-8")
    return load_workflow(folder / "rules.md").rules[0]


def test_every_arrow_before_every_form_is_the_same_call(tmp_path):
    items = [f"has order 6 left {arrow} {right}" for arrow in ARROWS for right in RIGHT]
    rule = load(tmp_path, "find", items)
    assert {example.text for example in rule.examples} == {"has order 6 left"}
    for item, example in zip(items, rule.examples, strict=True):
        assert example.arguments == {"query": "order 6"}, item


def test_every_arrow_points_to_the_rule_that_wins(tmp_path):
    items = [
        f"how from A -> B {arrow} {winner}" for arrow in ARROWS for winner in ("two", "`two`.")
    ]
    rule = load(tmp_path, "find", items, part="Not")
    found = {(example.text, example.winner) for example in rule.counter_examples}
    assert found == {("how from A -> B", "two")}


KEPT = {
    '"how do I get from A -> B"': ("how do I get from A -> B", None),
    "`how do I get from A -> B`": ("how do I get from A -> B", None),
    "how do I get from A \\-> B": ("how do I get from A -> B", None),
    "how do I get from A \\⇒ B": ("how do I get from A ⇒ B", None),
    "what does a->b mean in C": ("what does a->b mean in C", None),
    '„from A => B“ → query: "A to B"': ("from A => B", {"query": "A to B"}),
    'from A -> B → query: "A -> B"': ("from A -> B", {"query": "A -> B"}),
    'order 6→query: "6"': ("order 6", {"query": "6"}),
    "order 6 →find_order(query='6', limit=3)": ("order 6", {"query": "6", "limit": 3}),
    "what does find_order do → find_order do": (
        "what does find_order do",
        {"query": "find_order do"},
    ),
    "what does printf(x) do → printf(x)": ("what does printf(x) do", {"query": "printf(x)"}),
    "where is it - query: fine": ("where is it - query: fine", None),
    'what is find_order() for → query: "find_order()"': (
        "what is find_order() for",
        {"query": "find_order()"},
    ),
    'is it → query: "limit: 3, see"': ("is it", {"query": "limit: 3, see"}),
    "the query limits of plans → query limits": (
        "the query limits of plans",
        {"query": "query limits"},
    ),
}


@pytest.mark.parametrize("item", KEPT)
def test_a_request_keeps_its_own_arrows(tmp_path, item):
    (example,) = load(tmp_path, "find", [item]).examples
    assert (example.text, example.arguments) == KEPT[item]


MARKED = {
    "**Where** is it": "Where is it",
    "*where* is **the** order": "where is the order",
    "__where is it__": "where is it",
    "where is <b>it</b>": "where is it",
    "[ ] where is it": "where is it",
    "[x] where is it": "where is it",
    "✅ where is it": "where is it",
    "User: where is it": "where is it",
    "**Customer:** where is it": "where is it",
    "where is it<br>please": "where is it please",
    "2 * 3 * 4 is what": "2 * 3 * 4 is what",
    "my_snake_case_file": "my_snake_case_file",
    "a<b and b>c": "a<b and b>c",
    "is user: admin ok": "is user: admin ok",
    '"**Where** is it"': "**Where** is it",
    '"User: where is it"': "User: where is it",
}


@pytest.mark.parametrize("part", ["Examples", "Not"])
@pytest.mark.parametrize("item", MARKED)
def test_what_a_page_puts_around_a_request_is_taken_off(tmp_path, item, part):
    rule = load(tmp_path, "find", [item if part == "Examples" else f"{item} → two"], part)
    (example,) = rule.examples or rule.counter_examples
    assert example.text == MARKED[item]


@pytest.mark.parametrize("mark", ["❌", "🚫", "Bad:", "Wrong:"])
def test_what_is_marked_as_wrong_is_no_example(tmp_path, mark):
    with pytest.raises(WorkflowError, match="marked as wrong"):
        load(tmp_path, "find", [f"{mark} where is it"])
    (other,) = load(tmp_path, "find", [f"{mark} where is it → two"], "Not").counter_examples
    assert other.text == "where is it"


def test_the_full_stop_of_a_bullet_is_no_part_of_a_value():
    tools = {"room": ROOM}
    then = read_then("call `room`", tools)
    assert read_example("a big room → note: big.", then, tools).arguments == {"note": "big"}


TAILS = {
    'where is order 6 (query: "order 6")': {"query": "order 6"},
    "where is order 6 [query=order 6, limit=3]": {"query": "order 6", "limit": 3},
    'where is order 6: query="order 6"': {"query": "order 6"},
    "where is order 6, query=order 6": {"query": "order 6"},
    "where is order 6 - query: order 6": {"query": "order 6"},
    'where is order 6 {"query": "order 6"}': {"query": "order 6"},
}


@pytest.mark.parametrize("item", TAILS)
def test_arguments_without_an_arrow_are_no_part_of_the_request(tmp_path, item):
    (example,) = load(tmp_path, "find", [item]).examples
    assert (example.text, example.arguments) == ("where is order 6", TAILS[item])


@pytest.mark.parametrize(
    "item",
    ["my query: where is 5", "what is the limit: 5 or 6?", "urgent: where is 5", "x (query)"],
)
def test_a_colon_of_the_request_is_its_own(tmp_path, item):
    (example,) = load(tmp_path, "find", [item]).examples
    assert (example.text, example.arguments) == (item, None)


@pytest.mark.parametrize("value", ["null", "None", "NULL"])
def test_an_argument_that_is_not_set_is_none_of_the_call(tmp_path, value):
    (example,) = load(tmp_path, "find", [f"where is 6 → query: 6, limit: {value}"]).examples
    assert example.arguments == {"query": "6"}


REFUSED = {
    "see [this](http://x.y) page": ("find", "the markup [this](http://x.y)", "quotes"),
    "note[^1] here": ("find", "the markup [^1]", "quotes"),
    "~~gone~~ here": ("find", "the markup ~~gone~~", "quotes"),
    "User: hi Agent: hello": ("find", 'holds "Agent:"', "one turn"),
    "where is order 6 (limit: 3)": ("find", "may have arguments", "→ name: value"),
    "orders with limit=3 please": ("find", "may have arguments", "→ name: value"),
    **{
        f"where is 5 → query: {text}": ("find", "stands for a value", "leave the arguments out")
        for text in ("the order number", "as given", '"<topic>"', "TBD", "n/a", "-")
    },
    "has order 6 left → find_order": ("find", "only the name of the tool", "name: value"),
    "has order 6 left → `find_order`.": ("find", "only the name of the tool", "name: value"),
    "has order 6 left → book(place='x', seats=2)": ("find", "calls book", "move it"),
    "has order 6 left → find_ordr(query='6')": ("find", '"find_ordr"', '"find_order"?'),
    "has order 6 left → find_order(query='6'), book(seats=1)": ("find", "goes on with", "first"),
    "has order 6 left → find_order(query='6'": ("find", "not closed", "close"),
    "has order 6 left → find_order()": ("find", 'leaves out "query"', "query"),
    "has order 6 left → find_order(qury='6')": ("find", '"qury"', '"query"?'),
    'has order 6 left :: query: "6"': ("find", "without an arrow", "→"),
    "has order 6 left ← query: 6": ("find", "without an arrow", "→"),
    "has order 6 left | find_order(query='6')": ("find", "without an arrow", "→"),
    **{
        f"has order 6 left → {right}": ("find", "looks like more than a value", "quotes")
        for right in (
            'query "order 6"',
            "query is order 6",
            "with query order 6",
            "find_order order 6",
            '(query="order 6")',
            "[query: order 6]",
            "find_order, query: order 6",
            'find_order query="order 6"',
            "query: order 6 limit: 3",
            "query: order 6 | limit=3",
            "query: order 6 → limit: 3",
            '[find_order(query="order 6")]',
        )
    },
    "has order 6 left → query:": ("find", "no value", "sign"),
    "has order 6 left → query: {topic}": ("find", "the slot {topic}", "this request"),
    'has order 6 left: find_order(query="order 6")': ("find", "without an arrow", "→"),
    "has order 6 left (find_order: query=order 6)": ("find", "without an arrow", "→"),
    '"has order 6 left" query: order 6': ("find", "without an arrow", "→"),
    '"has order 6 left": query: order 6': ("find", "without an arrow", "→"),
    "has order 6 left ->6": ("find", "without an arrow", "quotes"),
    "how do I get from A -> B": ("find", "neither an argument nor in the request", "quotes"),
    "from A -> B -> C": ("find", "more than one arrow", "quotes"),
    "has it left → 7": ("book", "does not say which argument", "place: …, seats: …"),
    "how do I get from A -> B ": ("answer", "the rule says answer", "quotes"),
    "how do I get from A => B": ("answer", "the rule says answer", "quotes"),
    "is it → find_order(query='it')": ("answer", "the rule says answer", "remove"),
}


@pytest.mark.parametrize("item", REFUSED)
def test_what_is_neither_arguments_nor_a_call_is_refused(tmp_path, item):
    then, cause, hint = REFUSED[item]
    with pytest.raises(WorkflowError) as caught:
        load(tmp_path, then, ["fine", item])
    (problem,) = caught.value.problems
    assert problem.place.endswith("rules.md:9")
    assert cause in problem.cause
    assert hint in problem.hint


UNREAD = {
    ("Examples", "- where is {query}"): (8, "holds the slot {query}", "into quotes"),
    ("Examples", "- is it 6 → query: 6\n- fine\n- Is it  6 → limit: 3, query: 6"): (
        10,
        'gives "Is it 6" other arguments than in line 8',
        "keep the one",
    ),
    ("Examples", "- fine\n\n**Note** it is late."): (10, "**Note**", "### Notes"),
    ("Examples", "- fine\n\n**Never** when rude."): (10, "**Never**", "a heading of its own"),
    ("Not", "- bye {topic} → two"): (8, "holds the slot {topic}", "into quotes"),
    ("Not", "when the user says goodbye."): (8, "is not understood in Not", "belongs to When"),
    ("Not", "- requests for a taxi"): (8, "which rule wins", "belongs to When"),
    ("Not", "- bye → two\n- thanks → two\n- Bye → three"): (
        10,
        'gives "Bye" to "three", and to "two" in line 8',
        "keep the one",
    ),
    **{
        ("Not", f"- bye → {winner}"): (8, "names unknown rule", "write only the id of the one rule")
        for winner in ("rule two", "two (a farewell)", "two, or one", "the rule `two`", "two: Two")
    },
    ("Not", "- bye → tow"): (8, 'names unknown rule "tow"', 'did you mean "two"?'),
}


@pytest.mark.parametrize(("part", "text"), UNREAD)
def test_what_stands_among_requests_and_is_none_is_told(tmp_path, part, text):
    line, cause, hint = UNREAD[part, text]
    with pytest.raises(WorkflowError) as caught:
        load(tmp_path, "find", [], part, text)
    problem = caught.value.problems[0]
    assert problem.place.endswith(f"rules.md:{line}")
    assert cause in problem.cause
    assert hint in problem.hint


def test_the_same_request_may_stand_with_its_arguments_and_without(tmp_path):
    items = ["is it 6", "is it 6 → query: 6", "Is it 6 → find_order(query='6')"]
    rule = load(tmp_path, "find", items)
    assert [each.arguments for each in rule.examples] == [None, {"query": "6"}, {"query": "6"}]


@pytest.mark.parametrize("heading", ["Note", "Notes", "note"])
def test_a_heading_of_the_authors_own_is_a_note(tmp_path, heading):
    rule = load(tmp_path, "find", ["fine", f"fine too\n\n### {heading}\n\nAs it is."])
    assert [each.text for each in rule.examples] == ["fine", "fine too"]
    assert rule.notes == (f"{heading}: As it is.",)


@pytest.mark.parametrize(
    "request_", ["damage on [P-1]", '"damage on {topic}"', '"damage on [P-1]"', "[URGENT] where"]
)
@pytest.mark.parametrize(("part", "arrow"), [("Examples", ""), ("Not", " → two")])
def test_marks_that_mean_something_elsewhere_are_advised_on(tmp_path, request_, part, arrow):
    load(tmp_path, "find", [request_ + arrow], part)
    (advice,) = load_workflow(tmp_path / "rules.md").remarks
    assert advice.place.endswith("rules.md:8")
    assert "holds the markup" in advice.cause


ROOM = Tool(
    name="room",
    description="Book a room.",
    parameters={
        "type": "object",
        "properties": {
            "note": {"type": "string"},
            "kind": {"enum": ["single", "suite"], "default": "suite"},
            "price": {"type": ["number", "null"]},
            "nights": {"type": "integer"},
            "breakfast": {"type": "boolean"},
            "contact": {"type": "object", "properties": {"channel": {"type": "string"}}},
        },
    },
)
SPOKEN = {
    "kind: Suite": {"kind": "suite"},
    "kind: SUITE, price: 200 euros": {"kind": "suite", "price": 200},
    "price: 19.5 EUR, nights: 2 nights": {"price": 19.5, "nights": 2},
    "nights: 3 people": {"nights": 3},
    "note: Suite, 200 euros": {"note": "Suite, 200 euros"},
    "note: urgent: late, kind: suite": {"note": "urgent: late", "kind": "suite"},
    "note: a room, breakfast at six": {"note": "a room, breakfast at six"},
    "note: a room, kind": {"note": "a room, kind"},
    'note: "a room, breakfast"': {"note": "a room, breakfast"},
    'note: "a room, size: big"': {"note": "a room, size: big"},
    "note: so, size: big": {"note": "so, size: big"},
}


@pytest.mark.parametrize("written", SPOKEN)
def test_a_value_is_read_as_then_reads_it(written):
    tools = {"room": ROOM}
    request = "a room, breakfast at six, so, size: big"
    example = read_example(f'"{request}" → {written}', read_then("call `room`", tools), tools)
    assert example.arguments == SPOKEN[written]


def test_what_an_example_says_is_not_set_is_shown():
    tools = {"room": ROOM}
    example = read_example(
        "a room → nights: 2, price: null", read_then("call `room`", tools), tools
    )
    assert (example.arguments, example.left_out) == ({"nights": 2}, ("price",))


MEANT = {
    "note: late, breakfast": ('"breakfast" behind a comma', "breakfast: true"),
    "note: late; and breakfast": ('"breakfast" behind a comma', "breakfast: true"),
    "kind: suite, no breakfast": ('"no breakfast" behind a comma', "breakfast: false"),
    "note: late, channel: phone": ('"channel: phone" behind a comma', "part of an object"),
    "note: late, contact.channel: phone": ('"contact.channel: phone" behind', "part of an object"),
    "note: late, size = big": ('"size = big" behind a comma', "name: value"),
    "breakfast: yes": ("wrong value", "write true"),
    "price: 1,200": ("wrong value", "write 1200"),
    "kind: suites": ("wrong value", "one of single, suite"),
    "price: 200 thousands": ("wrong value", "a number"),
    "price: 1.200 euros": ("may be 1200 or 1.2", "write 1200"),
}


@pytest.mark.parametrize("written", MEANT)
def test_what_may_be_an_argument_is_told_how_to_be_written(written):
    tools = {"room": ROOM}
    with pytest.raises(InvalidInputError) as caught:
        read_example(f"late with breakfast → {written}", read_then("call `room`", tools), tools)
    cause, hint = MEANT[written]
    assert cause in caught.value.cause
    assert hint in caught.value.hint


FORMATS = {
    "date": (["2026-12-31"], ["31.12.2026", "2026-02-30", "2026-12-31T09:00", "tomorrow"]),
    "date-time": (
        ["2026-12-31T09:30:00Z", "2026-12-31T09:30", "2026-12-31t09:30:00.5+01:00"],
        ["2026-12-31", "2026-12-31T25:00:00Z", "31.12.2026 09:30"],
    ),
    "time": (["09:30:00", "09:30", "09:30:00Z"], ["9.30", "25:00", "noon"]),
    "email": (["ann@example.com"], ["ann", "ann at example.com", "@example.com"]),
    "uri": (["https://example.com/a?b=c"], ["example.com", "see https://example.com"]),
    "made-up": (["anything"], []),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("nullable", [False, True])
def test_what_a_person_wrote_is_in_its_format(kind, nullable):
    schema = {"type": "string", "format": kind}
    schema = {"anyOf": [schema, {"type": "null"}]} if nullable else schema
    parameters = {"type": "object", "properties": {"value": schema}}
    tools = {"put": Tool(name="put", description="Put.", parameters=parameters)}
    then = read_then("call `put`", tools)
    for value in [*FORMATS[kind][0], "{topic}"]:
        (call,) = read_then(f'call `put` with `value` = "{value}"', tools).calls
        assert call.arguments == {"value": value}
    for value in FORMATS[kind][0]:
        arguments = read_example(f'put it → value: "{value}"', then, tools).arguments
        assert arguments == {"value": value}
    for value in FORMATS[kind][1]:
        with pytest.raises(InvalidInputError, match="wrong value"):
            read_then(f'call `put` with `value` = "{value}"', tools)
        # Of a call in brackets the page tells what is wrong, with the slots that it has.
        (call,) = read_then(f'call put(value="{value}")', tools).calls
        (error,) = argument_errors(tools["put"], call.arguments)
        assert "wrong value" in error.cause
        assert nullable or "write it as" in error.hint
        # A teacher's reply and a row are held to it as well.
        found = argument_problem(ToolCall(name="put", arguments={"value": value}), tools["put"])
        assert found is not None
        row = {"user_content": "put it", "tool_name": "put", "tool_arguments": {"value": value}}
        with pytest.raises(DistillError, match="wrong value"):
            cases_of_rows([row], tools=[*tools.values()])
        with pytest.raises(InvalidInputError, match="wrong value"):
            read_example(f'put it → value: "{value}"', then, tools)
