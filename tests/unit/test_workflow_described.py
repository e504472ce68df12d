"""Arguments that a Then describes, or speaks of without describing them; and honest pages."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from kit.order_tools import FIND, FIXED, TOOLS, read

from distill.workflow.model import Tool
from distill.workflow.then import read_then
from distill.workflow.values import InvalidInputError

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
    "street": [
        *("street Ringstrasse", "the street of Ada", "street is either Ring or Markt"),
        *("leave out the street", "leaving off the street"),
    ],
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
    "with the query as short as possible, limit = 5": {"limit": 5},
    "with the shortest possible query and limit = 5": {"limit": 5},
    "with limit = 5. Keep the query as short as possible": {"limit": 5},
    "(read only), limit = 5": {"limit": 5},
    "at once with limit = 5": {"limit": 5},
    "in the background with limit = 5": {"limit": 5},
    "to see if it is late, with limit = 5": {"limit": 5},
    "with limit = 5. You may shorten the query": {"limit": 5},
    "with the query they may have typed, and limit = 5": {"limit": 5},
    "with limit = 5 and query = {topic}, as the customer wrote it": {
        "limit": 5,
        "query": "{topic}",
    },
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


SWITCHED = Tool(
    name="switch",
    description="Switch.",
    parameters={
        "type": "object",
        "properties": {
            "notify": {"type": "boolean"},
            "limit": {"type": "integer"},
            "due_date": {"type": "string", "format": "date"},
        },
    },
)


@pytest.mark.parametrize(
    "more",
    [
        *("notify off", "notify on", "`notify` enabled", "`notify` disabled", "notify yes"),
        *("notify is off", "notify no and limit 3", "limit three", "`limit` is three results"),
        *("notify on every change", "notify no matter what"),
        *("due date 2026-01-31", "`due_date` 31.12.2026", "due_date set to 1/2/2026"),
    ],
)
def test_a_value_in_words_beside_its_name_is_refused(more):
    with pytest.raises(InvalidInputError) as caught:
        read_then(f"call `switch` with {more}.", {"switch": SWITCHED})
    assert "beside" in caught.value.cause or "fixes nothing" in caught.value.cause


@pytest.mark.parametrize(
    "more",
    ["notify where they ask for it", "whether to notify them", "limit one of them", "due date"],
)
def test_prose_beside_a_name_fixes_nothing(more):
    assert read_then(f"call `switch` with {more}.", {"switch": SWITCHED}).calls[0].arguments == {}
