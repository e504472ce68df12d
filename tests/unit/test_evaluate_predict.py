"""A student that learned five rows by heart is predicted and judged as it should be."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from typing import Any

import pytest
from render_tokenizers import QUERY, TOOLS, tokenizer

from distill.evaluate.constrained import Constraint
from distill.evaluate.predict import predict
from distill.records import Case, ExpectedCall, Message, Outcome, Prediction, Target, ToolCall
from distill.render import Renderer
from distill.workflow.model import Tool
from distill.workflow.schema import schema_of

CONTEXT = 96


def user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def call(name: str, query: str) -> Target:
    return Target(kind="call", calls=(ToolCall(name=name, arguments={"query": query}),))


LEARNED = {
    "travel meals?": call("search_knowledge_base", "travel meals"),
    "weather in Lisbon": call("search_google", "weather Lisbon"),
    "the limit for meals": call("search_google", "limit"),
    "hello": Target(kind="answer", reply="Hi! What is it?"),
    "book it": Target(kind="ask", reply="Which one?"),
}


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(tokenizer(), TOOLS, declarations="none")


@pytest.fixture(scope="module")
def student(renderer: Renderer) -> Any:
    """A small Llama that has overfitted LEARNED."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(renderer.tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
    )
    model = LlamaForCausalLM(config)
    rows = [renderer.example(user(text), target) for text, target in LEARNED.items()]
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
    learned = torch.tensor([row.mask + [False] * (width - len(row.ids)) for row in rows])
    labels = ids.masked_fill(~learned, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.02
    return model


def case(text: str, *calls: ExpectedCall, **fields: Any) -> Case:
    kind = fields.pop("kind", "call" if calls else "answer")
    return Case(id=text[:20], messages=user(text), kind=kind, calls=calls, **fields)


CASES = (
    case("weather in Lisbon", ExpectedCall(name="search_google", arguments={"query": "weather"})),
    case(
        "travel meals?",
        ExpectedCall(name="search_knowledge_base", arguments={"query": "travel meals"}),
    ),
    case("the limit for meals", ExpectedCall(name="search_knowledge_base")),
    case("hello"),
    case("book it", kind="ask"),
    case("hello \ud800"),
    case("meals " * CONTEXT, ExpectedCall(name="search_google")),
    case("hello", ExpectedCall(name="search_google", arguments={"query": "hello"})),
)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_every_case_gets_its_verdict_in_order(
    renderer: Renderer, student: Any, batch_size: int
) -> None:
    calls: list[tuple[int, int, str]] = []
    made = predict(
        student,
        renderer,
        CASES,
        arm="tuned",
        max_new_tokens=48,
        batch_size=batch_size,
        progress=lambda *state: calls.append(state),
    )
    assert [p.case for p in made] == [c.id for c in CASES]
    assert [p.outcome for p in made] == [
        *(Outcome.RIGHT, Outcome.RIGHT, Outcome.WRONG, Outcome.RIGHT_WORDS, Outcome.RIGHT_WORDS),
        *(Outcome.MALFORMED, Outcome.MALFORMED, Outcome.MISSING),
    ]
    assert [p.full_correct for p in made] == [False, True, None, None, None, None, None, False]
    assert made[0].argument_f1 == pytest.approx(2 / 3)
    assert made[1].raw.endswith("<end_function_call><end_of_turn>")
    assert made[3].reply == "Hi! What is it?"
    assert "not Unicode" in made[5].detail
    assert "the student attends to 96" in made[6].detail
    assert made[5].raw == made[6].raw == ""
    assert calls[-1] == (len(CASES), len(CASES), "tuned")


@pytest.mark.parametrize("batch_size", [2, 100])
@pytest.mark.parametrize("most", [5, 48])
def test_the_expected_calls_save_work_and_change_no_verdict(
    renderer: Renderer,
    student: Any,
    batch_size: int,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # There is room for an answer to the last, but not for the one that is expected.
    long = ExpectedCall(name="search_google", arguments={"query": "hello " * 40})
    cases = (*CASES, case("hello " * 11, long))
    settings: Any = {"arm": "tuned", "max_new_tokens": most, "batch_size": batch_size}
    passes: list[int] = []
    hook = student.register_forward_hook(lambda *_: passes.append(1))
    with_labels = predict(student, renderer, cases, **settings)
    needed = len(passes)
    monkeypatch.setattr("distill.evaluate.predict._expected_ids", lambda *_: [])
    without = predict(student, renderer, cases, **settings)
    hook.remove()
    # Probabilities differ by rounding; nothing else does.
    sure = [[one.confidence or 0.0 for one in made] for made in (with_labels, without)]
    assert sure[0] == pytest.approx(sure[1], abs=1e-5)
    unsaid = {"label_nll": None, "confidence": None}
    said = [[one.model_copy(update=unsaid) for one in made] for made in (with_labels, without)]
    assert said[0] == said[1]
    assert [one.label_nll is None for one in with_labels] == [
        *(False, False, True, True, True, True, True, False, True)
    ]
    assert needed <= len(passes) - needed


def test_under_constraint_valid_answers_are_the_same_and_others_are_made_valid(
    renderer: Renderer, student: Any
) -> None:
    unlearned = ("weather in", "Lisbon", "book the limit", "meals", "is hello", "zebra?", "q")
    cases = (*CASES, *map(case, unlearned))
    constraint = Constraint(renderer, pytest.fail)
    settings: Any = {"arm": "t", "batch_size": 4}
    counts = []
    for most in (48, 18, 17):
        free = predict(student, renderer, cases, **settings, max_new_tokens=most)
        made = predict(
            student, renderer, cases, **settings, max_new_tokens=most, constraint=constraint
        )
        answered = [n for n, one in enumerate(free) if one.raw]
        # What could not be asked is no answer.
        assert [n for n, one in enumerate(made) if one.malformed] == [5, 6]
        assert {5, 6}.isdisjoint(answered)
        repaired = [n for n, one in enumerate(made) if one.repaired]
        assert repaired == [n for n in answered if not is_valid(free[n])]
        assert [one for one in made if not one.repaired] == [
            one for n, one in enumerate(free) if n not in repaired
        ]
        assert all(is_valid(made[n]) for n in answered)
        counts.append(len(repaired))
    assert counts == sorted(counts)
    assert 0 < counts[-1] < len(answered)


def is_valid(made: Prediction) -> bool:
    tools = {tool.name: schema_of(tool) for tool in TOOLS}
    known = all(call.name in tools for call in made.calls)
    return (
        not made.malformed
        and known
        and not any(tools[call.name].errors(call.arguments) for call in made.calls)
    )


def test_right_labels_are_likely_and_what_was_learned_is_said_surely(
    renderer: Renderer, student: Any
) -> None:
    made = predict(student, renderer, CASES, arm="t", max_new_tokens=48, batch_size=8)
    losses = [one.label_nll for one in made]
    assert losses[1] is not None
    assert losses[0] is not None
    assert losses[7] is not None
    assert losses[1] < 0.05 < losses[0] < losses[7]
    sure = [one.confidence for one in made]
    assert all(0.9 < p <= 1 for p in (*sure[:5], sure[7]) if p is not None)
    assert [p is None for p in sure] == [False] * 5 + [True, True, False]


def test_an_answer_without_an_end_is_malformed_and_kept(renderer: Renderer, student: Any) -> None:
    [made] = predict(student, renderer, CASES[:1], arm="tuned", max_new_tokens=5, batch_size=4)
    assert made.malformed
    assert made.detail == "no end of turn in 5 tokens"
    assert made.raw.startswith("<start_function_call>call:")


def test_a_prompt_with_little_room_left_is_decoded_in_that_room(
    renderer: Renderer, student: Any
) -> None:
    text = "hello " * 11
    room = CONTEXT - len(renderer.prompt(user(text)))
    assert 0 < room < 48
    cases = (*CASES[:2], case(text))
    made = predict(student, renderer, cases, arm="t", max_new_tokens=48, batch_size=8)
    assert [p.outcome for p in made[:2]] == [Outcome.RIGHT, Outcome.RIGHT]
    spoken = len(renderer.tokenizer(made[2].raw)["input_ids"])
    assert 0 < spoken <= room
    assert made[2].malformed == ("no end of turn" in made[2].detail)


def test_no_cases_no_predictions(renderer: Renderer, student: Any) -> None:
    assert predict(student, renderer, (), arm="t", max_new_tokens=4, batch_size=2) == []


def test_a_rows_own_tools_are_shown_or_it_is_said_that_they_are_not(
    renderer: Renderer, student: Any
) -> None:
    own = Tool(name="book_room", description="Books a room.", parameters=QUERY).openai()
    same = tuple(tool.openai() for tool in TOOLS)
    cases = [case("hello", tools=(own,)), case("hello", tools=same), case("hello")]
    made = predict(student, renderer, cases, arm="t", max_new_tokens=30, batch_size=2)
    assert ["own tools" in p.detail for p in made] == [True, False, False]
    full = Renderer(renderer.tokenizer, TOOLS)
    [shown] = predict(student, full, cases[:1], arm="t", max_new_tokens=30, batch_size=2)
    # Declared in full, the row is longer than what this student attends to.
    assert shown.malformed
    length = len(full.prompt(user("hello"), (own,)))
    assert f"a prompt of {length} tokens" in shown.detail
