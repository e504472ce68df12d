"""What a Then fixes, in every way in which people write it: read, or refused with its line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.order_tools import FIND as FIND_ORDER

from distill.errors import WorkflowError
from distill.workflow import load_workflow
from distill.workflow.model import Tool
from distill.workflow.quotes import CLOSERS
from distill.workflow.then import read_then
from distill.workflow.values import InvalidInputError

SET_STATUS = {
    "name": "set_status",
    "description": "Set the status of a ticket.",
    "parameters": {
        "type": "object",
        "properties": {
            "ticket": {"type": "string"},
            "status": {"enum": ["open", "closed", "escalated"]},
            "priority": {"type": "integer"},
            "notify": {"type": "boolean"},
            "reply_note": {"type": "string"},
        },
        "required": ["ticket", "status"],
    },
}
FIND = {
    "name": "find_order",
    "description": "Find an order.",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
    },
}
TOOLS = [SET_STATUS, FIND]
BY_NAME = {tool["name"]: Tool(**tool) for tool in TOOLS}
CLOSED = {"status": "closed"}
PLACED = {"ticket": "{topic}", "status": "closed"}


def loaded(folder, then, more=""):
    rules = f"## done: Done\n\n**When** it is done.\n\n**Then** {then}\n\n{more}"
    (folder / "rules.md").write_text(rules, encoding="utf-8")
    (folder / "tools.json").write_text(json.dumps(TOOLS), encoding="utf-8")
    return load_workflow(folder / "rules.md").rules[0]


READ = {
    'call set_status(status="closed")': CLOSED,
    "call set_status(status='closed')": CLOSED,
    "call set_status(status=closed)": CLOSED,
    'call `set_status(status="closed")`': CLOSED,
    "call ``set_status(status = 'closed')``.": CLOSED,
    'call `set_status`(status="closed")': CLOSED,
    'call `set_status` (status: "closed").': CLOSED,
    'call set_status({"status": "closed"})': CLOSED,
    "call set_status(…, status=closed)": None,
    'call `set_status(ticket="{topic}", status="closed", notify=True)`': PLACED | {"notify": True},
    "call `set_status(ticket=ticket_id, status='closed')`": None,
    'call `set_status` with status = "closed"': CLOSED,
    'call `set_status` with status="closed".': CLOSED,
    "call `set_status` with status=closed": CLOSED,
    "call `set_status` with status == closed": CLOSED,
    "call `set_status` with status: closed": CLOSED,
    "call `set_status` with status：closed": CLOSED,
    "call `set_status`, status → closed": CLOSED,
    "call `set_status` using **status** = **closed**": CLOSED,
    "call `set_status` with **status:** closed": CLOSED,
    "call `set_status` with _status_ = _closed_": CLOSED,
    'call `set_status` with `status = "closed"`': CLOSED,
    'call `set_status` with: `status="closed"`': CLOSED,
    "call `set_status` with `status: closed`": CLOSED,
    'call `set_status` with "status": "closed"': CLOSED,
    'call `set_status` with `"status": "closed"`': CLOSED,
    'call `set_status` with `{"status": "closed"}`': CLOSED,
    'call `set_status` with {"status": "closed"}': CLOSED,
    "call `set_status` with {'status': 'closed'}": CLOSED,
    "call `set_status` with {status: closed}": CLOSED,
    "call `set_status` with {“status”: “closed”}.": CLOSED,
    'call `set_status` with arguments {"status": "closed", "priority": 2}': CLOSED
    | {"priority": 2},
    'call `set_status` with the ticket number, and status="closed"': CLOSED,
    'call `set_status` for the ticket of the customer, with status "closed"': CLOSED,
    "call `set_status` with status `closed`": CLOSED,
    "call `set_status`, and set status to `closed`": CLOSED,
    "call `set_status` with the status set to closed.": CLOSED,
    'call `set_status`; the status is "closed" and the priority is 2': CLOSED | {"priority": 2},
    "call `set_status` where status is closed": CLOSED,
    "call `set_status`. Status must always be closed.": CLOSED,
    "call `set_status` with status as `closed`": CLOSED,
    "call `set_status` with `closed` as the status": CLOSED,
    'call `set_status` with "closed" for `status`, keep it short': CLOSED,
    "call `set_status` with status = closed and priority = 3, notify = TRUE": CLOSED
    | {"priority": 3, "notify": True},
    'call `set_status` with priority = "3"': {"priority": 3},
    "call `set_status` with `ticket` = '{topic}' and `status` = ‘closed’": PLACED,
    "call `set_status` with ticket = „{topic}“, status = «closed»": PLACED,
    "call `set_status` with Ticket = “{topic}”, Status = closed": PLACED,
    "call `set_status` with reply note = 'all done' and ticket": {"reply_note": "all done"},
    "call `set_status` with reply\\_note = 'all done'": {"reply_note": "all done"},
    "call `set_status` with the reply note: 'all done'": {"reply_note": "all done"},
    "call `set_status` with reply-note = the customer's words": None,
    "call `set_status` with reply-note = “the customer's words”": {
        "reply_note": "the customer's words"
    },
    "call `set_status` with:\n\n- status: closed\n- priority: 2": CLOSED | {"priority": 2},
    "call `set_status` with:\n- `status` = `closed`\n- the number of the ticket": CLOSED,
    "call `set_status` with these arguments:\n* **status**: closed": CLOSED,
    "call `set_status`:\n1. status — closed\n2. ticket — the number": CLOSED,
    "call `set_status`\n- with\n  - status: closed": CLOSED,
    'call `set_status` with\n\n```json\n{"status": "closed"}\n```': CLOSED,
    "call `set_status` with\n\n```yaml\nstatus: closed\npriority: 1\n```": CLOSED | {"priority": 1},
    "call:\n\n```python\nset_status(status='closed')\n```": CLOSED,
    "call `set_status`.\n\n> status = closed": CLOSED,
    "call `set_status`.\n\nThe status is always `closed`.": CLOSED,
    "call `set_status` with\n\n| argument | value |\n|---|---|\n| status | closed |": CLOSED,
    "call `set_status` with\n\n| argument | value |\n|---|---|\n| `ticket` | {topic} |\n"
    "| `status` | `closed` |": PLACED,
    "call `set_status` with\n\n| ticket | status |\n|---|---|\n| {topic} | closed |": PLACED,
    "call `set_status` with the ticket's number. Keep the words.": {},
    "call `set_status` with the status that the customer wants": {},
    "call `set_status` with status closed, priority 2": CLOSED | {"priority": 2},
    "call `set_status` with the status open or closed, as they say": {},
    "call `set_status` with the status (open, closed or escalated) as asked": {},
    "call `set_status` with status = « closed »": CLOSED,
    "call `set_status` --status=closed, --priority 2": CLOSED | {"priority": 2},
    "call `set_status` (the tool for tickets) with status = closed": CLOSED,
    "call `set_status` with ticket = {topic} (the whole number), status = closed": PLACED,
    "call `find_order` with the query as the customer wrote it": None,
}  # fmt: skip


@pytest.mark.parametrize("then", READ)
def test_a_fixed_argument_is_read_in_every_form_or_refused(tmp_path, then):
    expected = READ[then]
    if expected is None and "find_order" not in then:
        with pytest.raises(WorkflowError):
            loaded(tmp_path, then)
        return
    (call,) = loaded(tmp_path, then).then.calls
    assert call.arguments == (expected or {})


TWO = {
    "call `find_order` with query = {topic}, then call `set_status` with status = closed",
    "call `find_order` with query = '{topic}' for it and then call set_status(status=closed)",
    "call:\n1. `find_order` with `query` = {topic}\n2. `set_status` with `status` = closed",
    "\n1. call `find_order` with `query` = {topic}\n2. then call `set_status`, status closed",
    "call `find_order` with query: {topic}.\n\nThen call `set_status` with\n- status: closed",
    'call `find_order(query="{topic}")` and `set_status(status="closed")`',
    "call `find_order` with `query` = {topic}. Next, call `set_status` with `status` = `closed`.",
}


@pytest.mark.parametrize("then", sorted(TWO))
def test_every_call_is_read_wherever_it_stands(tmp_path, then):
    calls = loaded(tmp_path, then).then.calls
    assert [(call.tool, call.arguments) for call in calls] == [
        ("find_order", {"query": "{topic}"}),
        ("set_status", CLOSED),
    ]


REFUSED = {
    "call `set_status` with stauts = closed": (5, 'unknown argument "stauts"', '"status"?'),
    "call `set_status`. Mind the stauts: closed": (5, "stauts", '"status"?'),
    "call `set_status` with status = clsed": (5, 'wrong value for "status"', "closed"),
    "call `set_status` with status is closd": (5, 'says "closd" of "status"', '"closed"?'),
    "call `set_status` with status = closed or open": (5, "several values", "one"),
    'call `set_status` with status = "closed" or "open"': (5, "several values", "one"),
    "call `set_status` with status: `closed` / `open`": (5, "several values", "one"),
    'call `set_status`, but never with status = "closed"': (5, "never", "plainly"),
    'call `set_status` without status = "closed"': (5, "without", "plainly"),
    "call `set_status`, for example with status = closed": (5, "for example", "plainly"),
    "call `set_status` with status != closed": (5, "status !=", "with `a` = 1"),
    "call `set_status` where status becomes quickly closed": (
        5, "not understood", "`status` = closed"),
    "call `set_status` with ticket = <the ticket>": (5, "placeholder", "{topic}"),
    "call `set_status` with ticket = ...": (5, "placeholder", "{topic}"),
    'call `set_status` with ticket = "{{topic}}"': (5, "braces", "single braces"),
    'call `set_status` with ticket = "{ticket number}"': (5, "braces", "one word"),
    "call `set_status` with\n- status: closed\n- ticket: the number that they gave": (
        7, 'says "the number that they gave" of "ticket"', "quotes"),
    'call `set_status` with\n- status: closed\n- {"ticket": "1", "status": "open"}': (
        7, '"status" to set_status twice', "one"),
    "call `set_status`.\n\nFine.\n\n- status = lost": (9, "wrong value", "closed"),
    'call `set_status` with {"status": "closed"': (5, "not complete JSON", "brackets"),
    "call `set_status` (closed)": (5, "without an argument's name", "`name` = closed"),
    "call `set_status` with ticket and status (closed)": (5, "not understood", "`status` = closed"),
    'call `set_status` with status = "closed" if solved, else "open"': (5, "in a case", "each"),
    'call `set_status` with status "closed", otherwise "open"': (5, "in a case", "each case"),
    "call `set_status` with status": None,
    "call `set_status`, not `find_order`": (5, "goes on with `find_order`", "and or then"),
    "call `set_status`; do not call find_order": (5, "call find_order", "and or then"),
    "call `find_order` and `set_status`, both with status = closed": (5, "both", "plainly"),
    "call `find_order` and `set_staus`": (5, 'unknown tool "set_staus"', '"set_status"?'),
    "answer with `find_order`": (5, 'says answer, and names the tool "find_order"', "call"),
    "ask for the number, then call `find_order` with it": (5, "says ask, and names", "call"),
    'refuse: "No." and call find_order(query="x")': (5, "says refuse, and names", "call"),
}  # fmt: skip


@pytest.mark.parametrize("then", REFUSED)
def test_what_still_looks_like_an_argument_or_a_call_is_refused(tmp_path, then):
    if REFUSED[then] is None:
        assert loaded(tmp_path, then).then.calls[0].arguments == {}
        return
    line, cause, hint = REFUSED[then]
    with pytest.raises(WorkflowError) as caught:
        loaded(tmp_path, then)
    (problem,) = caught.value.problems
    assert problem.place.endswith(f"rules.md:{line}")
    assert cause in problem.cause
    assert hint in problem.hint


REPLIES = {
    'answer: "We are open."': "We are open.",
    "answer: „Wir haben offen.“": "Wir haben offen.",
    "answer «Ouvert.»": "Ouvert.",
    "answer: 'It is open'.": "It is open",
    'answer: say "yes" or "no"': 'say "yes" or "no"',
    "answer what's known of the customer's order": "",
    "answer:\n> We are open.": "We are open.",
    "answer:\n- We are open.\n- Not on Mondays.": "We are open.\nNot on Mondays.",
    'answer: "Yes."\n\nName no prices.': "Yes.",
}


@pytest.mark.parametrize("then", REPLIES)
def test_what_is_said_is_read_whole(tmp_path, then):
    assert loaded(tmp_path, then).then.reply == REPLIES[then]


WORDS = st.text(
    st.characters(categories=["L", "N"], exclude_characters="ªº"), min_size=1, max_size=12
)
MARKS = [(mark, closer) for mark, closers in CLOSERS.items() for closer in closers]
NAMES = st.sampled_from(
    ["reply_note", "`reply_note`", "**reply_note**", "reply note", "Reply_note"]
)
JOINTS = st.sampled_from([" = ", "=", ": ", " is ", " set to ", " "])


@given(NAMES, JOINTS, st.sampled_from(MARKS), st.lists(WORDS, min_size=1, max_size=3))
def test_a_quoted_value_is_the_same_in_every_quotes_and_wording(name, joint, marks, words):
    value = " ".join(words)
    if "`" in marks:
        value = f"x{value}"  # code holds JSON as well
    text = f"call `set_status` with {name}{joint}{marks[0]}{value}{marks[1]} for them"
    (call,) = read_then(text, BY_NAME).calls
    assert call.arguments == {"reply_note": value}


PIECES = st.sampled_from(
    [
        *("`set_status`", "`find_order`", "status", "closed", "=", ":", " ", " with ", " and "),
        *(", ", ".", "\n", "`", '"', "'", "„", "{", "}", "{topic}", "[", "(", ")", "|", "|-|", "1"),
        *("call ", "then ", "is ", "ticket"),
    ]
)


@given(st.lists(PIECES, max_size=14).map("".join))
def test_any_sentence_is_read_or_refused(text):
    try:
        then = read_then(f"call {text}", BY_NAME)
    except InvalidInputError:
        return
    assert then.calls


MORE = BY_NAME | {"find_order": FIND_ORDER}
ONLY_SOMETIMES = [
    *(
        f"Urgent is true {case}"
        for case in (
            *("only for late parcels", "for gold customers", "whenever the parcel is late"),
            *("with late parcels", "in case of delays", "in most cases", "by default"),
            *(", but not on Sundays", ", except on Sundays", "(only for gold customers)"),
            *("and only for late parcels", "— for gold customers only", ", whenever it is late"),
        )
    ),
    *("The limit is 3 for new customers", "Limit 3 on mobile", "City is Berlin except on Sundays"),
    *("City is Berlin during the week", "`Berlin` as the city for new customers"),
    *("`urgent` = true for gold customers", "urgent: true for gold customers"),
    *("Amount is 5 at most", "Amount is 5 or more", "Amount is 50 euros minimum"),
    *("Amount is 5 and more", "The limit is 3 to 5", "limit 3-5", "limit 2026-01-31"),
    *('`query` = "late" for gold customers', "Urgent is true\nonly for late parcels"),
    *("The limit is 3\nfor new customers", "City is Berlin,\nexcept on Sundays"),
]
CUT_AT_A_COMMA = [
    *("`amount` = 12,50", "`amount` = 1,000", "`amount` = 1.234,56", "`amount` = 12,50 EUR"),
    *("`query` = 1,5", "query: a, b, c", "amount 12,50", "amount is 1 000", "limit = 3, 4"),
    *('query = "a", "b"', "query = {topic}, {city}", "city = Berlin, Köln"),
]


@pytest.mark.parametrize("more", [*ONLY_SOMETIMES, *CUT_AT_A_COMMA])
def test_a_value_whose_sentence_goes_on_is_not_fixed_in_silence(more):
    for joint in (". ", ", with ", ".\n\n"):
        with pytest.raises(InvalidInputError) as caught:
            read_then(f"call `find_order`{joint}{more}.", MORE)
        assert caught.value.hint


FIXED_ALWAYS = {
    "Urgent is true": {"urgent": True},
    "Urgent is always true, too": {"urgent": True},
    **{
        f"Urgent is true{end}": {"urgent": True}
        for end in (
            *(" as well", " always", " too", " in all cases", ", always", " (always)", " for them"),
            *(" here", ", keep the words", " to warn the driver", " because it is late"),
        )
    },
    "The limit is 3 and the city is Köln": {"limit": 3, "city": "Köln"},
    "limit 3, city Berlin and amount 12.50": {"limit": 3, "city": "Berlin", "amount": 12.5},
    "limit = 3,city = Berlin": {"limit": 3, "city": "Berlin"},
    "limit 3, `Berlin` as the city": {"limit": 3, "city": "Berlin"},
    'query = "a, b, c"': {"query": "a, b, c"},
    "query = late, limit = 3": {"query": "late", "limit": 3},
    'query = "{topic}" for late parcels': {"query": "{topic}"},
    "amount = 5%": None,
}


@pytest.mark.parametrize("more", FIXED_ALWAYS)
def test_a_value_with_a_harmless_ending_is_read(more):
    if FIXED_ALWAYS[more] is None:
        with pytest.raises(InvalidInputError):
            read_then(f"call `find_order`. {more}.", MORE)
        return
    (call,) = read_then(f"call `find_order`. {more}.", MORE).calls
    assert call.arguments == FIXED_ALWAYS[more]


ESCALATE = Tool(
    name="escalate",
    description="Escalate.",
    parameters={"type": "object", "properties": {"reason": {"type": "string"}}},
)
WITH_WORDS = MORE | {"escalate": ESCALATE, "search": ESCALATE.model_copy(update={"name": "search"})}
BARE_CALLS = [
    *(" and escalate", ', then escalate with reason "lost"', " first, and after that escalate"),
    *(". Escalate with a reason", ", escalate", ". Then set_status", "; set_status of the ticket"),
    *(" with `query` = {topic} and escalate", " with limit 3, and then also escalate"),
    *(" and, finally, escalate", ", followed by escalate", ".\n- escalate"),
]


@pytest.mark.parametrize("more", BARE_CALLS)
def test_a_second_call_without_backticks_is_refused(more):
    with pytest.raises(InvalidInputError) as caught:
        read_then(f"call `find_order`{more}.", WITH_WORDS)
    assert "write: and call `" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "call `find_order` for the search that they began",
        "call `search`. Search carefully, and search terms are kept",
        "call `find_order` with the words to search for, so that nobody has to escalate",
        'call `escalate` with `reason` = "lost and search"',
    ],
)
def test_a_word_that_is_also_a_tool_is_no_call_within_a_sentence(text):
    assert len(read_then(text, WITH_WORDS).calls) == 1
