"""Budgets: never passed, whatever the order of things, and nothing that was paid for is lost."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import office

from distill.config import Price, TeacherConfig
from distill.errors import BudgetError, UsageError
from distill.ledger.budget import BYTES_PER_TOKEN, Budget, MeteredTeacher
from distill.ledger.ledger import LedgerEntry, UsageTotals
from distill.ledger.prices import cost
from distill.ledger.replies import ReplyStore
from distill.records import FailureReason, Message, canonical_json
from distill.teachers.base import (
    ChatReply,
    ChatRequest,
    DrainingError,
    ReplyError,
    Usage,
    WriteTask,
)

PRICE = Price(prompt=1, cached=0.25, completion=4)
SCENARIO = office.scenarios(1)[0]
TASK = WriteTask(SCENARIO, office.OFFICE.by_id[SCENARIO.rule], office.OFFICE)
SCHEMA = {"type": "object"}


def asked(text: str = "hello", max_tokens: int = 100) -> ChatRequest:
    said = (Message(role="user", content=text),)
    return ChatRequest(messages=said, reply_schema=SCHEMA, task=TASK, max_tokens=max_tokens)


def worst_prompt(request: ChatRequest) -> int:
    """What the prompt is said to take at most, by the rule that budgets go by."""
    said = sum(len(message.content.encode()) + 24 for message in request.messages)
    return math.ceil((said + len(canonical_json(SCHEMA))) / BYTES_PER_TOKEN)


@dataclass
class Told:
    """A teacher that answers each request as it is told by `answer`, after some turns of the loop.

    It knows what it was sent and what it answered, as a bill would.
    """

    answer: Callable[[ChatRequest], ChatReply | Exception]
    turns: Callable[[], int] = lambda: 1
    name: str = "openai:m"
    fingerprint: str = "openai/m"
    sent: list[ChatRequest] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    cut_off: int = 0
    drained: bool = False
    closed: bool = False
    messages_only = True

    async def complete(self, request: ChatRequest) -> ChatReply:
        self.sent.append(request)
        try:
            for _ in range(self.turns()):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        answer = self.answer(request)
        if isinstance(answer, Exception):
            raise answer
        self.answered.append(request.messages[0].content)
        return answer

    def drain(self) -> None:
        self.drained = True

    async def close(self) -> None:
        self.closed = True


def replying(prompt: int = 10, completion: int = 5) -> Callable[[ChatRequest], ChatReply]:
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
    return lambda request: ChatReply(text=request.messages[0].content, model="m", usage=usage)


@pytest.fixture
def store() -> Iterator[ReplyStore]:
    with ReplyStore(Path(":memory:")) as opened:
        yield opened


async def all_asked(
    teacher: MeteredTeacher, store: ReplyStore, requests: list[ChatRequest]
) -> None:
    """Ask as generate does: the reply is kept in the step in which it comes. The first error ends
    it for everybody at once."""

    async def one(request: ChatRequest) -> None:
        try:
            reply = await teacher.complete(request)
            store.put(request.messages[0].content, reply)
        except ReplyError:
            pass

    try:
        async with asyncio.TaskGroup() as group:
            for request in requests:
                group.create_task(one(request))
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


JOBS = st.lists(
    st.tuples(st.integers(0, 600), st.integers(16, 400), st.integers(0, 5)), min_size=1, max_size=40
)


@given(
    jobs=JOBS,
    tokens=st.none() | st.integers(1, 10_000),
    cents=st.none() | st.floats(0.01, 2),
    seed=st.integers(0, 10**6),
)
def test_no_order_of_things_passes_the_budget_or_loses_what_was_paid_for(
    jobs: list[tuple[int, int, int]], tokens: int | None, cents: float | None, seed: int
) -> None:
    chance = random.Random(seed)
    usd = None if cents is None else cents / 100
    budget = Budget(usd, tokens, PRICE)

    def within() -> bool:
        fits = tokens is None or budget.spent.tokens <= tokens
        return fits and (usd is None or budget.spent_usd <= usd + 1e-12)

    def answer(request: ChatRequest) -> ChatReply | Exception:
        assert within()
        prompt = chance.randint(0, worst_prompt(request))
        usage = Usage(
            prompt_tokens=prompt,
            cached_tokens=chance.randint(0, prompt),
            completion_tokens=chance.choice([0, request.max_tokens, request.max_tokens // 2]),
            estimated=chance.random() < 0.1,
        )
        fate = chance.random()
        if fate < 0.1:
            return ReplyError(FailureReason.TIMEOUT, "slow")
        if fate < 0.2:
            return ReplyError(FailureReason.REFUSED, "no", usage)
        return ChatReply(text="said", model="m", usage=usage)

    requests = [asked(f"{n}{'x' * size}", reply) for n, (size, reply, _) in enumerate(jobs)]
    turns = iter([turn for *_, turn in jobs] * 2)
    inner = Told(answer, lambda: next(turns))
    with ReplyStore(Path(":memory:")) as store:
        teacher = MeteredTeacher(inner, store, budget, "generate")
        try:
            asyncio.run(all_asked(teacher, store, requests))
        except BudgetError:
            assert tokens is not None or usd is not None
        else:
            assert len(inner.sent) == len(requests)
        # What ended it found nobody under way who would have been paid for nothing.
        assert inner.cut_off == 0
        assert within()
        assert store.keys() == set(inner.answered)
        assert store.spent() == budget.spent
        assert cost(store.spent(), PRICE) == pytest.approx(budget.spent_usd)


def test_a_budget_for_one_at_a_time_serves_everybody_in_turn(store: ReplyStore) -> None:
    requests = [asked(f"{number:02}") for number in range(50)]
    # Room for one worst case besides what all of them really take.
    room = worst_prompt(requests[0]) + 100 + 1
    inner = Told(replying(10, 5), lambda: 3)
    teacher = MeteredTeacher(inner, store, Budget(tokens=49 * 15 + room), "generate")
    asyncio.run(all_asked(teacher, store, requests))
    assert inner.sent == requests
    assert store.spent().tokens == 50 * 15


def test_who_asks_for_much_is_not_overtaken_for_ever(store: ReplyStore) -> None:
    small, large = asked("small"), asked("large", 900)
    inner = Told(replying(), lambda: 2)
    teacher = MeteredTeacher(inner, store, Budget(tokens=1_100), "generate")
    asyncio.run(all_asked(teacher, store, [small, small, large, *[small] * 20]))
    assert inner.sent[2] == large


def test_what_does_not_fit_alone_ends_the_run_and_says_how_to_go_on(store: ReplyStore) -> None:
    requests = [asked(f"{number:02}") for number in range(40)]
    inner = Told(replying(10, 50), lambda: random.Random(0).randint(0, 9))
    teacher = MeteredTeacher(inner, store, Budget(0.005, None, PRICE), "generate")
    with pytest.raises(BudgetError) as caught:
        asyncio.run(all_asked(teacher, store, requests))
    sent = len(inner.sent)
    assert 10 < sent < 40
    assert store.count() == sent == store.spent().requests
    assert str(caught.value) == (
        f"--budget-usd: spent $0.0046 of $0.0050: {sent} requests, {sent * 10} prompt tokens, "
        f"{sent * 50:,} completion tokens; the next request may take $0.0004\n"
        "  raise --budget-usd, then run the same command again: it goes on"
    )
    assert caught.value.exit_code == 3
    # With more, it goes on where it stopped: what is in the ledger counts.
    settings = TeacherConfig(kind="openai", model="m", prices={"m": PRICE}, budget_usd=1.0)
    budget = Budget.of(settings, store.entries())
    assert budget.spent == store.spent()
    assert budget.spent_usd == pytest.approx(cost(store.spent(), PRICE))
    again = MeteredTeacher(inner, store, budget, "generate")
    asyncio.run(all_asked(again, store, requests[sent:]))
    assert store.count() == 40


def test_tokens_are_told_in_tokens(store: ReplyStore) -> None:
    teacher = MeteredTeacher(Told(replying()), store, Budget(tokens=50), "generate")
    with pytest.raises(BudgetError, match=r"^--budget-tokens: spent 0 of 50 tokens: 0 requests"):
        asyncio.run(teacher.complete(asked()))


def test_once_it_is_spent_nothing_smaller_slips_through(store: ReplyStore) -> None:
    inner = Told(replying())
    teacher = MeteredTeacher(inner, store, Budget(tokens=100), "generate")

    async def main() -> None:
        for max_tokens in (1_000, 16):
            with pytest.raises(BudgetError):
                await teacher.complete(asked("a", max_tokens))

    asyncio.run(main())
    assert inner.sent == []


def test_everybody_is_told_of_the_one_that_did_not_fit(store: ReplyStore) -> None:
    requests = [asked("first"), asked("large", 400), asked("small", 16)]
    inner = Told(replying(), lambda: 3)
    teacher = MeteredTeacher(inner, store, Budget(0.001, None, PRICE), "generate")

    async def main() -> list[object]:
        waiting = (teacher.complete(request) for request in requests)
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    first, *others = asyncio.run(main())
    assert isinstance(first, ChatReply)
    assert [type(other) for other in others] == [BudgetError] * 2
    assert str(others[0]) == str(others[1])
    assert "the next request may take $0.0016" in str(others[0])


def test_what_earlier_commands_spent_counts(store: ReplyStore) -> None:
    usage = Usage(prompt_tokens=400, completion_tokens=500)
    store.charge("generate", "m", "truncated", usage)
    settings = TeacherConfig(kind="openai", model="m", budget_tokens=1_000)
    teacher = MeteredTeacher(
        Told(replying()), store, Budget.of(settings, store.entries()), "generate"
    )
    with pytest.raises(BudgetError, match="spent 900 of 1,000 tokens: 1 request"):
        asyncio.run(teacher.complete(asked()))


def test_draining_lets_go_of_those_that_wait_and_not_of_those_under_way(
    store: ReplyStore,
) -> None:
    inner = Told(replying(), lambda: 5)
    teacher = MeteredTeacher(inner, store, Budget(tokens=150), "generate")

    async def main() -> list[object]:
        tasks = [asyncio.create_task(teacher.complete(asked(f"{n}"))) for n in range(5)]
        await asyncio.sleep(0)
        teacher.drain()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(DrainingError):
            await teacher.complete(asked())
        return list(ended)

    first, *others = asyncio.run(main())
    assert isinstance(first, ChatReply)
    assert [type(other) for other in others] == [DrainingError] * 4
    assert inner.drained
    assert len(inner.sent) == store.spent().requests == 1


@pytest.mark.parametrize("cancelled", range(4))
@pytest.mark.parametrize("turns", range(8))
def test_who_is_cancelled_leaves_room_for_the_others(
    store: ReplyStore, cancelled: int, turns: int
) -> None:
    inner = Told(replying(), lambda: 2)
    budget = Budget(tokens=220)
    teacher = MeteredTeacher(inner, store, budget, "generate")

    async def main() -> list[object]:
        tasks = [asyncio.create_task(teacher.complete(asked(f"{n}"))) for n in range(4)]
        for _ in range(turns):
            await asyncio.sleep(0)
        tasks[cancelled].cancel()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    ended = asyncio.run(main())
    others = [outcome for number, outcome in enumerate(ended) if number != cancelled]
    assert all(isinstance(outcome, ChatReply) for outcome in others)
    assert budget._reserved.requests == 0
    assert store.spent().requests == sum(isinstance(outcome, ChatReply) for outcome in ended)


@pytest.mark.parametrize("reason", FailureReason)
def test_what_is_refused_is_charged_if_the_server_charges_for_it(
    store: ReplyStore, reason: FailureReason
) -> None:
    usage = Usage(prompt_tokens=7, cached_tokens=2, completion_tokens=1)
    for charged in (usage, None):
        error = ReplyError(reason, "no", charged)
        budget = Budget(tokens=1_000)
        teacher = MeteredTeacher(Told(lambda request, e=error: e), store, budget, "gate")  # type: ignore[misc]
        with pytest.raises(ReplyError) as caught:
            asyncio.run(teacher.complete(asked()))
        assert caught.value is error
        assert budget.spent == (UsageTotals().plus(usage) if charged else UsageTotals())
    assert store.entries() == [
        LedgerEntry(
            stage="gate",
            model="m",
            outcome=str(reason),
            requests=1,
            **usage.model_dump(exclude={"estimated"}),
        )
    ]


def test_any_other_error_gives_back_what_was_promised(store: ReplyStore) -> None:
    budget = Budget(tokens=150)
    teacher = MeteredTeacher(Told(lambda request: OSError("gone")), store, budget, "generate")
    for _ in range(3):
        with pytest.raises(OSError, match="gone"):
            asyncio.run(teacher.complete(asked()))
    assert store.entries() == []


def test_a_server_that_counts_more_tokens_is_believed(store: ReplyStore) -> None:
    request = asked("x" * 300)
    dense = Told(replying(10 * worst_prompt(request), 200))
    budget = Budget(tokens=10**6)
    asyncio.run(MeteredTeacher(dense, store, budget, "generate").complete(request))
    learnt = budget._usage_bound(budget._worst_case(request))
    assert learnt.prompt_tokens >= 10 * worst_prompt(request)
    assert learnt.completion_tokens == 200
    # Estimates of ours teach nothing.
    usage = Usage(prompt_tokens=10**6, completion_tokens=10**6, estimated=True)
    guessed = Told(lambda request: ChatReply(text="", model="m", usage=usage))
    asyncio.run(MeteredTeacher(guessed, store, Budget(tokens=10**9), "generate").complete(request))
    assert budget._usage_bound(budget._worst_case(request)) == learnt


def test_it_is_the_teacher_in_everything_else(store: ReplyStore) -> None:
    inner = Told(replying())
    teacher = MeteredTeacher(inner, store, Budget(), "generate")
    assert (teacher.name, teacher.fingerprint) == (inner.name, inner.fingerprint)
    assert teacher.messages_only is True
    assert getattr(teacher, "stats", None) is None
    asyncio.run(teacher.close())
    assert inner.closed


@pytest.mark.parametrize(
    ("name", "model"),
    [("grammar", "grammar"), ("openai:gpt-5", "gpt-5"), ("openai:llama3:8b", "llama3:8b")],
)
def test_the_ledger_goes_by_the_model(store: ReplyStore, name: str, model: str) -> None:
    teacher = MeteredTeacher(Told(replying(), name=name), store, Budget(), "generate")
    asyncio.run(teacher.complete(asked()))
    assert [entry.model for entry in store.entries()] == [model]


OPENAI = TeacherConfig(kind="openai", model="unheard-of")


def test_a_budget_in_money_needs_prices() -> None:
    old = LedgerEntry(
        stage="generate", model="older", outcome="reply", requests=1, prompt_tokens=10
    )
    limited = OPENAI.model_copy(update={"budget_usd": 1.0})
    with pytest.raises(UsageError, match='no price of "unheard-of"') as caught:
        Budget.of(limited, [])
    assert '[teacher.prices."unheard-of"]' in str(caught.value)
    known = limited.model_copy(update={"prices": {"unheard-of": PRICE}})
    assert Budget.of(known, []).spent_usd == 0
    with pytest.raises(UsageError, match='no price of "older"'):
        Budget.of(known, [old])
    both = known.model_copy(update={"prices": {"unheard-of": PRICE, "older": PRICE}})
    assert Budget.of(both, [old]).spent_usd == pytest.approx(10 / 1e6)
    # Without a budget in money nobody needs to know.
    assert Budget.of(OPENAI, [old]).spent.tokens == 10
    with pytest.raises(ValueError, match="needs a price"):
        Budget(usd=1.0)


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({}, []),
        ({"budget_tokens": 200_000}, ["120k of 200k tokens"]),
        ({"prices": {"unheard-of": PRICE}}, ["$0.48"]),
        ({"prices": {"unheard-of": PRICE}, "budget_usd": 2.5}, ["$0.48 of $2.50"]),
    ],
)
def test_a_progress_bar_can_tell_what_is_spent(
    settings: dict[str, object], note: list[str]
) -> None:
    entry = LedgerEntry(
        stage="generate", model="unheard-of", outcome="reply", completion_tokens=120_000
    )
    assert Budget.of(OPENAI.model_copy(update=settings), [entry]).progress_note() == note
