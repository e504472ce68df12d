"""Gold rows and other files of labelled prompts."""

from __future__ import annotations

import gzip
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import DistillError, InputFileError
from distill.records import ExpectedCall, Message, ToolCall
from distill.workflow import read_cases
from distill.workflow.cases import cases_of_rows
from distill.workflow.model import CallSpec, Rule, Then, Tool

FIND = Tool(
    name="find_order",
    description="Find.",
    parameters={
        "type": "object",
        "properties": {"order_id": {"type": "string"}},
        "required": ["order_id"],
    },
)
OTHER = FIND.model_copy(update={"name": "other"})
TOOLS = (FIND, OTHER)


def ruled(id, kind="call", *tools):
    calls = tuple(CallSpec(tool=name) for name in tools or ["find_order"] if kind == "call")
    then = Then(kind=kind, calls=calls, text="…")
    return Rule(id=id, title=id, when="…", then=then, text="…")


def read(folder, *rows, tools=TOOLS, rules=None):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "gold.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return read_cases(folder / "gold.jsonl", tools=tools, rules=rules)


def row(**fields):
    return {"user_content": "Where is A-1?", "tool_name": "find_order", **fields}


def chat(*messages, **fields):
    return {"messages": [{"role": role, **given} for role, given in messages], **fields}


USER = ("user", {"content": "Where is A-1?"})
CALL = {"type": "function", "function": {"name": "find_order", "arguments": '{"order_id": "A-1"}'}}


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({}, None),
        ({"tool_arguments": None}, None),
        ({"tool_arguments": '{"order_id": "A-1"}'}, {"order_id": "A-1"}),
        ({"tool_arguments": {"order_id": "A-1"}, "target": "call"}, {"order_id": "A-1"}),
        ({"split": "train"}, None),
    ],
)  # fmt: skip
def test_a_prompt_with_its_call(tmp_path, given, arguments):
    (case,) = read(tmp_path, row(rule="r", **given), rules=[ruled("r")])
    assert case.messages == (Message(role="user", content="Where is A-1?"),)
    assert case.kind == "call"
    assert case.calls == (ExpectedCall(name="find_order", arguments=arguments),)
    assert (case.rule, case.tools, case.place) == ("r", None, "gold.jsonl:1")


@pytest.mark.parametrize("name", [{}, {"tool_name": None}, {"tool_name": ""}])
@pytest.mark.parametrize("target", ["ask", "answer", "refuse"])
def test_a_prompt_without_a_call(tmp_path, name, target):
    (case,) = read(tmp_path, {"user_content": "hi", "target": target, **name})
    assert (case.kind, case.calls) == (target, ())


def test_a_conversation_with_its_calls(tmp_path):
    said = chat(
        ("developer", {"content": "Be brief."}),
        ("user", {"content": [{"type": "text", "text": text} for text in ("Where is ", "it?")]}),
        ("assistant", {"content": None, "tool_calls": [{"id": "7", **CALL}]}),
        ("tool", {"tool_call_id": "7", "content": "lost"}),
        ("user", {"content": "And A-2?"}),
        ("assistant", {"tool_calls": [CALL, {"name": "other", "arguments": {"order_id": "x"}}]}),
        tools=[FIND.openai(), OTHER.openai()],
    )  # fmt: skip
    called = ToolCall(name="find_order", arguments={"order_id": "A-1"})
    (case,) = read(tmp_path, said, tools=None)
    assert case.messages == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Where is it?"),
        Message(role="assistant", tool_calls=(called,)),
        Message(role="tool", content="lost", name="find_order"),
        Message(role="user", content="And A-2?"),
    )  # fmt: skip
    assert case.conversation.last_user == "And A-2?"
    assert [call.name for call in case.calls] == ["find_order", "other"]
    assert case.tools == (FIND.openai(), OTHER.openai())


@pytest.mark.parametrize(("target", "kind"), [({}, "answer"), ({"target": "refuse"}, "refuse")])
def test_a_conversation_with_its_answer(tmp_path, target, kind):
    (case,) = read(tmp_path, chat(USER, ("assistant", {"content": "No."}), **target))
    assert (case.kind, case.calls) == (kind, ())


def test_without_tools_any_name_is_taken(tmp_path):
    (case,) = read(tmp_path, row(tool_name="whatever", tool_arguments={"a": 1}), tools=None)
    assert case.calls == (ExpectedCall(name="whatever", arguments={"a": 1}),)


def test_the_id_is_the_content(tmp_path):
    one, two = read(tmp_path, row(), row(user_content="b"))
    again, same = read(tmp_path, "", row(user_content="b"), row(split="train"))
    assert {one.id, two.id} == {again.id, same.id}
    assert one.id == same.id
    assert same.place == "gold.jsonl:3"


def test_one_prompt_may_come_with_different_tools(tmp_path):
    rows = [row(), row(tool_name="other", tools=[OTHER.openai()])]
    assert len(read(tmp_path, *rows)) == 2


@given(st.text(min_size=1).filter(str.strip))
def test_a_prompt_survives(tmp_path_factory, prompt):
    (case,) = read(tmp_path_factory.mktemp("any"), row(user_content=prompt))
    assert case.conversation.last_user == prompt


SLIPS = {
    "not an object": ([1], "not a JSON object", "user_content"),
    "no prompt": ({"tool_name": "find_order"}, "no user message", "messages"),
    "blank prompt": (row(user_content=" "), "no user message", "user_content"),
    "tool": (row(tool_name="find_oder"), 'names unknown tool "find_oder"', 'mean "find_order"?'),
    "tool kind": (row(tool_name=3), "tool_name that is not text", "tool_name"),
    "tool falsy": (row(tool_name=0, target="answer"), "tool_name that is not text", "tool_name"),
    "own tool": (row(tools=[OTHER.openai()]), 'unknown tool "find_order"', "other"),
    "own tools no list": (row(tools=3), '"tools" that is no list', "function schemas"),
    "own tools wrong": (row(tools=[{"name": "x"}]), '"x" has no description', "sentence"),
    "no label": ({"user_content": "hi"}, "names no tool and no target", '"target"'),
    "call without tool": (
        {"user_content": "hi", "target": "call"}, "its target is call", '"tool_name"'),
    "target": ({"user_content": "hi", "target": "anwser"}, "anwser", 'did you mean "answer"?'),
    "two labels": (row(target="ask"), 'the tool "find_order" and the target "ask"', "keep one"),
    "rule": (row(rule="b"), 'unknown rule "b"', "known rules: refunds, thanks"),
    "rule kind": (row(rule=3), "rule that is not text", "id"),
    "arguments text": (row(tool_arguments="{"), "not JSON", "object"),
    "arguments list": (row(tool_arguments="[1]"), "no JSON object", "{"),
    "arguments missing": (row(tool_arguments={}), 'leaves out "order_id"', "order_id"),
    "arguments empty": (row(tool_arguments=""), 'leaves out "order_id"', "order_id"),
    "arguments type": (row(tool_arguments={"order_id": 1}), 'wrong value for "order_id"', "text"),
    "arguments unknown": (
        row(tool_arguments={"order_id": "1", "x": 1}), 'unknown argument "x"', "order_id"),
    "messages": ({"messages": 3}, "no list of messages", "messages"),
    "no messages": ({"messages": []}, "does not end with the assistant", "last message"),
    "no expectation": (chat(USER), "does not end with the assistant", "last message"),
    "no user": (chat(("assistant", {"content": "a"})), "no user message", "user_content"),
    "empty turn": (chat(USER, ("assistant", {})), "an empty turn of the assistant", "tool_calls"),
    "role": (
        chat(("robot", {"content": "a"}), USER, ("assistant", {"content": "a"})), "robot", "user"),
    "content": (
        chat(("user", {"content": 3}), ("assistant", {"content": "a"})), "not text", "string"),
    "call": (chat(USER, ("assistant", {"tool_calls": [{}]})), "without a name", "tool_calls"),
    "call and target": (
        chat(USER, ("assistant", {"tool_calls": [CALL]}), target="ask"), 'target "ask"', "keep"),
    "answer and call": (
        chat(USER, ("assistant", {"content": "a"}), target="call"), "target is call", "tool_name"),
}  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_a_row(tmp_path, slip):
    wrong, cause, hint = SLIPS[slip]
    with pytest.raises(DistillError) as caught:
        read(
            tmp_path,
            {"user_content": "first", "target": "ask"},
            "",
            wrong,
            rules=[ruled("refunds"), ruled("thanks", "answer")],
        )
    (problem,) = caught.value.problems
    assert problem.place == f"{tmp_path / 'gold.jsonl'}:3"
    assert cause in problem.cause
    assert hint in problem.hint


def test_a_repeated_prompt_names_the_first(tmp_path):
    with pytest.raises(DistillError, match="repeats the prompt of line 1"):
        read(tmp_path, row(), row(user_content=" where  is a-1? ", tool_name="other"))


def test_wrong_rows_are_told_together(tmp_path):
    with pytest.raises(DistillError) as caught:
        read(tmp_path, row(tool_name="x"), row(), row(tool_name="y"))
    assert [problem.place.rpartition(":")[2] for problem in caught.value.problems] == ["1", "3"]


def test_a_file_without_rows_is_told(tmp_path):
    with pytest.raises(DistillError, match="holds no rows"):
        read(tmp_path, "", "  ")


def test_a_line_that_is_no_json_is_told(tmp_path):
    with pytest.raises(InputFileError) as caught:
        read(tmp_path, row(), "{")
    assert caught.value.problems[0].place.endswith("gold.jsonl:2")


def nested(levels):
    return '{"a":' * levels + "1" + "}" * levels


def called(arguments):
    return f'{{"user_content": "x", "tool_name": "find_order", "tool_arguments": {arguments}}}'


GOOD = json.dumps(row())
MANY = json.dumps(chat(USER, ("assistant", {"content": "<tool_call>{}</tool_call>" * 38_000})))
ODD = {
    "integer of 5,000 digits": (called(f'{{"n": {"9" * 5000}}}'), "integer with too many digits"),
    "the same in text": (
        called(json.dumps(f'{{"n": {"9" * 5000}}}')),
        "arguments that are not JSON",
    ),
    "20,000 levels": (called(nested(20_000)), "nested too deeply"),
    "300 levels": (called(nested(300)), "the row is nested more than 100 levels deep"),
    "300 levels in text": (called(json.dumps(nested(300))), "nested more than 100 levels deep"),
    "levels of messages": (json.dumps({"messages": "[" * 500 + "]" * 500}), "more than 100 levels"),
    "NaN": (called('{"n": NaN}'), "holds NaN, which is not JSON"),
    "infinity": (called('{"n": -Infinity}'), "holds -Infinity, which is not JSON"),
    "beyond a float": (called('{"n": 1e999}'), "holds the number 1e999, which is too large"),
    "a name twice": (called('{"n": 1, "n": 2}'), 'gives the name "n" twice'),
    "a NUL byte": ("\0", "is a binary file"),
    "half a pair": (json.dumps(row(user_content="h\ud800i")), "half of a surrogate pair"),
    "half a pair in a name": (called('{"\\udc00": 1}'), "half of a surrogate pair"),
    "half a pair in text": (called(json.dumps('{"\\udc00": 1}')), "half of a surrogate pair"),
    "half a pair in tools": (
        json.dumps(row(tools=json.dumps([{"name": "find_order", "description": "\ud800"}]))),
        "half of a surrogate pair",
    ),
    "50 MB": (json.dumps(row(user_content="a " * 25_000_000)), "is 50,000,0"),
    "half a call, often": (MANY, "looks like a call and is not read as one"),
    "the same row": (GOOD, "repeats the prompt of line 1"),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_row_is_one_message_with_its_line(tmp_path, odd):
    text, cause = ODD[odd]
    began = time.monotonic()
    with pytest.raises(DistillError) as caught:
        read(tmp_path, GOOD, "", text)
    assert time.monotonic() - began < 5
    (problem,) = caught.value.problems
    assert problem.place == f"{tmp_path / 'gold.jsonl'}:3"
    assert cause in problem.cause
    assert problem.hint
    str(caught.value).encode()


def test_a_number_beyond_a_float_is_checked_exactly(tmp_path):
    limit = {"type": "object", "properties": {"n": {"type": "number", "multipleOf": 2.5}}}
    tools = [FIND.model_copy(update={"parameters": limit})]
    read(tmp_path, called(f'{{"n": {"5" * 4000}}}'), tools=tools)
    with pytest.raises(DistillError, match=r":1: the row .*wrong value"):
        read(tmp_path, called(f'{{"n": {"9" * 4000}}}'), tools=tools)


FILES = {
    "array": (json.dumps([row()]).encode(), "is a JSON array, not JSON Lines"),
    "array over lines": (json.dumps([row()], indent=1).encode(), "is a JSON array"),
    "object over lines": (json.dumps(row(), indent=1).encode(), "goes on over several lines"),
    "gzip": (gzip.compress(GOOD.encode()), "is compressed by gzip"),
    "utf-16": (GOOD.encode("utf-16"), "is UTF-16"),
    "latin-1": (b'{"user_content": "caf\xe9"}', "byte 0xe9 is not UTF-8"),
    "parquet": (b"PAR1\x15\x04", "is a Parquet file"),
    "csv": (b"user_content,tool_name\nhi,find_order\n", "is not valid JSON"),
}


@pytest.mark.parametrize("kind", FILES)
def test_another_kind_of_file_is_one_message(tmp_path, kind):
    data, cause = FILES[kind]
    path = tmp_path / "gold.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputFileError) as caught:
        read_cases(path, tools=TOOLS)
    (problem,) = caught.value.problems
    assert problem.place == f"{path}:1"
    assert cause in problem.cause
    assert problem.hint


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n \n"])
def test_marks_line_ends_and_blank_lines_are_no_matter(tmp_path, start, end):
    path = tmp_path / "gold.jsonl"
    text = end.join([GOOD, "", json.dumps(row(user_content="b")), ""])
    path.write_bytes((start.replace("\n", end) + text).encode())
    assert [case.conversation.last_user for case in read_cases(path, tools=TOOLS)] == [
        "Where is A-1?",
        "b",
    ]


python_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=6,
)
KEYS = (
    "user_content",
    "tool_name",
    "tool_arguments",
    "target",
    "rule",
    "tools",
    "functions",
    "system",
)
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool", "system"]) | python_values,
        **dict.fromkeys(("content", "tool_calls", "function_call", "name"), python_values),
    },
)
SPOKEN = st.fixed_dictionaries(
    {"from": st.sampled_from(["human", "gpt", "function_call", "tool"]) | python_values},
    optional={"value": python_values, "content": python_values},
)


@given(
    st.one_of(
        python_values,
        st.dictionaries(st.sampled_from(KEYS), python_values),
        st.fixed_dictionaries({"messages": st.lists(TURN | python_values, max_size=4)}),
        st.fixed_dictionaries({"conversations": st.lists(SPOKEN | python_values, max_size=3)}),
        st.fixed_dictionaries({"prompt": python_values, "completion": python_values}),
    )
)
def test_any_row_in_python_is_a_case_or_one_message(value):
    try:
        assert len(cases_of_rows([value], tools=TOOLS, rules=[ruled("r")])) == 1
    except DistillError as error:
        (problem,) = error.problems
        assert problem.place == "data:1"


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (row(user_content=b"x"), "not JSON: Object of type bytes"),
        (row(tool_arguments={"n": float("nan")}), "not finite"),
        (row(note={1, 2}), "not JSON: Object of type set"),
        ("x", "is not a JSON object"),
    ],
)
def test_what_json_cannot_hold_is_said(value, cause):
    with pytest.raises(DistillError, match=cause):
        cases_of_rows([value], tools=TOOLS)
