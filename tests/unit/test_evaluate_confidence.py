"""How sure a student is of its tool, against the same probabilities multiplied up one by one."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Sequence
from math import exp
from typing import Any

import pytest
from render_tokenizers import (
    FUNCTION_GEMMA_TEMPLATE,
    HERMES_TEMPLATE,
    LLAMA_TEMPLATE,
    PLAIN_TEMPLATE,
    QUERY,
    TOOLS,
    tokenizer,
)
from test_evaluate_decode import VOCABULARY, tiny
from test_evaluate_shared import (
    KINDS,
    MODEL,
    USER,
    bidirectional_start_ids,
    expected,
    model_of,
    prompts,
)

from distill.evaluate.confidence import (
    CallPrefixCache,
    CallPrefixes,
    Confidence,
    tool_probabilities,
)
from distill.records import Message, Target, ToolCall
from distill.render import Parsed, Renderer
from distill.sharing.decode import greedy_completions
from distill.sharing.openings import path_probabilities
from distill.sharing.reading import PromptRow, prefill
from distill.workflow.model import Tool

PATHS = [(4, 9), (4, 9, 11), (4, 8, 30, 31), (4, 8, 30, 32), (7,), (12, 12, 12, 12, 12)]
TEMPLATES = {
    "built in": None,
    "functiongemma": FUNCTION_GEMMA_TEMPLATE,
    "hermes": HERMES_TEMPLATE,
    "llama": LLAMA_TEMPLATE,
    "plain": PLAIN_TEMPLATE,
}


def plainly(model: Any, prompt: list[int], paths: Sequence[tuple[int, ...]]) -> list[float]:
    """The probabilities of paths, each a row of its own behind the prompt, without a cache."""
    import torch

    longest = max(map(len, paths))
    # What stands behind a path changes nothing before it.
    rows = [[*prompt, *path, *[0] * (longest - len(path))] for path in paths]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(rows)).logits.log_softmax(-1)
    return [
        exp(sum(float(own[len(prompt) - 1 + at, token]) for at, token in enumerate(path)))
        for own, path in zip(logits, paths, strict=True)
    ]


# MiniLM's own masks are for sdpa.
WAYS = [(kind, "sdpa") for kind in KINDS] + [(kind, "eager") for kind in KINDS if kind != "minilm"]


@pytest.mark.parametrize(("kind", "attention"), WAYS)
def test_a_path_is_as_likely_as_its_tokens_one_by_one(kind: str, attention: str) -> None:
    model = model_of(kind) if attention == "sdpa" else tiny(kind)
    model.config._attn_implementation = attention
    rows = []
    for at, (prompt, said) in enumerate(zip(prompts(kind), expected(kind), strict=True)):
        # What is said is likely, and heads of turns would change how the prompt is read.
        likely = tuple(token for token in said if token < min(USER, MODEL))
        own = [likely[:n] for n in (1, 2, 4, 6) if likely[:n]] + [(*likely[:n], 3) for n in (1, 3)]
        drafts = [(), (*likely[:2], 5, 6), likely[:3], (*likely[:1], 3, 3), (20, 4)]
        rows.append(PromptRow(at, prompt, drafts[at % len(drafts)], [*own, *PATHS]))
    seen = []
    for done in prefill(model, rows, 5, bidirectional_start_ids(kind)):
        for row, found in zip(done.rows, path_probabilities(model, done), strict=True):
            true = plainly(model, [*row.prompt], row.paths)
            assert found == pytest.approx(true, abs=2e-6, rel=1e-3)
            seen += [p for p, path in zip(true, row.paths, strict=True) if len(path) > 3]
    assert sum(p > 1e-3 for p in seen) > 1


def renderer(template: str | None, *tools: Tool) -> Renderer:
    return Renderer(tokenizer(template), tools or TOOLS)


def named(*names: str) -> tuple[Tool, ...]:
    return tuple(Tool(name=name, description="A tool.", parameters=QUERY) for name in names)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_call_begins_as_one_tool_and_no_other(template: str | None) -> None:
    tools = named("search", "search_web", "searches", "s", "book_room")
    one = renderer(template, *tools)
    prefixes = CallPrefixes(one, one.tools)
    assert list(prefixes.by_tool) == [tool.name for tool in tools]
    said = (Message(role="user", content="hello"),)
    for name in prefixes.by_tool:
        for arguments in ({}, {"query": "x"}, {"query": "north", "n": 3}, {"z": [1, {"a": True}]}):
            call = ToolCall(name=name, arguments=arguments)
            row = one.example(said, Target(kind="call", calls=(call,)))
            ids = row.ids[len(one.prompt(said)) :]
            begun = {n: [ids[: len(p)] == [*p] for p in ps] for n, ps in prefixes.by_tool.items()}
            assert {n: sum(found) for n, found in begun.items()} == {
                **dict.fromkeys(prefixes.by_tool, 0),
                name: 1,
            }


def student(vocabulary: int) -> Any:
    """A tiny model that is fairly sure, of different things."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 1.0)
    return model


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_tools_and_words_sum_to_one(template: str | None) -> None:
    one = renderer(template)
    model = student(len(one.tokenizer))
    asked = [one.prompt((Message(role="user", content=text),)) for text in ("hello", "a meal?")]
    found = tool_probabilities(model, one, asked, one.tools)
    prefixes = CallPrefixes(one, one.tools)
    for prompt, confidence in zip(asked, found, strict=True):
        assert sum(confidence.tools.values()) + confidence.no_call == pytest.approx(1)
        for name, paths in prefixes.by_tool.items():
            true = sum(plainly(model, prompt, paths))
            assert confidence.tools[name] == pytest.approx(true, abs=1e-6, rel=1e-4)


def test_call_prefixes_partition_all_answers() -> None:
    """Over every answer of three tokens: each begins with one path at most."""
    import torch

    model = tiny("llama")
    prompt = [5, 9, 33]
    paths = [(3,), (4, 7), (4, 8, 1), (4, 8, 2)]
    (done,) = prefill(model, [PromptRow(0, prompt, (), paths)], 1)
    (found,) = path_probabilities(model, done)
    with torch.inference_mode():
        first = model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1)
        rows = torch.tensor([[*prompt, token] for token in range(VOCABULARY)])
        second = model(input_ids=rows).logits[:, -1].softmax(-1)
        third = model(input_ids=torch.tensor([[*prompt, 4, 8]])).logits[0, -1].softmax(-1)
    shares = torch.zeros(len(paths) + 1)
    for a in range(VOCABULARY):
        for b in range(VOCABULARY):
            both = first[a] * second[a, b]
            place = [paths.index(p) for p in ((a,), (a, b)) if p in paths]
            if (a, b) == (4, 8):
                shares[2] += both * third[1]
                shares[3] += both * third[2]
                both = both * (1 - third[1] - third[2])
            shares[place[0] if place else -1] += both
    assert found == pytest.approx(shares[:-1].tolist(), abs=2e-6, rel=1e-4)
    assert 1 - sum(found) == pytest.approx(float(shares[-1]), abs=1e-5)


def test_confidence_is_that_of_what_was_done() -> None:
    sure = Confidence({"search": 0.6, "book": 0.2}, 0.2)
    assert sure.of(Parsed((ToolCall(name="search"),))) == 0.6
    assert sure.of(Parsed((ToolCall(name="book"), ToolCall(name="search")))) == 0.2
    assert sure.of(Parsed(reply="Which one?")) == 0.2
    assert sure.of(Parsed(malformed=True)) is None
    assert sure.of(Parsed((ToolCall(name="unknown"),))) is None


def test_a_rows_own_tools_are_those_allowed_where_they_are_shown() -> None:
    own = [tool.openai() for tool in named("book_room")]
    assert list(CallPrefixCache(renderer(None))(own).by_tool) == ["book_room"]
    undeclared = Renderer(tokenizer(None), TOOLS, declarations="none")
    assert list(CallPrefixCache(undeclared)(own).by_tool) == [tool.name for tool in TOOLS]


def test_paths_change_no_answer_and_are_told_with_it() -> None:
    asked = prompts("gemma3")
    max_new_tokens = [8] * len(asked)
    plain, told = (
        dict(
            greedy_completions(
                model_of("gemma3"), asked, [9], max_new_tokens, paths=paths, batch_size=4
            )
        )
        for paths in (None, [PATHS] * len(asked))
    )
    assert {at: a.ids for at, a in plain.items()} == {at: a.ids for at, a in told.items()}
    assert all(a.path_probabilities is None for a in plain.values())
    assert all(len(a.path_probabilities or ()) == len(PATHS) for a in told.values())
