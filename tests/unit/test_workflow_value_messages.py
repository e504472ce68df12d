"""What is wrong with a value in a Then is told in words, with what to write instead."""

import pytest

from distill.workflow.model import Tool
from distill.workflow.then import read_then
from distill.workflow.values import InvalidInputError, argument_errors

TOOL = Tool(
    name="claim",
    description="Open a claim.",
    parameters={
        "type": "object",
        "properties": {
            "policy": {"type": "string"},
            "kind": {"enum": ["car", "home"]},
            "urgent": {"type": "boolean"},
            "limit": {"type": "integer", "minimum": 1, "maximum": 50},
            "amount": {"type": "number", "minimum": 0},
            "since": {"type": "string", "format": "date"},
            "cities": {"type": "array", "items": {"type": "string"}},
            "contact": {"type": "object", "properties": {"channel": {"enum": ["phone"]}}},
            "tags": {"type": "array", "items": {"enum": ["glass", "water"]}},
            "price": {"type": ["number", "null"]},
        },
        "required": ["policy"],
    },
)
TOOLS = {"claim": TOOL}

REFUSED = {
    "`limit` = 99": ("99 is greater than the maximum of 50", "a whole number from 1 up to 50"),
    "`amount` = -3": ("-3 is less than the minimum of 0", "a number from 0"),
    "`amount` = three": ("not of type 'number'", "a number from 0"),
    "`urgent` = yes": ("not of type 'boolean'", "write true"),
    "`urgent` = no": ("not of type 'boolean'", "write false"),
    "`cities` = Bremen and Hamburg": ("not of type 'array'", 'write ["Bremen", "Hamburg"]'),
    "`kind` = boat": ("not one of", "one of car, home"),
    "`since` = 2026-02-30": ("is not a 'date'", "there is no such day"),
    "`since` = yesterday": ("is not a 'date'", "write it as: 2026-12-31"),
    "`amount` = 1.500": ("may be 1500 or 1.5", "write 1500 or 1.5"),
    "`amount` = 3.141": ("may be 3141 or 3.141", "write 3141 or 3.1410"),
    "`contact.channel` = phone": ('a part of "contact"', '`contact` = {"channel": …}'),
    "`contact[channel]` = phone": ('a part of "contact"', '`contact` = {"channel": …}'),
    "`contact` -> `channel` = phone": ('a part of "contact"', '`contact` = {"channel": …}'),
    "`contact`'s channel = phone": ("unknown argument", '`contact` = {"channel": …}'),
    "`channel` = phone": ("unknown argument", '`contact` = {"channel": …}'),
    "`tags[0]` = glass": ('a part of "tags"', '`tags` = ["…"]'),
    "`tags` = glass and water": ("not of type 'array'", 'write ["glass", "water"]'),
    "`tags` = glass, water": (", water", '`tags` = ["…", "…"]'),
    "`policy` = “{topic}” on glass": ('a value of "tags"', '`tags` = ["glass"]'),
    "`amount` = 12.345.678": ("not of type 'number'", "write 12345678"),
    "`price` = none": ("placeholder none", "write null"),
    "`policy` = policy number": ("placeholder policy number", "write {topic}"),
    "`policy` = an id": ("placeholder an id", "into quotes"),
    "`policy` = from the request": ("from the request", "for what the teacher fills"),
    '`policy` = "<policy>"': ("placeholder <policy>", "write {topic}"),
    '{"policy": "<policy>"}': ("placeholder <policy>", "write {topic}"),
    '{"policy": "a", "contact": {"channel": "<way>"}}': ("placeholder <way>", "leave"),
    "`policy` = null": ("placeholder null", "leave the argument out"),
    "`policy` = none": ("placeholder none", "leave the argument out"),
    "`policy` = TBD": ("placeholder TBD", "leave the argument out"),
    "`policy` = late, with a dog": ("with a dog", "in quotes"),
    '`policy` = "{topic}" in capitals': ("in capitals", "end the sentence"),
    "`policy` = {topic} in capitals": ("in capitals", "put a fixed value into quotes"),
    "`policy` = {topic}, translated into German": ("translated", "end the sentence"),
    "`policy` = “{topic}” and 5 as `limit`": ("5 as `limit`", "`limit` = 5"),
    "`policy` = “{topic}” and not urgent": ("not urgent", "`urgent` = false"),
    "`policy` = “{topic}”. Glass is never urgent": ("never urgent", "`urgent` = false"),
    "`policy` = “{topic}”. Never send an amount above 500": ("above 500", "into the schema"),
    "`policy` = “{topic}” without `urgent`": ("without `urgent`", "`urgent` = false"),
    "`policy` = “{topic}”. Leave `limit` out": ("Leave `limit` out", "leave the sentence out"),
    "`policy` = “{topic}”. Do not set `limit`": ("Do not set", "leave the sentence out"),
    "`policy` = “{topic}” and `kind` other than car": ("other than car", "`kind` = "),
}
LEFT_TO_FILL = (
    "a `policy` and a `kind`",
    "`policy` and `kind`",
    "`policy`, `kind` and `urgent`",
    "`policy` and `kind` as the request says",
    "`policy` (from the request) and `kind`",
    "the number of the policy as `policy` and what was damaged as `kind`",
    "`kind` one of car or home, and the `amount`",
    "what they say. The teacher fills `policy` and `kind`",
)


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_wrong_is_told_with_what_to_write(said):
    with pytest.raises(InvalidInputError) as caught:
        read_then(f"call `claim` with {said}.", TOOLS)
    cause, hint = REFUSED[said]
    assert cause in caught.value.cause
    assert hint in caught.value.hint


@pytest.mark.parametrize("said", LEFT_TO_FILL)
def test_names_in_backticks_may_be_what_the_teacher_fills(said):
    then = read_then(f"call `claim` with {said}.", TOOLS)
    assert [call.arguments for call in then.calls] == [{}]
    assert then.remarks


def test_names_in_brackets_are_what_the_teacher_fills():
    then = read_then("call `claim` (`policy`, kind and `urgent`).", TOOLS)
    assert [call.arguments for call in then.calls] == [{}]
    assert then.remarks


def test_a_mark_in_the_brackets_of_a_call_is_no_value():
    with pytest.raises(InvalidInputError) as caught:
        read_then('call claim(policy="<policy>").', TOOLS)
    assert "placeholder <policy>" in caught.value.cause


@pytest.mark.parametrize("said", ["the policy number", "none", "a < b > c"])
def test_a_text_in_quotes_may_be_meant_so(said):
    then = read_then(f'call `claim` with `policy` = "{said}".', TOOLS)
    assert then.calls[0].arguments == {"policy": said}


def test_text_of_a_number_is_none_where_it_stands_in_json():
    assert argument_errors(TOOL, {"policy": "a", "limit": "3"})
    assert argument_errors(TOOL, {"policy": "a", "limit": "99"})
    assert not argument_errors(TOOL, {"policy": "a", "limit": 3})


@pytest.mark.parametrize(("said", "value"), [("1.5", 1.5), ("1500", 1500), ("0.125", 0.125)])
def test_plain_numbers_are_read(said, value):
    then = read_then(f"call `claim` with `amount` = {said}.", TOOLS)
    assert then.calls[0].arguments == {"amount": value}
