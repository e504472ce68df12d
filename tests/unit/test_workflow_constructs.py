"""Every construct of Markdown at every place of a page: read and shown, or told with its line."""

from __future__ import annotations

import json

import pytest

from distill.errors import DistillError
from distill.workflow import explain, lint, load_workflow

TOOL = {
    "name": "find",
    "description": "Find.",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
    },
}
BEFORE = "## b: B\n\n**When** not.\n\n**Then** refuse: no\n"
WHEN = "## a: A\n\n**When** asked.\n\n"
THEN = "**Then** call `find`.\n\n"
EXAMPLES = "### Examples\n\n- one\n- two\n\n"
NOT = "### Not\n\n- three → b\n\n"
WORDS = "### Words\n\n#### Things\n\n- four\n\n"
PLACES = {
    "before the first rule": ("", WHEN + THEN + BEFORE),
    "after the title": ("---\ntitle: T\n---\n# Title\n\n", WHEN + THEN + BEFORE),
    "below the heading": ("## a: A\n\n", WHEN.partition("\n\n")[2] + THEN + BEFORE),
    "below When": (WHEN, THEN + BEFORE),
    "below Then": (WHEN + THEN, EXAMPLES + BEFORE),
    "below an answer": ("## a: A\n\n**When** x.\n\n**Then** answer: fine\n\n", BEFORE),
    "below a quoted answer": ('## a: A\n\n**When** x.\n\n**Then** answer: "fine"\n\n', BEFORE),
    "at the top of Examples": (WHEN + THEN + "### Examples\n\n", "- one\n\n" + BEFORE),
    "below Examples": (WHEN + THEN + EXAMPLES, NOT + BEFORE),
    "below Not": (WHEN + THEN + NOT, BEFORE),
    "below a note": (WHEN + THEN + "### Remarks\n\nFine.\n\n", BEFORE),
    "at the top of Words": (WHEN + THEN + "### Words\n\n", "#### Things\n\n- four\n\n" + BEFORE),
    "below Things": (WHEN + THEN + WORDS, BEFORE),
    "below Slots": (WHEN + THEN + "### Words\n\n#### Slots\n\n- n: five\n\n", BEFORE),
    "at the end": (BEFORE + "\n" + WHEN + THEN + EXAMPLES, ""),
}
CONSTRUCTS = {
    "prose": "Mind the zebra.",
    "prose with a colon": "Mind the zebra:",
    "bold": "**Mind the zebra.**",
    "bold above a list": "**Zebras**\n\n- zebra",
    "bold label": "**Zebras:** zebra",
    "slip in bold": "**Exmaples**\n\n- zebra",
    "slip with a colon": "Exmaples: zebra",
    "slip of Things": "**Thngs**\n\n- zebra",
    "name alone": "Examples\n\n- zebra",
    "name in italics": "*Examples*\n\n- zebra",
    "name in lower case": "examples:\n\n- zebra",
    "name in HTML": "<b>Examples</b>\n\n- zebra",
    "name in a heading of HTML": "<h3>Examples</h3>\n\n- zebra",
    "name underlined": "Examples\n========\n\n- zebra",
    "name over a rule": "Examples\n--------\n\n- zebra",
    "name in another language": "### Beispiele\n\n- zebra",
    "longer name": "### Examples from chats\n\n- zebra",
    "heading without blank": "##zebra: Zebra",
    "part without blank": "###Examples\n\n- zebra",
    "indented heading": "      ### Examples\n\n- zebra",
    "title": "# Zebra",
    "deep heading": "###### Zebra\n\nzebra",
    "slip in a heading": "### Exmaples\n\n- zebra",
    "bullet": "- zebra",
    "numbered": "1. zebra\n2. zebra",
    "nested": "- one more\n  - zebra",
    "deeply nested": "- one more\n  - two more\n    1. zebra",
    "paragraph in a bullet": "- one more\n\n  zebra",
    "task": "- [ ] zebra",
    "item with an arrow": "- zebra → query: zebra",
    "item with a winner": "- zebra → b",
    "table": "| zebra | x |\n|---|---|\n| zebra | y |",
    "fence": "```\nzebra\n```",
    "part in a fence": "~~~\n### Examples\n- zebra\n~~~",
    "indented code": "        zebra",
    "quote": "> zebra",
    "part in a quote": "> **Examples**\n> - zebra",
    "part in a list": "- ### Examples\n- zebra",
    "HTML": "<div>zebra</div>",
    "text behind a comment": "<!-- x --> zebra",
    "open comment": "<!-- zebra",
    "link definition": "[zebra]: http://zebra.example",
    "footnote": "[^1]: zebra",
    "image": "![zebra](zebra.png)",
    "definition": "Term\n: zebra",
    "second When": "**When** zebra.",
    "second Then": "**Then** answer: zebra",
    "front matter": "---\nzebra: x\n---",
    "rule": "## zebra: Zebra\n\n**When** zebra.\n\n**Then** ask: zebra",
}


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_dropped_in_silence(tmp_path, place):
    (tmp_path / "tools.json").write_text(json.dumps([TOOL]), encoding="utf-8")
    before, after = PLACES[place]
    first = before.count("\n") + 1
    dropped = []
    for name, construct in CONSTRUCTS.items():
        page = f"{before}{construct}\n\n{after}"
        (tmp_path / "rules.md").write_text(page, encoding="utf-8")
        shown = ""
        try:
            workflow = load_workflow(tmp_path / "rules.md")
            told = lint(workflow)
            shown = json.dumps([explain(workflow), workflow.prose, workflow.title])
        except DistillError as error:
            told = error.problems
        lines = {
            int(problem.place.rpartition(":")[2]) for problem in told if ".md:" in problem.place
        }
        here = set(range(first, first + construct.count("\n") + 1))
        misleading = ("name", "slip", "part", "longer", "heading without")
        is_shown = "zebra" in shown.casefold() and not name.startswith(misleading)
        # Which of two is the second is a matter of their order.
        is_second = name.startswith(("second", "rule")) and any(
            "second" in each.cause for each in told
        )
        if not is_shown and not lines & here and not is_second:
            dropped.append((name, sorted(lines)))
    assert dropped == []
