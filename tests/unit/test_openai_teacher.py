"""The client against a real server that misbehaves: what is retried, what is not, what is said."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest
from kit import office, server
from kit.server import Behaviour, ChatServer

from distill.config import TeacherConfig
from distill.errors import TeacherError, UsageError
from distill.generate import read_reply, request
from distill.records import FailureReason, Message
from distill.teachers.base import ChatReply, ChatRequest, ReplyError
from distill.teachers.make import make_teacher
from distill.teachers.openai import Format, OpenAITeacher, _may_pass, _Passing, _retry_after

KEY = "sk-very-secret-0123456789"
ASKED = request(office.scenario(), office.OFFICE, TeacherConfig())


class Client:
    """A teacher for the kit's server, and what it had to say."""

    def __init__(self, url: str, **changes: object) -> None:
        self.notices: list[str] = []
        settings = {"model": "kit", "api_key": KEY, "timeout": 5.0, "attempts": 3, **changes}
        self.teacher = OpenAITeacher(
            base_url=url,
            notice=self.notices.append,
            first_wait=0.01,
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
    return bool(read_reply(reply.text, ASKED.task, "kit").prompt)


def test_what_is_sent_is_what_was_asked_for(chat_server: ChatServer) -> None:
    [reply] = Client(chat_server.url).ask()
    assert usable(reply)
    assert (reply.model, reply.prompt_tokens, reply.completion_tokens) == ("kit", 11, 7)
    [body] = chat_server.requests
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["seed"] == ASKED.seed
    assert body["max_tokens"] == ASKED.max_tokens
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"] == ASKED.reply_schema
    assert chat_server.headers[0]["authorization"] == f"Bearer {KEY}"


PASSING: dict[str, Behaviour] = {
    "429": server.rate_limited(),
    "429 with seconds": server.rate_limited(0.01),
    "429 with a date": server.rate_limited(formatdate(usegmt=True)),
    "408": server.broken(408),
    "409": server.broken(409),
    "500": server.broken(500),
    "503": server.broken(503),
    "504": server.broken(504),
    "reset": server.reset,
    "not JSON": server.not_json,
}


@pytest.mark.parametrize("behaviour", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(chat_server: ChatServer, behaviour: Behaviour) -> None:
    chat_server.script(behaviour, behaviour)
    [reply] = Client(chat_server.url).ask()
    assert usable(reply)
    assert chat_server.count == 3


@pytest.mark.parametrize("behaviour", PASSING.values(), ids=PASSING)
def test_tries_are_bounded(chat_server: ChatServer, behaviour: Behaviour) -> None:
    chat_server.default = behaviour
    with pytest.raises(ReplyError) as caught:
        Client(chat_server.url).ask()
    assert caught.value.reason in (FailureReason.SERVER, FailureReason.TIMEOUT)
    assert chat_server.count == 3


def test_a_slow_server_is_a_timeout(chat_server: ChatServer) -> None:
    chat_server.default = server.slow(30)
    with pytest.raises(ReplyError, match=r"within 0\.5 s") as caught:
        Client(chat_server.url, timeout=0.5, attempts=2).ask()
    assert caught.value.reason is FailureReason.TIMEOUT
    assert chat_server.count == 2


def test_nobody_listening_is_a_failure_with_the_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://name:word@127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(ReplyError, match=r"http://127\.0\.0\.1") as caught:
            Client(url).ask()
    assert "word" not in caught.value.detail


def test_retry_after_is_honoured(chat_server: ChatServer) -> None:
    chat_server.script(server.rate_limited(0.3))
    began = time.monotonic()
    Client(chat_server.url).ask()
    assert time.monotonic() - began >= 0.3


def test_a_server_that_wants_hours_is_not_waited_for(chat_server: ChatServer) -> None:
    chat_server.default = server.rate_limited(7200)
    with pytest.raises(ReplyError, match="slow down"):
        Client(chat_server.url).ask()
    assert chat_server.count == 1


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [("2", 2, 2), ("0.5", 0.5, 0.5), ("-3", 0, 0), ("Fri, 01 Jan 2016 00:00:00 GMT", 0, 0)],
)
def test_retry_after_is_read_as_seconds_or_date(value: str, low: float, high: float) -> None:
    seconds = _retry_after({"retry-after": value})
    assert seconds is not None
    assert low <= seconds <= high


def test_a_date_is_a_wait_from_now() -> None:
    seconds = _retry_after({"retry-after": formatdate(time.time() + 60)})
    assert seconds is not None
    assert 50 <= seconds <= 60


@pytest.mark.parametrize("value", [None, "soon", ""])
def test_other_retry_afters_are_ignored(value: str | None) -> None:
    assert _retry_after({} if value is None else {"retry-after": value}) is None


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e9])
def test_senseless_waits_are_not_waited(seconds: float) -> None:
    assert not _may_pass(_Passing(FailureReason.SERVER, "", seconds))


TYPED: dict[str, tuple[Behaviour, FailureReason]] = {
    "no choices": (server.without_choices, FailureReason.EMPTY),
    "no message": (
        lambda body: server.Answer(body=b'{"choices": [{"index": 0}]}'),
        FailureReason.EMPTY,
    ),
    "null text": (server.says(None), FailureReason.EMPTY),
    "blank text": (server.says(" \n"), FailureReason.EMPTY),
    "refusal": (server.says(None, refusal="I will not."), FailureReason.REFUSED),
    "content filter": (server.says("", finish="content_filter"), FailureReason.REFUSED),
    "length": (server.cut_off, FailureReason.TRUNCATED),
    "400": (
        lambda body: server.failure(400, "maximum context length is 1024 tokens"),
        FailureReason.SERVER,
    ),
}


@pytest.mark.parametrize(("behaviour", "reason"), TYPED.values(), ids=TYPED)
def test_a_no_is_typed_and_not_asked_again(
    chat_server: ChatServer, behaviour: Behaviour, reason: FailureReason
) -> None:
    chat_server.default = behaviour
    with pytest.raises(ReplyError) as caught:
        Client(chat_server.url).ask()
    assert caught.value.reason is reason
    assert caught.value.detail
    assert chat_server.count == 1


def echoes_key(status: int) -> Behaviour:
    return lambda body: server.failure(status, f"the key {KEY} may not do this")


HOPELESS: dict[str, tuple[Behaviour, str]] = {
    "401": (server.unauthorised, "THE_KEY"),
    "401 with the key": (echoes_key(401), "THE_KEY"),
    "403 with the key": (echoes_key(403), "THE_KEY"),
    "404": (server.unknown_model, "--model"),
    "no credit": (
        lambda body: server.failure(429, "no credit", code="insufficient_quota"),
        "add credit",
    ),
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


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_the_key_is_never_repeated(chat_server: ChatServer, status: int) -> None:
    chat_server.default = echoes_key(status)
    with pytest.raises((TeacherError, ReplyError)) as caught:
        Client(chat_server.url, attempts=1).ask()
    assert KEY not in f"{caught.value!s}{caught.value!r}"
    assert caught.value.__suppress_context__


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
    assert chat_server.count == len(Format)


def test_a_format_that_is_ignored_is_noticed(chat_server: ChatServer) -> None:
    chat_server.default = server.ignoring_format
    client = Client(chat_server.url)
    first, second = client.ask(ASKED, ASKED)
    assert not first.text.startswith("{")
    assert usable(second)
    assert len(client.notices) == 1
    assert "ignores" in client.notices[0]


def test_one_schema_that_is_refused_leaves_the_others_strict(chat_server: ChatServer) -> None:
    other = request(office.scenario("meetings"), office.OFFICE, TeacherConfig())
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
    assert candidate.prompt == "first\u2028second\u2029third\u0085fourth 😀 שלום"


def test_half_a_surrogate_pair_can_be_shown_back(chat_server: ChatServer) -> None:
    said = Message(role="assistant", content="half \ud800 of it")
    more = ChatRequest((*ASKED.messages, said), ASKED.reply_schema, ASKED.task)
    Client(chat_server.url).ask(more)
    assert chat_server.requests[0]["messages"][-1]["content"] == "half \\ud800 of it"


def test_a_closed_teacher_opens_again_in_another_loop(chat_server: ChatServer) -> None:
    client = Client(chat_server.url)
    assert client.ask() == client.ask()


@pytest.mark.parametrize("seed", range(3))
def test_waits_grow_with_jitter_and_stay_bounded(seed: int) -> None:
    from tenacity import AsyncRetrying, Future, RetryCallState

    random.seed(seed)
    teacher = Client("http://127.0.0.1:1/v1").teacher

    def wait(attempt: int) -> float:
        state = RetryCallState(AsyncRetrying(), None, (), {})
        state.attempt_number = attempt
        state.outcome = Future.construct(attempt, _Passing(FailureReason.SERVER, ""), True)
        return teacher._pause(state)

    waits = [wait(attempt) for attempt in range(1, 20)]
    assert 0.005 <= waits[0] <= 0.01
    assert all(4 <= long <= 8 for long in waits[-5:])


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
        "import sys, distill.teachers.openai, distill.teachers.make; print('openai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
