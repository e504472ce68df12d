"""The vocabulary of rules: lists of words and slots are read as they are meant, or refused."""

from __future__ import annotations

import json

import pytest

from distill.errors import WorkflowError
from distill.workflow import load_workflow

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
