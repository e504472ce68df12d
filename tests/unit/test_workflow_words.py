"""The vocabulary of rules: lists of words and slots are read as they are meant, or refused."""

from __future__ import annotations

import json

import pytest

from distill.errors import WorkflowError
from distill.workflow import load_workflow
from distill.workflow.explain import explain, explanation_page

TOOL = {
    "name": "book",
    "description": "Book a room.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "nights": {"type": "string"}},
        "required": ["city"],
    },
}
RULES = """## stay: Stay

**When** the guest wants a room.

**Then** call `book` with `city` = "{CITY}".

### Examples
- a room in Bonn
"""


def load(folder, words="", city="topic"):
    """The words of a rule whose words.md holds `words` from line 3 on, and the advice on it."""
    (folder / "tools.json").write_text(json.dumps([TOOL]), encoding="utf-8")
    (folder / "rules.md").write_text(RULES.replace("CITY", city), encoding="utf-8")
    (folder / "words.md").write_text(f"# Words\n\n{words}\n", encoding="utf-8")
    workflow = load_workflow(folder / "rules.md")
    advice = [problem for problem in workflow.remarks if "words.md" in problem.place]
    return workflow.rules[0].words, advice


def refused(folder, words="", city="topic"):
    with pytest.raises(WorkflowError) as caught:
        load(folder, words, city)
    (problem,) = caught.value.problems
    return problem


def test_a_slot_that_no_list_has_may_as_well_be_the_teachers(tmp_path):
    problem = refused(tmp_path, city="town")
    assert problem.place == f"{tmp_path / 'rules.md'}:5"
    assert "needs the slot {town}" in problem.cause
    assert "add a list under Slots" in problem.hint
    assert "leave it out of the call: the teacher fills it" in problem.hint


SLOTS = {
    "Bonn, Köln, Ulm": ["Bonn", "Köln", "Ulm"],
    "Bonn; Frankfurt, Oder": ["Bonn", "Frankfurt, Oder"],
    '"Frankfurt, Oder", Bonn': ["Frankfurt, Oder", "Bonn"],
    'Bonn, "Frankfurt, Oder", "Ulm"': ["Bonn", "Frankfurt, Oder", "Ulm"],
    "“Frankfurt, Oder”, „Bonn, Rhein“, «Ulm»": ["Frankfurt, Oder", "Bonn, Rhein", "Ulm"],
    '"Bonn", "Ulm"': ["Bonn", "Ulm"],
    '"race condition", deadlock': ['"race condition"', "deadlock"],
    'a 5" pipe, a 6" pipe': ['a 5" pipe', 'a 6" pipe'],
    "1,000, 2,000": ["1,000", "2,000"],
    "50, $1,200,000 net, 9.99, 75000": ["50", "$1,200,000 net", "9.99", "75000"],
    "1,2,3": ["1", "2", "3"],
    "100,200,300": ["100", "200", "300"],
    "1,000; 2,000": ["1,000", "2,000"],
    "1,5; 2,5": ["1,5", "2,5"],
    '"1,5", "2,5"': ["1,5", "2,5"],
}


@pytest.mark.parametrize("written", SLOTS)
@pytest.mark.parametrize("section", ["stay", "Shared"])
def test_entries_are_what_stands_between_their_separators(tmp_path, written, section):
    words, advice = load(tmp_path, f"## {section}\n### Slots\n- nights: {written}")
    assert words.slots == {"nights": tuple(SLOTS[written])}
    assert not advice


ENTRIES = {
    '"a room; and breakfast"; a bed': ["a room; and breakfast", "a bed"],
    '"a room"': ["a room"],
    'the "quiet; dark" room; a bed': ['the "quiet; dark" room', "a bed"],
    "the guests' room; the dog's bed": ["the guests' room", "the dog's bed"],
    "a room in Bonn, Germany": ["a room in Bonn, Germany"],
    "a room, and breakfast": ["a room, and breakfast"],
    "a->b": ["a->b"],
}


@pytest.mark.parametrize("written", ENTRIES)
@pytest.mark.parametrize("part", ["Things", "Actions", "Phrases"])
def test_words_are_separated_by_semicolons(tmp_path, written, part):
    words, advice = load(tmp_path, f"## stay\n### {part}\n- {written}")
    assert getattr(words, part.lower()) == tuple(ENTRIES[written])
    assert not advice


AMBIGUOUS = {
    "### Slots\n- nights: 1,5, 2,5": "may be one number or several",
    "### Slots\n- nights: 1,2, 3": "may be one number or several",
    "### Slots\n- nights: 1,000": "may be one number or several",
    "### Slots\n- nights: 1,000,2,000": "may be one number or several",
    "### Slots\n- topic: a, b": "stands for what a request is about",
    "### Slots\n- city: Bonn → stay": "has an arrow",
    "### Things\n1. a car → fast": "has an arrow",
    "### Actions\n- book a room -> city: Bonn": "has an arrow",
    "### Phrases\n- a [room] in Bonn => city: Bonn": "has an arrow",
    "### Phrases\n- a [room] for {topic}": "needs the slot {topic}",
}


@pytest.mark.parametrize("words", AMBIGUOUS)
def test_words_that_may_mean_two_things_are_refused(tmp_path, words):
    problem = refused(tmp_path, f"## stay\n{words}")
    assert problem.place == f"{tmp_path / 'words.md'}:5"
    assert AMBIGUOUS[words] in problem.cause
    assert "- topic:" not in problem.hint


def test_a_list_named_as_an_argument_has_values_for_it(tmp_path, monkeypatch):
    properties = {"city": {"type": "string"}, "nights": {"type": "integer"}}
    parameters = {**TOOL["parameters"], "properties": properties, "required": ["city", "nights"]}
    monkeypatch.setitem(TOOL, "parameters", parameters)
    _, advice = load(tmp_path, "## stay\n### Slots\n- nights: 1,000, 2")
    assert [problem.place for problem in advice] == [f"{tmp_path / 'words.md'}:5"]
    assert 'has "1,000" in the slot list "nights"' in advice[0].cause
    _, advice = load(tmp_path, "## stay\n### Slots\n- nights: 1, 2")
    assert not advice


def test_a_value_with_a_comma_is_shown_as_one(tmp_path):
    load(tmp_path, '## stay\n### Slots\n- nights: "one, or two", three')
    (reading,) = explain(load_workflow(tmp_path / "rules.md"))
    assert '  slots     nights: "one, or two", three' in explanation_page(reading)


@pytest.mark.parametrize("part", ["Things", "Actions"])
@pytest.mark.parametrize(
    "written", ["a car, a van, a bus", "the room, the bed", "red wine, beer, gin", "My car, my van"]
)
def test_words_separated_by_commas_are_said_to_be_one_entry(tmp_path, part, written):
    words, (advice,) = load(tmp_path, f"## stay\n### {part}\n- {written}")
    assert getattr(words, part.lower()) == (written,)
    assert advice.place == f"{tmp_path / 'words.md'}:5"
    assert "is read as one entry" in advice.cause
    assert "semicolons" in advice.hint


NO_ENTRIES = {
    "### Things\nThese are ours:\n\n- the bill\n": "These are ours:",
    "### Things\nthe bill\nthe menu\n": "no bullet",
    "### Things\n- the bill\n\nLast edited by Tom\n": "Last edited by Tom",
    "### Things\n| Thing | Note |\n|---|---|\n| the bill | often |\n": "no bullet",
    "### Things\n- the bill\n- etc.\n": "no entry",
    "### Things\n- …\n": "no entry",
    "### Things\n- TODO more\n": "no entry",
    "### Slots\n- item: tents, boots, etc.\n": "no entry",
    "### Slots\n- day: Monday, or Tuesday\n": "in prose or code",
    '### Slots\n- item: ["tents", "boots"]\n': "in prose or code",
    "### Slots\n- item: tents | boots\n": "in prose or code",
}


@pytest.mark.parametrize("text", NO_ENTRIES)
def test_what_is_no_entry_of_a_list_is_told(tmp_path, text):
    with pytest.raises(WorkflowError) as caught:
        load(tmp_path, f"## stay\n\n{text}")
    assert NO_ENTRIES[text] in str(caught.value)


@pytest.mark.parametrize("bullet", ["•", "▪", "-\u00a0", "◦"])
def test_bullets_of_word_processors_are_bullets(tmp_path, bullet):
    words, _ = load(tmp_path, f"## stay\n\n### Things\n{bullet} the bill\n{bullet} the menu\n")
    assert words.things == ("the bill", "the menu")
