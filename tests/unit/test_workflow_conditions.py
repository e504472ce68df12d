"""What is left of a Then beside its values: every construct, at every place, of every type."""

from __future__ import annotations

import itertools
import json

import pytest
from kit.order_tools import FIXED, TOOLS, read

from distill.errors import WorkflowError
from distill.workflow import load_workflow
from distill.workflow.then import read_then
from distill.workflow.values import InvalidInputError

CONDITIONS = [
    *("if the parcel is late", "when the parcel is late", "whenever it is late"),
    *("unless the parcel is late", "for gold customers", "only for late parcels"),
    *("only if it is late", "except on Sundays", "in case of delays", "in most cases"),
    *("provided that it is late", "as long as it is late", "during the week", "by default"),
    *("only on Sundays", "on Sundays", "depending on the customer"),
]
PLACES = {
    "behind": "call `find_order` with {value} {case}.",
    "behind a comma": "call `find_order` with {value}, {case}.",
    "in brackets": "call `find_order` with {value} ({case}).",
    "in front, in a sentence": "call `find_order`. {Case}, {value}.",
    "in front, on a line": "call `find_order`.\n{Case}, {value}.",
    "in front, after prose": "call `find_order` with the query. {Case}, {value}.",
    "in front, on the line above": "call `find_order`.\n{Case},\n{value}.",
    "in front, within": "call `find_order` with the query, and, {case}, {value}.",
    "a sentence behind": "call `find_order` with {value}. {Case}.",
    "a line behind": "call `find_order` with {value}.\n\n{Case}.",
    "behind the call's brackets": "call find_order({bracket}) {case}.",
    "in code": "call `find_order({bracket})`, {case}.",
    "a sentence behind the brackets": "call `find_order({bracket})`. {Case}.",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_condition_beside_a_fixed_value_is_refused_wherever_it_stands(place):
    accepted = []
    for name, case in itertools.product(FIXED, CONDITIONS):
        value, bracket, _ = FIXED[name]
        text = PLACES[place].format(
            value=value, bracket=bracket, case=case, Case=case[0].upper() + case[1:]
        )
        accepted += read(text)
    assert accepted == []


SLOT_CASES = [
    *("if the parcel is late", "when the parcel is late", "unless the parcel is late"),
    *("only for late parcels", "only if it is late", "except on Sundays", "as long as it is late"),
]


@pytest.mark.parametrize("place", [place for place in PLACES if not place.startswith("a ")])
def test_a_condition_beside_a_slot_is_refused(place):
    accepted = []
    for case in SLOT_CASES:
        slot = {"value": 'query = "{topic}"', "bracket": 'query="{topic}"'}
        text = PLACES[place].format(**slot, case=case, Case=case[0].upper() + case[1:])
        accepted += read(text)
    assert accepted == []


@pytest.mark.parametrize("more", ["for late parcels", "for them", ", if any", "in the store"])
def test_what_a_slot_is_for_is_no_condition(more):
    assert read(f'call `find_order` with query = "{{topic}}" {more}.')


MORE_CASES = [
    *(f"Urgent is true. {more}" for more in (
        "Late parcels only.", "Not on Sundays.", "This applies to late parcels.",
        "It is meant for gold customers.", "Otherwise it is false.", "Only gold customers.",
        "If it is not late, leave it out.", "If not late: false.", "Exception: gold customers.",
    )),
    *("Gold customers get limit 3", "Late parcels: urgent is true", "On mobile, limit 3"),
    *("With late parcels, urgent is true", "Should it be late, urgent is true"),
    *("limit = 3 (summer only)", "limit = 3 [regulars only]", "city = Berlin (in summer)"),
    *("city = Berlin, weather permitting", "limit = 3, in July", "city = Berlin – regulars only"),
    *("limit = 3 (gold customers)", "city = Berlin in the evening", "limit is 3, at weekends"),
    *("limit = 3 for this order during winter", "city = Berlin for the customer on Sundays"),
    *("At night, urgent is true", "Usually, the city is Berlin", "Urgent is true, the street as "
      "they say, but not on Sundays"),
]  # fmt: skip


@pytest.mark.parametrize("more", MORE_CASES)
def test_a_case_in_other_words_is_refused_as_well(more):
    with pytest.raises(InvalidInputError) as caught:
        read_then(f"call `find_order` with the query. {more}", TOOLS)
    assert "split" in caught.value.hint or "rule for each case" in caught.value.hint


HELD_SOMETIMES = [
    ". Applies to gold customers.",
    ". Gold customers!",
    ". VIPs only!",
    ". For VIPs.",
    ". In winter only.",
    ". In winter.",
    ". On Sundays.",
    ". During the night.",
    ". From May to July.",
    ". Not for VIPs.",
    ". VIPs are exempt.",
    ". VIPs excepted.",
    ". This does not apply to VIPs.",
    ". Exempt are VIPs.",
    ". It is false for VIPs.",
    ". In winter it is false.",
    ". VIPs: false.",
    ". Use false for VIPs.",
    ". But false for VIPs.",
    ". Do not do so on Sundays.",
    ". Never on Sundays.",
    ". However, not on Sundays.",
    ". Unless it is Sunday, that is.",
    ". (Only on Sundays)",
    ". Please only on Sundays.",
    " - but only when late",
    ", though not on Sundays",
    ", however only on Sundays",
    ", save on Sundays",
    ", apart from Sundays",
    ", other than on Sundays",
    ", given it is late",
    ", assuming it is late",
    ", supposing it is late",
    ", so long as it is late",
    ", subject to approval",
    ", on approval",
    ", upon approval",
    ", upon request",
    " on request",
    " where late",
    "; late parcels only",
    "; for VIPs",
    "; false otherwise",
    "; otherwise false",
    " or false",
    "/false",
    "|false",
    " (false at night)",
    " at weekends",
]  # behind a value
SAID_SOMETIMES = [
    ". For VIPs only: urgent = true",
    ". VIPs only: urgent = true",
    ". Case VIP: urgent = true",
    ". VIP → urgent = true",
    ". VIP => urgent = true",
    ". VIP? Then urgent = true",
    ". Is it late? Then urgent = true",
    ". Late? urgent = true",
    ". Late and VIP: urgent = true",
    ". In the case of VIPs urgent = true",
    ". For VIPs urgent = true",
    ". Only for VIPs urgent = true",
    ". Where the parcel is late, urgent = true",
    ". Once it is late, urgent = true",
    ". After 5 pm urgent is true",
    ". From 5 pm on, urgent is true",
    ". Late parcels are sent with urgent = true",
    ". VIPs always have urgent = true",
    ". A late parcel means urgent = true",
    ". The parcel being late, urgent is true",
    ". Depending on the customer, urgent is true",
    ". Sometimes urgent is true",
    ". Maybe urgent is true",
    ". Probably urgent = true",
    ". You may set urgent = true",
    ". You can set urgent to true",
    ". Consider urgent = true",
    ". It is possible that urgent is true",
    ". Optionally urgent = true",
    ", possibly with urgent = true",
    ", perhaps with urgent = true",
    ", ideally with urgent = true",
    ", normally with urgent = true",
    ", as a rule with urgent = true",
    ", by default with urgent = true",
    ", at first with urgent = true",
    ", at weekends with urgent = true",
    ", in winter with urgent = true",
    " in winter with urgent = true",
    ", for VIPs with urgent = true",
]  # in front of one


def test_no_wording_of_a_case_makes_a_value_hold_always():
    behind = [f"call `find_order` with urgent = true{more}" for more in HELD_SOMETIMES]
    before = [f"call `find_order`{more}" for more in SAID_SOMETIMES]
    assert [found for text in [*behind, *before] for found in read(text)] == []


@pytest.mark.parametrize(
    "more",
    [
        *(" if the customer is known", " only for late parcels", ", otherwise ask for it"),
        *(
            " unless it is late",
            " when they name one. Else ask",
            " (only if it is late)",
        ),
    ],
)
def test_a_condition_of_the_call_is_refused(more):
    with pytest.raises(InvalidInputError) as caught:
        read_then(f"call `find_order`{more}", TOOLS)
    assert "When" in caught.value.hint


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (".\n\nUrgent is true.\n\nOnly for late parcels.", 9),
        (".\n\nThe query is theirs.\n\nDisable urgent.", 9),
        (" with:\n\n- limit: 3\n- in summer: city = Berlin", 8),
        (" with limit = 3, otherwise ask.", 5),
    ],
)
def test_the_error_names_the_line_of_the_condition(tmp_path, more, line):
    rules = f"## found: Found\n\n**When** asked.\n\n**Then** call `find_order`{more}\n"
    (tmp_path / "rules.md").write_text(rules, encoding="utf-8")
    tools = [tool.model_dump() for tool in TOOLS.values()]
    (tmp_path / "tools.json").write_text(json.dumps(tools), encoding="utf-8")
    with pytest.raises(WorkflowError) as caught:
        load_workflow(tmp_path / "rules.md")
    (problem,) = caught.value.problems
    assert problem.place.endswith(f"rules.md:{line}")
