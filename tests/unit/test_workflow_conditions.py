"""What is left of a Then beside its values: every construct, at every place, of every type."""

from __future__ import annotations

import itertools
import unicodedata

import pytest

from distill.workflow.model import Tool
from distill.workflow.then import read_then
from distill.workflow.values import InvalidInputError

FIND = Tool(
    name="find_order",
    description="Find an order.",
    parameters={
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer"},
            "city": {"enum": ["Berlin", "Köln"]},
            "amount": {"type": "number"},
            "urgent": {"type": "boolean"},
            "street": {"type": "string"},
        },
        "required": ["query"],
    },
)
SEARCH = Tool(
    name="search",
    description="Search.",
    parameters={"type": "object", "properties": {"text": {"type": "string"}}},
)
TOOLS = {"find_order": FIND, "search": SEARCH}
FIXED = {
    "urgent": ("urgent is true", "urgent=true", True),
    "limit": ("the limit is 3", "limit=3", 3),
    "amount": ("amount = 5.50", "amount=5.50", 5.5),
    "city": ("the city is Berlin", 'city="Berlin"', "Berlin"),
    "street": ('street = "High Street"', 'street="High Street"', "High Street"),
}
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


def read(text):
    """The text and its arguments; nothing where it is refused."""
    try:
        return [(text, read_then(text, TOOLS).calls[0].arguments)]
    except InvalidInputError:
        return []


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


SPOKEN_OF = {
    "every": [
        *("without {name}", "without the {name}", "no {name}", "omit {name}", "not {name}"),
        *("leave the {name} empty", "{name} is not set", "ignore the {name}", "skip {name}"),
        *("do not send the {name}", "{name} stays blank", "leave {name} out"),
    ],
    "urgent": [
        *("disable urgent", "enable urgent", "mark it urgent", "as urgent", "urgent only"),
        *("set urgent", "with urgent", "the parcel is urgent", "urgent orders first"),
    ],
    "limit": [
        "limit at most 5",
        "limit between 1 and 5",
        "limit the results to 5",
        "up to 3 limit",
    ],
    "amount": ["amount is at most 5", "amount over ten", "amount under 5.50", "5 as an amount"],
    "city": ["the city has to be Berlin", "any city but Berlin"],
}


@pytest.mark.parametrize("joint", [", ", " and ", ". ", ".\n\n", " with the query, "])
def test_an_argument_that_is_spoken_of_but_not_described_is_refused(joint):
    every = [form.format(name=name) for form in SPOKEN_OF["every"] for name in FIXED]
    typed = [form for name, forms in SPOKEN_OF.items() if name != "every" for form in forms]
    accepted = []
    for said in [*every, *typed]:
        accepted += read(f"call `find_order`{joint}{said}.")
    assert accepted == []


DESCRIBED = [
    *(
        "with the {name} they name",
        "with the {name}, if any",
        "with the query and the {name} of it",
    ),
    *(
        "with {name} as the request says",
        "with the {name} if they say so",
        "and the {name} that fits",
    ),
    *("with the query. Never guess the {name} that they mean", "with the {name} from the request"),
]
ASIDE = [
    *("", ", and urgent = true", ", urgent is always true"),
    *(", because they wait. Urgent is true", ". Urgent is true. Be quick with it"),
    *(". Urgent is true. If several match, take the latest", ". In all cases, urgent is true"),
]


@pytest.mark.parametrize("aside", ASIDE)
def test_a_plain_description_is_left_to_the_teacher(aside):
    expected = {"urgent": True} if aside else {}
    for form, name in itertools.product(DESCRIBED, FIXED):
        if name == "urgent":
            continue
        text = f"call `find_order` {form.format(name=name)}{aside}."
        (call,) = read_then(text, TOOLS).calls
        assert call.arguments == expected, text


@pytest.mark.parametrize(
    "more",
    [
        *(
            " in Berlin",
            ": Berlin",
            " to Köln",
            ' with the street and "Berlin"',
            " for Köln orders",
        ),
        *(
            " with orders of Berlin left out",
            " urgently",
            " for the urgent ones",
            " with top limit",
        ),
        *(" with limit max 5", " with the highest limit", " with limit #3", " with limit P1"),
        *(" with street = the one they name", " with street = their street"),
        *(
            " with query = late parcels and the city they name",
            " with query = late and, if so, x",
        ),
        *(" with the urgent flag set", " with urgent flag on"),
        *(
            " with limit (default 2)",
            " with street = Main if so said",
        ),
        *(" with query = {topic} if known", " with query = {topic} as they wrote it"),
    ],
)
def test_a_value_without_its_argument_s_sign_is_refused(more):
    with pytest.raises(InvalidInputError) as caught:
        read_then(f"call `find_order`{more}.", TOOLS)
    assert "fixed value" in caught.value.hint


@pytest.mark.parametrize("joint", [". If it is late, then ", ", and if it is late, then "])
def test_a_call_in_a_case_is_no_call(joint):
    with pytest.raises(InvalidInputError):
        read_then(f"call `find_order`{joint}`search`", TOOLS)


ALWAYS = [
    *("immediately", "right away", "no matter what", "as they wait", "so that it is seen"),
    *("for this order", "for the customer", "for the street they name", "and nothing else", "!"),
]


def test_a_call_for_some_people_is_refused_beside_a_fixed_value():
    for people in ("gold customers", "regulars", "VIPs"):
        for joint in (", limit = 3", ", with limit = 3", " with limit = 3"):
            with pytest.raises(InvalidInputError):
                read_then(f"call `find_order` for {people}{joint}", TOOLS)
    (call,) = read_then("call `find_order` for all customers with limit = 3", TOOLS).calls
    assert call.arguments == {"limit": 3}


@pytest.mark.parametrize(
    "joint", [" and afterwards ", ", followed by ", ". After that, ", ", afterwards call "]
)
def test_a_second_call_is_read_behind_every_connective(joint):
    calls = read_then(f"call `find_order`{joint}`search`", TOOLS).calls
    assert [call.tool for call in calls] == ["find_order", "search"]


@pytest.mark.parametrize("name", FIXED)
def test_an_ending_that_changes_nothing_is_read(name):
    for end in ALWAYS:
        text = f"call `find_order` with {FIXED[name][0]} {end}"
        assert read_then(text, TOOLS).calls[0].arguments == {name: FIXED[name][2]}, text


HONEST = {
    "with query = {topic} of {place} (the whole name)": {"query": "{topic} of {place}"},
    "with limit = 3 (we never show more)": {"limit": 3},
    "with limit = 3 for all customers": {"limit": 3},
    "with limit = 1 - the newest only": {"limit": 1},
    "with limit = 3, at the time they say": {"limit": 3},
    "for orders they name, with limit = 3": {"limit": 3},
    "with city = Berlin (the capital) and limit = 3 (the maximum)": {"city": "Berlin", "limit": 3},
    "with query = {topic} and, where known, the city": {"query": "{topic}"},
    "with query = {topic} and the city they name": {"query": "{topic}"},
    "with limit = 5. If a city is mentioned, pass it as city": {"limit": 5},
    "with limit = 5. For details see the handbook": {"limit": 5},
    "with limit = 5 even if they ask for more": {"limit": 5},
    "with limit = 5. This applies even if they ask for more": {"limit": 5},
    "with limit = 5 since the page shows five": {"limit": 5},
    "with limit = 5. Add the city when they name one": {"limit": 5},
    "with the city (Berlin or Köln)": {},
    "with the largest amount they name": {},
    "for orders with city Berlin": {"city": "Berlin"},
    "with city = Berlin. Only then say goodbye": {"city": "Berlin"},
    "with city = Berlin instead of Köln": {"city": "Berlin"},
    "with the query and whether it is urgent": {},
    "with the query, and urgent as they say": {},
    "with urgent if they say so, and limit = 3": {"limit": 3},
    "with the street if they gave one and city = Berlin": {"city": "Berlin"},
    "with limit 3 results": {"limit": 3},
    "with limit = 3 results per page, and the street": {"limit": 3},
    "with amount = 5 euros and the street": {"amount": 5},
    "with limit = 10 (ten)": {"limit": 10},
    "with limit = 5 and the street, if given": {"limit": 5},
    "with city = Berlin and the street they name": {"city": "Berlin"},
    "with the words of https://x.example/find?city=Berlin&limit=3#street=x": {},
    "with query = https://x.example/find?city=Berlin&limit=3": {
        "query": "https://x.example/find?city=Berlin&limit=3"
    },
    "with the city (e.g. Berlin)": {},
    "with the query, because: the customer = king": {},
    f"with city = {unicodedata.normalize('NFD', 'Köln')}": {"city": "Köln"},
    f"with the city {unicodedata.normalize('NFD', 'Köln')}": {"city": "Köln"},
    "with the order and search terms": {},
    "with the street when given and city = Berlin": {"city": "Berlin"},
    'with city = Berlin, and the words "if late" as they stand': {"city": "Berlin"},
}


@pytest.mark.parametrize("more", HONEST)
def test_an_honest_page_is_read(more):
    (call,) = read_then(f"call `find_order` {more}.", TOOLS).calls
    assert call.arguments == HONEST[more]


def test_a_number_in_other_words_behind_a_value_is_refused():
    for more in ("5%", "3 thousands", "3k", "3 and a half", "3 dozens", "3 results or more"):
        for sign in (" ", " = ", " is "):
            with pytest.raises(InvalidInputError):
                read_then(f"call `find_order` with amount{sign}{more}.", TOOLS)


def test_a_listed_value_is_the_schema_s_own_form_of_it():
    written = unicodedata.normalize("NFD", "Köln")
    find = FIND.model_copy(
        update={"parameters": {"type": "object", "properties": {"city": {"enum": [written]}}}}
    )
    for joint in (" = ", " ", " is "):
        (call,) = read_then(f"call `find_order` with city{joint}Köln", {"find_order": find}).calls
        assert call.arguments == {"city": written}


def test_a_verb_that_is_no_slip_gets_no_guess():
    with pytest.raises(InvalidInputError) as caught:
        read_then("use `find_order`", TOOLS)
    assert "refuse`" not in caught.value.hint
    assert "did you mean" not in caught.value.hint
    with pytest.raises(InvalidInputError) as caught:
        read_then("refus: no", TOOLS)
    assert 'did you mean "refuse"' in caught.value.hint


@pytest.mark.parametrize(
    "more", [" and search", " and search with the text", ", then search terms"]
)
def test_a_second_call_by_an_everyday_word_is_refused(more):
    with pytest.raises(InvalidInputError):
        read_then(f"call `find_order`{more}", TOOLS)
