"""Whatever tokens are chosen, a text that a grammar takes is read back, and is valid."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import export_students as tiny
import pytest
import render_tokenizers as kit
from argument_schemas import MEETING, PARAMETERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

from distill import strict_json
from distill.records import Target, ToolCall
from distill.render import PROBE_MESSAGE, Renderer
from distill.render.formats import FORMATS, FUNCTION_GEMMA
from distill.render.grammars import BOUNDS, Bounds, Words, call_grammar, reply_grammar
from distill.render.patterns import lark_regex, search_regex
from distill.render.syntax import MalformedError
from distill.workflow.model import Tool
from distill.workflow.patterns import occurs
from distill.workflow.schema import schema_of

# A tokenizer with every marker; that of FunctionGemma has byte tokens besides.
FAMILIES = {format.name: "gemma3" if format is FUNCTION_GEMMA else "qwen3" for format in FORMATS}
formats = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)


@cache
def byte_tokenizer(family: str) -> tuple[Renderer, Any]:
    renderer = tiny.renderer(family)
    return renderer, from_tokenizer(renderer.tokenizer)


def written(family: str, grammar: str, seed: int, length: int = 300) -> str | None:
    """A text of tokens chosen at random that the grammar takes; None where it does not end soon."""
    renderer, tokenizer = byte_tokenizer(family)
    matcher, chosen = LLMatcher(tokenizer, grammar), random.Random(seed)
    assert not matcher.is_error(), matcher.get_error()
    ids: list[int] = []
    while not (matcher.is_accepting() and chosen.random() < 0.9):
        if matcher.is_stopped() or len(ids) == length:
            return renderer.decode(ids) if matcher.is_accepting() else None
        allowed = [at for at, bias in enumerate(matcher.compute_logit_bias()) if bias]
        ids.append(chosen.choice([id for id in allowed if id != tokenizer.eos_token] or allowed))
        assert matcher.consume_token(ids[-1])
    return renderer.decode(ids)


def words_of(family: str, markers: tuple[str, ...]) -> Words:
    renderer, _ = byte_tokenizer(family)

    def pieces(text: str) -> str:
        found = renderer.control.split(text)
        return " ".join(f"<[{id}]>" if id is not None else strict_json.encode(p) for p, id in found)

    return Words(pieces, markers)


def call_of(format: Any, parameters: Any, bounds: Bounds, seed: int) -> str | None:
    """A call with arguments of the schema, of tokens chosen at random."""
    family, tool = FAMILIES[format.name], Tool(name="own", description="", parameters=parameters)
    head, _, tail = format.write([ToolCall(name="own", arguments={})]).partition("{}")
    words = words_of(family, format.markers)
    grammar = call_grammar(head, schema_of(tool), tail, format.syntax, words, bounds)
    return written(family, grammar, seed)


def fault(format: Any, parameters: Any, text: str) -> str:
    """What is wrong with a call; nothing where it is valid."""
    try:
        [call], reply = format.read(text)
    except MalformedError as error:
        return str(error)
    assert (call.name, reply) == ("own", "")
    tool = Tool(name="own", description="", parameters=parameters)
    return "; ".join(error.message for error in schema_of(tool).errors(call.arguments))


@formats
@pytest.mark.parametrize("bounds", BOUNDS, ids=range(len(BOUNDS)))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parameters=PARAMETERS, seed=st.integers(0, 1000))
def test_arguments_are_valid(format: Any, bounds: Bounds, parameters: Any, seed: int) -> None:
    text = call_of(format, parameters, bounds, seed)
    found = "no end" if text is None else fault(format, parameters, text)
    # Where any name may stand one may be given twice; tighter bounds have no room for two.
    assert not found or (bounds in BOUNDS[:2] and ("twice" in found or found == "no end"))


@formats
@pytest.mark.parametrize("schema", MEETING, ids=str)
def test_keywords_narrow_each_other(format: Any, schema: Any) -> None:
    parameters = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    for seed in range(20):
        text = call_of(format, parameters, BOUNDS[seed % 2], seed)
        assert text is not None
        assert fault(format, parameters, text) == ""


@formats
def test_no_argument_and_no_word_spells_a_marker(format: Any) -> None:
    family = FAMILIES[format.name]
    renderer, tokenizer = byte_tokenizer(family)
    words = words_of(family, (*format.markers, *renderer.stop_texts))
    schema = schema_of(kit.TOOLS[0])
    call = call_grammar("", schema, "", format.syntax, words, BOUNDS[0])
    value = format.syntax.value({"query": "zebra"})
    reply = reply_grammar("", "", words)
    for marker in words.markers:
        for grammar, whole in ((call, value), (reply, "zebra")):
            for inner in (
                "zebra",
                f"z {marker[:-1]} {marker[1:]} a",
                marker,
                f"z{marker}",
                f"z{marker}a",
            ):
                matcher = LLMatcher(tokenizer, grammar)
                before, _, after = whole.partition("zebra")
                ids = [*renderer.control.encode(before)]
                ids += [id for letter in inner for id in renderer.control.encode(letter)]
                ids += renderer.control.encode(after)
                taken = matcher.consume_tokens(ids) and matcher.is_accepting()
                assert taken == (marker not in inner), (marker, inner)


@formats
@pytest.mark.parametrize("seed", range(5))
def test_words_are_no_call(format: Any, seed: int) -> None:
    family = FAMILIES[format.name]
    grammar = reply_grammar("", "", words_of(family, format.markers))
    text = written(family, grammar, seed, length=40)
    assert text is not None
    assert format.read(text) == ((), text.strip())


@pytest.mark.parametrize(
    "pattern",
    [
        "a",
        "^a",
        "a$",
        "^a$",
        "^a|b$",
        "a|^b+$",
        r"^\d{2}$",
        r"[\w/]\d",
        r"^(x|y)$",
        r"a\$",
        "[|^$]",
    ],
)
def test_a_pattern_is_found_in_every_text_of_its_grammar(pattern: str) -> None:
    grammar = f"start: TEXT\nTEXT: {lark_regex(search_regex(pattern))} & /[^<]{{1,6}}/"
    texts = [written("qwen3", grammar, seed) for seed in range(8)]
    assert all(text is not None and occurs(pattern, text) for text in texts)


def test_the_template_s_own_call_is_taken_by_the_grammar() -> None:
    """What a student is trained to write is what it can write under constraint."""
    for family in tiny.FAMILIES:
        renderer, tokenizer = byte_tokenizer(family)
        tool = renderer.tools[0]["function"]
        assert isinstance(tool, dict)
        call = ToolCall(name=str(tool["name"]), arguments={"query": 'travel "meals"\n<b>'})
        target = Target(kind="call", calls=(call,))
        ids = renderer.example([PROBE_MESSAGE], target).completion[:-1]
        text = renderer.decode(ids)
        head, _, tail = text.partition(renderer.format.syntax.value(call.arguments))
        words = words_of(family, renderer.format.markers)
        schema = schema_of(Tool.model_validate(tool))
        grammar = call_grammar(head, schema, tail, renderer.format.syntax, words, BOUNDS[0])
        matcher = LLMatcher(tokenizer, grammar)
        assert matcher.consume_tokens(ids), (family, text)
        assert matcher.is_accepting()
