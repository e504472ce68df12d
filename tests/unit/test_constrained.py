"""Constrained answers are calls of known tools with valid arguments, whatever the student says."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import json
import sys
from functools import cache
from typing import Any

import export_students as tiny
import pytest
import render_tokenizers as kit
from argument_schemas import PARAMETERS
from hypothesis import HealthCheck, given, settings

from distill.config import Config
from distill.errors import MissingExtraError, StudentError, UsageError
from distill.evaluate.confidence import CallPrefixes, tool_probabilities
from distill.evaluate.constrained import Constraint, Request, require_constrainable
from distill.evaluate.predict import predict
from distill.records import Case, Message, Prediction
from distill.render import Parsed, Renderer
from distill.sharing import openings
from distill.workflow.model import Tool
from distill.workflow.schema import schema_of

FORMATS = {"gemma3": "functiongemma", "qwen3": "hermes", "llama": "llama", "smollm": "json"}
families = pytest.mark.parametrize("family", FORMATS)
CASES = [
    Case(id=word, messages=(Message(role="user", content=f"What of {word}?"),), kind="answer")
    for word in ("meals", "the weather in Lisbon", "9", "policy", "quick brown", "x y z")
]
NESTED = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "unit": {"enum": ["c", "f", None, 3, ["x"]]},
        "days": {"type": "integer", "minimum": 2, "maximum": 90},
        "where": {
            "type": "object",
            "properties": {"on": {"type": "string", "format": "date"}, "at": {"type": "null"}},
            "required": ["on"],
        },
        "code": {"type": "string", "pattern": r"^[A-Z]{2}-\d+$"},
    },
    "required": ["city", "days", "where", "code"],
}


@cache
def model(family: str) -> Any:
    return tiny.model(family, max_position_embeddings=4096, num_hidden_layers=2)


def offering(family: str, *parameters: Any) -> Renderer:
    own = [
        Tool(name=f"own_{n}", description="Own.", parameters=p) for n, p in enumerate(parameters)
    ]
    return Renderer(tiny.tokenizer(family), (*kit.TOOLS, *own))


def called(
    family: str, renderer: Renderer, constraint: Constraint, tool: str, tokens: int = 120
) -> tuple[Parsed, str]:
    """What the student answers when it finds `tool` the likeliest."""
    prefixes = CallPrefixes(renderer, renderer.tools)
    paths = prefixes.by_tool[tool]
    sure = [1.0 if path == paths[0] else 0.0 for path in prefixes.paths]
    prompt = renderer.prompt(CASES[0].messages)
    request = Request(0, prompt, prefixes, sure, tokens)
    [(_, answer)] = constraint.decode(model(family), [request], batch_size=1)
    assert len(answer.ids) <= tokens
    return renderer.parse(answer.ids), renderer.decode(answer.ids)


@families
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(parameters=PARAMETERS)
def test_every_schema_gets_arguments_that_are_valid_by_it(family: str, parameters: Any) -> None:
    told: list[str] = []
    renderer = offering(family, parameters)
    assert renderer.format.name == FORMATS[family]
    parsed, raw = called(family, renderer, Constraint(renderer, told.append), "own_0", 240)
    assert told == []
    assert not parsed.malformed, raw
    [call] = parsed.calls
    assert call.name == "own_0"
    tool = Tool(name="own_0", description="", parameters=parameters)
    assert schema_of(tool).errors(call.arguments) == []


@families
def test_whatever_a_student_says_its_answer_is_valid(family: str) -> None:
    renderer = offering(family, NESTED)
    constraint = Constraint(renderer, pytest.fail)
    student, sizes = model(family), {"max_new_tokens": 96, "batch_size": 4}
    free = predict(student, renderer, CASES, arm="t", **sizes)
    made = predict(student, renderer, CASES, arm="t", **sizes, constraint=constraint)
    assert any(one.repaired for one in made)
    for before, after in zip(free, made, strict=True):
        valid = constraint.fault(Parsed(before.calls, malformed=bool(before.malformed)), ())
        assert after.repaired == bool(valid)
        assert not after.malformed
        if after.repaired:
            assert "decoded again: no end of turn in 96 tokens" in after.detail
            assert after.confidence is not None
        else:
            assert after == before
    # Each is decoded as if it stood alone.
    again = predict(student, renderer, CASES[:1], arm="t", **sizes, constraint=constraint)
    assert unsure(again) == unsure(made[:1])


def unsure(made: list[Prediction]) -> list[Prediction]:
    """Without probabilities, which differ by rounding."""
    return [one.model_copy(update={"confidence": None}) for one in made]


@families
def test_a_student_without_prefix_sharing_is_constrained_as_well(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = offering(family)
    settings: Any = {"arm": "t", "max_new_tokens": 40, "batch_size": 4}
    settings |= {"constraint": Constraint(renderer, pytest.fail)}
    shared = predict(model(family), renderer, CASES, **settings)
    monkeypatch.setattr("distill.sharing.decode.supports_prefix_sharing", lambda _: False)
    plain = predict(model(family), renderer, CASES, **settings)
    assert [one.repaired for one in plain] == [one.repaired for one in shared]
    assert unsure(plain) == unsure(shared)


@families
def test_paths_are_as_likely_when_each_is_read_whole(family: str) -> None:
    renderer = offering(family, NESTED)
    prefixes, prompt = CallPrefixes(renderer, renderer.tools), renderer.prompt(CASES[1].messages)
    [fast] = tool_probabilities(model(family), renderer, [prompt], renderer.tools)
    whole = openings.plain_path_probabilities(model(family), prompt, prefixes.paths)
    assert prefixes.confidence(whole).tools == pytest.approx(fast.tools, abs=1e-6)


@families
def test_a_call_is_written_as_the_format_writes_it(family: str) -> None:
    renderer = offering(family, NESTED)
    parsed, raw = called(family, renderer, Constraint(renderer, pytest.fail), "own_0")
    assert renderer.format.write(parsed.calls) in raw


@families
def test_an_answer_ends_in_every_number_of_tokens_that_a_call_fits_in(family: str) -> None:
    told: list[str] = []
    texts = {name: {"type": "string"} for name in ("one", "two")}
    lists = {"all": {"type": "array", "items": {"type": "string", "pattern": "^a[bc]*$"}}}
    renderer = offering(
        family, {"type": "object", "properties": texts | lists, "required": ["one", "two", "all"]}
    )
    constraint = Constraint(renderer, told.append)
    ended: list[str] = []
    for tokens in range(20, 100, 8):
        parsed, _ = called(family, renderer, constraint, "own_0", tokens)
        ended.append(constraint.fault(parsed, renderer.tools) or parsed.reply)
    # In fewer tokens than its opening has there is no call, but words may stand there.
    first = ended.index("")
    assert ended[first:] == [""] * (len(ended) - first)
    assert 0 < first < len(ended) - 3
    # Once by name, however often.
    assert ["own_0: no answer could be made valid" in text for text in told] in ([], [True])


@families
def test_what_no_grammar_can_hold_is_told_once_and_judged_as_it_is(family: str) -> None:
    told: list[str] = []
    ahead = {"type": "string", "pattern": "^(?=x)[a-z]$"}
    renderer = offering(
        family, {"type": "object", "properties": {"code": ahead}, "required": ["code"]}
    )
    constraint = Constraint(renderer, told.append)
    for _ in range(2):
        parsed, _ = called(family, renderer, constraint, "own_0")
        assert not parsed.malformed
        assert [call.name for call in parsed.calls] == ["own_0"]
        assert constraint.fault(parsed, renderer.tools)
    assert len(told) == 1
    assert told[0].startswith("own_0: no grammar can hold its arguments to its schema: ")
    assert "look-around" in told[0]


@pytest.mark.parametrize(
    "never",
    [
        {"type": "string", "pattern": '/"q"/'},
        {"type": "string", "minLength": 900},
        {"type": "integer", "minimum": 10**20},
    ],
)
def test_a_call_that_cannot_be_made_valid_can_be_read(never: Any) -> None:
    told: list[str] = []
    parameters = {"type": "object", "properties": {"code": never}, "required": ["code"]}
    renderer = offering("llama", parameters)
    parsed, raw = called("llama", renderer, Constraint(renderer, told.append), "own_0")
    assert (parsed.malformed, [call.name for call in parsed.calls]) == (False, ["own_0"]), raw
    assert [text.startswith("own_0: no") for text in told] == [True]


@families
def test_a_loop_of_required_objects_is_no_endless_one(family: str) -> None:
    tree = {"type": "object", "properties": {"in": {"$ref": "#"}, "n": {"type": "boolean"}}}
    renderer = offering(family, tree)
    parsed, _ = called(family, renderer, Constraint(renderer, pytest.fail), "own_0")
    assert not parsed.malformed


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Parsed(reply="Hello."), ""),
        (Parsed(malformed=True, detail="no JSON"), "no JSON"),
        (("search_google", {"query": "x"}), ""),
        (("search_bing", {"query": "x"}), "there is no tool search_bing"),
        (("search_google", {}), "search_google: arguments: 'query' is a required property"),
        (("search_google", {"query": 3}), "search_google: query: 3 is not of type 'string'"),
        # As verdicts count it: left out.
        (("own_0", {"city": None}), ""),
        (("own_0", {"city": "x", "town": "y"}), "'town' was unexpected"),
    ],
)
def test_what_is_decoded_again(answer: Any, fault: str) -> None:
    renderer = offering("llama", {"type": "object", "properties": {"city": {"type": "string"}}})
    if not isinstance(answer, Parsed):
        name, arguments = answer
        text = json.dumps({"name": name, "parameters": arguments})
        answer = renderer.parse(f"{text}<|eot_id|>")
    found = Constraint(renderer, pytest.fail).fault(answer, renderer.tools)
    assert fault in found
    assert bool(found) == bool(fault)


def test_words_begin_no_call() -> None:
    """Where words are likeliest, a student that would write a call writes none."""
    for family in FORMATS:
        renderer = offering(family)
        constraint = Constraint(renderer, pytest.fail)
        prefixes = CallPrefixes(renderer, renderer.tools)
        prompts = [renderer.prompt(case.messages) for case in CASES]
        nothing = [0.0] * len(prefixes.paths)
        requests = [Request(at, p, prefixes, nothing, 24) for at, p in enumerate(prompts)]
        answers = dict(constraint.decode(model(family), requests, batch_size=3))
        assert sorted(answers) == list(range(len(CASES)))
        for answer in answers.values():
            parsed = renderer.parse(answer.ids)
            assert (parsed.malformed, parsed.calls) == (False, ())


def test_a_tokenizer_whose_tokens_are_no_bytes_is_refused() -> None:
    from distill.students import load_student

    student = load_student("embedded", kit.TOOLS)
    renderer = Renderer(student.tokenizer, kit.TOOLS, declarations="none")
    with pytest.raises(StudentError) as refused:
        Constraint(renderer, pytest.fail)
    assert "grammars cannot be written in this student's tokens" in str(refused.value)
    assert "--no-constrained" in str(refused.value)


def test_what_is_missing_or_refused_is_said_before_anything_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check(backend: str = "transformers", student: str = "x/y", constrained: str = "on") -> None:
        tables = {"evaluate": {"backend": backend, "constrained": constrained}}
        require_constrainable(Config.load(None, {**tables, "train": {"student": student}}))

    check()
    check("vllm", "embedded", "off")
    with pytest.raises(UsageError, match="constrained by this program, not by vLLM"):
        check("vllm")
    with pytest.raises(StudentError, match="depends on those before it"):
        check(student="embedded")
    monkeypatch.setitem(sys.modules, "llguidance", None)
    monkeypatch.setitem(sys.modules, "llguidance.hf", None)
    check(student="embedded", constrained="off")
    with pytest.raises(MissingExtraError, match="llguidance"):
        check()
    with pytest.raises(MissingExtraError) as missing:
        Constraint(offering("llama"), pytest.fail)
    assert "pip install 'distill[constrained]'" in str(missing.value)
