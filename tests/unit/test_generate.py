"""Every scenario ends as one candidate or one failure, in order, and no reply is paid for twice."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from kit import office

from distill.asking.ask import MAX_REPROMPTS, MalformedReplyError, read_cached, reply_key
from distill.asking.pool import MAX_INITIAL_FAILURES
from distill.asking.writing import read_reply, reply_schema, split_batch, write_request
from distill.config import TeacherConfig
from distill.data.generate import WORKERS_PER_SLOT, generate
from distill.errors import TeacherError, WriteError
from distill.ledger.replies import ReplyStore
from distill.records import (
    Candidate,
    Failure,
    FailureReason,
    Json,
    Scenario,
    ToolCall,
)
from distill.teachers.base import (
    BatchTask,
    ChatReply,
    ChatRequest,
    DrainingError,
    ReplyError,
    Usage,
    WriteTask,
)
from distill.teachers.make import make_teacher
from distill.testing import server
from distill.testing.sampler import sample
from distill.testing.server import ChatServer
from distill.workflow.model import CallSpec, Rule, Then, Tool, Workflow

CONFIG = TeacherConfig(concurrency=8)
DOCUMENTS = office.task("documents")
MEETINGS = office.task("meetings")
VAGUE = office.task("vague")


# --- the schema of a reply ---


def objects(schema: Any) -> list[Json]:
    """Every object schema within a schema."""
    if isinstance(schema, list):
        return [found for item in schema for found in objects(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") == "object" else []
    return own + [found for item in schema.values() for found in objects(item)]


def assert_strict(schema: Json) -> None:
    Draft202012Validator.check_schema(schema)
    for found in objects(schema):
        assert found["additionalProperties"] is False
        assert found["required"] == list(found["properties"])


@pytest.mark.parametrize("rule", office.RULES, ids=lambda rule: rule.id)
def test_schemas_are_strict_and_samples_of_them_are_read(rule: Rule) -> None:
    task = office.task(rule.id)
    schema = reply_schema(task)
    assert_strict(schema)
    for seed in range(20):
        value = sample(schema, random.Random(seed))
        Draft202012Validator(schema).validate(value)
        candidate = read_reply(json.dumps(value), task, "kit")
        assert candidate.target.kind == rule.then.kind
        assert [call.name for call in candidate.target.calls] == [c.tool for c in rule.then.calls]
        assert candidate.conversation.last_user == value["user"]


scalars = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "maxLength": 200, "format": "uri-template", "title": "T"},
        {"type": "integer", "minimum": 2, "default": 3},
        {"type": "number"},
        {"type": "boolean"},
        {"type": ["string", "null"]},
        {"enum": ["a", "b"]},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"allOf": [{"type": "string"}], "description": "d"},
        {"$ref": "#/$defs/shared"},
    ]
)


def object_schemas(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    members = st.dictionaries(st.sampled_from("pqrstu"), inner, max_size=4)
    return members.flatmap(
        lambda found: st.builds(
            lambda required: {"type": "object", "properties": found, "required": required},
            st.lists(st.sampled_from(sorted(found)), unique=True) if found else st.just([]),
        )
    )


nested = st.recursive(
    scalars,
    lambda inner: (
        object_schemas(inner)
        | st.builds(lambda items: {"type": "array", "items": items, "maxItems": 2}, inner)
    ),
    max_leaves=6,
)
SHARED: Json = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "next": {"$ref": "#/$defs/leaf"}},
    "required": ["id"],
}


def optional_nulls(value: Any, schema: Any) -> bool:
    """Whether an object somewhere has a null for an optional property."""
    if isinstance(value, dict):
        known, required = schema.get("properties", {}), schema.get("required", [])
        return any(
            (item is None and name not in required) or optional_nulls(item, known.get(name, {}))
            for name, item in value.items()
        )
    if isinstance(value, list):
        return any(optional_nulls(item, schema.get("items", {})) for item in value)
    return False


@given(parameters=object_schemas(nested), seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_any_tool_survives_the_way_through_strict_mode(parameters: Json, seed: int) -> None:
    parameters = {**parameters, "$defs": {"shared": SHARED, "leaf": {"type": "integer"}}}
    task = one_tool(parameters)
    schema = reply_schema(task)
    assert_strict(schema)
    value = sample(schema, random.Random(seed))
    [call] = read_reply(json.dumps(value), task, "kit").target.calls
    Draft202012Validator(parameters).validate(call.arguments)
    assert not optional_nulls(call.arguments, parameters)


def one_tool(parameters: Json, **arguments: Any) -> WriteTask:
    tool = Tool(name="do", description="Does.", parameters=parameters)
    then = Then(kind="call", calls=(CallSpec(tool="do", arguments=arguments),), text="call do")
    rule = Rule(id="r", title="R", when="always", then=then, text="## r")
    workflow = Workflow(name="w", title="W", prose="", rules=(rule,), tools=(tool,))
    scenario = Scenario.of(
        rule="r", target="call", tools=("do",), style="question", topic="it", seed=1
    )
    return WriteTask(scenario, rule, workflow)


def test_a_schema_that_refers_to_itself_is_carried_along() -> None:
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "child": {"$ref": "#"}},
        "required": ["name"],
    }
    task = one_tool(tree)
    assert_strict(reply_schema(task))
    deep = {"name": "a", "child": {"name": "b", "child": None}}
    text = json.dumps({"user": "hi", "calls": [{"name": "do", "arguments": deep}]})
    [call] = read_reply(text, task, "kit").target.calls
    assert call.arguments == {"name": "a", "child": {"name": "b"}}


def test_an_object_that_the_tool_leaves_open_stays_open() -> None:
    task = one_tool(
        {"type": "object", "properties": {"extra": {"type": "object"}}, "required": ["extra"]}
    )
    text = '{"user": "hi", "calls": [{"name": "do", "arguments": {"extra": {"a": null}}}]}'
    assert (
        "additionalProperties"
        not in json.dumps(reply_schema(task)["properties"])
        .partition('"extra"')[2]
        .partition("}")[0]
    )
    [call] = read_reply(text, task, "kit").target.calls
    assert call.arguments == {"extra": {"a": None}}


def test_decided_arguments_are_constants_and_nulls_are_kept_where_the_rule_wants_them() -> None:
    parameters: Json = {
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"]},
            "b": {"type": "array", "items": {"type": "string"}},
            "c": {"type": "boolean"},
            "d": {"type": "number"},
        },
    }
    task = one_tool(parameters, a=None, b=["x"], c=True, d=1.5)
    assert_strict(reply_schema(task))
    arguments = {"a": None, "b": ["x"], "c": True, "d": 1.5}
    text = json.dumps({"user": "hi", "calls": [{"name": "do", "arguments": arguments}]})
    assert read_reply(text, task, "kit").target.calls == (ToolCall(name="do", arguments=arguments),)


# --- reading a reply ---


def call_text(arguments: Json | None = None, **changes: Any) -> str:
    given = {"query": "travel", "scope": "internal"} if arguments is None else arguments
    calls = [{"name": "search", "arguments": given}]
    return json.dumps({"user": "where?", "calls": calls, **changes})


AROUND = {
    "plain": "{}",
    "blanks": "\n  {}\n",
    "fence": "```json\n{}\n```",
    "bare fence": "```\n{}\n```",
    "prose": "Sure, for {{topic}} I would write this: {} I hope that helps {{you}}!",
    "thinking": "<think>A set {{1, 2}}.</think>\n\n{}",
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_what_stands_around_the_object_is_passed_over(around: str) -> None:
    candidate = read_reply(around.format(call_text()), DOCUMENTS, "kit")
    assert candidate.conversation.last_user == "where?"
    assert candidate.teacher == "kit"
    assert candidate.scenario == DOCUMENTS.scenario


def test_optional_arguments_may_be_null_or_absent_or_given() -> None:
    base = {"query": "travel", "scope": "internal"}
    for given_limit, expected in [({"limit": None}, {}), ({}, {}), ({"limit": 3}, {"limit": 3})]:
        [call] = read_reply(call_text({**base, **given_limit}), DOCUMENTS, "kit").target.calls
        assert call.arguments == {**base, **expected}


MALFORMED: dict[str, tuple[str, WriteTask, str]] = {
    "nothing": ("", VAGUE, "no JSON object"),
    "prose": ("I cannot {do} that.", VAGUE, "no JSON object"),
    "array": ("[1, 2]", VAGUE, "no JSON object"),
    "truncated": ('{"user": "a", "reply": "b', VAGUE, "not valid JSON"),
    "truncated around another": (call_text()[:-2], DOCUMENTS, "not valid JSON"),
    "raw newline": ('{"user": "a\n", "reply": "b"}', VAGUE, "not valid JSON"),
    "NaN": ('{"user": "a", "reply": NaN}', VAGUE, "NaN is not JSON"),
    "deep": ('{"user": ' + "[" * 100_000, VAGUE, "not valid JSON"),
    "huge number": ('{"user": ' + "9" * 5000 + "}", VAGUE, "not valid JSON"),
    "name twice": ('{"user": "a", "user": "b", "reply": "c"}', VAGUE, "twice"),
    "two objects": ('{"user": "a", "reply": "b"} {"user": "c"}', VAGUE, "more than one"),
    "surrogate": ('{"user": "\\ud800", "reply": "b"}', VAGUE, "surrogate"),
    "missing": ('{"user": "a"}', VAGUE, "reply: Field required"),
    "extra": ('{"user": "a", "reply": "b", "why": "c"}', VAGUE, "why: Extra"),
    "wrong type": ('{"user": 3, "reply": "b"}', VAGUE, "user: .*string"),
    "words for a call": ('{"user": "a", "reply": "b"}', DOCUMENTS, "calls: Field required"),
    "a call for words": (call_text(), VAGUE, "reply: Field required"),
    "no call": (call_text(calls=[]), DOCUMENTS, "they are of nothing"),
    "another tool": (
        call_text(calls=[{"name": "ping", "arguments": {}}]),
        DOCUMENTS,
        "must be of search.*they are of ping",
    ),
    "one call too many": (
        call_text(calls=[{"name": "search", "arguments": {}}] * 2),
        DOCUMENTS,
        "they are of search, search",
    ),
    "wrong order": (
        call_text(calls=[{"name": n, "arguments": {}} for n in ("search", "book", "ping")]),
        MEETINGS,
        "in this order",
    ),
    "extra in a call": (
        call_text(calls=[{"name": "search", "arguments": {}, "id": 1}]),
        DOCUMENTS,
        r"calls\.0\.id",
    ),
    "arguments as text": (
        call_text(calls=[{"name": "search", "arguments": '{"query": "x"}'}]),
        DOCUMENTS,
        r"calls\.0\.arguments",
    ),
    "demanded argument missing": (call_text({"scope": "internal"}), DOCUMENTS, "query is missing"),
    "decided argument changed": (
        call_text({"query": "x", "scope": "public"}),
        DOCUMENTS,
        'scope must be "internal"',
    ),
    "unknown argument": (
        call_text({"query": "x", "scope": "internal", "quer": "y"}),
        DOCUMENTS,
        'unknown argument "quer"',
    ),
    "invalid argument": (
        call_text({"query": "x", "scope": "internal", "limit": 99}),
        DOCUMENTS,
        "limit",
    ),
    "longer than the tool takes": (
        call_text({"query": "x" * 81, "scope": "internal"}),
        DOCUMENTS,
        "query",
    ),
}


@pytest.mark.parametrize(("text", "task", "says"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_what_was_asked_for_is_malformed(text: str, task: WriteTask, says: str) -> None:
    with pytest.raises(MalformedReplyError, match=says):
        read_reply(text, task, "kit")


@given(text=st.text() | st.text('{}[]":,user calls reply\n`\\', max_size=60))
def test_reading_never_ends_otherwise(text: str) -> None:
    for task in (DOCUMENTS, VAGUE):
        with suppress(MalformedReplyError):
            assert read_reply(text, task, "kit").scenario == task.scenario


# --- asking ---

Answer = Callable[[ChatRequest, int], str]


class Scribe:
    """A teacher that writes what `answer` says for a request, after a random while."""

    name = "scribe"
    fingerprint = "scribe/1"
    messages_only = True

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[ChatRequest] = []
        self.random = random.Random(7)

    async def complete(self, request: ChatRequest) -> ChatReply:
        self.asked.append(request)
        number = len(self.asked)
        for _ in range(self.random.randint(0, 5)):
            await asyncio.sleep(0)
        return ChatReply(text=self.answer(request, number), model="scribe")

    def drain(self) -> None: ...

    async def close(self) -> None: ...


def good(request: ChatRequest, number: int) -> str:
    return json.dumps(sample(request.reply_schema, random.Random(request.task.id)))


class Generated(NamedTuple):
    """What became of the scenarios, in their order."""

    candidates: list[Candidate]
    failures: list[Failure]


async def collected(
    scenarios: list[Scenario], teacher: Any, store: ReplyStore, config: TeacherConfig
) -> Generated:
    outcomes: dict[int, Candidate | Failure] = {}

    def settle(number: int, outcome: Candidate | Failure) -> None:
        assert number not in outcomes
        outcomes[number] = outcome

    await generate(scenarios, office.OFFICE, teacher, store, config, settle)
    assert sorted(outcomes) == list(range(len(scenarios)))
    ordered = [outcomes[number] for number in sorted(outcomes)]
    return Generated(
        [outcome for outcome in ordered if isinstance(outcome, Candidate)],
        [outcome for outcome in ordered if isinstance(outcome, Failure)],
    )


def run(
    scenarios: list[Scenario],
    teacher: Any,
    store: ReplyStore | None = None,
    config: TeacherConfig = CONFIG,
) -> Generated:
    if store is None:
        with ReplyStore(Path(":memory:")) as replies:
            return run(scenarios, teacher, replies, config)
    return asyncio.run(collected(scenarios, teacher, store, config))


FATES = ["good", "refused", "timeout", "malformed", "mended"]


def fated(fates: list[str]) -> Answer:
    """Answers by the scenario's seed, so that they do not depend on the order of asking."""

    def answer(request: ChatRequest, number: int) -> str:
        match fates[request.task.scenario.seed]:
            case "refused":
                raise ReplyError(FailureReason.REFUSED, "no")
            case "timeout":
                raise ReplyError(FailureReason.TIMEOUT, "late")
            case "malformed":
                return "nonsense"
            case "mended" if len(request.messages) == 2:
                return '{"user": '
        return good(request, number)

    return answer


# Fewer failures than it takes to give a teacher up.
some_fates = st.lists(st.sampled_from(FATES), max_size=MAX_INITIAL_FAILURES - 1).flatmap(
    lambda fates: st.permutations([*fates, *["good"] * 10])
)


@given(fates=some_fates, concurrency=st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_every_scenario_ends_as_exactly_one_thing_in_order(
    fates: list[str], concurrency: int
) -> None:
    scenarios = office.scenarios(len(fates))
    teacher = Scribe(fated(fates))
    made = run(scenarios, teacher, config=TeacherConfig(concurrency=concurrency))
    expected = [fate in ("good", "mended") for fate in fates]
    kept = [s for s, ok in zip(scenarios, expected, strict=True) if ok]
    failed = [s for s, ok in zip(scenarios, expected, strict=True) if not ok]
    assert [candidate.scenario for candidate in made.candidates] == kept
    assert [failure.scenario for failure in made.failures] == failed


def test_the_result_does_not_depend_on_concurrency() -> None:
    scenarios = office.scenarios(60)
    results = [
        run(scenarios, Scribe(good), config=TeacherConfig(concurrency=concurrency))
        for concurrency in (1, 3, 100)
    ]
    assert results[0] == results[1] == results[2]
    assert len(results[0].candidates) == 60


def test_nothing_is_asked_of_nobody() -> None:
    assert run([], Scribe(good)) == Generated([], [])


def test_what_is_kept_is_not_asked_again(tmp_path: Path) -> None:
    scenarios = office.scenarios(40)
    with ReplyStore(tmp_path / "r") as store:
        first = run(scenarios[:25], Scribe(good), store)
        teacher = Scribe(good)
        second = run(scenarios, teacher, store)
        again = Scribe(good)
        assert run(scenarios, again, store) == second
    assert len(teacher.asked) == 15
    assert again.asked == []
    assert second.candidates[:25] == first.candidates


def test_a_reply_is_kept_before_it_is_used() -> None:
    class Full(ReplyStore):
        def put(self, key: str, reply: ChatReply) -> ChatReply:
            raise WriteError("cannot be written", hint="free some space")

    settled: list[int] = []
    with Full(Path(":memory:")) as store, pytest.raises(WriteError):
        asyncio.run(
            generate(
                office.scenarios(20),
                office.OFFICE,
                Scribe(good),
                store,
                CONFIG,
                lambda number, outcome: settled.append(number),
            )
        )
    assert settled == []


def test_one_key_gets_one_answer_even_when_asked_twice_at_a_time() -> None:
    one = office.scenario()
    texts = iter(["first", "second"])
    teacher = Scribe(lambda request, number: call_text({"query": next(texts), "scope": "internal"}))
    made = run([one, one], teacher)
    assert made.candidates[0] == made.candidates[1]


def test_malformed_replies_are_asked_again_with_the_error_shown() -> None:
    bad = ["nothing at all", call_text({"query": "x", "scope": "public"})]
    teacher = Scribe(lambda request, number: [*bad, call_text()][number - 1])
    with ReplyStore(Path(":memory:")) as store:
        made = run([office.scenario()], teacher, store)
        asked = write_request(office.scenario(), office.OFFICE, CONFIG)
        assert len(made.candidates) == 1
        assert read_cached(
            asked, teacher, store, lambda text: read_reply(text, DOCUMENTS, "scribe")
        )
    for turn, text, error in zip(
        teacher.asked[1:], bad, ["no JSON object", 'scope must be "internal"'], strict=True
    ):
        # The last attempt alone: the price of a question does not grow with its attempts.
        assert [m.role for m in turn.messages] == ["system", "user", "assistant", "user"]
        assert turn.messages[2].content == text
        assert error in turn.messages[3].content
    assert len({asked.digest for asked in teacher.asked}) == 3


def test_one_malformed_reply_said_again_and_again_is_a_new_question_each_time() -> None:
    teacher = Scribe(lambda request, number: "nonsense")
    run([office.scenario()], teacher)
    assert len({asked.digest for asked in teacher.asked}) == 1 + MAX_REPROMPTS


def test_a_scenario_that_stays_malformed_is_owed_again(tmp_path: Path) -> None:
    scenarios = [office.scenario()]
    with ReplyStore(tmp_path / "r") as store:
        teacher = Scribe(lambda request, number: "nonsense")
        [failure] = run(scenarios, teacher, store).failures
        assert (failure.reason, len(teacher.asked)) == (FailureReason.MALFORMED, 1 + MAX_REPROMPTS)
        assert "no JSON object" in failure.detail
        assert store.count() == 0
        assert run(scenarios, Scribe(good), store).failures == []


@pytest.mark.parametrize("reason", FailureReason)
def test_a_teacher_that_fails_from_the_start_is_given_up_with_the_reason(
    reason: FailureReason,
) -> None:
    def fail(request: ChatRequest, number: int) -> str:
        raise ReplyError(reason, "because of this")

    teacher = Scribe(fail)
    with pytest.raises(TeacherError, match="because of this") as caught:
        run(office.scenarios(500), teacher)
    assert f"{MAX_INITIAL_FAILURES} {reason}" in str(caught.value)
    assert (
        MAX_INITIAL_FAILURES
        <= len(teacher.asked)
        <= MAX_INITIAL_FAILURES + CONFIG.concurrency * WORKERS_PER_SLOT
    )


def test_replies_of_an_earlier_run_do_not_vouch_for_the_teacher_of_today(tmp_path: Path) -> None:
    def fail(request: ChatRequest, number: int) -> str:
        raise ReplyError(FailureReason.SERVER, "down")

    with ReplyStore(tmp_path / "r") as store:
        run(office.scenarios(30), Scribe(good), store)
        with pytest.raises(TeacherError, match="down"):
            run(office.scenarios(100), Scribe(fail), store)


@pytest.mark.parametrize("reason", ["malformed", "refused", "empty", "truncated"])
def test_what_a_teacher_of_use_cannot_write_is_counted_and_stops_nothing(
    tmp_path: Path, reason: str
) -> None:
    """In a later round nothing but a rule that it cannot write may be left to ask."""

    def fail(request: ChatRequest, number: int) -> str:
        raise ReplyError(FailureReason(reason), "not that")

    with ReplyStore(tmp_path / "r") as store:
        run(office.scenarios(30), Scribe(good), store)
        made = run(office.scenarios(100), Scribe(fail), store)
    assert (len(made.candidates), len(made.failures)) == (30, 70)


def test_a_few_failures_among_successes_do_not_stop_a_run() -> None:
    fates = [*["good"] * WORKERS_PER_SLOT, *["refused"] * (MAX_INITIAL_FAILURES * 2), "good"]
    config = TeacherConfig(concurrency=1)
    made = run(office.scenarios(len(fates)), Scribe(fated(fates)), config=config)
    assert (len(made.candidates), len(made.failures)) == (
        WORKERS_PER_SLOT + 1,
        MAX_INITIAL_FAILURES * 2,
    )


def test_fewer_failures_than_it_takes_are_failures() -> None:
    fates = ["refused"] * (MAX_INITIAL_FAILURES - 1)
    assert (
        len(run(office.scenarios(len(fates)), Scribe(fated(fates))).failures)
        == MAX_INITIAL_FAILURES - 1
    )


def test_an_unusable_teacher_ends_the_run_as_itself() -> None:
    def fail(request: ChatRequest, number: int) -> str:
        if number == 5:
            raise TeacherError("no key", hint="get one")
        return good(request, number)

    with pytest.raises(TeacherError, match="no key"):
        run(office.scenarios(100), Scribe(fail))


def test_an_interrupt_is_noticed_though_the_teacher_never_waits() -> None:
    async def main() -> int:
        teacher = make_teacher(TeacherConfig())
        scenarios = [office.scenario(seed=seed) for seed in range(2000)]
        done = 0

        def settle(number: int, outcome: object) -> None:
            nonlocal done
            done += 1
            if done == 10:
                running.cancel()

        with ReplyStore(Path(":memory:")) as store:
            work = generate(scenarios, office.OFFICE, teacher, store, CONFIG, settle)
            running = asyncio.ensure_future(work)
            with pytest.raises(asyncio.CancelledError):
                await running
        return done

    assert asyncio.run(main()) < 200


class Held(Scribe):
    """A teacher whose replies wait at a gate, and which can be drained as a real one can."""

    def __init__(self) -> None:
        super().__init__(good)
        self.gate = asyncio.Event()
        self.drained = False

    async def complete(self, request: ChatRequest) -> ChatReply:
        if self.drained:
            raise DrainingError
        reply = await super().complete(request)
        await self.gate.wait()
        return reply

    def drain(self) -> None:
        self.drained = True
        self.gate.set()


def test_replies_under_way_are_kept_when_the_run_is_interrupted() -> None:
    async def main() -> tuple[int, int]:
        teacher = Held()
        with ReplyStore(Path(":memory:")) as store:
            work = generate(
                office.scenarios(500), office.OFFICE, teacher, store, CONFIG, lambda *_: None
            )
            running = asyncio.ensure_future(work)
            while len(teacher.asked) < CONFIG.concurrency:
                await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            return len(teacher.asked), store.count()

    asked, stored = asyncio.run(main())
    assert CONFIG.concurrency <= asked == stored < 500


def test_replies_under_way_are_kept_when_one_request_ends_the_run() -> None:
    def fail(request: ChatRequest, number: int) -> str:
        if number == 7:
            raise TeacherError("no credit left", hint="add credit")
        return good(request, number)

    teacher = Scribe(fail)
    with ReplyStore(Path(":memory:")) as store:
        with pytest.raises(TeacherError, match="no credit"):
            run(office.scenarios(500), teacher, store)
        assert store.count() == len(teacher.asked) - 1


# --- several scenarios in one request ---


def numbered_texts(request: ChatRequest, number: int) -> str:
    """What a good model writes for a batch: for each scenario what it would write alone."""
    task = request.task
    if not isinstance(task, BatchTask):
        return good(request, number)
    alone = [make_request(each.scenario) for each in task.tasks]
    return json.dumps({str(n): json.loads(good(one, 0)) for n, one in enumerate(alone, start=1)})


def make_request(scenario: Scenario) -> ChatRequest:
    return write_request(scenario, office.OFFICE, CONFIG)


def by_rule(count: int) -> list[Scenario]:
    return sorted(office.scenarios(count), key=lambda each: each.rule)


@pytest.mark.parametrize("size", [2, 3, 7, 32])
def test_a_batch_gives_what_single_requests_give(size: int) -> None:
    scenarios = by_rule(50)
    teacher = Scribe(numbered_texts)
    with ReplyStore(Path(":memory:")) as store:
        made = run(scenarios, teacher, store, TeacherConfig(batch=size))
        assert store.count() == 50
        again = Scribe(numbered_texts)
        assert run(scenarios, again, store) == made
    assert made == run(scenarios, Scribe(good))
    assert len(teacher.asked) == 5 * -(-10 // size)
    assert again.asked == []


def test_the_schema_of_a_batch_is_strict_and_holds_what_it_is_read_as() -> None:
    teacher = Scribe(lambda request, number: good(request, number))
    made = run(by_rule(10), teacher, config=TeacherConfig(batch=2))
    assert len(made.candidates) == 10
    for asked in teacher.asked:
        assert_strict(asked.reply_schema)
        Draft202012Validator(asked.reply_schema).validate(json.loads(good(asked, 0)))


def test_what_is_wrong_in_a_batch_is_asked_again_alone() -> None:
    def careless(request: ChatRequest, number: int) -> str:
        value = json.loads(numbered_texts(request, number))
        if isinstance(request.task, BatchTask):
            value["2"] = {"user": 3}
            del value["3"]
        return json.dumps(value)

    teacher = Scribe(careless)
    made = run(by_rule(20), teacher, config=TeacherConfig(batch=4))
    assert len(made.candidates) == 20
    alone = [asked for asked in teacher.asked if not isinstance(asked.task, BatchTask)]
    assert len(alone) == 10
    assert all(len(asked.messages) == 4 for asked in alone)


@pytest.mark.parametrize("reason", FailureReason)
def test_a_batch_that_comes_to_nothing(reason: FailureReason) -> None:
    def refusing(request: ChatRequest, number: int) -> str:
        if isinstance(request.task, BatchTask):
            raise ReplyError(reason, "not all at once")
        return good(request, number)

    scenarios = [office.scenario(seed=seed) for seed in range(8)]
    made = run(scenarios, Scribe(refusing), config=TeacherConfig(batch=4))
    server_failed = reason in (FailureReason.SERVER, FailureReason.TIMEOUT)
    assert len(made.failures) == (8 if server_failed else 0)


@given(
    tokens=st.tuples(st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 999)),
    count=st.integers(1, 32),
)
def test_the_usage_of_a_batch_is_shared_out_to_the_token(
    tokens: tuple[int, int, int], count: int
) -> None:
    usage = Usage(prompt_tokens=tokens[0], cached_tokens=tokens[1], completion_tokens=tokens[2])
    parts = split_batch(ChatReply(text="nonsense", model="m", usage=usage), count)
    assert [part.text for part in parts] == [""] * count
    for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
        shares = [getattr(part.usage, name) for part in parts]
        assert sum(shares) == getattr(usage, name)
        assert max(shares) - min(shares) <= 1


# --- what a reply follows from ---


def test_keys_follow_the_messages_for_a_teacher_that_reads_only_those() -> None:
    asked = write_request(office.scenario(), office.OFFICE, CONFIG)
    renamed = Workflow.model_validate({**office.OFFICE.model_dump(), "name": "renamed"})
    moved = write_request(office.scenario(), renamed, CONFIG)
    scribe, grammar = Scribe(good), make_teacher(TeacherConfig())
    assert asked.digest == moved.digest
    assert reply_key(scribe, asked) == reply_key(scribe, moved)
    assert reply_key(grammar, asked) != reply_key(grammar, moved)
    other = write_request(office.scenario(seed=1), office.OFFICE, CONFIG)
    hotter = write_request(office.scenario(), office.OFFICE, TeacherConfig(temperature=0.5))
    keys = {reply_key(t, r) for t in (scribe, grammar) for r in (asked, other, hotter)}
    assert len(keys) == 6


def test_the_grammar_teacher_writes_candidates_whatever_the_concurrency() -> None:
    rules = [rule.id for rule in office.RULES if rule.id != "meetings"]
    scenarios = [office.scenario(rule, seed=seed) for seed in range(10) for rule in rules]
    teacher = make_teacher(TeacherConfig())
    one, many = (run(scenarios, teacher, config=TeacherConfig(concurrency=n)) for n in (1, 16))
    assert one == many
    assert one.failures == []
    assert all(isinstance(candidate, Candidate) for candidate in one.candidates)


# --- against a server that misbehaves ---


async def served(scenarios: list[Scenario], config: TeacherConfig, store: ReplyStore) -> Generated:
    teacher = make_teacher(config)
    try:
        return await collected(scenarios, teacher, store, config)
    finally:
        await teacher.close()


def test_a_stormy_server_still_gives_every_candidate(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    storm = [
        server.rate_limited(0.01), server.broken(500), server.truncated, server.reset,
        server.fenced, server.wrong_shape, server.broken(503), server.not_json,
    ]  # fmt: skip
    calm = [server.good] * 3
    chat_server.script(*(b for bad in storm * 4 for b in (bad, *calm)))
    config = TeacherConfig(
        kind="openai", model="kit", base_url=chat_server.url, concurrency=16, attempts=8
    )
    scenarios = office.scenarios(200)

    with ReplyStore(tmp_path / "r") as store:
        made = asyncio.run(served(scenarios, config, store))
        asked = chat_server.count
        assert asyncio.run(served(scenarios, config, store)) == made
    assert chat_server.count == asked, "everything was kept"
    assert [candidate.scenario for candidate in made.candidates] == scenarios
    assert made.failures == []


def test_failures_name_their_scenario_and_reason(chat_server: ChatServer) -> None:
    chat_server.script(server.good, server.cut_off, server.replying_with(None, refusal="no"))
    config = TeacherConfig(kind="openai", model="kit", base_url=chat_server.url, concurrency=1)
    scenarios = office.scenarios(4)

    with ReplyStore(Path(":memory:")) as store:
        made = asyncio.run(served(scenarios, config, store))
    assert [(f.scenario, f.reason) for f in made.failures] == [
        (scenarios[1], FailureReason.TRUNCATED),
        (scenarios[2], FailureReason.REFUSED),
    ]
    assert all(isinstance(failure, Failure) for failure in made.failures)


@pytest.mark.parametrize("pattern", ["^[A-Z]{2}-[0-9]{4}$", r"a(b|cd)*\d+", r"[x-z_]?\w\s!"])
def test_the_kit_itself_writes_what_patterns_want(pattern: str) -> None:
    for seed in range(20):
        text = sample({"type": "string", "pattern": pattern}, random.Random(seed))
        assert re.fullmatch(pattern, text)
