"""Prompts, training rows and readings agree, with and without a chat template."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from render_tokenizers import (
    FUNCTION_GEMMA_TEMPLATE,
    HERMES_TEMPLATE,
    LLAMA_TEMPLATE,
    PLAIN_TEMPLATE,
    QUERY,
    SPECIAL,
    TOOLS,
    tokenizer,
)

from distill.errors import StudentError
from distill.records import Message, Target, ToolCall, canonical_json
from distill.render import Parsed, Renderer, RenderError
from distill.render.formats import HERMES
from distill.workflow.model import Tool

GOLDEN = Path(__file__).parents[1] / "golden"
TEMPLATES = {
    "none": None,
    "functiongemma": FUNCTION_GEMMA_TEMPLATE,
    "hermes": HERMES_TEMPLATE,
    "llama": LLAMA_TEMPLATE,
    "json": PLAIN_TEMPLATE,
}
ASKED = (Message(role="user", content="What is the reimbursement limit for travel meals?"),)
CALL = ToolCall(
    name="search_knowledge_base", arguments={"query": "travel meal reimbursement limit policy"}
)
CALLED = Target(kind="call", calls=(CALL,))
TARGETS = (
    CALLED,
    Target(kind="call", calls=(CALL, CALL.model_copy(update={"name": "search_google"}))),
    Target(kind="ask", reply="Which trip?\nAnd when?"),
    Target(kind="refuse", reply="Sorry, no. 👍🏽 \u2028 <tag> {x}"),
    Target(kind="answer", reply=""),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(
    lambda text: not any(marker in text for marker in SPECIAL)
)
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def renderer(kind: str, **options: object) -> Renderer:
    return Renderer(tokenizer(TEMPLATES[kind]), TOOLS, **options)  # type: ignore[arg-type]


def test_golden_functiongemma() -> None:
    made = renderer("none")
    golden = (GOLDEN / "functiongemma_call.txt").read_text(encoding="utf-8").removesuffix("\n")
    prompt, _, turn = golden.partition("<start_of_turn>model\n")
    row = made.example(ASKED, CALLED)
    assert made.decode(row.ids) == golden
    assert made.decode(made.prompt(ASKED)) == prompt + "<start_of_turn>model\n"
    assert made.decode(row.completion) == turn


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize("declarations", ["full", "none"])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.kind}{len(target.calls)}")
def test_a_row_is_its_prompt_and_its_turn(kind: str, declarations: str, target: Target) -> None:
    made = renderer(kind, declarations=declarations)
    if kind == "llama" and len(target.calls) > 1:
        with pytest.raises(RenderError, match="one call at a time"):
            made.example(ASKED, target)
        return
    row, prompt = made.example(ASKED, target), made.prompt(ASKED)
    start = row.mask.index(True)
    assert row.ids[:start] == prompt
    assert row.mask[start : start + len(row.completion)] == [True] * len(row.completion)
    assert row.completion[-1] in made.stop_ids
    assert not set(row.completion[:-1]) & set(made.stop_ids)
    assert made.parse(row.completion) == Parsed(target.calls, target.reply)
    assert made.parse(made.decode(row.completion)) == Parsed(target.calls, target.reply)
    assert made.parse(row.completion[:-1]).malformed
    assert ("Search public information." in made.decode(prompt)) == (declarations == "full")


@pytest.mark.parametrize("kind", ["hermes", "llama"])
@pytest.mark.parametrize("tools", [None, ()], ids=["tools", "no tools"])
def test_a_template_is_followed_token_for_token(kind: str, tools: tuple[()] | None) -> None:
    made, theirs = renderer(kind), tokenizer(TEMPLATES[kind])
    shown = [tool.openai() for tool in TOOLS] if tools is None else None
    options = {"tools": shown, "enable_thinking": False, "return_dict": False}
    user = {"role": "user", "content": ASKED[0].content}
    function = {"name": CALL.name, "arguments": CALL.arguments}
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    prompt = theirs.apply_chat_template([user], add_generation_prompt=True, **options)
    assert made.prompt(ASKED, tools) == prompt
    assert made.example(ASKED, CALLED, tools).ids == theirs.apply_chat_template(
        [user, call], **options
    )


def test_functiongemmas_template_is_given_its_trigger_sentence() -> None:
    made, theirs = renderer("functiongemma"), tokenizer(FUNCTION_GEMMA_TEMPLATE)
    sentence = "You are a model that can do function calling with the following functions"
    tools = [tool.openai() for tool in TOOLS]
    user = {"role": "user", "content": ASKED[0].content}
    for system, developer in {
        None: sentence,
        "Be brief.": f"{sentence}\nBe brief.",
        f"{sentence}.": f"{sentence}.",
    }.items():
        said = () if system is None else (Message(role="system", content=system),)
        expected = theirs.apply_chat_template(
            [{"role": "developer", "content": developer}, user],
            tools=tools,
            add_generation_prompt=True,
            return_dict=False,
        )
        assert made.prompt([*said, *ASKED]) == expected
    assert sentence not in made.decode(renderer("functiongemma", declarations="none").prompt(ASKED))


def test_our_own_developer_turn_holds_the_system_message_and_short_form_has_none() -> None:
    system = Message(role="system", content="Be brief.")
    full = renderer("none").prompt([system, *ASKED])
    assert "following functions\nBe brief.<start_function_declaration>" in renderer("none").decode(
        full
    )
    short = renderer("none", declarations="none")
    assert short.decode(short.prompt(ASKED)) == (
        f"<bos><start_of_turn>user\n{ASKED[0].content}<end_of_turn>\n<start_of_turn>model\n"
    )
    assert "developer\nBe brief.<end_of_turn>" in short.decode(short.prompt([system, *ASKED]))


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_rows_own_tools_replace_the_workflows(kind: str) -> None:
    made = renderer(kind)
    own = Tool(name="book_room", description="Books a room.", parameters=QUERY).openai()
    text = made.decode(made.prompt(ASKED, [own]))
    assert "Books a room." in text
    assert "search_google" not in text
    assert "Books a room." in made.decode(made.example(ASKED, CALLED, [own]).ids)


@pytest.mark.parametrize("kind", TEMPLATES)
@given(arguments=st.dictionaries(TEXT, VALUE, max_size=3))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)
def test_what_is_trained_is_read_back(kind: str, arguments: dict[str, object]) -> None:
    made = renderer(kind)
    call = ToolCall(name="f", arguments=arguments)  # type: ignore[arg-type]
    try:
        row = made.example(ASKED, Target(kind="call", calls=(call,)))
    except RenderError:
        # Published templates quote no keys; ours writes every JSON value.
        assert kind == "functiongemma"
        return
    parsed = made.parse(row.completion)
    assert not parsed.malformed
    assert canonical_json(parsed.calls[0].model_dump()) == canonical_json(call.model_dump())


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_lone_surrogate_is_a_render_error(kind: str) -> None:
    made = renderer(kind)
    with pytest.raises(RenderError, match="Unicode"):
        made.prompt([Message(role="user", content="\ud800")])
    call = ToolCall(name="f", arguments={"a": "\ud800"})
    with pytest.raises(RenderError, match="Unicode"):
        made.example(ASKED, Target(kind="call", calls=(call,)))


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_target_that_holds_an_end_of_turn_is_a_render_error(kind: str) -> None:
    made = renderer(kind)
    end = made.decode(made.stop_ids[:1])
    for target in (
        Target(kind="answer", reply=f"a {end} b"),
        Target(kind="call", calls=(ToolCall(name="f", arguments={"a": f"x{end}y"}),)),
    ):
        with pytest.raises(RenderError):
            made.example(ASKED, target)


def test_a_reply_that_reads_as_a_call_is_a_render_error() -> None:
    reply = '{"name": "f", "arguments": {}}'
    with pytest.raises(RenderError, match="read back"):
        renderer("json").example(ASKED, Target(kind="answer", reply=reply))
    with pytest.raises(RenderError, match="read back"):
        renderer("none").example(ASKED, Target(kind="answer", reply="call:f{}"))


@pytest.mark.parametrize("kind", TEMPLATES)
def test_an_empty_conversation_is_a_render_error(kind: str) -> None:
    with pytest.raises(RenderError, match="empty conversation"):
        renderer(kind).prompt([])


def test_parse_takes_text_with_or_without_its_end() -> None:
    made = renderer("none")
    text = "<start_function_call>call:f{}<end_function_call>"
    for end in ("", "<end_of_turn>", "<start_function_response>x", "<eos>", "\n<end_of_turn>\n"):
        assert made.parse(text + end) == Parsed((ToolCall(name="f"),))
    assert made.parse("<start_function_call>call:f{").malformed
    cut = made.parse(made.prompt(ASKED)[:0])
    assert cut.malformed
    assert cut.detail == "no end of turn in 0 tokens"


@pytest.mark.parametrize("kind", ["none", "functiongemma"])
@given(before=st.lists(st.integers(3, 300), max_size=5), after=st.lists(st.integers(3, 300)))
@settings(deadline=None, max_examples=30)
def test_nothing_after_an_invalid_marker_mends_an_answer(
    kind: str, before: list[int], after: list[int]
) -> None:
    made = renderer(kind)
    before = [token for token in before if token not in (*made.stop_ids, *made.invalid_marker_ids)]
    assert len(made.invalid_marker_ids) == 4
    for invalid in made.invalid_marker_ids:
        parsed = made.parse([*before, invalid])
        assert parsed.malformed
        assert "inside a turn" in parsed.detail
        assert made.parse([*before, invalid, *after, made.stop_ids[0]]).malformed
        assert made.parse(made.decode([*before, invalid, *after])).malformed


def test_tokens_that_hold_a_marker_among_other_text_count_as_it() -> None:
    longer = ("\n<start_of_turn>model\n", "<escape>}<end_function_call>", "}<end_of_turn>")
    theirs = tokenizer(None, (*SPECIAL, *longer))
    made = Renderer(theirs, TOOLS)
    turn, call, end = theirs.convert_tokens_to_ids(list(longer))
    assert turn in made.invalid_marker_ids
    assert end in made.stop_ids
    assert call not in (*made.invalid_marker_ids, *made.stop_ids)
    assert made.parse([turn]).detail == "<start_of_turn> inside a turn"
    assert made.parse([*theirs.encode("{x"), end]) == Parsed(reply="{x}")
    row = made.example(ASKED, CALLED)
    assert row.ids[: row.mask.index(True)] == made.prompt(ASKED)
    assert made.parse(row.completion) == Parsed((CALL,))


def test_a_thought_that_only_the_prompt_holds_stays_in_the_row() -> None:
    template = PLAIN_TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    made = Renderer(tokenizer(template), TOOLS)
    row = made.example(ASKED, CALLED)
    start = row.mask.index(True)
    assert row.ids[:start] == made.prompt(ASKED)
    assert made.decode(row.ids[:start]).endswith("assistant\n<think>\n")
    assert made.parse(row.completion).calls == (CALL,)


def test_a_turn_whose_first_token_would_merge_with_the_prompt() -> None:
    template = PLAIN_TEMPLATE.replace("assistant\n{% endif", "assistant\nq{% endif").replace(
        "{{ message.content }}", "{{ 'q' if message.role == 'assistant' }}{{ message.content }}"
    )
    made = Renderer(tokenizer(template), TOOLS)
    row = made.example(ASKED, Target(kind="answer", reply="uery string"))
    assert row.ids[: row.mask.index(True)] == made.prompt(ASKED)
    assert made.decode(row.completion) == "uery string<|im_end|>"


def test_a_format_can_be_chosen() -> None:
    made = renderer("json", format=HERMES)
    assert made.decode(made.example(ASKED, CALLED).completion).startswith("<tool_call>\n")
    assert made.format is HERMES


UNUSABLE = {
    "writes calls in a way": HERMES_TEMPLATE.replace('"name": ', '"tool": '),
    "writes a conversation differently": PLAIN_TEMPLATE.replace("\n{% endif", "\n!{% endif"),
    "fails on a plain conversation": "{{ raise_exception('no') }}",
    "fails on a plain conversation: the chat template says: Expected": "{% if %}",
}


@pytest.mark.parametrize("cause", UNUSABLE)
def test_a_template_that_cannot_be_used(cause: str) -> None:
    with pytest.raises(StudentError, match=f"its chat template {cause}"):
        Renderer(tokenizer(UNUSABLE[cause]), TOOLS)


def test_a_turn_that_ends_with_no_token_of_its_own() -> None:
    theirs = tokenizer(PLAIN_TEMPLATE.replace("<|im_end|>", ""), special=(*SPECIAL, "!"))
    made = Renderer(theirs, TOOLS)
    assert made.decode(made.example(ASKED, CALLED).completion).endswith("<eos>")
    theirs = tokenizer(PLAIN_TEMPLATE.replace("<|im_end|>", ""), special=(*SPECIAL, "?"))
    theirs.eos_token = None
    with pytest.raises(StudentError, match="ends the assistant's turn with no token"):
        Renderer(theirs, TOOLS)


def test_a_tokenizer_without_template_and_markers() -> None:
    with pytest.raises(StudentError, match=r"no token for <start_of_turn>, .*<escape>"):
        Renderer(tokenizer(None, ("<pad>", "<bos>", "<eos>")), TOOLS)


def test_tools_that_cannot_be_shown() -> None:
    bad = Tool(name="f{", description="", parameters={"type": "object"})
    with pytest.raises(StudentError, match="cannot be shown to this student"):
        Renderer(tokenizer(None), [bad])


def test_the_fingerprint_follows_from_what_changes_a_rendering() -> None:
    made = [
        renderer("none"),
        renderer("none", declarations="none"),
        renderer("none", format=HERMES),
        renderer("hermes"),
        renderer("llama"),
        Renderer(tokenizer(None), TOOLS[:1]),
        Renderer(tokenizer(None, (*SPECIAL, "reimbursement")), TOOLS),
        Renderer(tokenizer(None, ("!", *SPECIAL)), TOOLS),
    ]
    assert len({one.fingerprint for one in made}) == len(made)
    assert renderer("none").fingerprint == renderer("none").fingerprint
