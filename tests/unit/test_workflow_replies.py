"""What a rule that calls nothing says: its words, or how they are to be found."""

import pytest

from distill.errors import WorkflowError
from distill.workflow.lint import lint
from distill.workflow.load import load_workflow
from distill.workflow.then import read_then
from distill.workflow.values import InvalidInputError

WORDS = {
    'answer "We are open 9 to 18."': "We are open 9 to 18.",
    'answer **"We are open."**': "We are open.",
    'ask the customer: "Which order?"': "Which order?",
    'refuse politely with "We cannot."': "We cannot.",
    "answer: > We are open.": "We are open.",
    "answer: fine": "fine",
    "answer: We answer when asked, unless it is Sunday.": (
        "We answer when asked, unless it is Sunday."
    ),
    "ask: which order?": "which order?",
    "answer: 我们开门。": "我们开门。",
    "answer: {topic} is not sold here.": "{topic} is not sold here.",
    'answer "We are open\\! Tom &amp; Ann"': "We are open! Tom & Ann",
    'answer "Goodbye." and nothing else.': "Goodbye.",
    "answer `We are open.`": "We are open.",
}
HOW = (
    "answer We are open from 9 to 5.",
    "ask which order?",
    "ask HR.",
    "ask IT for help.",
    "answer Politely.",
    "refuse. We give no legal advice.",
    'ask for "order number".',
    "ask the question: Which one?",
    'answer: "We are closed." (in German: "Wir haben zu.")',
    "answer 我们开门。",
    "ask for the order number.",
    "ask whether it is urgent",
    "refuse politely.",
    "refuse: for legal reasons.",
    "answer with the check-in time.",
    "answer that the guest should call reception.",
    'answer "We are open 9 to 18." in the language of the guest.',
    'answer "Check-in is at 3 pm." or "Come at 3 pm."',
    'answer "Check-in is at 3 pm." and never promise an early one.',
)
CASES = (
    'answer "We are open." in the language of the guest, unless it is Sunday.',
    'refuse "We do not take dogs." unless it is a guide dog.',
    'answer "Hi." if it is Monday',
    'answer "At 3 pm." On Sundays answer "At 4 pm."',
    "ask which night, unless it was named.",
    "ask for the night, otherwise answer yes",
    'answer "Yes."\n**Else** ask "Which room?"',
    'answer "Yes."\n**Unless** the guest has a dog: then refuse.',
)


@pytest.fixture
def page(tmp_path):
    (tmp_path / "tools.json").write_text('[{"name": "t", "description": "T", "parameters": {}}]')
    return tmp_path / "rules.md"


@pytest.mark.parametrize("then", WORDS)
def test_words_to_say_are_read_without_what_stands_around_them(then):
    assert read_then(then, {}).reply == WORDS[then]


@pytest.mark.parametrize("then", HOW)
def test_what_tells_how_to_reply_is_no_reply(then):
    read = read_then(then, {})
    assert (read.reply, read.text) == ("", then)


@pytest.mark.parametrize("then", CASES)
def test_another_case_is_refused(then):
    with pytest.raises(InvalidInputError, match="another case"):
        read_then(then, {})


def test_a_reply_in_the_words_of_a_model_is_advised_with_its_line(page):
    page.write_text("## r: R\n\n**When** x.\n\n**Then** ask for the order number.\n")
    (advice,) = [each for each in lint(load_workflow(page)) if "tells how" in each.cause]
    assert advice.place == f"{page}:1"
    assert '"…"' in advice.hint


@pytest.mark.parametrize("said", ['"TBD"', '"..."', ": TODO", '"<text>"', ": n/a"])
def test_a_placeholder_is_no_reply(said):
    with pytest.raises(InvalidInputError, match="placeholder"):
        read_then(f"answer{said if said[0] == ':' else ' ' + said}", {})


@pytest.mark.parametrize(
    ("then", "advice"),
    [
        ("answer: Explain that we are closed.", "leave out the colon"),
        ("answer: We are open. (internal: ask Tom)", "leave out the colon"),
        ('answer "Hello <name>."', "a slot for what differs"),
        ('answer "Hello [name]."', "a slot for what differs"),
        ('answer "Hello."', None),
    ],
)
def test_words_that_may_not_be_meant_so_are_advised_on(page, then, advice):
    page.write_text(f"## r: R\n\n**When** x.\n\n**Then** {then}\n")
    hints = [each.hint for each in lint(load_workflow(page)) if "to whoever asks" in each.cause]
    assert [advice in hint for hint in hints] == ([True] if advice else [])


def test_comments_are_for_the_author_alone(page):
    page.write_text(
        "# T\n\n<!-- secret one -->\nA desk.\n\n## r: R\n\n**When** x.<!-- secret two -->\n\n"
        '**Then** answer "Yes."\n\n<!--\nsecret three\n-->\n\n'
        "### Examples\n- a <!-- secret four -->\n"
    )
    workflow = load_workflow(page)
    assert "secret" not in workflow.model_dump_json()
    assert "secret" not in repr(workflow.rules)
    assert workflow.prose.strip() == "A desk."
    assert [rule.line for rule in workflow.rules] == [6]


def test_another_case_is_told_with_the_line_of_its_paragraph(page):
    page.write_text('## r: R\n\n**When** x.\n\n**Then** answer "Yes."\n\n**Else** refuse.\n')
    with pytest.raises(WorkflowError) as caught:
        load_workflow(page)
    assert caught.value.problems[0].place == f"{page}:7"
