"""What a call's Then says besides its calls is shown, or refused where it is another case."""

import pytest

from distill.workflow.beside import demands_more
from distill.workflow.model import Tool
from distill.workflow.then import read_then
from distill.workflow.values import InvalidInputError

TEXT = {"type": "string"}


def tool(name, required, **properties):
    schema = {"type": "object", "properties": properties, "required": [required]}
    return Tool(name=name, description=name, parameters=schema)


TOOLS = {
    each.name: each
    for each in (
        tool("search_faq", "query", query=TEXT, language={"enum": ["de", "en"]}),
        tool(
            "book_room", "room_type", room_type={"enum": ["single", "double", "suite"]}, note=TEXT
        ),
        tool(
            "handover", "team", team={"enum": ["claims", "night desk"]}, urgent={"type": "boolean"}
        ),
    )
}
BOOK = "call `book_room` with `room_type` = suite"
SUITE = ("book_room", {"room_type": "suite"})
DESK = ("handover", {"team": "night desk"})

REMARKS = {
    f'{BOOK}, then answer "It is booked."': 'answer "It is booked."',
    f"{BOOK}. Before that, ask for the name.": "Before that, ask for the name",
    "call `search_faq` with `query` = “{topic}” twice.": "twice",
    f"{BOOK}, and turn notifications on.": "turn notifications on",
    f"{BOOK}. Reach the guest by phone.": "Reach the guest by phone",
    f"{BOOK}, because it is the nicest.": "because it is the nicest",
    'call `handover` with team "claims" or "night desk".': 'team "claims" or "night desk"',
}
OTHER_CASES = (
    f"{BOOK}; if it is full, double.",
    f"{BOOK}. If full, use double.",
    f"{BOOK}. Use double when it is full.",
    f"{BOOK}. Take a double where that is cheaper.",
    f"{BOOK}.\n**Else** ask “Which room?”",
    f"{BOOK} rather than `note` = late.",
    f"{BOOK}, e.g. `note` = late.",
    f"{BOOK} instead of `note` = late.",
    f"{BOOK}. The default for `note` is “late”.",
    f"{BOOK}, ~~`note` = late~~.",
    f"{BOOK} or `handover` with `team` = claims.",
    f"{BOOK}. Give VIPs `note` = late.",
    f"{BOOK}. Kids add `note` = cot.",
    f"{BOOK}. Couples, `note` = two.",
    f"{BOOK}. Everyone else has `note` = none of these.",
    f"{BOOK}. The default `note` is “late”.",
    f"{BOOK}. Families: double.",
    f"{BOOK}. Families get a double.",
    f"{BOOK} and double.",
    f"{BOOK} & double.",
    f"{BOOK}, where appropriate.",
    f"{BOOK}, case by case.",
    f"{BOOK} (VIPs: double).",
    f"{BOOK} (from 9 to 17).",
    f"{BOOK}, for now.",
    "call `book_room` with the room type:\n- suite (best)\n- double (cheap)",
    "call `search_faq` with `query` = lost parcel and then tell the guest.",
    "call `search_faq` with `query` = lost parcel only.",
    "call `search_faq` with `query` = keywords.",
    "call `search_faq` with `query` = “lost parcel” + {topic}.",
    "call `search_faq` with `query` = {topic} and the city.",
)
JOINED = {
    f"{BOOK} and `handover` with `team` = night desk.": [SUITE, DESK],
    f"{BOOK}, and `handover` with `team` = night desk.": [SUITE, DESK],
    f"{BOOK}, followed by `handover` with `team` = night desk.": [SUITE, DESK],
    f"{BOOK} and then `handover` with `team` = night desk.": [SUITE, DESK],
    "call both `book_room` (`room_type` = suite) and `handover` (`team` = night desk).": [
        SUITE,
        DESK,
    ],
    "call `search_faq` with the words, and `handover` with the team": [
        ("search_faq", {}),
        ("handover", {}),
    ],
}


@pytest.mark.parametrize("then", REMARKS)
def test_what_is_no_part_of_the_calls_is_shown(then):
    assert read_then(then, TOOLS).remarks == (REMARKS[then],)


@pytest.mark.parametrize(
    "then",
    [
        BOOK,
        "call `search_faq` with `query` = “{topic}” and `language` = de.",
        "Call `book_room`:\n- room_type: suite\n- note: “late”",
        'call `handover` with {"team": "claims"}',
        "call handover(team=claims).",
        *JOINED,
    ],
)
def test_a_plain_call_says_nothing_besides(then):
    assert set(read_then(then, TOOLS).remarks) <= {"the words", "the team"}


DEMANDS = (
    "Refuse when the guest is drunk",
    "If the name is missing, ask for it",
    "Create a ticket in Jira",
    "send the customer an e-mail",
    "(business customers only)",
    "Not for letters",
    "after 6 pm",
    "answer “Yes”",
    "Before that, ask for it",
    "twice",
    "turn it on",
    "One night unless told",
)
EXPLAINS = (
    "because it is the nicest",
    "the priority, if one is named",
    "even if the customer is angry",
    "Dates are written as 2026-12-31",
    "Never guess the answer",
    "(internal tool)",
)


def test_a_remark_that_demands_a_step_is_told_from_one_that_explains():
    assert [remark for remark in DEMANDS + EXPLAINS if demands_more(remark, is_fixed=True)] == list(
        DEMANDS
    )


HONEST = (
    f"{BOOK} and, if the guest names it, the name of the guest.",
    "call `search_faq` with `query` = “{topic}” in `language` = de.",
    "First call `search_faq`, then `handover` with `team` = claims.",
    "Please call `search_faq` (internal tool) with `query` = “{topic}”. Never guess the answer.",
    f"{BOOK}. Dates are written as 2026-12-31.",
    f"{BOOK}, even if the guest is alone.",
    f"{BOOK} only.",
    f"{BOOK} as soon as possible.",
    f"{BOOK} and put what else the guest says into `note`.",
    "→ Call `book_room ` with the room. The guest can cancel free of charge until 6 pm.",
)


def test_a_table_with_several_rows_of_values_is_several_rules():
    table = "call `book_room`\n| room_type | note |\n|---|---|\n| suite | a |\n| double | b |"
    with pytest.raises(InvalidInputError, match="2 rows of values"):
        read_then(table, TOOLS)
    told = (
        "call `book_room`\n| Argument | Value | Why |\n|---|---|---|\n| room_type | suite | best |"
    )
    assert [(c.tool, c.arguments) for c in read_then(told, TOOLS).calls] == [SUITE]


@pytest.mark.parametrize("then", HONEST)
def test_what_explains_a_call_is_no_fault(then):
    read = read_then(then, TOOLS)
    assert read.calls
    assert not any(demands_more(remark, is_fixed=True) for remark in read.remarks)


@pytest.mark.parametrize("then", OTHER_CASES)
def test_another_case_is_refused(then):
    with pytest.raises(InvalidInputError) as caught:
        read_then(then, TOOLS)
    assert caught.value.hint


@pytest.mark.parametrize("then", JOINED)
def test_calls_are_joined_in_any_plain_way(then):
    assert [(call.tool, call.arguments) for call in read_then(then, TOOLS).calls] == JOINED[then]


def test_an_argument_of_another_call_is_told_with_how_to_write_the_two():
    then = "call `book_room` and `handover`, with `room_type` = suite and `team` = claims."
    with pytest.raises(InvalidInputError, match="of book_room") as caught:
        read_then(then, TOOLS)
    assert "and then `book_room` with `room_type`" in caught.value.hint
