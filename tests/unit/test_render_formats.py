"""What is written is read back; what cannot be written or read says why."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.records import Message, ToolCall, canonical_json
from distill.render import FORMATS, MARKERS, Format, RenderError, functiongemma
from distill.render.formats import FUNCTION_GEMMA, HERMES, JSON, LLAMA
from distill.render.syntax import MalformedError, TurnContent

# Hypothesis also tries strings that it finds in the source, markers among them.
TEXT = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(
        [
            '{"a": [1]}',
            "}}",
            ",x:1",
            "<esc",
            "e>",
            "<",
            "\u2028 \u2029",
            "👍🏽",
            "مرحبا",
            "\r\n\t",
            "null",
        ]
    )
).filter(lambda text: not any(marker in text for marker in MARKERS))
SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
VALUE = st.recursive(
    SCALAR | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)
CALL = st.builds(
    ToolCall,
    name=st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True),
    arguments=st.dictionaries(TEXT, VALUE, max_size=4),
)


def same(one: object, other: object) -> bool:
    """Equal as JSON, where 1, 1.0 and true differ."""
    return canonical_json(one) == canonical_json(other)


@pytest.mark.parametrize("notation", FORMATS, ids=lambda notation: notation.name)
@given(calls=st.lists(CALL, min_size=1, max_size=3))
def test_calls_are_read_back(notation: Format, calls: list[ToolCall]) -> None:
    said = notation.read(notation.write(calls))
    assert same([c.model_dump() for c in said.calls], [c.model_dump() for c in calls])
    assert said.reply == ""


@pytest.mark.parametrize("notation", FORMATS, ids=lambda notation: notation.name)
@given(text=st.text())
def test_any_text_is_read_or_malformed(notation: Format, text: str) -> None:
    for said in (text, "<start_function_call>call:f{a:" + text, "<tool_call>{" + text, "{" + text):
        with contextlib.suppress(MalformedError):
            assert isinstance(notation.read(said), TurnContent)


@given(call=CALL, cut=st.integers(0, 10_000))
def test_a_call_cut_short_is_never_a_call(call: ToolCall, cut: int) -> None:
    text = FUNCTION_GEMMA.write([call])
    cut %= len(text)
    try:
        assert FUNCTION_GEMMA.read(text[:cut]).calls == ()
    except MalformedError:
        return
    assert cut < len("<start_function_call>")


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("where", ["key", "value", "nested"])
def test_a_marker_cannot_be_quoted(marker: str, where: str) -> None:
    text = f"a {marker} b"
    arguments = {"key": {text: 1}, "value": {"a": text}, "nested": {"a": [{"b": text}]}}[where]
    with pytest.raises(RenderError, match="cannot quote"):
        FUNCTION_GEMMA.write([ToolCall(name="f", arguments=arguments)])


@pytest.mark.parametrize("notation", FORMATS, ids=lambda notation: notation.name)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_cannot_be_written(notation: Format, number: float) -> None:
    call = ToolCall(name="f", arguments={}).model_copy(update={"arguments": {"n": [number]}})
    with pytest.raises(RenderError, match=r"JSON"):
        notation.write([call])


def nested(depth: int) -> ToolCall:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return ToolCall(name="f", arguments={"a": value})  # type: ignore[dict-item]


def test_nesting_has_a_limit() -> None:
    assert FUNCTION_GEMMA.read(FUNCTION_GEMMA.write([nested(60)])).calls == (nested(60),)
    with pytest.raises(RenderError, match="nested"):
        FUNCTION_GEMMA.write([nested(70)])
    with pytest.raises(MalformedError, match="nested"):
        FUNCTION_GEMMA.read("<start_function_call>call:f{a:" + "[" * 5000)
    for depth in (100, 5000):
        with pytest.raises(MalformedError, match="nested"):
            JSON.read('{"name": "f", "arguments": {"a": ' + "[" * depth + "]" * depth + "}}")


def test_names_that_would_end_early_cannot_be_written() -> None:
    for name in ("a{b", "a b", "", "a:b", "a<b"):
        with pytest.raises(RenderError, match="name"):
            FUNCTION_GEMMA.write([ToolCall(name=name)])


GEMMA_MALFORMED = {
    "<start_function_call>call:f{a:1}": "the end",
    "<start_function_call>call:f{a:1": "expected ,",
    "<start_function_call>call:f{a:<escape>x": "no end",
    "<start_function_call>call:f{a:}<end_function_call>": "expected a value",
    "<start_function_call>call:f{a:x}<end_function_call>": "expected a value",
    "<start_function_call>call:f{a:NaN}<end_function_call>": "expected a value",
    "<start_function_call>call:f{a:1e999}<end_function_call>": "too large",
    "<start_function_call>call:f{a:" + "9" * 5000 + "}<end_function_call>": "too long",
    "<start_function_call>call:f{a:01}<end_function_call>": "expected ,",
    "<start_function_call>call:f{a:1,a:2}<end_function_call>": "twice",
    "<start_function_call>call:f{a:1,}<end_function_call>": "an argument",
    "<start_function_call>call:f{a 1}<end_function_call>": "expected :",
    "<start_function_call>call:f{a:[1 2]}<end_function_call>": "expected ,",
    "<start_function_call>call:{a:1}<end_function_call>": "name of a tool",
    "<start_function_call>f{a:1}<end_function_call>": "expected call:",
    "<start_function_call>call:f{a:<escape>x<start_of_turn><escape>}<end_function_call>": "inside",
    "Sure! <start_function_call>call:f{a:1}<end_function_call>": "expected <start",
    "<start_function_call>call:f{a:1}<end_function_call> done": "expected <start",
    "call:f{a:1}": "expected <start",
    "<escape>": "expected <start",
}


@pytest.mark.parametrize("text", GEMMA_MALFORMED)
def test_functiongemma_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match=GEMMA_MALFORMED[text]):
        FUNCTION_GEMMA.read(text)


def test_functiongemma_allows_blanks_between_its_parts() -> None:
    text = "\n<start_function_call> call: f { a : 1 , b : [ <escape> x <escape> , None ] } \n"
    said = FUNCTION_GEMMA.read(text + "<end_function_call> ")
    assert said.calls == (ToolCall(name="f", arguments={"a": 1, "b": [" x ", None]}),)


@pytest.mark.parametrize("notation", FORMATS, ids=lambda notation: notation.name)
def test_words_are_a_reply(notation: Format) -> None:
    assert notation.read(" Which city? \n") == TurnContent(reply="Which city?")
    assert notation.read("") == TurnContent()


JSON_MALFORMED = {
    '{"name": "f", "arguments": {"a": 1}': "not JSON",
    '{"name": "f", "arguments": {"a": NaN}}': "NaN",
    '{"name": "f", "arguments": {"a": 1e999}}': "too large",
    '{"name": "f", "arguments": {"a": 1, "a": 2}}': "twice",
    '{"name": "f", "arguments": [1]}': "no object",
    '{"name": "f", "arguments": "{} 1"}': "more than one",
    '{"name": "f"}': "no object",
    '{"name": 1, "arguments": {}}': "without a name",
    '{"name": "f", "arguments": {}, "why": 1}': "unknown field: why",
    '{"name": "f", "arguments": {"a": ' + "9" * 5000 + "}}": "digits",
}


@pytest.mark.parametrize("text", JSON_MALFORMED)
@pytest.mark.parametrize("frame", ["{}", "<tool_call>\n{}\n</tool_call>"])
def test_json_malformed(text: str, frame: str) -> None:
    notation = JSON if frame == "{}" else HERMES
    with pytest.raises(MalformedError, match=JSON_MALFORMED[text]):
        notation.read(frame.replace("{}", text))


@pytest.mark.parametrize("text", ["[]", "[1]", '{"name": "f", "arguments": {}} and so on'])
def test_json_that_is_no_call_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        JSON.read(text)


def test_the_ways_in_which_json_calls_stand() -> None:
    call = ToolCall(name="f", arguments={"a": 1})
    one = '{"name": "f", "arguments": {"a": 1}}'
    assert JSON.read(f"[{one}, {one}]").calls == (call, call)
    assert JSON.read(f"{one}; {one}").calls == (call, call)
    assert JSON.read(f"[TOOL_CALLS] [{one}]").calls == (call,)
    assert JSON.read(f"<think>\nhm {{\n</think>\n{one}").calls == (call,)
    assert JSON.read(json.dumps({"name": "f", "arguments": '{"a": 1}'})).calls == (call,)
    assert LLAMA.read('<|python_tag|>{"name": "f", "parameters": {"a": 1}}').calls == (call,)


def test_hermes_takes_words_before_calls_and_nothing_after() -> None:
    one = '<tool_call>\n{"name": "f", "arguments": {"a": "</tool_call></think>"}}\n</tool_call>'
    call = ToolCall(name="f", arguments={"a": "</tool_call></think>"})
    assert HERMES.read(f"<think>\nhm\n</think>\n\nSure!\n{one}\n{one}") == TurnContent(
        (call, call), "Sure!"
    )
    assert HERMES.read(one) == TurnContent((call,))
    for text in (f"{one} done", "</tool_call>", "<tool_call>", one.removesuffix("</tool_call>")):
        with pytest.raises(MalformedError):
            HERMES.read(text)


def test_a_declaration_has_sorted_keys_and_upper_case_types() -> None:
    parameters = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "unit": {"type": ["string", "null"], "enum": ["string", "F"], "description": "u"},
            "type": {"type": "array", "items": {"type": "integer"}},
        },
        "required": [],
        "additionalProperties": False,
    }
    tool = {"function": {"name": "f", "description": "d", "parameters": parameters}}
    assert functiongemma.declare(tool) == (
        "<start_function_declaration>declaration:f{description:<escape>d<escape>,parameters:{"
        "properties:{type:{items:{type:<escape>INTEGER<escape>},type:<escape>ARRAY<escape>},"
        "unit:{description:<escape>u<escape>,enum:[<escape>string<escape>,<escape>F<escape>],"
        "type:<escape>STRING<escape>}},type:<escape>OBJECT<escape>}}<end_function_declaration>"
    )


def test_a_tool_without_arguments() -> None:
    tool = {
        "function": {
            "name": "f",
            "description": "d",
            "parameters": {"type": "object", "properties": {}},
        }
    }
    bare = {"name": "f", "description": "d"}
    assert "parameters:{type:<escape>OBJECT<escape>}}" in functiongemma.declare(tool)
    assert functiongemma.declare(tool) == functiongemma.declare(bare)


def test_a_conversation_with_a_tools_answer_stays_in_one_turn() -> None:
    call = ToolCall(name="f", arguments={"a": 1})
    messages = [
        Message(role="system", content="Be kind."),
        Message(role="user", content="one"),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", name="f", content='{"k": 15}'),
        Message(role="assistant", content="It is 15."),
        Message(role="user", content="two"),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="plain"),
    ]
    assert functiongemma.conversation(messages) == (
        "<start_of_turn>developer\nBe kind.<end_of_turn>\n"
        "<start_of_turn>user\none<end_of_turn>\n"
        "<start_of_turn>model\n<start_function_call>call:f{a:1}<end_function_call>"
        "<start_function_response>response:f{k:15}<end_function_response>It is 15.<end_of_turn>\n"
        "<start_of_turn>user\ntwo<end_of_turn>\n"
        "<start_of_turn>model\n<start_function_call>call:f{a:1}<end_function_call>"
        "<start_function_response>response:tool{value:<escape>plain<escape>}<end_function_response>"
    )
    called = functiongemma.conversation([*messages[:3], Message(role="user", content="?")])
    assert called.endswith(
        "<end_function_call><end_of_turn>\n<start_of_turn>user\n?<end_of_turn>\n<start_of_turn>model\n"
    )
    alone = functiongemma.conversation([Message(role="tool", name="f", content="[1]")])
    assert alone.startswith("<start_of_turn>model\n<start_function_response>response:f{value:[1]}")


def test_a_call_behind_blanks_is_no_thought() -> None:
    call = '<tool_call>{"name": "f", "arguments": {"a": "</think>"}}</tool_call>'
    assert HERMES.read(f"  \n {call}").calls == (ToolCall(name="f", arguments={"a": "</think>"}),)


@pytest.mark.parametrize("notation", [HERMES, LLAMA, JSON])
def test_blanks_before_an_answer_are_read_in_linear_time(notation: Format) -> None:
    """Found by fuzzing; in quadratic time this would take minutes."""
    assert notation.read("\n" * 200_000 + "Yes.").reply == "Yes."
