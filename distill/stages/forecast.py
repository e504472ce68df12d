"""Forecast of requests, tokens, money and time, before spending and after a probe.

Without a probe nothing is sent: tokens are estimated from the length of the prompts. A probe asks
for a few scenarios of the plan. Their replies are kept like any other, and what they took stands
in for the estimates.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from statistics import fmean

from distill import strict_json
from distill.asking.ask import ReplyCache, read_cached
from distill.asking.routing import route_request
from distill.asking.writing import batch_request, write_request
from distill.config import TeacherConfig
from distill.data.checks import validate
from distill.data.generate import WORKERS_PER_SLOT, generate
from distill.data.plan import open_quotas
from distill.data.plan import scenarios as planned_scenarios
from distill.errors import RunError, TeacherError
from distill.evaluate.statistics import wilson
from distill.ledger.prices import cost, teacher_price
from distill.records import Candidate, Cell, Failure, Record, Scenario
from distill.run.folder import RunFolder
from distill.stages import gate
from distill.stages.answered import count_answered
from distill.stages.pipeline import ask_more, first_round
from distill.stages.session import TeacherSession
from distill.teachers.base import ChatReply, ChatRequest, Teacher, Usage, WriteTask
from distill.teachers.grammar.teacher import write_reply

# About so many characters make a token of English and JSON.
CHARS_PER_TOKEN = 4
# Seconds for a reply of a hosted model, where none was measured.
ASSUMED_LATENCY = 2.0
# Tokens of a reply, where the embedded teacher cannot show how long one is.
ASSUMED_REPLY = 80
# Requests that are rendered to estimate the length of all.
SAMPLE = 100


class RequestCost(Record):
    """Mean tokens and seconds of one request."""

    prompt_tokens: float
    cached_tokens: float
    completion_tokens: float
    seconds: float


NOTHING = RequestCost(prompt_tokens=0, cached_tokens=0, completion_tokens=0, seconds=0)


class PassRate(Record):
    """Scenarios of one rule that were asked for, and those that passed validation."""

    asked: int = 0
    accepted: int = 0


class Probe(Record):
    """Measurements on a few scenarios of the plan."""

    asked: int
    accepted: int
    """Those that passed every check of one row; duplicates show only in the whole."""
    failed: int
    by_rule: dict[str, PassRate]
    each: RequestCost


class Amount(Record):
    """What is still to be sent. Money in USD, None where the model's price is not known."""

    scenarios: int
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usd: float | None
    seconds: float


class Forecast(Record):
    """What `distill gen` would still send, from the first round alone to the worst case."""

    planned: int
    """Scenarios of the first round."""
    kept: int
    """Of them, those that are answered already."""
    gate: int
    """Requests with which the teacher routes gold first."""
    low: Amount
    high: Amount
    """Where of each rule as few replies pass as the probe leaves possible."""
    probe: Probe | None


def forecast(
    run: RunFolder, teacher: Teacher, replies: ReplyCache, probe: Probe | None = None
) -> Forecast:
    """What the run would still send, by its plan, the replies there are and a probe's findings."""
    planned = sum(first_round(run).values())
    there = count_answered(run, teacher, replies, _planned(run))
    routed = _gate_requests(run, teacher, replies)
    each = probe.each if probe else _estimated_cost(run) if planned else NOTHING
    amounts = [
        _amount_for(run.config.teacher, each, max(needed - there, 0), routed)
        for needed in _scenarios_needed(run, probe)
    ]
    return Forecast(
        planned=planned, kept=there, gate=routed, low=amounts[0], high=amounts[1], probe=probe
    )


def probe(
    run: RunFolder, session: TeacherSession, count: int, progress: Callable[[int, int], None]
) -> Probe:
    """Ask for `count` scenarios, spread over the plan, those that are kept aside.

    Raises RunError where all are kept, and what `generate` raises.
    """
    teacher = TimedTeacher(session.metered("probe"))
    outcomes: list[Candidate | Failure] = []
    # As many at a time as may be sent: a request that waits for its turn tells nothing.
    settings = run.config.teacher.model_copy(
        update={"concurrency": max(1, run.config.teacher.concurrency // WORKERS_PER_SLOT)}
    )

    def settle(number: int, outcome: Candidate | Failure) -> None:
        outcomes.append(outcome)
        progress(len(outcomes), count)

    async def ask(scenarios: Iterable[Scenario]) -> None:
        await generate(scenarios, run.workflow, teacher, session.replies, settings, settle)

    chosen = list(_evenly_spaced(run, count))
    if not chosen:
        raise RunError(
            "nothing is to be generated beside your own rows: there is nothing to measure",
            place=run.path,
            hint="raise --target, or leave --probe out",
        )
    # The first one opens connections or starts a server: its time is not that of the others.
    session.wait(ask(chosen[:1]))
    session.wait(ask(chosen[1:]))
    if not teacher.replies:
        raise RunError(
            "every scenario of the probe is answered already: there is nothing to measure",
            place=run.path,
            hint="ask for more than that with --probe, or leave it out",
        )
    candidates = [outcome for outcome in outcomes if isinstance(outcome, Candidate)]
    accepted = validate(candidates, run.workflow, run.config.data).kept
    asked, passed = (
        Counter(each.scenario.rule for each in several) for several in (outcomes, accepted)
    )
    return Probe(
        asked=len(outcomes),
        accepted=len(accepted),
        failed=len(outcomes) - len(candidates),
        by_rule={rule: PassRate(asked=n, accepted=passed[rule]) for rule, n in asked.items()},
        each=teacher.mean(),
    )


class TimedTeacher:
    """Wraps a teacher and records tokens and seconds of each request."""

    def __init__(self, inner: Teacher) -> None:
        self.inner = inner
        self.name = inner.name
        self.fingerprint = inner.fingerprint
        self.messages_only = getattr(inner, "messages_only", False)
        self.replies: list[tuple[Usage, float]] = []

    async def complete(self, request: ChatRequest) -> ChatReply:
        began = time.monotonic()
        reply = await self.inner.complete(request)
        self.replies.append((reply.usage, time.monotonic() - began))
        return reply

    def drain(self) -> None:
        self.inner.drain()

    async def close(self) -> None:
        await self.inner.close()

    def mean(self) -> RequestCost:
        """Means over the requests so far, at least one; the first one's time does not count."""
        return RequestCost(
            prompt_tokens=fmean(usage.prompt_tokens for usage, _ in self.replies),
            cached_tokens=fmean(usage.cached_tokens for usage, _ in self.replies),
            completion_tokens=fmean(usage.completion_tokens for usage, _ in self.replies),
            seconds=fmean(seconds for _, seconds in self.replies[1:] or self.replies),
        )


def _planned(run: RunFolder) -> Iterator[Scenario]:
    return planned_scenarios(run.workflow, run.config.data, first_round(run))


def _estimated_cost(run: RunFolder) -> RequestCost:
    """A request by the length of prompts of the plan, and of replies as the embedded teacher's."""
    settings = run.config.teacher
    chosen = [
        write_request(scenario, run.workflow, settings) for scenario in _evenly_spaced(run, SAMPLE)
    ]
    if settings.batch > 1:
        batches = [chosen[at : at + settings.batch] for at in range(0, len(chosen), settings.batch)]
        sent = [batch_request(batch) for batch in batches]
    else:
        sent = chosen
    return RequestCost(
        prompt_tokens=fmean(_prompt_tokens(one) for one in sent),
        cached_tokens=0,
        completion_tokens=fmean(_reply_tokens(one) for one in chosen) * len(chosen) / len(sent),
        seconds=0 if settings.kind == "grammar" else ASSUMED_LATENCY,
    )


def _prompt_tokens(asked: ChatRequest) -> float:
    # The schema is part of what a server puts before the model, or of what holds it.
    said = sum(len(message.content) for message in asked.messages)
    return (said + len(strict_json.encode(asked.reply_schema, ensure_ascii=True))) / CHARS_PER_TOKEN


def _reply_tokens(asked: ChatRequest) -> float:
    try:
        said = write_reply(_task(asked))
    except TeacherError:
        return ASSUMED_REPLY
    return len(strict_json.encode(said, ensure_ascii=True)) / CHARS_PER_TOKEN


def _gate_requests(run: RunFolder, teacher: Teacher, replies: ReplyCache) -> int:
    if not gate.is_due(run):
        return 0
    asked = (route_request(case, run.workflow, run.config.teacher) for case in run.workflow.gold)
    return sum(read_cached(one, teacher, replies, lambda text: text) is None for one in asked)


def _scenarios_needed(run: RunFolder, probe: Probe | None) -> tuple[int, int]:
    """Scenarios over all rounds: at the probe's pass rates, and at their Wilson lower bounds."""
    if probe is None:
        planned = sum(first_round(run).values())
        return planned, planned
    overall, (lowest, _) = probe.accepted / probe.asked, wilson(probe.accepted, probe.asked)

    def likely(cell: Cell) -> float:
        passed = probe.by_rule.get(cell.rule, PassRate())
        # A rule that few were asked for is taken to be like the others, as far as one row tells.
        return (passed.accepted + overall) / (passed.asked + 1)

    def worst(cell: Cell) -> float:
        passed = probe.by_rule.get(cell.rule)
        return wilson(passed.accepted, passed.asked)[0] if passed else lowest

    return _scenarios_over_rounds(run, likely), _scenarios_over_rounds(run, worst)


def _scenarios_over_rounds(run: RunFolder, share: Callable[[Cell], float]) -> int:
    """Scenarios that are asked for in all when `share` of each cell passes."""
    wanted = open_quotas(run.workflow, run.config.data.target, run.workflow.rows)
    asked = first_round(run)
    for _ in range(run.config.data.max_rounds - 1):
        passing = {cell: int(count * share(cell)) for cell, count in asked.items()}
        short = {cell: n - passing[cell] for cell, n in wanted.items() if passing[cell] < n}
        if not short:
            break
        asked = ask_more(asked, wanted, short)
    return sum(asked.values())


def _amount_for(settings: TeacherConfig, each: RequestCost, scenarios: int, gate: int) -> Amount:
    """What so many scenarios take; a request of the gate is counted like one of them."""
    requests = math.ceil(scenarios / settings.batch) + gate
    usage = Usage(
        prompt_tokens=round(each.prompt_tokens * requests),
        cached_tokens=round(each.cached_tokens * requests),
        completion_tokens=round(each.completion_tokens * requests),
    )
    price = teacher_price(settings)
    return Amount(
        scenarios=scenarios,
        requests=requests,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        usd=None if price is None else cost(usage, price),
        seconds=_seconds(settings, each, requests),
    )


def _seconds(settings: TeacherConfig, each: RequestCost, requests: int) -> float:
    """As long as the slowest of the limits makes it: concurrency, or the rates that were set."""
    tokens = (each.prompt_tokens + each.completion_tokens) * requests
    return max(
        requests * each.seconds / settings.concurrency,
        requests / (settings.requests_per_minute or math.inf) * 60,
        tokens / (settings.tokens_per_minute or math.inf) * 60,
    )


def _evenly_spaced(run: RunFolder, count: int) -> Iterator[Scenario]:
    """Up to `count` scenarios of the first round, at even distances."""
    total = sum(first_round(run).values())
    step = max(total / count, 1)
    chosen = {int(at * step) for at in range(min(count, total))}
    return (scenario for number, scenario in enumerate(_planned(run)) if number in chosen)


def _task(asked: ChatRequest) -> WriteTask:
    assert isinstance(asked.task, WriteTask)
    return asked.task
