"""`distill check --explain`: what was read, in words and as JSON."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from distill.cli.main import cli
from distill.files import resource
from distill.workflow import explain, explanation_page, load_workflow

TOOL = {
    "name": "set_status",
    "description": "Set it.",
    "parameters": {
        "type": "object",
        "properties": {
            "ticket": {"type": "string"},
            "status": {"enum": ["open", "closed"]},
            "reason": {"type": "string"},
            "note": {"type": "string"},
        },
        "required": ["ticket", "status", "reason"],
    },
}
RULES = """\
## done: It is done

Old tickets too.

**When** it is done.

**Then** call `set_status` with ticket = {number}, status: closed.

Be quick.

### Examples
- ticket 7 is done → ticket: 7, reason: done
- done

### Not
- ticket 7 is not done → open

### Slots
- number: 7, 8

### Remarks
Ask Ann.

## open: It is not

**When** it is not done.

**Then** answer: "Well."
"""


@pytest.fixture
def rules(tmp_path):
    (tmp_path / "tools.json").write_text(json.dumps([TOOL]), encoding="utf-8")
    (tmp_path / "rules.md").write_text(RULES, encoding="utf-8")
    return tmp_path / "rules.md"


def test_all_that_was_read_is_in_the_explanation(rules):
    done, left = explain(load_workflow(rules))
    assert done == {
        "rule": "done",
        "title": "It is done",
        "line": 1,
        "when": "it is done.",
        "then": {
            "kind": "call",
            "text": "call `set_status` with ticket = {number}, status: closed.",
            "reply": "",
            "calls": [
                {
                    "tool": "set_status",
                    "fixed": {"status": "closed"},
                    "filled": {"ticket": "{number}"},
                    "teacher": ["reason"],
                    "teacher_may": ["note"],
                }
            ],
            "remarks": [],
        },
        "slots": {"number": ["7", "8"]},
        "words": {"things": [], "actions": [], "phrases": []},
        "examples": [
            {
                "line": 12,
                "request": "ticket 7 is done",
                "arguments": {"status": "closed", "ticket": "7", "reason": "done"},
                "left_out": [],
            },
            {"line": 13, "request": "done", "arguments": None, "left_out": []},
        ],
        "not": [{"line": 16, "request": "ticket 7 is not done", "winner": "open"}],
        "notes": ["Old tickets too.", "Be quick.", "Remarks: Ask Ann."],
    }
    assert left["then"] == {
        "kind": "answer",
        "text": 'answer: "Well."',
        "reply": "Well.",
        "calls": [],
        "remarks": [],
    }


def test_check_explain_prints_it(rules):
    told = CliRunner().invoke(cli, ["check", "--rules", str(rules), "--explain"])
    assert told.exit_code == 0
    for line in (
        "done: It is done (line 1)",
        "  call      set_status",
        '    fixed   status = "closed"',
        '    filled  ticket = "{number}"',
        "    teacher reason",
        "    may add note",
        "  slots     number: 7, 8",
        '  examples  "ticket 7 is done"',
        '              → status: "closed", ticket: "7", reason: "done"',
        '            "done"',
        '  not       "ticket 7 is not done" → open',
        '  notes     "Old tickets too."',
        "            and 1 more",
        "  answer    Well.",
    ):
        assert line in told.output.split("\n")
    as_json = CliRunner().invoke(cli, ["check", "--rules", str(rules), "--explain", "--json"])
    assert json.loads(as_json.output)["explanation"] == explain(load_workflow(rules))
    silent = CliRunner().invoke(cli, ["check", "--rules", str(rules), "--json"])
    assert "explanation" not in json.loads(silent.output)


@pytest.mark.parametrize("name", ["starter", "knowledge_router"])
def test_a_rule_fits_a_screen(name):
    for reading in explain(load_workflow(resource("schemas", name, "rules.md"))):
        page = explanation_page(reading)
        assert len(page) <= 24
        assert all(len(line) <= 80 for line in page)
