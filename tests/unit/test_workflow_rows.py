"""One row in all the forms that people and vendors keep: understood, or refused by name."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import DistillError
from distill.records import Case, ExpectedCall, Message, ToolCall
from distill.render import FORMATS, RenderError
from distill.workflow.cases import cases_of_rows, unscored_note
from distill.workflow.model import CallSpec, Rule, Then, Tool

Row = dict[str, Any]


def tool(name: str, required: list[str], **properties: Any) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": required}
    return Tool(name=name, description="Find.", parameters=parameters)


TEXT = {"type": "string"}
FIND = tool("find_order", ["order_id"], order_id=TEXT, zone=TEXT, limit={"type": "integer"})
SEARCH = tool("search", ["query"], query=TEXT, place={"type": ["string", "null"]})
TOOLS = (FIND, SEARCH)
ASKED = {"role": "user", "content": "Where is A-1?"}
CALLED = ExpectedCall(name="find_order", arguments={"order_id": "A-1"})
ARGUMENTS = '{"order_id": "A-1"}'


def rule(id: str, kind: Any, *tools: str) -> Rule:
    then = Then(kind=kind, calls=tuple(CallSpec(tool=name) for name in tools), text="…")
    return Rule(id=id, title=id, when="…", then=then, text="…")


RULES = (
    rule("orders", "call", "find_order"),
    rule("thanks", "answer"),
    rule("legal", "refuse"),
    rule("vague", "ask"),
)


def read(row: Any, tools: Any = TOOLS, rules: Any = None) -> Case:
    (case,) = cases_of_rows([row], tools=tools, rules=rules)
    return case


def refused(row: Any, rules: Any = None) -> tuple[str, str]:
    """The cause and hint of the one problem of a row."""
    with pytest.raises(DistillError) as caught:
        read(row, rules=rules)
    ((place, cause, hint),) = caught.value.problems
    assert place == "data:1"
    assert hint
    return cause, hint


def chat(*turns: Row, **fields: Any) -> Row:
    return {"messages": [*turns], **fields}


def said(content: Any = None, **fields: Any) -> Row:
    return {"role": "assistant", "content": content, **fields}


# --- calls that stand as text ---

JSON_CALL = f'{{"name": "find_order", "arguments": {ARGUMENTS}}}'
READ = {
    "hermes": f"<tool_call>\n{JSON_CALL}\n</tool_call>",
    "hermes after words": f"Let me look.\n<tool_call>{JSON_CALL}</tool_call>",
    "hermes after thoughts": f"<think>\nA call?\n</think>\n<tool_call>{JSON_CALL}</tool_call>",
    "function gemma": "<start_function_call>call:find_order{order_id:<escape>A-1<escape>}"
    "<end_function_call>",
    "mistral": f"[TOOL_CALLS] [{JSON_CALL}]",
    "mistral by name": f"[TOOL_CALLS]find_order[ARGS]{ARGUMENTS}",
    "mistral by bare name": f"[TOOL_CALLS]find_order{ARGUMENTS}",
    "llama": f'<|python_tag|>{{"name": "find_order", "parameters": {ARGUMENTS}}}',
    "llama by name": f"<function=find_order>{ARGUMENTS}</function>",
    "json": JSON_CALL,
    "json list": f"[{JSON_CALL}]",
    "json text in json": json.dumps({"name": "find_order", "arguments": ARGUMENTS}),
    "fence": f"```json\n{JSON_CALL}\n```",
    "fence after words": f"I call this:\n\n```json\n{JSON_CALL}\n```\n",
    "fence of its own": f"```tool_call\n{JSON_CALL}\n```",
    "fence without language": f"```\n[{JSON_CALL}]\n```",
    "fence on one line": f"```json {JSON_CALL}```",
}


@pytest.mark.parametrize("text", READ.values(), ids=READ)
def test_a_call_in_text_is_a_call(text: str) -> None:
    last = read(chat(ASKED, said(text)))
    assert (last.kind, last.calls) == ("call", (CALLED,))
    assert last.messages == (Message(role="user", content="Where is A-1?"),)
    parts = [{"type": "text", "text": text}]
    assert read(chat(ASKED, said(parts))).id == last.id
    # In an earlier turn as well, where a result answers it.
    then = chat(ASKED, said(text), {"role": "tool", "content": "lost"}, ASKED, said("No."))
    call = ToolCall(name="find_order", arguments={"order_id": "A-1"})
    assert read(then, rules=RULES).messages[1] == Message(role="assistant", tool_calls=(call,))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
any_calls = st.lists(
    st.builds(
        ToolCall,
        name=st.from_regex(r"[a-z_]{1,12}", fullmatch=True),
        arguments=st.dictionaries(st.text(), json_values, max_size=3),
    ),
    min_size=1,
    max_size=3,
)


@given(any_calls, st.sampled_from(FORMATS))
def test_calls_are_read_as_a_student_writes_them(calls: list[ToolCall], format: Any) -> None:
    try:
        text = format.write(calls)
    except RenderError:
        return
    found = read(chat(ASKED, said(text)), tools=None).calls
    assert found == tuple(ExpectedCall(**dict(call)) for call in calls)


UNREAD = {
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>find_order",
    "qwen coder": "<tool_call>\n<function=find_order>\n<parameter=order_id>A-1</parameter>",
    "glaive": f"<functioncall> {JSON_CALL}",
    "claude": '<function_calls><invoke name="find_order">',
    "granite": f"<|tool_call|>[{JSON_CALL}]",
    "kimi": "<|tool_calls_section_begin|>",
    "harmony": f"<|channel|>commentary to=functions.find_order<|message|>{ARGUMENTS}",
    "harmony without tokens": f"to=functions.find_order {ARGUMENTS}",
    "react": "Action: find_order\nAction Input: A-1",
    "python": '[find_order(order_id="A-1")]',
    "python without list": 'find_order(order_id="A-1")',
    "python in a fence": '```tool_code\nfind_order(order_id="A-1")\n```',
    "no end": f"<tool_call>{JSON_CALL}",
    "no start": f"{JSON_CALL}</tool_call>",
    "words behind": f"<tool_call>{JSON_CALL}</tool_call> is what I do",
    "words behind json": f"{JSON_CALL} is what I do",
    "words around": f"I do {JSON_CALL} now",
    "words behind a fence": f"```json\n{JSON_CALL}\n```\nis what I do",
    "two fences": f"```json\n{JSON_CALL}\n```\nor\n```json\n{JSON_CALL}\n```",
    "end of turn": f"<tool_call>{JSON_CALL}</tool_call><|im_end|>",
    "broken json": '<tool_call>{"name": "find_order", "arguments": {</tool_call>',
    "broken bare json": '{"name": "find_order", "arguments": {"order_id": A-1}}',
    "without arguments": '{"name": "find_order"}',
    "wrapped": f'{{"tool_calls": [{JSON_CALL}]}}',
    "other keys": f'{{"tool": "find_order", "args": {ARGUMENTS}}}',
    "openai": f'{{"type": "function", "function": {JSON_CALL}}}',
    "unmarked": "call:find_order{order_id:A-1}",
    "special token": "Thanks!<|eot_id|>",
    "agent": '{"action": "find_order", "action_input": {"order_id": "A-1"}}',
    "yaml": "name: find_order\narguments:\n  order_id: A-1",
    "yaml list": "- tool: `find_order`",
    "code": '`find_order(order_id="A-1")`',
    "print": 'print(find_order(order_id="A-1"))',
    "name and json": f"find_order {ARGUMENTS}",
    "name alone": "`find_order`",
}


@pytest.mark.parametrize("target", [{}, {"target": "answer"}])
@pytest.mark.parametrize("text", UNREAD.values(), ids=UNREAD)
def test_what_looks_like_a_call_is_not_an_answer(text: str, target: Row) -> None:
    cause, hint = refused(chat(ASKED, said(text), **target))
    assert "looks like a call and is not read as one" in cause
    assert '"tool_calls"' in hint


def test_a_call_in_text_is_held_to_the_tools() -> None:
    other = '<tool_call>{"name": "find_oder", "arguments": {}}</tool_call>'
    assert refused(chat(ASKED, said(other)))[1] == 'did you mean "find_order"?'
    wrong = '<tool_call>{"name": "find_order", "arguments": {}}</tool_call>'
    assert 'leaves out "order_id"' in refused(chat(ASKED, said(wrong)))[0]
    cause, _ = refused(chat(ASKED, said(READ["hermes"]), target="answer"))
    assert cause == 'the row ends with a tool call and has the target "answer"'


WORDS = [
    "It is on its way.",
    "Order A-1 (find_order) is lost.",
    'Send us {"name": "Ada"} and we look.',
    '```json\n{"name": "Ada", "age": 3}\n```',
    "```python\nprint([1, 2])\n```",
    "[1] see our terms",
    "<b>Sorry</b>, 3 < 4",
    "Action: none needed.",
    "My search (of the house) found it.",
    "My name: Ada. Search: done.",
    "call: 0800 1234",
    "<think>Shall I call {…}?</think>No.",
    "{not json",
]


@pytest.mark.parametrize("text", WORDS)
def test_words_are_words(text: str) -> None:
    case = read(chat(ASKED, said(text)), rules=RULES)
    assert (case.kind, case.calls) == ("answer", ())


# --- one call, however it is written ---

MERGED = {"order_id": "A-1", "zone": None, "limit": None, "query": None, "place": None}
FUNCTION = {"name": "find_order", "arguments": ARGUMENTS}
SAME = {
    "openai": said(tool_calls=[{"id": "1", "type": "function", "function": FUNCTION}]),
    "flat": said(tool_calls=[FUNCTION]),
    "object": said(tool_calls=[{**FUNCTION, "arguments": {"order_id": "A-1"}}]),
    "legacy": said(function_call=FUNCTION),
    "legacy object": said(function_call={**FUNCTION, "arguments": {"order_id": "A-1"}}),
    "with words": said("Let me look.", tool_calls=[FUNCTION]),
    "json list": said(tool_calls=json.dumps([FUNCTION])),
    "list of json": said(tool_calls=[json.dumps(FUNCTION)]),
    "json object": said(function_call=json.dumps(FUNCTION)),
    "null for an optional": said(
        tool_calls=[{"name": "find_order", "arguments": {"order_id": "A-1", "zone": None}}]
    ),
    "nulls of all tools": said(tool_calls=[{"name": "find_order", "arguments": MERGED}]),
    "nulls in text": said(tool_calls=[{"name": "find_order", "arguments": json.dumps(MERGED)}]),
    "nulls in markup": said(json.dumps({"name": "find_order", "arguments": MERGED})),
    "null keys": said(
        tool_calls=[
            {"id": None, "type": None, "name": None, "arguments": None, "function": FUNCTION}
        ],
        function_call=None,
        name=None,
        refusal=None,
    ),
    "null objects": said(
        tool_calls=[FUNCTION, {"name": None, "arguments": None}],
        function_call={"name": None, "arguments": None},
    ),
    "null list": said(tool_calls=None, function_call=FUNCTION),
    "empty list": said(tool_calls=[], function_call=FUNCTION),
}


@pytest.mark.parametrize("turn", SAME.values(), ids=SAME)
def test_one_call_in_every_spelling(turn: Row) -> None:
    case = read(chat(ASKED, turn))
    assert case.calls == (CALLED,)
    assert case.id == read(chat(ASKED, said(tool_calls=[FUNCTION]))).id
    prompt = {"user_content": "Where is A-1?", "tool_name": "find_order"}
    assert case.id == read({**prompt, "tool_arguments": MERGED}).id
    assert case.id == read({**prompt, "tool_arguments": json.dumps(MERGED)}).id


def test_a_tool_without_arguments_takes_the_nulls_of_others() -> None:
    row = chat(ASKED, said(tool_calls=[{"name": "open_door", "arguments": MERGED}]))
    row["messages"][1]["tool_calls"][0]["arguments"] = {**MERGED, "order_id": None}
    for parameters in ({"type": "object"}, {"type": "object", "properties": {}}):
        door = Tool(name="open_door", description="Open.", parameters=parameters)
        assert read(row, tools=[door]).calls[0].arguments == {}


def test_a_null_that_says_something_stays() -> None:
    arguments = {"query": "x", "place": None}
    nullable = tool("search", ["query", "place"], query=TEXT, place={"type": ["string", "null"]})
    row = chat(ASKED, said(tool_calls=[{"name": "search", "arguments": arguments}]))
    assert read(row, tools=[nullable]).calls[0].arguments == arguments
    assert read(row, tools=[SEARCH]).calls[0].arguments == {"query": "x"}
    assert read(row, tools=None).calls[0].arguments == arguments


def test_arguments_of_earlier_calls_are_read_alike() -> None:
    call = {"name": "find_order", "arguments": MERGED}
    result = {"role": "tool", "content": "lost"}
    case = read(chat(ASKED, said(tool_calls=[call]), result, ASKED, said("No.")))
    assert case.messages[1].tool_calls[0].arguments == {"order_id": "A-1"}


# --- one conversation, in every form ---

SCHEMAS = [FIND.openai(), SEARCH.openai()]
FLAT = [schema["function"] for schema in SCHEMAS]
PADDED = copy.deepcopy(SCHEMAS)
for padded in PADDED:
    padded["function"]["strict"] = None  # type: ignore[index]
    padded["function"]["parameters"]["properties"]["other"] = None  # type: ignore[index]
    for name in ("query", "order_id"):
        if part := padded["function"]["parameters"]["properties"].get(name):  # type: ignore[index]
            part |= {"enum": None, "description": None, "default": None}
SYSTEM = {"role": "system", "content": "Be brief."}
RESULT = {"role": "tool", "content": "lost", "tool_call_id": "1"}
OPENAI_CALL = {"id": "1", "type": "function", "function": FUNCTION}
FULL = [SYSTEM, ASKED, said(tool_calls=[OPENAI_CALL]), RESULT, said("Lost."), ASKED]
LAST = said(tool_calls=[FUNCTION])
LEGACY = [
    SYSTEM,
    ASKED,
    said(function_call=FUNCTION),
    {"role": "function", "name": "find_order", "content": "lost"},
    said("Lost."),
    ASKED,
    said(function_call=FUNCTION),
]


WRAPPED = "<tool_response>\nlost\n</tool_response>"


def share_gpt(user: str, assistant: str, call: str, result: str) -> list[Row]:
    return [
        {"from": user, "value": "Where is A-1?"},
        {"from": call, "value": JSON_CALL if call != "gpt" else READ["hermes"]},
        {"from": result, "value": "lost" if call != "gpt" else WRAPPED},
        {"from": assistant, "value": "Lost."},
        {"from": user, "value": "Where is A-1?"},
        {"from": call, "value": f"[{JSON_CALL}]" if call != "gpt" else READ["hermes"]},
    ]


TURNS = [{"from": "system", "value": "Be brief."}]
FORMS = {
    "messages": chat(*FULL, LAST, tools=SCHEMAS),
    "flat tools": chat(*FULL, LAST, tools=FLAT),
    "tools as text": chat(*FULL, LAST, tools=json.dumps(SCHEMAS)),
    "each tool as text": chat(*FULL, LAST, tools=[json.dumps(schema) for schema in FLAT]),
    "tools with null keys": chat(*FULL, LAST, tools=PADDED),
    "functions": chat(*LEGACY, functions=FLAT),
    "messages as text": {"messages": json.dumps([*FULL, LAST]), "tools": SCHEMAS},
    "system apart": chat(*FULL[1:], LAST, tools=SCHEMAS, system="Be brief."),
    "prompt and completion": {"prompt": FULL, "completion": [LAST], "tools": SCHEMAS},
    "null forms": chat(*FULL, LAST, tools=SCHEMAS, user_content=None, prompt=None, tool_name=None),
    "share_gpt": {
        "conversations": [*TURNS, *share_gpt("human", "gpt", "function_call", "observation")],
        "tools": json.dumps(FLAT),
    },
    "share_gpt of others": {
        "conversations": share_gpt("user", "assistant", "tool_call", "tool_response"),
        "system": "Be brief.",
        "tools": FLAT,
    },
    "share_gpt with markup": {
        "conversations": [*TURNS, *share_gpt("human", "gpt", "gpt", "tool")],
        "tools": FLAT,
    },
    "conversations in openai's form": {"conversations": [*FULL, LAST], "tools": FLAT},
}


@pytest.mark.parametrize("form", FORMS)
def test_one_conversation_in_every_form(form: str) -> None:
    case = read(FORMS[form], tools=None)
    call = ToolCall(name="find_order", arguments={"order_id": "A-1"})
    assert case.messages == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Where is A-1?"),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="lost", name="find_order"),
        Message(role="assistant", content="Lost."),
        Message(role="user", content="Where is A-1?"),
    )
    assert (case.kind, case.calls, case.unscored) == ("call", (CALLED,), 0)
    assert case.id == read(FORMS["messages"], tools=None).id or "null keys" in form
    assert [schema["function"]["name"] for schema in case.tools or ()] == ["find_order", "search"]


def test_rows_of_one_arrow_table_are_the_rows_that_went_in() -> None:
    import pyarrow as pa  # type: ignore[import-untyped]

    within = {"type": "object", "properties": {"day": TEXT, "zone": TEXT}}
    nested = tool("find_order", ["order_id"], order_id=TEXT, filter=within)

    def asks(text: str, **turn: Any) -> list[Row]:
        return [{"role": "user", "content": text}, {"role": "assistant", **turn}]

    def calls(name: str, **arguments: Any) -> Row:
        return {"tool_calls": [{"function": {"name": name, "arguments": arguments}}]}

    rows: list[Row] = [
        {"messages": asks("a", **calls("find_order", order_id="A-1", filter={"day": "today"}))},
        {"messages": asks("b", **calls("find_order", order_id="A-1", filter={"zone": "west"}))},
        {"messages": asks("c", **calls("search", query="x"))},
        {"messages": asks("d", content="No."), "target": "refuse"},
        {"messages": asks("e", function_call=FUNCTION), "rule": "orders"},
        {"user_content": "f", "tool_name": "search", "tool_arguments": {"query": "x"}},
        {"user_content": "g", "tool_name": "find_order", "tool_arguments": {"order_id": "A-1"}},
        {"user_content": "h", "target": "ask"},
    ]
    keys = [key for row in rows for key in row]
    tables = [{**dict.fromkeys(keys), **row} for row in rows]
    merged = pa.Table.from_pylist(tables).to_pylist()
    assert merged != tables
    plain, again = (cases_of_rows(each, tools=(nested, SEARCH)) for each in (rows, merged))
    assert [case.id for case in again] == [case.id for case in plain]
    # As lists of tools do: the schema of one row's tool has the keys of all.
    own = [
        {"user_content": "x", "target": "ask", "tools": [each.openai()]}
        for each in (nested, SEARCH)
    ]
    merged = pa.Table.from_pylist(own).to_pylist()
    assert merged != own
    assert [read(row).tools for row in merged] == [read(row).tools for row in own]


def test_a_system_turn_of_a_prompt_is_kept() -> None:
    row = {"user_content": "hi", "target": "answer", "system": "Be brief."}
    assert read(row).messages == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="hi"),
    )


# --- keys ---

PROMPT = {"user_content": "Where is A-1?", "tool_name": "find_order"}
CHAT = chat(ASKED, LAST)
FOREIGN = [
    *((PROMPT, key) for key in ("prompt", "completion", "conversations", "messages")),
    *((CHAT, key) for key in ("prompt", "completion", "conversations", "user_content")),
    *((CHAT, key) for key in ("tool_name", "tool_arguments")),
    *((row, key) for row in (PROMPT, CHAT) for key in ("tool_calls", "function_call", "calls")),
    *((row, key) for row in (PROMPT, CHAT) for key in ("tool", "arguments", "tool_args")),
    *((row, key) for row in (PROMPT, CHAT) for key in ("history", "system_prompt")),
    *((PROMPT, f"expected_{part}") for part in ("tool", "calls", "arguments")),
    *((row, "function_name") for row in (PROMPT, CHAT)),
    *((PROMPT, key) for key in ("tool_argument", "Rule", "rules", "targets", "toolname")),
    *((CHAT, key) for key in ("message", "Tools", "function", "conversation", "Target")),
]


@pytest.mark.parametrize(("row", "key"), FOREIGN)
def test_a_key_that_means_something_is_not_dropped(row: Row, key: str) -> None:
    cause, _ = refused({**row, key: [{"name": "search"}]})
    assert f'"{key}"' in cause
    assert read({**row, key: None}).id == read(row).id


UNDERSTOOD: list[tuple[Row, str, Any]] = [
    (PROMPT, "user_content", "Where is B-2?"),
    (PROMPT, "tool_name", "search"),
    (PROMPT, "tool_arguments", {"order_id": "A-1"}),
    (PROMPT, "system", "Be brief."),
    (PROMPT, "rule", "orders"),
    (PROMPT, "tools", SCHEMAS),
    (PROMPT, "functions", FLAT),
    (CHAT, "messages", [ASKED, said("No.")]),
    (CHAT, "system", "Be brief."),
    (CHAT, "rule", "orders"),
    (CHAT, "tools", SCHEMAS),
    (chat(ASKED, said("No.")), "target", "refuse"),
    (FORMS["share_gpt"], "conversations", share_gpt("human", "gpt", "gpt", "tool")),
    (FORMS["prompt and completion"], "prompt", [ASKED]),
    (FORMS["prompt and completion"], "completion", [said("No.")]),
]


@pytest.mark.parametrize(("row", "key", "value"), UNDERSTOOD)
def test_a_key_that_is_understood_makes_another_case(row: Row, key: str, value: Any) -> None:
    assert read({**row, key: value}, rules=RULES).id != read(row, rules=RULES).id


@pytest.mark.parametrize("row", [PROMPT, CHAT])
@pytest.mark.parametrize(
    "key", ["id", "uuid", "source", "split", "note", "topic", "style", "label", "weight", "model"]
)
def test_notes_are_left_alone(row: Row, key: str) -> None:
    assert read({**row, key: "x"}).id == read(row).id


FOREIGN_FORMS: list[Row] = [
    {"instruction": "x", "input": "", "output": "y"},
    {"query": "x", "answers": "[]", "tools": "[]"},
    {"question": "x", "function": []},
    {"text": "<|user|>x"},
    {"content": [{"role": "user", "parts": [{"text": "x"}]}]},
    {"prompt": "x", "completion": "y"},
    {"prompt": "x", "chosen": "y", "rejected": "z"},
    {"id": "x", "messages": [ASKED], "kind": "call", "calls": []},
    {"conversation": [ASKED, LAST]},
    {"1": 2},
    {},
]


@pytest.mark.parametrize("row", FOREIGN_FORMS)
def test_other_forms_are_refused_with_what_to_write(row: Row) -> None:
    _, hint = refused(row)
    assert "messages" in hint


TURN_KEYS = [
    *("refusal", "audio", "parts", "text", "tool_call", "function_calls", "tool_use"),
    *("contents", "Content", "toolcalls", "functioncall", "Role"),
]


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("key", TURN_KEYS)
def test_a_key_of_a_turn_is_not_dropped(at: int, key: str) -> None:
    row = chat(dict(ASKED), said("No."))
    row["messages"][at][key] = "x"
    assert f'"{key}"' in refused(row)[0]
    row["messages"][at][key] = None
    assert read(row).id == read(chat(ASKED, said("No."))).id


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "annotations", "weight", "id"])
def test_what_is_not_said_in_a_turn_is_left_alone(key: str) -> None:
    assert read(chat(ASKED, said("No.", **{key: "x"}))).id == read(chat(ASKED, said("No."))).id


CALL_KEYS = ["args", "argument", "input", "inputs", "kwargs", "parameters", "params"]


@pytest.mark.parametrize("key", CALL_KEYS)
def test_arguments_by_another_name_are_not_dropped(key: str) -> None:
    for call in (
        {"name": "find_order", key: {"order_id": "A-1"}},
        {"function": {**FUNCTION, key: 1}},
    ):
        assert f'"{key}"' in refused(chat(ASKED, said(tool_calls=[call])))[0]


# --- turns that do not follow from each other ---

EARLIER = said(tool_calls=[OPENAI_CALL])
INCOHERENT: dict[str, tuple[list[Any], str]] = {
    "calls 5": ([ASKED, said(tool_calls=5)], "tool_calls that are no list"),
    "calls true": ([ASKED, said(tool_calls=True)], "tool_calls that are no list"),
    "calls an object": ([ASKED, said(tool_calls=FUNCTION)], "tool_calls that are no list"),
    "calls no json": ([ASKED, said(tool_calls="find")], "tool_calls in text that is not JSON"),
    "call a number": ([ASKED, said(tool_calls=[5])], "a tool call without a name"),
    "call no json": ([ASKED, said(tool_calls=["find"])], "tool_calls in text that is not JSON"),
    "custom call": (
        [ASKED, said(tool_calls=[{"type": "custom", "custom": {"name": "x", "input": "y"}}])],
        "a tool call without a name",
    ),
    "function_call a name": ([ASKED, said(function_call="find_order")], "in text that is not JSON"),
    "both": ([ASKED, said(tool_calls=[FUNCTION], function_call=FUNCTION)], "both tool_calls and"),
    "unknown earlier call": (
        [ASKED, said(tool_calls=[{"name": "find", "arguments": {}}]), ASKED, said("No.")],
        'unknown tool "find"',
    ),
    "answers nothing": ([RESULT, ASKED, said("No.")], "that answers no call"),
    "answers words": ([ASKED, said("Wait."), RESULT, ASKED, said("No.")], "that answers no call"),
    "answers another": (
        [ASKED, EARLIER, {**RESULT, "tool_call_id": "2"}, ASKED, said("No.")],
        'of tool_call_id "2" that answers no call',
    ),
    "answers by another name": (
        [ASKED, EARLIER, {"role": "tool", "name": "search", "content": ""}, ASKED, said("No.")],
        'of name "search" that answers no call',
    ),
    "answers twice": ([ASKED, EARLIER, RESULT, RESULT, ASKED, said("No.")], "answers no call"),
    "a result from the user": (
        [ASKED, EARLIER, {**ASKED, "content": WRAPPED}, said("No.")],
        "the result of a call in a message of the user",
    ),
    "user calls": ([{**ASKED, "tool_calls": [FUNCTION]}, said("No.")], "of the user with a tool"),
    "blank last user": ([ASKED, said("Yes?"), {**ASKED, "content": " "}, LAST], "an empty turn"),
    "no content": ([{"role": "user"}, LAST], "an empty turn of the user"),
    "empty turn": ([ASKED, said(), ASKED, LAST], "an empty turn of the assistant"),
    "a picture": ([{**ASKED, "content": [{"type": "image_url", "text": "x"}]}, LAST], "not text"),
    "no object": ([ASKED, None], "no list of objects"),
}  # fmt: skip


@pytest.mark.parametrize("turns", INCOHERENT)
def test_turns_that_do_not_hold_together(turns: str) -> None:
    given, cause = INCOHERENT[turns]
    assert cause in refused(chat(*given))[0]


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (chat(SYSTEM, ASKED, LAST, system="x"), "gives a system beside a system message"),
        (
            chat({**SYSTEM, "role": "developer"}, ASKED, LAST, system="x"),
            "gives a system beside a system message",
        ),
        ({"conversations": [{"from": ["human"], "value": "x"}]}, 'has a turn from ["human"]'),
        (
            {"conversations": [{"from": "human", "value": "x", "content": "y"}]},
            'has a turn with "from" beside "role" or "content"',
        ),
        ({"prompt": [ASKED], "completion": "x"}, 'has a "completion" that is no list of messages'),
        ({"prompt": "x", "completion": "y"}, 'has a "prompt" that is no list of messages'),
        ({"messages": "[x"}, 'has "messages" in text that is not JSON (Expecting value): [x'),
    ],
)
def test_what_is_said_twice_or_is_no_list(row: Row, cause: str) -> None:
    assert refused(row)[0] == f"the row {cause}"


def test_turns_that_do() -> None:
    two = [{**OPENAI_CALL, "id": "1"}, {**OPENAI_CALL, "id": "2"}]
    results = [{**RESULT, "tool_call_id": "2", "content": "b"}, {**RESULT, "content": "a"}]
    case = read(chat(ASKED, ASKED, said(tool_calls=two), *results, said("So."), ASKED, LAST))
    assert [message.content for message in case.messages if message.role == "tool"] == ["b", "a"]


# --- what the rule of a row says ---

ACCORD = [
    ({**PROMPT, "rule": "orders"}, "call"),
    (chat(ASKED, LAST, rule="orders"), "call"),
    (chat(ASKED, said("Which?"), rule="vague"), "ask"),
    (chat(ASKED, said("No."), rule="legal"), "refuse"),
    (chat(ASKED, said("Sure."), rule="thanks"), "answer"),
    (chat(ASKED, said("Sure.")), "answer"),
    (chat(ASKED, EARLIER, RESULT, said("Lost."), rule="orders", target="answer"), "answer"),
    ({"user_content": "hi", "target": "ask", "rule": "vague"}, "ask"),
]


@pytest.mark.parametrize(("row", "kind"), ACCORD)
def test_the_rule_says_what_words_are(row: Row, kind: str) -> None:
    assert read(row, rules=RULES).kind == kind


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({**PROMPT, "rule": "thanks"},
         'rule "thanks", which answers, and expects a call of find_order'),
        (chat(ASKED, LAST, rule="vague"),
         'rule "vague", which asks, and expects a call of find_order'),
        ({"user_content": "x", "tool_name": "search", "rule": "orders"},
         'rule "orders", which calls find_order, and expects a call of search'),
        (chat(ASKED, said("No."), rule="orders"),
         'rule "orders", which calls find_order, and expects the target "answer"'),
        (chat(ASKED, EARLIER, RESULT, LAST, rule="thanks"),
         'rule "thanks", which answers, and expects a call of find_order'),
        ({"user_content": "x", "target": "refuse", "rule": "vague"},
         'rule "vague", which asks, and expects the target "refuse"'),
    ],
)  # fmt: skip
def test_a_rule_that_says_otherwise_is_an_error(row: Row, cause: str) -> None:
    assert refused(row, RULES)[0] == f"the row names the {cause}"


def test_words_without_a_target_are_no_answer_where_no_rule_answers() -> None:
    row = chat(ASKED, said("No."))
    cause, hint = refused(row, RULES[:1])
    assert "no rule answers" in cause
    assert '"target"' in hint
    assert read({**row, "target": "answer"}, rules=RULES[:1]).kind == "answer"
    assert read(row, rules=None).kind == "answer"


FIXED: Row = {"order_id": "{topic}", "zone": "eu", "limit": 3}
TWICE = rule("both", "call", "search", "find_order")
TWICE = TWICE.model_copy(
    update={
        "then": TWICE.then.model_copy(
            update={
                "calls": (
                    CallSpec(tool="search", arguments={"query": "{topic}", "place": None}),
                    CallSpec(tool="find_order", arguments=FIXED),
                    CallSpec(tool="find_order", arguments={"zone": "us"}),
                )
            }
        )
    }
)
SEARCHED = said(tool_calls=[{"function": {"name": "search", "arguments": {"query": "A-1"}}}])
FOUND = {"role": "tool", "content": "found"}


def find(**arguments: Any) -> Row:
    given = {"order_id": "A-1", **arguments}
    return said(tool_calls=[{"function": {"name": "find_order", "arguments": given}}])


@pytest.mark.parametrize(
    ("row", "arguments"),
    [
        ({"user_content": "A-1", "tool_name": "search"}, None),
        ({"user_content": "A-1", "tool_name": "search", "tool_arguments": {"query": "A-1"}},
         {"query": "A-1"}),
        ({"user_content": "A-1", "tool_name": "search",
          "tool_arguments": {"query": "A-1", "place": None}}, {"query": "A-1"}),
        (chat(ASKED, SEARCHED, FOUND, find(zone="eu", limit=3)),
         {"order_id": "A-1", "zone": "eu", "limit": 3}),
        (chat(ASKED, SEARCHED, FOUND, find(zone="us")), {"order_id": "A-1", "zone": "us"}),
        (chat(ASKED, SEARCHED, FOUND, said("Sure?"), ASKED, find(zone="us")),
         {"order_id": "A-1", "zone": "us"}),
        (chat(ASKED, said(tool_calls=[*find(zone="us")["tool_calls"], *SEARCHED["tool_calls"]])),
         {"order_id": "A-1", "zone": "us"}),
    ],
)  # fmt: skip
def test_a_row_expects_what_its_rule_fixes(row: Row, arguments: Row | None) -> None:
    case = read({**row, "rule": "both"}, rules=[TWICE])
    assert case.calls[0].arguments == arguments


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (chat(ASKED, SEARCHED, FOUND, find(zone="eu", limit=4)),
         "always calls find_order with limit = 3, and expects limit = 4"),
        (chat(ASKED, SEARCHED, FOUND, find(zone="eu")),
         "always calls find_order with limit = 3, and leaves out limit"),
        (chat(ASKED, SEARCHED, FOUND, find()), 'with zone = "eu", and leaves out zone'),
        ({"user_content": "A-1", "tool_name": "search",
          "tool_arguments": {"query": "A-1", "place": "x"}},
         'place = null, and expects place = "x"'),
        ({"user_content": "A-1", "tool_name": "find_order"},
         'expects a call of find_order, and its rule "both" calls search first'),
        (chat(ASKED, find(zone="us")), "calls search first"),
        (chat(ASKED, said("Sure?"), ASKED, find(zone="us")), "calls search first"),
    ],
)  # fmt: skip
def test_a_row_that_expects_other_than_its_rule_fixes_is_an_error(row: Row, cause: str) -> None:
    assert cause in refused({**row, "rule": "both"}, [TWICE])[0]


@pytest.mark.parametrize("name", [{}, {"tool_name": None}, {"tool_name": ""}])
@pytest.mark.parametrize("said", RULES[1:], ids=lambda rule: rule.id)
def test_a_prompt_without_a_target_is_what_its_rule_says(name: Row, said: Rule) -> None:
    row = {"user_content": "hail", "rule": said.id, **name}
    case = read(row, rules=RULES)
    assert (case.kind, case.calls) == (said.then.kind, ())
    refused({**row, "rule": "orders"}, RULES)
    refused(row)


@pytest.mark.parametrize("names", [["search", "find_order"], ["search"], []])
def test_several_tools_of_a_prompt_are_told_how_to_be_written(names: list[str]) -> None:
    cause, hint = refused({"user_content": "x", "tool_name": names})
    assert cause == "the row has a tool_name that is a list"
    assert '"messages": [' in hint
    assert '"tool_calls": [{"function": {"name":' in hint


@pytest.mark.parametrize("name", ["ask", "answer", "Refuse", "none", "null"])
def test_a_target_is_no_tool(name: str) -> None:
    cause, hint = refused({"user_content": "x", "tool_name": name})
    assert cause == f'the row names the tool "{name}", which is none'
    assert '"target": "ask"' in hint
    tools = [FIND.model_copy(update={"name": name})]
    assert read({"user_content": "x", "tool_name": name}, tools=tools).calls[0].name == name


# --- whole conversations ---

WHOLE = chat(ASKED, EARLIER, RESULT, said("Lost."))


@pytest.mark.parametrize(
    ("row", "messages", "unscored"),
    [
        (WHOLE, 1, 2),
        ({**WHOLE, "rule": "orders", "target": "call"}, 1, 2),
        (chat(ASKED, EARLIER, RESULT), 1, 1),
        (chat(ASKED, EARLIER, RESULT, EARLIER, RESULT, said("Lost.")), 1, 4),
        (chat(*WHOLE["messages"], ASKED, EARLIER, RESULT, said("Lost.")), 5, 2),
        (chat(ASKED, EARLIER, RESULT, EARLIER), 3, 0),
    ],
)
def test_of_a_whole_conversation_the_call_is_scored(row: Row, messages: int, unscored: int) -> None:
    case = read(row, rules=RULES)
    assert (case.kind, case.calls, case.unscored) == ("call", (CALLED,), unscored)
    assert len(case.messages) == messages
    assert "unscored" not in case.model_dump()


def test_words_on_a_result_are_scored_where_the_row_says_so() -> None:
    case = read({**WHOLE, "target": "answer"}, rules=RULES)
    assert (case.kind, len(case.messages), case.unscored) == ("answer", 3, 0)


def test_whole_conversations_are_said() -> None:
    rows = [PROMPT, WHOLE, chat({**ASKED, "content": "And B-2?"}, EARLIER, RESULT)]
    cases = cases_of_rows(rows[1:], tools=TOOLS)
    note = unscored_note(cases)
    assert note is not None
    assert note.place == "data:1"
    assert note.cause.startswith("2 rows are whole conversations: the first call after the user's")
    assert unscored_note([read(PROMPT)]) is None
