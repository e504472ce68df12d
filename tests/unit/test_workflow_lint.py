"""Advice on workflows that load, and the starter that `distill init` writes."""

from __future__ import annotations

import json

import pytest

from distill.config import Config
from distill.errors import InputFileError
from distill.files import resource
from distill.records import TARGET_KINDS
from distill.workflow import lint, load_workflow, scaffold
from distill.workflow.lint import CHECKS
from distill.workflow.scaffold import FILES


@pytest.fixture
def starter(tmp_path):
    """A copy of the starter, to be spoilt by one replacement at a time."""

    def spoilt(name, old, new):
        scaffold(tmp_path / "shop")
        path = tmp_path / "shop" / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        return load_workflow(tmp_path / "shop" / "rules.md")

    return spoilt


def test_the_starter_is_clean_and_shows_every_kind(tmp_path):
    folder = tmp_path / "new" / "shop"
    assert scaffold(folder) == [folder / name for name in FILES]
    workflow = load_workflow(folder / "rules.md")
    assert lint(workflow) == ()
    assert workflow.name == "shop"
    assert {rule.then.kind for rule in workflow.rules} == set(TARGET_KINDS)
    assert {case.rule for case in workflow.gold} == set(workflow.by_id)
    Config.load(folder / "distill.toml")
    types = {
        schema["type"]
        for tool in workflow.tools
        for schema in tool.parameters["properties"].values()
    }
    assert types == {"string", "integer", "number", "boolean"}
    for rule in workflow.rules:
        assert rule.words.phrases
        assert rule.examples


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(InputFileError, match=name):
        scaffold(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "shop").write_text("mine", encoding="utf-8")
    with pytest.raises(InputFileError, match="is a file"):
        scaffold(tmp_path / "shop")


NEW_TOOL = json.dumps({"name": "wave", "description": "Wave."})
NEW_RULE = '## x: X\n\n**When** x.\n\n**Then** call `search_products` with `query` = "{}".\n'
SPOILT = {
    "_thin_tools": [
        ("tools.json", "[\n  {", f"[\n  {NEW_TOOL},\n  {{", 'no rule calls the tool "wave"'),
        ("words.md", "- track order {order}; see what is in order {order}; find my parcel {order}",
         "- track my order", '"find_order" has 168 things, 1 actions, 10 examples'),
    ],
    "_wrong_defaults": [
        ("tools.json", '"type": "integer"', '"type": "integer", "default": "3"', 'the default "3"'),
        ("tools.json", '"type": "string"', '"type": "string", "default": null', None),
    ],
    "_values_in_prose": [
        ("rules.md", "## order-status", "In each call quantity = 1.\n\n## order-status",
         'the prose says "quantity = 1."'),
        ("rules.md", "## order-status", "The quantity is small.\n\n## order-status", None),
    ],
    "_rules_without_examples": [
        ("rules.md", "- Will it rain in the Alps tomorrow?", "### Notes\n- rain", "no examples"),
    ],
    "_open_arguments": [
        ("rules.md", ' and `reason` = "{reason}"', "", None),
        ("rules.md", 'call `find_order` with `order_id` = "{order}"', "call `find_order`",
         "goes into order_id of find_order"),
    ],
    "_remarks_in_then": [
        ("rules.md", 'call `find_order` with `order_id` = "{order}"',
         'call `find_order` with `order_id` = "{order}" twice', 'says "twice" in its Then'),
        ("rules.md", 'call `find_order` with `order_id` = "{order}"',
         'call `find_order` with `order_id` = "{order}", as the customer gives it', None),
    ],
    "_unworded_replies": [
        ("rules.md", 'ask: "Which order is it? The number has two letters and four digits."',
         "ask for the number of the order.", "tells how to ask"),
        ("rules.md", 'ask: "Which order is it? The number has two letters and four digits."',
         "ask: Which order is it?", "to whoever asks"),
    ],
    "_stand_ins": [
        ("rules.md", "## order-status", f"{NEW_RULE.format('the query')}\n## order-status",
         'as the text "the query"'),
        ("rules.md", "## order-status", f"{NEW_RULE.format('the search words')}\n## order-status",
         "in every row"),
        ("rules.md", "## order-status", f"{NEW_RULE.format('rain')}\n## order-status", None),
    ],
    "_unsaid_arguments": [
        ("rules.md", "query: rain cover pushchair", "query: an umbrella", '"an umbrella" as query'),
        ("rules.md", "query: rain cover pushchair", "query: pushchairs", None),
        ("rules.md", "query: rain cover pushchair", "query: waterproof shelters",
         'has "waterproof shelters" as query'),
        ("rules.md", "query: rain cover pushchair", "query: P-2", 'has "P-2" as query'),
        ("rules.md", "query: rain cover pushchair", "query: pushchair P-2", "P-2"),
        ("rules.md", "query: rain cover pushchair", "query: 4711007", 'has "4711007" as query'),
        ("rules.md", "query: rain cover pushchair", "query: Ulm", 'has "Ulm" as query'),
    ],
    "_repeated_examples": [
        ("rules.md", "- are you open today", "- where is my PARCEL",
         'rules "which-order" and "opening-hours" both have the example "where is my PARCEL"'),
    ],
    "_claimed_counter_examples": [
        ("rules.md", "- tents under 200 euros → product-under-price",
         "- Tell me a joke → product-under-price", 'example of "other-requests"'),
        ("rules.md", "- I want to return my tent → which-order",
         "- Where is the sleeping bag that I ordered → order-status",
         'goes to "order-status" in the Not of "return-items"'),
    ],
    "_unwon_counter_examples": [
        ("rules.md", "- which gas stoves do you sell → find-product",
         "- hovercraft → find-product", 'rule "find-product" wins "hovercraft"'),
    ],
    "_unused_slots": [
        ("words.md", "## order-status\n", "## order-status\n### Slots\n- colour: red\n",
         'nothing uses the slot list "colour"'),
    ],
    "_gold": [
        ("rules.md", "- are you open today", "- merino beanie", '"merino beanie" is gold'),
        ("gold.jsonl", ', "rule": "order-status"', "", "no gold case names the rules order-status"),
    ],
    "_remarks": [
        ("rules.md", "- Tell me a joke.", "- Tell **me** a joke.", "without the markup of **me**"),
        ("rules.md", "- Tell me a joke.", '- "Tell **me** a joke."', "holds the markup **me**"),
        ("rules.md", "- Tell me a joke.", "- [ ] Tell me a joke", "without the markup of [ ]"),
        ("rules.md", "- Tell me a joke.", "- User: Tell me a joke", "without the markup of User:"),
        ("rules.md", "- Tell me a joke.", "- Tell me 2 * 3 * 4 < 5 or [x] **", None),
        ("rules.md", "### Not\n\n- need a", "### Notes\n\n- no arrow\n\n### Not\n\n- need a",
         'has a list under "Notes"'),
        ("words.md", "## order-status\n", "## order-status\n\norder; parcel\n", "none of the list"),
    ],
    "_whole_conversations": [
        ("gold.jsonl",
         '{"user_content": "what is the capital of Nepal", "tool_name": null, "target": "refuse", '
         '"rule": "other-requests"}',
         '{"messages": [{"role": "user", "content": "how far has parcel BK-1001 come"}, '
         '{"role": "assistant", "tool_calls": [{"name": "find_order", "arguments": '
         '{"order_id": "BK-1001"}}]}, {"role": "tool", "content": "Linz"}], '
         '"rule": "order-status"}',
         "1 row is a whole conversation: the first call after the user's last turn is scored"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "name", "old", "new", "cause"),
    [(check, *spoilt) for check, cases in SPOILT.items() for spoilt in cases],
)
def test_each_check_gives_its_advice_alone(starter, check, name, old, new, cause):
    workflow = starter(name, old, new)
    advice = lint(workflow)
    (found,) = [own for own in CHECKS if own.__name__ == check]
    assert [cause in problem.cause for problem in found(workflow)] == ([True] if cause else [])
    assert set(found(workflow)) <= set(advice)
    for problem in advice:
        path, _, line = problem.place.rpartition(":")
        assert path.startswith(str(workflow.sources[0].parent))
        assert int(line) > 0
        assert problem.hint


def test_every_check_is_tested():
    assert {check.__name__ for check in CHECKS} == set(SPOILT)


def test_a_workflow_without_gold_is_told(starter):
    workflow = starter("rules.md", "gold: gold.jsonl\n", "").model_copy(update={"gold": ()})
    assert any("no gold set" in problem.cause for problem in lint(workflow))


def test_the_starter_is_shipped():
    assert {path.name for path in resource("schemas", "starter").iterdir()} == set(FILES)


def test_a_whole_conversation_is_said_to_be_scored_by_its_call(tmp_path):
    scaffold(tmp_path)
    call = {"name": "find_order", "arguments": {"order_id": "BK-1001"}}
    turns = [
        {"role": "user", "content": "how far has parcel BK-1001 come by now"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "Linz"},
        {"role": "assistant", "content": "It is in Linz."},
    ]
    path = tmp_path / "gold.jsonl"
    lines = path.read_text(encoding="utf-8").count("\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"messages": turns, "rule": "order-status"}) + "\n")
    workflow = load_workflow(tmp_path / "rules.md")
    (advice,) = lint(workflow)
    assert advice.place == f"{path}:{lines + 1}"
    assert advice.cause.startswith("1 row is a whole conversation: the first call after the user's")
    assert (len(workflow.gold[-1].messages), workflow.gold[-1].kind) == (1, "call")
