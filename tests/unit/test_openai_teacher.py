"""The client against a real server that misbehaves: what is retried, what is not, what is said."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from email.utils import formatdate
from typing import Any, NamedTuple, TypeVar

import pytest
from kit import office

from distill.asking.writing import read_reply, write_request
from distill.config import TeacherConfig
from distill.errors import TeacherError, UsageError
from distill.records import FailureReason, Message
from distill.teachers.base import ChatReply, ChatRequest, DrainingError, ReplyError, Usage
from distill.teachers.make import make_teacher
from distill.teachers.openai.client import OpenAITeacher, Stats
from distill.teachers.openai.dialect import MAX_REJECTED_SCHEMAS, ResponseFormat
from distill.testing import server
from distill.testing.server import Behaviour, ChatServer

T = TypeVar("T")

KEY = "sk-very-secret-0123456789"
ASKED = write_request(office.scenario(), office.OFFICE, TeacherConfig())


class Client:
    """A teacher for the kit's server, and what it had to say."""

    def __init__(self, url: str, **changes: object) -> None:
        self.notices: list[str] = []
        settings = {
            "model": "kit",
            "api_key": KEY,
            "timeout": 5.0,
            "attempts": 3,
            "first_backoff": 0.01,
            **changes,
        }
        self.teacher = OpenAITeacher(
            base_url=url,
            notice=self.notices.append,
            **settings,  # type: ignore[arg-type]
        )

    def ask(self, *requests: ChatRequest) -> list[ChatReply]:
        async def all_of_them() -> list[ChatReply]:
            try:
                return [await self.teacher.complete(asked) for asked in requests or (ASKED,)]
            finally:
                await self.teacher.close()

        return asyncio.run(all_of_them())


def usable(reply: ChatReply) -> bool:
    return bool(read_reply(reply.text, ASKED.task, "kit").conversation.last_user)


def test_what_is_sent_is_what_was_asked_for(chat_server: ChatServer) -> None:
    [reply] = Client(chat_server.url).ask()
    assert usable(reply)
    assert (reply.model, reply.usage) == ("kit", Usage(prompt_tokens=11, completion_tokens=7))
    [body] = chat_server.requests
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["seed"] == ASKED.seed
    assert body["max_tokens"] == ASKED.max_tokens
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"] == ASKED.reply_schema
    assert chat_server.headers[0]["authorization"] == f"Bearer {KEY}"


class Case(NamedTuple):
    """What a server does, and what becomes of a request that it does it to."""

    behaviour: Behaviour
    reason: FailureReason = FailureReason.SERVER


# Failures of the server: they count against the attempts.
PASSING: dict[str, Case] = {
    "408": Case(server.broken(408), FailureReason.TIMEOUT),
    "409": Case(server.broken(409)),
    "500": Case(server.broken(500)),
    "502 in HTML": Case(server.proxy_error),
    "503": Case(server.broken(503)),
    "504": Case(server.broken(504), FailureReason.TIMEOUT),
    "529": Case(server.broken(529)),
    "reset": Case(server.reset),
    "reset in the body": Case(server.reset_halfway),
    "hung up": Case(server.hung_up),
    "cut short": Case(server.cut_short),
    "not JSON": Case(server.not_json),
    "another JSON": Case(lambda body: server.Response(body=b'{"choices": 3}')),
    "no object": Case(lambda body: server.Response(body=b"[]")),
}

# Refusals for the load: they are waited for, as long as the patience lasts.
LIMITED: dict[str, Behaviour] = {
    "429": server.rate_limited(),
    "429 with seconds": server.rate_limited(0.01),
    "429 with no seconds": server.rate_limited(0),
    "429 with a date": server.rate_limited(formatdate(usegmt=True)),
    "429 with nonsense": server.rate_limited("soon"),
    "503 with seconds": server.unavailable(0.01),
    "503 with a date": server.unavailable(formatdate(usegmt=True)),
}


@pytest.mark.parametrize(
    "behaviour", [case.behaviour for case in PASSING.values()] + [*LIMITED.values()]
)
def test_what_may_pass_is_tried_again(chat_server: ChatServer, behaviour: Behaviour) -> None:
    chat_server.script(behaviour, behaviour)
    client = Client(chat_server.url)
    [reply] = client.ask()
    assert usable(reply)
    assert chat_server.count == 3
    assert (client.teacher.stats.attempts, client.teacher.stats.retries) == (3, 2)


@pytest.mark.parametrize("case", PASSING.values(), ids=PASSING)
def test_failures_of_the_server_are_bounded(chat_server: ChatServer, case: Case) -> None:
    chat_server.default = case.behaviour
    with pytest.raises(ReplyError) as caught:
        Client(chat_server.url).ask()
    assert caught.value.reason is case.reason
    assert caught.value.detail
    assert chat_server.count == 3


@pytest.mark.parametrize("behaviour", LIMITED.values(), ids=LIMITED)
def test_refusals_do_not_count_as_failures(chat_server: ChatServer, behaviour: Behaviour) -> None:
    chat_server.script(*[behaviour, behaviour, behaviour, server.broken(500)] * 2)
    client = Client(chat_server.url)
    assert usable(client.ask()[0])
    assert client.teacher.stats.rate_limited == 6


@pytest.mark.parametrize("behaviour", LIMITED.values(), ids=LIMITED)
def test_patience_ends(chat_server: ChatServer, behaviour: Behaviour) -> None:
    chat_server.default = behaviour
    with pytest.raises(ReplyError, match=r"slow down|overloaded"):
        Client(chat_server.url, patience=0.05).ask()
    assert 1 < chat_server.count < 60


@pytest.mark.parametrize("silent", [server.unanswered, server.stalled, server.slow(60)])
def test_a_slow_server_is_a_timeout(chat_server: ChatServer, silent: Behaviour) -> None:
    chat_server.default = silent
    with pytest.raises(ReplyError, match=r"within 0\.3 s") as caught:
        Client(chat_server.url, timeout=0.3, attempts=2).ask()
    assert caught.value.reason is FailureReason.TIMEOUT
    assert chat_server.count == 2


def test_nobody_listening_is_a_failure_with_the_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://name:wordword@127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(ReplyError, match=r"http://127\.0\.0\.1") as caught:
            Client(url).ask()
    assert "wordword" not in caught.value.detail
    assert "name" not in caught.value.detail


def test_retry_after_is_honoured(chat_server: ChatServer) -> None:
    chat_server.script(server.rate_limited(0.3))
    began = time.monotonic()
    Client(chat_server.url).ask()
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("later", [server.rate_limited, server.unavailable])
def test_a_server_that_wants_hours_is_not_waited_for(
    chat_server: ChatServer, later: Callable[[float], Behaviour]
) -> None:
    chat_server.default = later(7200)
    with pytest.raises(ReplyError, match="asks to wait 7200 s"):
        Client(chat_server.url).ask()
    assert chat_server.count == 1


CHARGED = Usage(prompt_tokens=11, completion_tokens=7)
FREE = None

# A no to this request alone, and what it cost.
TYPED: dict[str, tuple[Behaviour, FailureReason, Usage | None]] = {
    "no choices": (
        server.without_choices,
        FailureReason.EMPTY,
        Usage(prompt_tokens=11, completion_tokens=0),
    ),
    "null text": (server.without_text, FailureReason.EMPTY, CHARGED),
    "blank text": (server.replying_with(" \n"), FailureReason.EMPTY, CHARGED),
    "refusal": (server.refused, FailureReason.REFUSED, CHARGED),
    "content filter": (server.filtered, FailureReason.REFUSED, CHARGED),
    "length": (server.cut_off, FailureReason.TRUNCATED, CHARGED),
    "400": (lambda body: server.failure(400, "no"), FailureReason.SERVER, FREE),
    "too long": (server.too_long, FailureReason.SERVER, FREE),
    "too long for vLLM": (server.too_long_for_vllm, FailureReason.SERVER, FREE),
    "413": (server.broken(413), FailureReason.SERVER, FREE),
    "422": (server.broken(422), FailureReason.SERVER, FREE),
    "501": (server.broken(501), FailureReason.SERVER, FREE),
    "505": (server.broken(505), FailureReason.SERVER, FREE),
}


@pytest.mark.parametrize(("behaviour", "reason", "usage"), TYPED.values(), ids=TYPED)
def test_a_no_is_typed_and_not_asked_again(
    chat_server: ChatServer, behaviour: Behaviour, reason: FailureReason, usage: Usage | None
) -> None:
    chat_server.default = behaviour
    with pytest.raises(ReplyError) as caught:
        Client(chat_server.url).ask()
    assert caught.value.reason is reason
    assert caught.value.detail
    assert caught.value.usage == usage
    assert chat_server.count == 1


def test_a_choice_without_a_message_is_empty(chat_server: ChatServer) -> None:
    chat_server.default = lambda body: server.Response(body=b'{"choices": [{"index": 0}]}')
    with pytest.raises(ReplyError) as caught:
        Client(chat_server.url).ask()
    assert caught.value.reason is FailureReason.EMPTY
    assert caught.value.usage is not None
    assert caught.value.usage.estimated


def with_usage(usage: object) -> Behaviour:
    def answer(body: server.Body) -> server.Response:
        said = json.loads(server.good(body).body)
        return server.Response(body=json.dumps({**said, "usage": usage}).encode())

    return answer


USAGES: dict[str, tuple[object, Usage]] = {
    "cached": (
        {
            "prompt_tokens": 900,
            "completion_tokens": 40,
            "prompt_tokens_details": {"cached_tokens": 512, "audio_tokens": None},
        },
        Usage(prompt_tokens=900, cached_tokens=512, completion_tokens=40),
    ),
    "null details": (
        {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": None},
        Usage(prompt_tokens=9, completion_tokens=4),
    ),
    "more cached than there are": (
        {
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 12},
        },
        Usage(prompt_tokens=9, cached_tokens=9, completion_tokens=4),
    ),
}


@pytest.mark.parametrize(("said", "usage"), USAGES.values(), ids=USAGES)
def test_usage_is_what_the_server_counts(
    chat_server: ChatServer, said: object, usage: Usage
) -> None:
    chat_server.default = with_usage(said)
    client = Client(chat_server.url)
    assert client.ask()[0].usage == usage
    assert client.notices == []


@pytest.mark.parametrize("said", [None, {}, {"prompt_tokens": "many"}, "none", [1]], ids=str)
def test_usage_is_estimated_where_the_server_does_not_count(
    chat_server: ChatServer, said: object
) -> None:
    chat_server.default = with_usage(said)
    client = Client(chat_server.url)
    reply, _ = client.ask(ASKED, ASKED)
    characters = sum(len(message.content) for message in ASKED.messages)
    assert reply.usage.estimated
    assert characters / 4 <= reply.usage.prompt_tokens <= characters / 4 + len(ASKED.messages)
    assert reply.usage.completion_tokens == -(-len(reply.text) // 4)
    assert len(client.notices) == 1
    assert "estimated" in client.notices[0]


HOPELESS: dict[str, tuple[Behaviour, str]] = {
    "401": (server.unauthorised, "THE_KEY"),
    "401 with the key": (server.echoing_key(401), "THE_KEY"),
    "403 with the key": (server.echoing_key(403), "THE_KEY"),
    "404": (server.unknown_model, "--model"),
    "401 by vLLM": (server.unauthorised_by_vllm, "THE_KEY"),
    "402": (server.broken(402), "add credit"),
    "no credit": (server.out_of_credit, "add credit"),
}


@pytest.mark.parametrize(("behaviour", "hint"), HOPELESS.values(), ids=HOPELESS)
def test_an_unusable_teacher_says_the_way_out(
    chat_server: ChatServer, behaviour: Behaviour, hint: str
) -> None:
    chat_server.default = behaviour
    with pytest.raises(TeacherError) as caught:
        Client(chat_server.url, key_env="THE_KEY").ask()
    assert hint in str(caught.value)
    assert chat_server.url in str(caught.value)
    assert chat_server.count == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 429, 500, 501, 503])
def test_the_key_is_never_repeated_in_an_error(chat_server: ChatServer, status: int) -> None:
    chat_server.default = server.echoing_key(status)
    with pytest.raises((TeacherError, ReplyError)) as caught:
        Client(chat_server.url, attempts=1, patience=0).ask()
    assert KEY not in f"{caught.value!s}{caught.value!r}"
    assert caught.value.__suppress_context__


ECHOES: dict[str, Behaviour] = {
    "text": server.replying_with(f'{{"user": "{KEY}"}}'),
    "refusal": server.replying_with(None, refusal=f"not with {KEY}"),
    "no completion": lambda body: server.Response(body=f'["{KEY}"]'.encode()),
    "refused format": lambda body: server.failure(400, f"no json_schema for {KEY}"),
    "ignored format": server.replying_with(f"Dear {KEY}!"),
}


@pytest.mark.parametrize("behaviour", ECHOES.values(), ids=ECHOES)
def test_the_key_is_never_repeated_elsewhere(
    chat_server: ChatServer, behaviour: Behaviour, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    chat_server.default = behaviour
    client = Client(chat_server.url, attempts=1)
    try:
        said = repr(client.ask())
    except ReplyError as error:
        said = f"{error} {error.detail}"
    assert "***" in said
    assert KEY not in said + "".join(client.notices) + caplog.text


def test_a_password_in_the_address_is_sent_and_never_said(
    chat_server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    chat_server.script(server.good, server.broken(403))
    client = Client(chat_server.url.replace("//", "//me:pass%21word@"))
    with pytest.raises(TeacherError) as caught:
        client.ask(ASKED, ASKED)
    sent = base64.b64decode(chat_server.headers[0]["authorization"].removeprefix("Basic "))
    assert sent == b"me:pass!word"
    for secret in ("pass!word", "pass%21word"):
        assert secret not in f"{caught.value}{caplog.text}"


@pytest.mark.parametrize(
    ("rejected", "format", "notices"),
    [
        (("json_schema",), "json_object", 1),
        (("json_schema", "json_object"), None, 2),
    ],
)
def test_a_rejected_format_falls_back_once_and_says_so(
    chat_server: ChatServer, rejected: tuple[str, ...], format: str | None, notices: int
) -> None:
    chat_server.default = server.rejecting_formats(*rejected)
    client = Client(chat_server.url)
    assert all(usable(reply) for reply in client.ask(ASKED, ASKED, ASKED))
    last = chat_server.requests[-1]
    assert last.get("response_format", {}).get("type") == format
    assert json.dumps(ASKED.reply_schema) in last["messages"][-1]["content"]
    assert len(client.notices) == notices
    assert chat_server.count == 3 + notices


def test_a_server_that_always_rejects_ends_as_a_failure(chat_server: ChatServer) -> None:
    chat_server.default = lambda body: server.failure(400, "bad response_format")
    with pytest.raises(ReplyError, match="bad response_format"):
        Client(chat_server.url).ask()
    assert chat_server.count == len(ResponseFormat)


def test_a_format_that_is_ignored_is_noticed(chat_server: ChatServer) -> None:
    chat_server.default = server.ignoring_format
    client = Client(chat_server.url)
    first, second = client.ask(ASKED, ASKED)
    assert not first.text.startswith("{")
    assert usable(second)
    assert len(client.notices) == 1
    assert "ignores" in client.notices[0]


def test_one_schema_that_is_refused_leaves_the_others_strict(chat_server: ChatServer) -> None:
    other = write_request(office.scenario("meetings"), office.OFFICE, TeacherConfig())
    reject = server.rejecting_formats("json_schema")
    chat_server.default = lambda body: (
        reject(body)
        if body["seed"] == 0 and "meetings" in str(body["messages"][1])
        else server.good(body)
    )
    Client(chat_server.url).ask(other, ASKED, other)
    kinds = [body["response_format"]["type"] for body in chat_server.requests]
    assert kinds == ["json_schema", "json_object", "json_schema", "json_object"]


@pytest.mark.parametrize("name", ["max_tokens", "temperature", "seed"])
def test_a_parameter_that_is_refused_is_left_out(chat_server: ChatServer, name: str) -> None:
    chat_server.default = server.rejecting_parameter(name)
    client = Client(chat_server.url)
    assert all(usable(reply) for reply in client.ask(ASKED, ASKED))
    last = chat_server.requests[-1]
    assert name not in last
    assert last.get("max_completion_tokens") == (512 if name == "max_tokens" else None)
    assert len(client.notices) == 1
    assert chat_server.count == 3


def test_a_parameter_refused_for_ever_is_a_failure(chat_server: ChatServer) -> None:
    chat_server.default = lambda body: server.failure(
        400, "no seed", param="seed", code="unsupported_parameter"
    )
    with pytest.raises(ReplyError, match="no seed"):
        Client(chat_server.url).ask()
    assert chat_server.count == 2


def test_odd_characters_pass_unharmed(chat_server: ChatServer) -> None:
    chat_server.script(server.line_separators)
    [reply] = Client(chat_server.url).ask()
    candidate = read_reply(reply.text, ASKED.task, "kit")
    assert candidate.conversation.last_user == "first\u2028second\u2029third\u0085fourth 😀 שלום"


def test_half_a_surrogate_pair_can_be_shown_back(chat_server: ChatServer) -> None:
    said = Message(role="assistant", content="half \ud800 of it")
    more = ChatRequest((*ASKED.messages, said), ASKED.reply_schema, ASKED.task)
    Client(chat_server.url).ask(more)
    assert chat_server.requests[0]["messages"][-1]["content"] == "half \\ud800 of it"


async def all_at_once(
    teacher: OpenAITeacher, count: int, asked: ChatRequest = ASKED
) -> list[ChatReply | BaseException]:
    tasks = [teacher.complete(replace(asked, seed=seed)) for seed in range(count)]
    return await asyncio.gather(*tasks, return_exceptions=True)


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not met():
            await asyncio.sleep(0.005)


def in_a_loop(teacher: OpenAITeacher, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; when it ends nothing is left behind in the loop."""

    async def main() -> T:
        try:
            return await work
        finally:
            await teacher.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert (teacher.stats.in_flight, teacher.stats.waiting) == (0, 0)

    return asyncio.run(main())


@pytest.mark.parametrize("behaviour", [case[0] for case in HOPELESS.values()], ids=HOPELESS)
def test_the_first_hopeless_answer_stops_everybody(
    chat_server: ChatServer, behaviour: Behaviour
) -> None:
    chat_server.default = behaviour
    teacher = Client(chat_server.url, concurrency=32).teacher
    ends = in_a_loop(teacher, all_at_once(teacher, 128))
    assert {type(end) for end in ends} == {TeacherError}
    assert len({str(end) for end in ends}) == 1
    assert chat_server.count <= 32
    assert teacher.stats.retries == 0


def test_nothing_is_sent_after_a_hopeless_answer(chat_server: ChatServer) -> None:
    chat_server.script(server.broken(500), server.broken(500), server.unauthorised)
    teacher = Client(chat_server.url, concurrency=1, first_backoff=60.0).teacher
    ends = in_a_loop(teacher, all_at_once(teacher, 4))
    assert {type(end) for end in ends} == {TeacherError}, "those that wait for a retry too"
    assert chat_server.count == 3


@pytest.mark.parametrize(
    ("behaviour", "sent", "notices"),
    [
        (server.rejecting_formats("json_schema"), "json_object", 1),
        (server.rejecting_formats("json_schema", "json_object"), None, 2),
        (server.rejecting_parameter("seed"), "json_schema", 1),
        (server.ignoring_format, "json_object", 1),
    ],
)
def test_many_first_requests_settle_one_dialect(
    chat_server: ChatServer, behaviour: Behaviour, sent: str | None, notices: int
) -> None:
    chat_server.default = behaviour
    client = Client(chat_server.url, concurrency=128)

    async def work() -> list[ChatReply | BaseException]:
        first = await all_at_once(client.teacher, 128)
        return [*first, await client.teacher.complete(ASKED)]

    ends = in_a_loop(client.teacher, work())
    assert all(isinstance(end, ChatReply) for end in ends)
    assert chat_server.requests[-1].get("response_format", {}).get("type") == sent
    assert len(client.notices) == notices
    assert chat_server.count <= 1 + 128 * (1 + notices)


def test_a_server_without_formats_is_not_tried_with_every_schema(chat_server: ChatServer) -> None:
    chat_server.default = server.rejecting_formats("json_schema")
    schemas = [{**ASKED.reply_schema, "description": str(number)} for number in range(10)]
    Client(chat_server.url).ask(*(replace(ASKED, reply_schema=schema) for schema in schemas))
    assert chat_server.count == 10 + MAX_REJECTED_SCHEMAS


def test_one_odd_reply_among_many_keeps_the_format(chat_server: ChatServer) -> None:
    chat_server.script(server.good, server.good, server.prose)
    client = Client(chat_server.url)
    client.ask(ASKED, ASKED, ASKED, ASKED)
    assert chat_server.requests[-1]["response_format"]["type"] == "json_schema"
    assert client.notices == []


def test_never_more_than_the_cap_and_all_of_it(chat_server: ChatServer) -> None:
    chat_server.latency = 0.02
    teacher = Client(chat_server.url, concurrency=8).teacher
    ends = in_a_loop(teacher, all_at_once(teacher, 64))
    assert all(isinstance(end, ChatReply) for end in ends)
    assert chat_server.max_in_flight == 8
    assert teacher.stats == Stats(0, 0, 8, attempts=64, retries=0, rate_limited=0)


def test_a_slot_is_free_while_a_request_waits_for_its_retry(chat_server: ChatServer) -> None:
    # One slot, and a first request that comes back after a minute: all others pass meanwhile.
    chat_server.script(server.rate_limited(60))
    teacher = Client(chat_server.url, concurrency=1).teacher

    async def work() -> int:
        waiting = asyncio.create_task(teacher.complete(ASKED))
        await until(lambda: teacher.stats.rate_limited == 1)
        ends = await all_at_once(teacher, 5)
        assert all(isinstance(end, ChatReply) for end in ends)
        passed, stats = chat_server.count, teacher.stats
        assert (stats.in_flight, stats.waiting) == (0, 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        return passed

    assert in_a_loop(teacher, work()) == 6


def test_drained_requests_under_way_end_and_all_others_are_owed(chat_server: ChatServer) -> None:
    chat_server.script(server.rate_limited(60), server.rate_limited(60))
    teacher = Client(chat_server.url, concurrency=2).teacher

    async def work() -> list[ChatReply | BaseException]:
        retried = asyncio.create_task(all_at_once(teacher, 2))
        await until(lambda: teacher.stats.rate_limited == 2)
        chat_server.latency = 0.3
        others = asyncio.create_task(all_at_once(teacher, 6))
        await until(lambda: chat_server.in_flight == 2)
        assert teacher.stats.waiting == 2 + 4
        teacher.drain()
        late = await all_at_once(teacher, 1)
        return [*await retried, *await others, *late]

    ends = in_a_loop(teacher, work())
    kinds = [type(end) for end in ends]
    assert kinds == [DrainingError] * 2 + [ChatReply] * 2 + [DrainingError] * 5
    assert chat_server.count == 4


def test_what_is_drained_while_it_fails_is_not_tried_again(chat_server: ChatServer) -> None:
    chat_server.default = server.broken(500)
    chat_server.latency = 0.2
    teacher = Client(chat_server.url).teacher

    async def work() -> list[ChatReply | BaseException]:
        task = asyncio.create_task(all_at_once(teacher, 3))
        await until(lambda: chat_server.in_flight == 3)
        teacher.drain()
        return await task

    assert [type(end) for end in in_a_loop(teacher, work())] == [DrainingError] * 3
    assert chat_server.count == 3


def test_cancelled_requests_leave_nothing_behind(chat_server: ChatServer) -> None:
    chat_server.default = server.unanswered
    teacher = Client(chat_server.url, concurrency=2).teacher

    async def work() -> None:
        task = asyncio.create_task(all_at_once(teacher, 6))
        await until(lambda: chat_server.in_flight == 2)
        task.cancel()
        await asyncio.wait([task])
        chat_server.default = server.good
        [end] = await all_at_once(teacher, 1)
        assert isinstance(end, ChatReply)

    in_a_loop(teacher, work())


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute"])
def test_rate_limits_hold_requests_back(chat_server: ChatServer, limit: str) -> None:
    # A minute's worth is one request: the first goes, the second would in a minute.
    teacher = Client(chat_server.url, **{limit: 1.0}).teacher

    async def work() -> None:
        task = asyncio.create_task(all_at_once(teacher, 3))
        await until(lambda: teacher.stats == Stats(0, 2, 16, 1, 0, 0))
        teacher.drain()
        await task

    in_a_loop(teacher, work())
    assert chat_server.count == 1


def test_a_storm_loses_nothing(chat_server: ChatServer) -> None:
    chat_server.default = server.RandomFaults(
        3, rate_limited=0.2, unavailable=0.05, broken=0.05, reset=0.03, hung_up=0.03, not_json=0.05
    )
    teacher = Client(chat_server.url, concurrency=64, attempts=12).teacher
    ends = in_a_loop(teacher, all_at_once(teacher, 200))
    assert [end for end in ends if not isinstance(end, ChatReply)] == []
    assert teacher.stats.attempts == chat_server.count > 200


def test_a_proxy_of_the_environment_is_used(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kit's server answers whoever asks in its own path: here it stands in for a proxy.
    host = chat_server.url.removesuffix("/v1")
    monkeypatch.setenv("HTTP_PROXY", host)
    monkeypatch.setenv("http_proxy", host)
    with pytest.raises(TeacherError, match=r"no such path: http://teacher\.invalid/v1"):
        Client("http://teacher.invalid/v1").ask()


def test_a_redirect_is_followed(chat_server: ChatServer) -> None:
    there = {"Location": chat_server.url.removesuffix("/v1") + "/v1/chat/completions"}
    chat_server.script(lambda body: server.Response(307, headers=there))
    assert usable(Client(chat_server.url).ask()[0])
    assert chat_server.count == 2


@pytest.mark.parametrize("text", ["half \ud800 of it", "\U0001f600", "\x7f\x00"])
def test_odd_texts_come_as_they_were_sent(chat_server: ChatServer, text: str) -> None:
    said = {"choices": [{"message": {"content": text}}], "logprob": float("nan")}
    chat_server.default = lambda body: server.Response(body=json.dumps(said).encode())
    assert Client(chat_server.url).ask()[0].text == text


def test_a_closed_teacher_opens_again_in_another_loop(chat_server: ChatServer) -> None:
    client = Client(chat_server.url)
    assert client.ask() == client.ask()


def test_two_addresses_of_one_model_are_one_teacher() -> None:
    one, two = (Client(url).teacher for url in ("http://one/v1", "http://two/v1"))
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != Client("http://one/v1", model="other").teacher.fingerprint


WRONG: dict[str, tuple[dict[str, str], type[Exception], str]] = {
    "no model": ({"base_url": "http://localhost/v1"}, UsageError, "--model"),
    "blank model": ({"model": " ", "base_url": "http://localhost/v1"}, UsageError, "--model"),
    "no scheme": ({"model": "m", "base_url": "localhost:8000/v1"}, UsageError, "--base-url"),
    "bad port": ({"model": "m", "base_url": "http://a:port/v1"}, UsageError, "--base-url"),
    "no key": ({"model": "m"}, TeacherError, "MY_KEY is not set"),
}


@pytest.mark.parametrize(("given", "kind", "says"), WRONG.values(), ids=WRONG)
def test_settings_that_name_no_teacher(
    given: dict[str, str], kind: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    settings = TeacherConfig(kind="openai", api_key_env="MY_KEY", **given)  # type: ignore[arg-type]
    with pytest.raises(kind, match=says) as caught:
        make_teacher(settings)
    assert "\n  " in str(caught.value), "there is a hint"


@pytest.mark.parametrize("key", ["clé-secrète", "two\nlines"])
def test_a_key_that_cannot_be_a_header_is_refused_unseen(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(TeacherError) as caught:
        make_teacher(TeacherConfig(kind="openai", model="m"))
    assert key not in str(caught.value)


def made(monkeypatch: pytest.MonkeyPatch, url: str, **environment: str) -> OpenAITeacher:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    teacher = make_teacher(TeacherConfig(kind="openai", model="kit", base_url=url))
    assert isinstance(teacher, OpenAITeacher)
    return teacher


@pytest.mark.parametrize(
    ("address", "environment", "key"),
    [
        (lambda url: url, {}, "none"),
        (lambda url: url, {"OPENAI_API_KEY": f" {KEY}\n"}, KEY),
        (lambda url: "", {"OPENAI_BASE_URL": "{url}"}, "none"),
    ],
    ids=["no key needed", "key from the environment", "address from the environment"],
)
def test_key_and_address_are_found(
    chat_server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    address: Callable[[str], str],
    environment: dict[str, str],
    key: str,
) -> None:
    values = {name: value.format(url=chat_server.url) for name, value in environment.items()}
    teacher = made(monkeypatch, address(chat_server.url), **values)

    async def ask() -> ChatReply:
        try:
            return await teacher.complete(ASKED)
        finally:
            await teacher.close()

    assert usable(asyncio.run(ask()))
    assert chat_server.headers[0]["authorization"] == f"Bearer {key}"
    assert teacher.name == "openai:kit"


def test_the_client_is_loaded_only_when_it_is_asked() -> None:
    code = (
        "import sys, distill.teachers.make\n"
        "import distill.teachers.openai.client; print('openai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
