"""The embedded student's tokenizer: lossless but for case and accents, and never [UNK]."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.records import Message, Target, ToolCall
from distill.render import MARKERS, Renderer
from distill.students.embedded import verified_folder
from distill.students.wordpiece import PAD, UNKNOWN, added_tokens, load_tokenizer, read_vocabulary
from distill.workflow.model import Tool

SEARCH = Tool(
    name="search_google",
    description="Search public information.",
    parameters={"type": "object", "properties": {"query": {"type": "string"}}},
)
TOKENIZER = load_tokenizer(verified_folder() / "vocab.txt", [SEARCH])


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def text(tokens: list[int]) -> str:
    return str(TOKENIZER.decode(tokens))


def folded(said: str) -> str:
    """Lower case, letter by letter, without the accents of Latin, Greek and Cyrillic."""
    spread = unicodedata.normalize("NFD", "".join(char.lower() for char in said))
    kept = "".join(char for char in spread if not "\u0300" <= char <= "\u036f")
    return unicodedata.normalize("NFC", kept)


# Unicode 15 is what the slowest of the three libraries knows; unassigned characters have no case.
ANYTHING = st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]), max_size=60).filter(
    lambda said: PAD not in said.lower() and UNKNOWN not in said.lower()
)
PROSE = st.lists(
    st.sampled_from(["VPN", "node.js", "c++", "don't", " - ", "(beta)", "\n", "  ", "3.5%", "é"]),
    max_size=20,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(ANYTHING | PROSE)
def test_what_is_written_is_what_was_read(said: str) -> None:
    tokens = ids(said)
    assert text(tokens) == folded(said)
    assert TOKENIZER.convert_tokens_to_ids(UNKNOWN) not in tokens


@settings(max_examples=100, deadline=None)
@given(PROSE, PROSE)
def test_a_text_around_markers_survives(before: str, after: str) -> None:
    said = f"<start_of_turn>user\n{before}<end_of_turn>\n<start_of_turn>model\n{after}<escape>"
    assert text(ids(said)) == folded(said)


@pytest.mark.parametrize(
    "said",
    [
        "שלום עולם",
        "हिन्दी में",
        "한국어 문장",
        "漢字 and かな",
        "👩‍💻🇩🇪",
        "a\u2028b\u0085c\x00d",
        "Ġ",
        "x" * 10_000,
        "漢" * 10_000,
        "\n" * 100,
    ],
)
def test_any_script_comes_through(said: str) -> None:
    assert text(ids(said)) == folded(said)


def test_pieces_keep_the_ids_that_minilm_trained() -> None:
    pieces = read_vocabulary(verified_folder() / "vocab.txt")
    row = {piece: index for index, piece in enumerate(pieces)}
    expected = ["travel", "meal", "##s", "?", "don", "'", "t"]
    assert ids("Travel meals? Don't")[:1] == [row["travel"]]
    assert ids("travel zebrafishs? don't")[-5:] == [row[p] for p in ["##s", *expected[3:]]]


def test_each_piece_has_an_id_of_its_own() -> None:
    vocabulary = TOKENIZER.get_vocab()
    assert len(set(vocabulary.values())) == len(vocabulary)
    assert max(vocabulary.values()) < 30522


def test_markers_and_calls_are_single_tokens() -> None:
    for phrase in (*MARKERS, *added_tokens([SEARCH])):
        assert len(ids(phrase)) == 1, phrase
    call = "<start_function_call>call:search_google{query:<escape>x<escape>}<end_function_call>"
    assert len(ids(call)) == 4


def test_a_name_outside_ascii_is_cut_into_pieces() -> None:
    tool = Tool(name="süche", description="", parameters={"type": "object"})
    tokenizer = load_tokenizer(verified_folder() / "vocab.txt", [tool])
    said = "<start_function_call>call:süche{}<end_function_call>"
    assert str(tokenizer.decode(tokenizer(said)["input_ids"])) == folded(said)


def test_the_prompt_s_ids_begin_the_example_s() -> None:
    renderer = Renderer(TOKENIZER, [SEARCH], declarations="none")
    said = (Message(role="user", content="Who won?"),)
    call = ToolCall(name="search_google", arguments={"query": "who won"})
    row = renderer.example(said, Target(kind="call", calls=(call,)))
    prompt = renderer.prompt(said)
    assert row.ids[: len(prompt)] == prompt
    assert row.mask == [False] * len(prompt) + [True] * (len(row.ids) - len(prompt))
    assert renderer.parse(row.ids[len(prompt) :]).calls == (call,)


def test_the_saved_tokenizer_is_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    from transformers import AutoTokenizer

    folder = str(tmp_path_factory.mktemp("tokenizer"))
    TOKENIZER.save_pretrained(folder)
    said = "What's (new) in node.js?\n<escape>C++ & c#"
    again = AutoTokenizer.from_pretrained(folder)
    assert again(said)["input_ids"] == ids(said)
    assert again.decode(again(said)["input_ids"]) == folded(said)
