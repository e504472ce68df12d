"""rules.md, tools.json, words.md and gold.jsonl read as one Workflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.files import resource
from distill.records import TARGET_KINDS
from distill.workflow import load_workflow
from distill.workflow.arguments import read_arguments
from distill.workflow.examples import split_arrow
from distill.workflow.model import CallSpec, Then, Tool
from distill.workflow.then import read_then
from distill.workflow.tools import read_tools
from distill.workflow.values import typed_argument

TOOLS = [
    {
        "name": "find",
        "description": "Find a document.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
        },
    },
    {
        "name": "book",
        "description": "Book a room.",
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"type": "string"},
                "seats": {"type": "integer", "minimum": 1},
                "price": {"type": "number"},
                "catering": {"type": "boolean"},
                "days": {"type": "array", "items": {"type": "string"}},
                "size": {"enum": ["small", "large"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["room", "seats"],
        },
    },
]
RULE = """\
## lookup: Look something up

**When** the user asks about a document.

**Then** call `find` with `query` = "{topic}".
"""


def write(folder: Path, rules: str, **files: str) -> Path:
    (folder / "rules.md").write_bytes(rules.encode())
    (folder / "tools.json").write_text(json.dumps(TOOLS), encoding="utf-8")
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_bytes(text.encode())
    return folder / "rules.md"


@pytest.fixture
def tools(tmp_path):
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(TOOLS), encoding="utf-8")
    return {tool.name: tool for tool in read_tools(path)}


FULL = """\
---
title: The desk
---
Prose before
the first rule.

## lookup: Look something up

**When** the user asks about a document,
or about its author.

**Then** call `find` with `query` = "{topic}". Keep the words.

### Examples
- Where is the travel policy? → query: "travel policy"
- find me "the plan" -> the plan
- no arguments here

But these are not:
### Not
- Book me a room → `booking`

### Notes
Said to the reader.

### Words
#### Things
- the dress code; the plan for {year}
- the
  handbook
#### Phrases
- who wrote [the plan for {year}]
#### Slots
- year: 2024, 2025

## Booking

- **When** the user wants a room.
- **Then** call `book` with `room` = {topic}, `seats` = 4 and `catering` = true, then call `find`.

### Examples:
1. a room for ten → room: Oslo, seats: 4, days: ["Mon", "Tue"]
"""


def test_every_part_of_a_page_is_read(tmp_path):
    workflow = load_workflow(write(tmp_path, FULL, words__md="## Shared\n### Slots\n- n: 1\n"))
    lookup, booking = workflow.rules
    assert workflow.title == "The desk"
    assert workflow.prose == "Prose before\nthe first rule."
    assert lookup.title == "Look something up"
    assert lookup.when == "the user asks about a document, or about its author."
    assert lookup.then.calls == (CallSpec(tool="find", arguments={"query": "{topic}"}),)
    assert [(e.text, e.arguments, e.line) for e in lookup.examples] == [
        ("Where is the travel policy?", {"query": "travel policy"}, 15),
        ('find me "the plan"', {"query": "the plan"}, 16),
        ("no arguments here", None, 17),
    ]
    assert [(c.text, c.winner, c.line) for c in lookup.counter_examples] == [
        ("Book me a room", "booking", 21)
    ]
    assert lookup.words.things == ("the dress code", "the plan for {year}", "the handbook")
    assert lookup.words.phrases == ("who wrote [the plan for {year}]",)
    assert lookup.words.slots == {"year": ("2024", "2025"), "n": ("1",)}
    assert (lookup.line, booking.line) == (7, 36)
    assert (booking.id, booking.title) == ("booking", "Booking")
    assert booking.then.calls == (
        CallSpec(tool="book", arguments={"room": "{topic}", "seats": 4, "catering": True}),
        CallSpec(tool="find"),
    )


def test_a_rule_with_a_fixed_argument_lends_it_to_its_examples(tmp_path):
    rules = RULE.replace("find` with `query` =", "book` with `seats` = 2, `room` =")
    rules += "### Examples\n- a room → room: Oslo\n"
    (example,) = load_workflow(write(tmp_path, rules)).rules[0].examples
    assert example.arguments == {"seats": 2, "room": "Oslo"}


def test_the_text_of_a_rule_is_its_section_without_words(tmp_path):
    lookup, booking = load_workflow(write(tmp_path, FULL)).rules
    first, words, second = map(FULL.index, ("## lookup", "### Words", "## Booking"))
    assert lookup.text == FULL[first:words].strip()
    assert "Said to the reader." in lookup.text
    assert booking.text == FULL[second:].strip()


def test_words_stand_in_the_section_or_beside_it(tmp_path):
    words = "**Things**\n- the plan; a map\n\nActions:\n- read [it]\n\n**Slots**\n- year: 1, 2\n"
    words = words.replace("[it]", "it")
    here = load_workflow(write(tmp_path, f"{RULE}\n### Words\n{words}")).rules[0]
    beside = load_workflow(write(tmp_path, RULE, words__md=f"## lookup\n{words}")).rules[0]
    assert here == beside
    assert here.words.actions == ("read it",)


def test_words_of_both_files_are_joined_and_own_slots_win(tmp_path):
    rules = RULE + "### Words\n#### Things\n- a\n#### Slots\n- x: own\n"
    words = "## Shared\n### Slots\n- x: shared\n- y: b; c, d\n## lookup\n### Things\n- a; b\n"
    found = load_workflow(write(tmp_path, rules, words__md=words)).rules[0].words
    assert found.things == ("a", "b")
    assert found.slots == {"x": ("own",), "y": ("b", "c, d")}


@pytest.mark.parametrize(
    "head",
    [
        "**When** a.\n\n**Then** ask: B",
        "**When** a.\n**Then** ask: B",
        '**When:** a.\n\n**Then:** ask "B"',
        "**When**: a.\n\n__Then__: ask: B",
        'When: a.\n\nThen: ask "B"',
        'When: a.\nThen: Asks "B"',
        "- **When** a.\n- **Then** ask: B",
        '* When: a.\n* Then: **ask** "B"',
        '### When\na.\n\n### Then\nask "B"',
        "**When**\n\na.\n\n**Then**\n\nASK: B",
    ],
)
def test_when_and_then_may_be_written_in_many_ways(tmp_path, head):
    (rule,) = load_workflow(write(tmp_path, f"## r: R\n\n{head}\n")).rules
    assert (rule.when, rule.then.kind, rule.then.reply) == ("a.", "ask", "B")


def test_a_when_may_go_on_in_a_list(tmp_path):
    rules = (
        "## r: R\n**When** the user asks about\n- pay\n- leave\n\nor taxes.\n\n**Then** ask: b\n"
    )
    (rule,) = load_workflow(write(tmp_path, rules)).rules
    assert rule.when == "the user asks about\n- pay\n- leave\nor taxes."


@pytest.mark.parametrize("kind", [kind for kind in TARGET_KINDS if kind != "call"])
@pytest.mark.parametrize(
    "said", ['{}: "Which one, then?"', "{} “Which one, then?”.", "{}: Which one, then?"]
)
def test_what_is_said_is_quoted_or_the_rest(kind, said):
    text = said.format(kind)
    assert read_then(text, {}) == Then(kind=kind, reply="Which one, then?", text=text)


@pytest.mark.parametrize(
    ("sentence", "calls"),
    [
        ("call `find`", [("find", {})]),
        ("call the tool `find`.", [("find", {})]),
        ("Call `find` and `book`.", [("find", {}), ("book", {})]),
        ("call `find`, then `book` with `seats` = 2.", [("find", {}), ("book", {"seats": 2})]),
        (
            'call `book` with `room` = "a, b. c" and `seats` = 3 and then call `find`',
            [("book", {"room": "a, b. c", "seats": 3}), ("find", {})],
        ),
        (
            "call `book` with `room` = big hall, `price` = 3.5.",
            [("book", {"room": "big hall", "price": 3.5})],
        ),
        ("call `book` with `room` = `a`, `code` = null", [("book", {"room": "a", "code": None})]),
        ('call `book` with `days` = ["a", "b"]', [("book", {"days": ["a", "b"]})]),
        ("call `book` with `room` = 101", [("book", {"room": "101"})]),
        ("call `find` with `query` = {topic} of {x}. So", [("find", {"query": "{topic} of {x}"})]),
        ("call `find` with `query` = new requests. So.", [("find", {"query": "new requests"})]),
    ],
)  # fmt: skip
def test_then_names_calls_and_arguments(tools, sentence, calls):
    then = read_then(sentence, tools)
    assert [(call.tool, call.arguments) for call in then.calls] == calls
    assert then.text == sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("room: big hall, upstairs, seats: 3", {"room": "big hall, upstairs", "seats": 3}),
        ('`room` = "a: b", seats: 2,', {"room": "a: b", "seats": 2}),
        ('{"room": "x", "seats": 1}', {"room": "x", "seats": 1}),
        ("room: 7, seats: 7", {"room": "7", "seats": 7}),
        ("size: large, catering: True, price: 7", {"size": "large", "catering": True, "price": 7}),
        ('room: x; seats: 1; days: []', {"room": "x", "seats": 1, "days": []}),
    ],
)  # fmt: skip
def test_arguments_after_the_arrow(tools, text, expected):
    assert read_arguments(text, tools["book"]) == expected


@pytest.mark.parametrize(
    "text", ["travel policy", "10:30 train", "x = 3", "7", '"a \\" b"', "é 🙂"]
)
def test_a_sole_text_argument_needs_no_name(tools, text):
    if text == "x = 3":  # looks like an argument with its name: quotes decide
        text = f'"{text}"'
    expected = json.loads(text) if text.startswith('"') else text
    assert read_arguments(text, tools["find"]) == {"query": expected}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["a", "b_1", "c-d"]), json_values, min_size=1))
def test_arguments_as_pairs_or_object_are_the_same_values(arguments):
    schema = {"type": "object", "properties": {"a": {}, "b_1": {}, "c-d": {}}}
    tool = Tool(name="t", description="d", parameters=schema)
    pairs = ", ".join(f"{name}: {json.dumps(value)}" for name, value in arguments.items())
    assert read_arguments(pairs, tool) == arguments
    assert read_arguments(json.dumps(arguments, ensure_ascii=False), tool) == arguments


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seats", "3", 3), ("seats", "many", "many"), ("room", "3", "3"), ("price", "2.5", 2.5),
        ("catering", "TRUE", True), ("room", "true", "true"), ("code", "null", None),
        ("price", "NaN", "NaN"), ("days", '["a"]', ["a"]), ("size", "large", "large"),
    ],
)  # fmt: skip
def test_text_takes_the_type_that_the_schema_wants(tools, name, text, value):
    assert typed_argument(tools["book"], name, text) == value


words_of_people = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='\\"“”`<>*_[]{}#-+→&~!|='),
    min_size=1,
    max_size=30,
).map(lambda text: "a" + text.strip() + "z")


@given(
    st.lists(words_of_people, min_size=1, max_size=4, unique=True), st.sampled_from(["\n", "\r\n"])
)
def test_examples_survive_any_script_and_line_end(tmp_path_factory, texts, newline):
    folder = tmp_path_factory.mktemp("any")
    rules = RULE + "### Examples\n" + "".join(f"- {text} → {text}\n" for text in texts)
    (rule,) = load_workflow(write(folder, rules.replace("\n", newline))).rules
    assert [example.text for example in rule.examples] == texts
    assert [example.arguments for example in rule.examples] == [{"query": text} for text in texts]
    assert rule.text == rules.strip("\n")


@pytest.mark.parametrize(
    "strange", ["a\u2028b", "a\x85b", "مرحبا يا عالم", "🙂👩‍👩‍👧", "x" * 10_000, "a\fb"]
)
def test_strange_text_passes_unharmed(tmp_path, strange):
    rules = RULE.replace("a document", strange) + f"### Examples\n- {strange} → {strange}\n"
    (rule,) = load_workflow(write(tmp_path, rules.replace("\n", "\r\n"))).rules
    assert strange in rule.when
    assert rule.examples[0].text == strange
    assert rule.examples[0].arguments == {"query": strange}
    assert strange in rule.text


@pytest.mark.parametrize(
    ("item", "left", "right"),
    [
        ("a → b", "a", "b"), ("a -> b", "a", "b"), ("a \\-> b → c", "a -> b", "c"),
        ("a->b", "a->b", None), ("“a b” → c", "a b", "c"), ('"a" or "b"', '"a" or "b"', None),
    ],
)  # fmt: skip
def test_the_arrow_parts_an_item(item, left, right):
    assert split_arrow(item) == (left, right)


def test_moving_a_rule_down_changes_no_identity(tmp_path):
    one = load_workflow(write(tmp_path, RULE))
    other = load_workflow(write(tmp_path, "\n\n\n" + RULE))
    assert one.rules[0].line != other.rules[0].line
    assert one.fingerprint == other.fingerprint


def test_where_it_is_read_from_changes_no_identity(tmp_path, monkeypatch):
    row = json.dumps({"user_content": "hi", "tool_name": "find"})
    path = write(tmp_path, RULE, gold__jsonl=row)
    absolute = load_workflow(path)
    monkeypatch.chdir(tmp_path)
    assert load_workflow(Path("rules.md")).fingerprint == absolute.fingerprint


def test_files_are_found_by_flag_then_front_matter_then_name(tmp_path):
    row = json.dumps({"user_content": "hi", "tool_name": "find"})
    path = write(tmp_path, RULE, gold__jsonl=row, other__jsonl=row, words__md="## lookup\n")
    beside = load_workflow(path)
    names = ["rules.md", "tools.json", "words.md", "gold.jsonl"]
    assert [source.name for source in beside.sources] == names
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "t.json").write_text(json.dumps(TOOLS[:1]), encoding="utf-8")
    front = "---\ntools: sub/t.json\ngold: other.jsonl\n---\n"
    named = load_workflow(write(tmp_path, front + RULE))
    assert [source.name for source in named.sources] == [
        "rules.md",
        "t.json",
        "words.md",
        "other.jsonl",
    ]
    flagged = load_workflow(path, tools=tmp_path / "tools.json", gold=tmp_path / "gold.jsonl")
    assert [source.name for source in flagged.sources] == names


def test_the_name_is_the_folder_or_the_file(tmp_path):
    folder = tmp_path / "My Shop_1"
    folder.mkdir()
    path = write(folder, "# A title\n\nprose\n" + RULE)
    workflow = load_workflow(path)
    assert (workflow.name, workflow.title, workflow.prose) == ("my-shop_1", "A title", "prose")
    assert load_workflow(path.rename(folder / "Desk two.md")).name == "desk-two"


@pytest.mark.parametrize("name", ["starter", "knowledge_router"])
def test_the_shipped_workflows_load(name):
    workflow = load_workflow(resource("schemas", name, "rules.md"))
    assert workflow.name == name
    assert {rule.then.kind for rule in workflow.rules} <= set(TARGET_KINDS)


def test_reading_a_workflow_loads_nothing_heavy():
    code = (
        "import sys, distill.workflow as w, pathlib\n"
        "w.load_workflow(pathlib.Path(sys.argv[1]))\n"
        "print({'torch', 'transformers', 'openai'} & set(sys.modules))"
    )
    rules = resource("schemas", "starter", "rules.md")
    ran = subprocess.run(
        [sys.executable, "-c", code, str(rules)],
        capture_output=True, text=True, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert ran.stdout.strip() == "set()"
