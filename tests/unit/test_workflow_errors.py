"""Bad workflows: each slip gives its line, its cause and a way out, and all are told together."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import DistillError, InputFileError, WorkflowError
from distill.workflow import lint, load_workflow

TOOLS = [
    {
        "name": "refund_order",
        "description": "Refund an order.",
        "parameters": {
            "type": "object",
            "properties": {
                "order_id": {"type": "string"},
                "amount": {"type": "integer"},
                "reason": {"enum": ["late", "broken"]},
            },
            "required": ["order_id", "amount"],
        },
    },
    {
        "name": "find_order",
        "description": "Find an order.",
        "parameters": {
            "type": "object",
            "properties": {"order_id": {"type": "string"}},
            "required": ["order_id"],
        },
    },
]
# Lines are counted in the tests below: 1 to 5 refunds, from 7 on what a test adds.
REFUNDS = """\
## refunds: Refund an order

**When** the user wants money back.

**Then** call `refund_order` with `order_id` = "{topic}".

"""
OTHER = "## other: All else\n\n**When** not.\n\n**Then** refuse: no\n\n"


def faults(folder, rules, words=None, **options):
    """The problems of a workflow as (file:line, cause, hint)."""
    (folder / "rules.md").write_text(rules, encoding="utf-8")
    (folder / "tools.json").write_text(json.dumps(TOOLS), encoding="utf-8")
    if words is not None:
        (folder / "words.md").write_text(words, encoding="utf-8")
    with pytest.raises(DistillError) as caught:
        load_workflow(folder / "rules.md", **options)
    assert caught.value.exit_code == 1
    assert all(problem.hint and problem.cause for problem in caught.value.problems)
    return [(p.place.removeprefix(f"{folder}/"), p.cause, p.hint) for p in caught.value.problems]


def test_an_unknown_tool_reads_as_promised(tmp_path):
    (found,) = faults(tmp_path, REFUNDS.replace("refund_order", "refnd_order"))
    assert found == (
        "rules.md:5",
        'rule "refunds" calls unknown tool "refnd_order"',
        'did you mean "refund_order"?',
    )


SLIPS = {
    "empty": ("", "rules.md:1", "is empty", "distill init"),
    "blank": (" \n\n", "rules.md:1", "is empty", "distill init"),
    "no rules": ("# Title\n\nprose\n", "rules.md:1", "has no rule", "## refunds"),
    "front matter open": ("---\ntitle: x\n", "rules.md:1", "not closed", "---"),
    "front matter no YAML": (
        f"---\ntitle: x\ntools: [a\n---\n{REFUNDS}", "rules.md:3", "not valid YAML", "quotes"),
    "front matter control character": (
        f"---\ntitle: \x01\n---\n{REFUNDS}", "rules.md:2", "not valid YAML", "quotes"),
    "front matter a list": (f"---\n- a\n---\n{REFUNDS}", "rules.md:2", "is a list", "tools:"),
    "front matter key": (
        f"---\ntitle: x\ntolls: y\n---\n{REFUNDS}",
        "rules.md:3", 'unknown key "tolls"', 'did you mean "tools"?'),
    "front matter value": (
        f"---\ntitle: 3\n---\n{REFUNDS}", "rules.md:2", '"title" is not text', 'title: "3"'),
    "front matter no value": (
        f"---\ntitle:\n---\n{REFUNDS}", "rules.md:2", '"title" is not text', "value"),
    "front matter file": (
        f"---\nx: 1\n---\n{REFUNDS}".replace("x: 1", "tools: tools.jsn"),
        "rules.md:2", 'names "tools.jsn", which is no file', '"tools.json"?'),
    "duplicate id": (
        REFUNDS + REFUNDS, "rules.md:7", 'rule "refunds" is defined twice, first at line 1', "id"),
    "no id": ("## 🙂\n**When** a.\n**Then** ask: b\n", "rules.md:1", "no id", "## id: Title"),
    "late title": (REFUNDS + "# Part two\n", "rules.md:7", "# heading among", "##"),
    "no when": (
        "## a: A\n\n**Then** ask: b\n", "rules.md:1", 'rule "a" does not say when', "**When**"),
    "empty when": (
        "## a: A\n\n**When**\n\n**Then** ask: b\n", "rules.md:3", "does not say when", "**When**"),
    "second when": (
        "## a: A\n**When** x\n**When** y\n**Then** ask: b\n", "rules.md:3", "second When", "two"),
    "no then": ("## a: A\n\n**When** x\n", "rules.md:1", "what must follow", "**Then**"),
    "empty then": ("## a: A\n**When** x\n**Then**\n", "rules.md:3", "what must follow", "**Then**"),
    "second then": (
        REFUNDS + "**Then** ask: x\n", "rules.md:7", "second Then", "join"),
    "verb": (
        REFUNDS.replace("call", "invoke"), "rules.md:5", 'Then that starts with "invoke"', "call"),
    "verb near": (
        REFUNDS.replace("call", "cal"), "rules.md:5", 'starts with "cal"', 'did you mean "call"?'),
    "verb none": ("## a: A\nWhen: x\nThen: 1\n", "rules.md:3", "Then that is empty", "call"),
    "nothing to say": ("## a: A\nWhen: x\nThen: ask.\n", "rules.md:3", "what to ask", "words"),
    "no tool": (
        REFUNDS.replace("`", ""), "rules.md:5", "calls no tool", "refund_order, find_order"),
    "unknown argument": (
        REFUNDS.replace("`order_id`", "`oder_id`"),
        "rules.md:5", 'gives refund_order the unknown argument "oder_id"', '"order_id"?'),
    "argument type": (
        REFUNDS.replace('`order_id` = "{topic}"', "`amount` = lots"),
        "rules.md:5", 'wrong value for "amount" of refund_order', "a whole number"),
    "argument twice": (
        REFUNDS.replace('"{topic}"', "1 and `order_id` = 2"),
        "rules.md:5", 'gives "order_id" to refund_order twice', "one"),
    "open JSON": (
        REFUNDS.replace('"{topic}"', '"topic'), "rules.md:5", "not complete JSON", "quotes"),
    "call not joined": (
        REFUNDS.replace('"{topic}".', '"{topic}" plus `find_order`.'),
        "rules.md:5", "goes on with `find_order`", "and or then"),
    "unknown slot": (
        REFUNDS.replace("{topic}", "{order}"), "rules.md:5", "the slot {order}", "- order: one"),
    "unknown slot in a reply": (
        "## a: A\nWhen: x\nThen: ask: for {order}\n", "rules.md:3", "the slot {order}", "Slots"),
    "slot misspelt": (
        REFUNDS.replace("{topic}", "{ordr}") + "### Words\n#### Slots\n- order: 1\n",
        "rules.md:5", "the slot {ordr}", 'did you mean "order"?'),
    "slot of the wrong type": (
        REFUNDS.replace('`order_id` = "{topic}"', "`amount` = {n}")
        + "### Words\n#### Slots\n- n: 1, few\n",
        "rules.md:5", 'whose "few" is not valid', "rules.md:9"),
    "part": (REFUNDS + "### Exmaples\n- a\n", "rules.md:7", "Exmaples", 'did you mean "Examples"?'),
    "example paragraph": (
        REFUNDS + "### Examples\nno bullet\n", "rules.md:8", '"no bullet" is not', "bullet"),
    "example nested": (
        REFUNDS + "### Examples\n- a\n  - b\n", "rules.md:9", '"- b" is not understood', "bullet"),
    "example without request": (
        REFUNDS + "### Examples\n- → x\n", "rules.md:8", "lacks the request", "\\->"),
    "example without arguments": (
        REFUNDS + "### Examples\n- a →\n", "rules.md:8", "lacks the arguments", "\\->"),
    "example arguments unnamed": (
        REFUNDS + "### Examples\n- a → 17\n", "rules.md:8", "which argument", "order_id: …"),
    "example argument unknown": (
        REFUNDS + "### Examples\n- a → order: 1\n", "rules.md:8", '"order"', '"order_id"?'),
    "example argument missing": (
        REFUNDS + '### Examples\n- a → order_id: "1"\n',
        "rules.md:8", 'example "a" leaves out "amount", which refund_order needs', "amount: "),
    "example argument type": (
        REFUNDS + "### Examples\n- a → order_id: 1, amount: few\n",
        "rules.md:8", 'wrong value for "amount" of refund_order', "a whole number"),
    "example enum": (
        REFUNDS + "### Examples\n- a → order_id: 1, amount: 1, reason: lost\n",
        "rules.md:8", 'wrong value for "reason"', "one of late, broken"),
    "example argument twice": (
        REFUNDS + "### Examples\n- a → amount: 1, amount: 2\n", "rules.md:8", "twice", "keep"),
    "example argument no name": (
        REFUNDS + '### Examples\n- a → order_id: "1", 2\n', "rules.md:8", '"2" where', "commas"),
    "example argument no comma": (
        REFUNDS + '### Examples\n- a → order_id: "1" amount: 2\n', "rules.md:8", "goes on", "comm"),
    "example bad JSON": (
        REFUNDS + '### Examples\n- a → {"order_id": }\n', "rules.md:8", "not complete", "brackets"),
    "example text after JSON": (
        REFUNDS + '### Examples\n- a → {"order_id": "1"} b\n', "rules.md:8", "goes on", "one"),
    "example of no call": (
        OTHER + "### Examples\n- a → b\n", "rules.md:8", "the rule says refuse", "remove"),
    "example against the rule": (
        REFUNDS.replace('"{topic}"', "7") + "### Examples\n- a → order_id: 8, amount: 1\n",
        "rules.md:8", '"order_id" another value', "change one"),
    "winner unknown": (
        REFUNDS + "### Not\n- a → otter\n\n" + OTHER,
        "rules.md:8", 'names unknown rule "otter" as the winner for "a"', 'did you mean "other"?'),
    "winner itself": (
        REFUNDS + "### Not\n- a → refunds\n", "rules.md:8", "names itself", "other rule"),
    "winner missing": (
        REFUNDS + "### Not\n- a\n", "rules.md:8", "does not say which rule wins", "→"),
    "words list": (
        REFUNDS + "### Words\n#### Thing\n- a\n", "rules.md:8", '"Thing"', 'mean "Things"?'),
    "words in no list": (
        REFUNDS + "### Words\n- a\n", "rules.md:8", '"a" stands under none', "Things"),
    "words nested": (
        REFUNDS + "### Words\n#### Things\n- a\n  - b\n", "rules.md:10", "not underst", "bullet"),
    "phrase open": (
        REFUNDS + "### Words\n#### Phrases\n- who [is x\n", "rules.md:9", 'its "["', "[owner"),
    "phrase shut": (
        REFUNDS + "### Words\n#### Phrases\n- who ]is x\n", "rules.md:9", '"]" too many', "[owner"),
    "phrase nested": (
        REFUNDS + "### Words\n#### Phrases\n- a [b [c]]\n", "rules.md:9", '"[" too many', "[owner"),
    "phrase brace": (
        REFUNDS + "### Words\n#### Phrases\n- a {b\n", "rules.md:9", 'close its "{"', "{project}"),
    "phrase slot name": (
        REFUNDS + "### Words\n#### Phrases\n- a {b c}\n", "rules.md:9", "no slot's name", "{proj"),
    "thing with topic": (
        REFUNDS + "### Words\n#### Things\n- a [b]\n", "rules.md:9", "only phrases", "[owner"),
    "word slot": (
        REFUNDS + "### Words\n#### Actions\n- x\n- do {it}\n", "rules.md:10", "slot {it}", "- it:"),
    "slot line": (
        REFUNDS + "### Words\n#### Slots\n- a, b\n", "rules.md:9", "no slot list", "- project:"),
    "slot empty": (
        REFUNDS + "### Words\n#### Slots\n- a:\n", "rules.md:9", '"a" has no values', "colon"),
}  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_the_rules(tmp_path, slip):
    rules, place, cause, hint = SLIPS[slip]
    found = faults(tmp_path, rules)
    at_place = [f for f in found if f[0] == place and cause in f[1] and hint in f[2]]
    assert len(at_place) == 1, found
    assert len(found) == 1 or slip in ("duplicate id", "no id", "late title"), found


WORD_SLIPS = {
    "rule": ("## refnds\n### Things\n- a\n", 1, 'unknown rule "refnds"', '"refunds"?'),
    "before any": ("- a\n", 1, "before the first rule", "## rule-id"),
    "list": ("## refunds\n### Objects\n- a\n", 2, 'unknown list of words "Objects"', "Things"),
    "no list": ("## refunds\n- a\n", 2, '"a" stands under none', "Phrases"),
    "shared": ("## Shared\n### Things\n- a\n", 3, "more than slots", "belong"),
    "phrase": ("## refunds\n### Phrases\n- a; b [c\n", 3, '"b [c" does not close', "[owner"),
    "slot": ("## refunds\n### Things\n- a {b}\n", 3, "the slot {b}", "- b:"),
    "front": ("---\na: b\n---\n", 1, "front matter", "remove"),
}  # fmt: skip


@pytest.mark.parametrize("slip", WORD_SLIPS)
def test_a_slip_in_words_md(tmp_path, slip):
    words, line, cause, hint = WORD_SLIPS[slip]
    ((place, found, way_out),) = faults(tmp_path, REFUNDS, words)
    assert place == f"words.md:{line}"
    assert cause in found
    assert hint in way_out


def test_all_slips_are_told_together_in_the_order_of_lines(tmp_path):
    rules = (
        REFUNDS.replace("refund_order", "refund")
        + "### Not\n- a → nobody\n\n"
        + "## bare: Bare\n\n"
        + OTHER.replace("refuse", "reject")
    )
    found = faults(tmp_path, rules, "## nobody\n### Phrases\n- [a\n")
    places = [place for place, _, _ in found]
    assert places == [
        "rules.md:5", "rules.md:8", "rules.md:10", "rules.md:10", "rules.md:16",
        "words.md:1", "words.md:3",
    ]  # fmt: skip


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    for path in (tmp_path / "none.md", tmp_path):
        with pytest.raises(InputFileError) as caught:
            load_workflow(path)
        assert str(path) in str(caught.value)


def test_rules_without_tools_say_how_to_name_them(tmp_path):
    (tmp_path / "rules.md").write_text(REFUNDS, encoding="utf-8")
    with pytest.raises(WorkflowError, match=r"neither tools\.json nor tools\.py") as caught:
        load_workflow(tmp_path / "rules.md")
    assert "--tools" in caught.value.problems[0].hint


@pytest.mark.parametrize("name", ["rules.md", "tools.json", "words.md", "gold.jsonl"])
@pytest.mark.parametrize("data", [b"a\0b", b"\xff\xfe", "\u00e9".encode("latin1")])
def test_a_file_that_is_no_text_is_named(tmp_path, name, data):
    (tmp_path / "rules.md").write_text(REFUNDS, encoding="utf-8")
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS), encoding="utf-8")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputFileError) as caught:
        load_workflow(tmp_path / "rules.md")
    assert str(tmp_path / name) in caught.value.problems[0].place


@pytest.mark.parametrize("name", ["tools", "gold"])
def test_a_flag_that_names_no_file_is_told(tmp_path, name):
    found = faults(tmp_path, REFUNDS, **{name: tmp_path / "none"})
    assert found[0][0] == "none"


WHOLE = f"""\
---
title: The desk
---
Prose.

{REFUNDS}### Examples
- refund A-1 → order_id: "A-1", amount: 3

### Not
- no → other

### Words
#### Phrases
- refund [{{what}}] now
#### Slots
- what: it, that

{OTHER}"""
JUNK = (
    "",
    "`",
    '"',
    "[",
    "}",
    " → ",
    "**",
    "## ",
    "### ",
    "- ",
    "\n",
    "---\n",
    "{",
    ":",
    "\u2028",
    "> ",
)
edits = st.lists(
    st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 20), st.sampled_from(JUNK)), max_size=4
)


@given(edits)
def test_whatever_is_typed_no_traceback_reaches_the_author(tmp_path_factory, edits):
    folder = tmp_path_factory.mktemp("any")
    text = WHOLE
    for start, size, junk in edits:
        text = text[:start] + junk + text[start + size :]
    (folder / "rules.md").write_text(text, encoding="utf-8")
    (folder / "tools.json").write_text(json.dumps(TOOLS), encoding="utf-8")
    try:
        found = lint(load_workflow(folder / "rules.md"))
    except DistillError as error:
        found = error.problems
    assert all(problem.place and problem.cause and problem.hint for problem in found)
