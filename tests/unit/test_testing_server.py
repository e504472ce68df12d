"""The server of the test kit does over a real socket what its behaviours promise."""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from distill.testing import server
from distill.testing.faults import Overloaded, RandomFaults, faults
from distill.testing.http import MalformedRequestError, RequestParser
from distill.testing.responses import Body
from distill.testing.server import Behaviour, ChatServer

SCHEMA = {
    "type": "object",
    "properties": {"user": {"type": "string"}, "rooms": {"type": "integer", "maximum": 99}},
    "required": ["user", "rooms"],
    "additionalProperties": False,
}
STRICT = {"type": "json_schema", "json_schema": {"name": "reply", "schema": SCHEMA}}
# For what must come at last; nothing is judged by how long it takes.
PATIENCE = 30.0


def asked(text: str = "Book a room.", **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "kit", "messages": messages, "response_format": STRICT, **changes}


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)

    @property
    def texts(self) -> list[str]:
        return [choice["message"]["content"] for choice in self.said["choices"]]


@contextmanager
def client(chat_server: ChatServer, timeout: float = PATIENCE) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(urlsplit(chat_server.url).netloc, timeout=timeout)
    try:
        yield connection
    finally:
        connection.close()


def send(connection: HTTPConnection, body: Any, **headers: str) -> Reply:
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    return Reply(response.status, dict(response.headers), response.read())


def post(chat_server: ChatServer, body: Any = None, **headers: str) -> Reply:
    with client(chat_server) as connection:
        return send(connection, asked() if body is None else body, **headers)


def get(chat_server: ChatServer, path: str) -> Reply:
    with client(chat_server) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return Reply(response.status, dict(response.headers), response.read())


def answered(behaviour: Behaviour, body: Any = None, **headers: str) -> Reply:
    with ChatServer(behaviour) as chat_server:
        return post(chat_server, body, **headers)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.001)


# --- good replies ---


def test_a_good_reply_meets_the_schema_and_is_a_whole_completion(chat_server: ChatServer) -> None:
    said = post(chat_server).said
    [choice] = said["choices"]
    Draft202012Validator(SCHEMA).validate(json.loads(choice["message"]["content"]))
    assert said["object"] == "chat.completion"
    assert said["usage"]["total_tokens"] == 18
    assert choice["finish_reason"] == "stop"


def test_one_request_has_one_reply_on_every_server() -> None:
    first = [answered(server.good, asked(seed=seed)).texts for seed in range(3)]
    again = [answered(server.good, asked(seed=seed)).texts for seed in range(3)]
    assert first == again
    assert len({texts[0] for texts in first}) == 3


def test_n_choices_differ_and_the_first_is_the_only_one_of_a_single_ask() -> None:
    reply = answered(server.good, asked(n=4))
    assert [choice["index"] for choice in reply.said["choices"]] == [0, 1, 2, 3]
    assert len(set(reply.texts)) == 4
    assert reply.texts[0] == answered(server.good).texts[0]
    assert reply.said["usage"]["completion_tokens"] == 4 * 7


def test_a_schema_in_the_prompt_is_enough_and_none_at_all_gets_words() -> None:
    prompt = f"Meet this JSON Schema: {json.dumps(SCHEMA)} and nothing else."
    [text] = answered(server.good, asked(prompt, response_format={"type": "json_object"})).texts
    Draft202012Validator(SCHEMA).validate(json.loads(text))
    [text] = answered(server.good, asked(response_format=None)).texts
    assert text[0] not in '{"'


def test_every_completion_has_an_id_of_its_own(chat_server: ChatServer) -> None:
    assert len({post(chat_server).said["id"] for _ in range(3)}) == 3
    chat_server.default = server.same_id
    assert len({post(chat_server).said["id"] for _ in range(3)}) == 1


def test_one_reply_for_all_is_what_every_behaviour_starts_from() -> None:
    with ChatServer(reply='{"user": "hi"}') as chat_server:
        chat_server.script(server.good, server.truncated)
        assert post(chat_server).texts == ['{"user": "hi"}']
        assert post(chat_server).texts == ['{"user": "h']


# --- texts that are not what was asked for, and completions that say no ---


def test_what_the_texts_look_like() -> None:
    [good] = answered(server.good).texts
    texts = {
        behaviour: answered(behaviour).texts[0]
        for behaviour in (server.fenced, server.truncated, server.raw_newline, server.prose)
    }
    assert f"```json\n{good}\n```" in texts.pop(server.fenced)
    for text in texts.values():
        with pytest.raises(ValueError, match=r"."):
            json.loads(text)
    assert json.loads(texts[server.raw_newline], strict=False)
    assert "user" not in json.loads(answered(server.wrong_shape).texts[0])


def test_malformed_is_of_many_kinds_and_the_same_for_the_same_request() -> None:
    with ChatServer(server.malformed) as chat_server:
        texts = [post(chat_server, asked(seed=seed)).texts[0] for seed in range(12)]
        assert texts == [post(chat_server, asked(seed=seed)).texts[0] for seed in range(12)]
    assert {text[:6] for text in texts} == {'{"user', '{"mess', "Sure! "}


def test_line_separators_arrive_as_they_are() -> None:
    reply = answered(server.line_separators)
    assert "\u2028" in reply.body.decode()
    assert json.loads(reply.texts[0])["user"].startswith("first\u2028second\u2029third\u0085")


def test_a_format_that_is_ignored_gets_prose_until_the_prompt_asks() -> None:
    assert answered(server.ignoring_format).texts[0].startswith("Sure")
    assert "```json" in answered(server.ignoring_format, asked(f"JSON Schema: {SCHEMA}")).texts[0]


CHOICES: dict[str, tuple[Behaviour, str | None, str, str | None]] = {
    "refused": (server.refused, None, "stop", "I cannot help with that."),
    "filtered": (server.filtered, "", "content_filter", None),
    "without text": (server.without_text, None, "stop", None),
    "said": (server.replying_with("hello", finish="tool_calls"), "hello", "tool_calls", None),
}


@pytest.mark.parametrize(("behaviour", "text", "finish", "refusal"), CHOICES.values(), ids=CHOICES)
def test_what_a_choice_can_say(
    behaviour: Behaviour, text: str | None, finish: str, refusal: str | None
) -> None:
    [choice] = answered(behaviour).said["choices"]
    assert choice["message"] == {"role": "assistant", "content": text, "refusal": refusal}
    assert choice["finish_reason"] == finish


def test_what_a_completion_can_lack() -> None:
    assert answered(server.without_choices).said["choices"] == []
    assert "usage" not in answered(server.without_usage).said
    [choice] = answered(server.cut_off).said["choices"]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["content"]) == 20


# --- errors ---

ERRORS: dict[str, tuple[Behaviour, int, str, str | int | None]] = {
    "500": (server.broken(500), 500, "broken", None),
    "429": (server.rate_limited(), 429, "slow down", None),
    "503": (server.unavailable(), 503, "overloaded", None),
    "401": (server.unauthorised, 401, "Incorrect API key", "invalid_api_key"),
    "404": (server.unknown_model, 404, "`kit` does not exist", "model_not_found"),
    "no credit": (server.out_of_credit, 429, "quota", "insufficient_quota"),
    "too long": (server.too_long, 400, "context length", "context_length_exceeded"),
    "too long for vLLM": (server.too_long_for_vllm, 400, "context length", 400),
    "format": (server.rejecting_formats("json_schema"), 400, "response_format", None),
    "parameter": (server.rejecting_parameter("model"), 400, "model", "unsupported_parameter"),
    "key": (server.echoing_key(403), 403, "sk-secret", None),
}


@pytest.mark.parametrize(("behaviour", "status", "says", "code"), ERRORS.values(), ids=ERRORS)
def test_errors_have_status_words_and_code(
    behaviour: Behaviour, status: int, says: str, code: str | int | None
) -> None:
    reply = answered(behaviour, Authorization="Bearer sk-secret")
    assert reply.status == status
    assert says in reply.said["error"]["message"]
    assert reply.said["error"].get("code") == code
    assert "Retry-After" not in reply.headers


def test_errors_that_are_no_objects() -> None:
    assert answered(server.unauthorised_by_vllm).said == {"error": "Unauthorized"}
    page = answered(server.proxy_error)
    assert page.status == 502
    assert page.headers["Content-Type"] == "text/html"
    assert page.body.startswith(b"<html>")


def test_what_is_not_rejected_is_good() -> None:
    assert answered(server.rejecting_formats("json_object")).texts
    assert answered(server.rejecting_parameter("seed")).texts


@pytest.mark.parametrize("behaviour", [server.rate_limited, server.unavailable])
def test_retry_after_as_seconds_and_as_date(behaviour: Callable[..., Behaviour]) -> None:
    assert answered(behaviour(1.5)).headers["Retry-After"] == "1.5"
    assert answered(behaviour("soon")).headers["Retry-After"] == "soon"
    before = time.time()
    value = answered(behaviour(60, as_date=True)).headers["Retry-After"]
    assert value.endswith(" GMT")
    assert before + 60 <= parsedate_to_datetime(value).timestamp() <= time.time() + 61


# --- answers that break on the way ---


def test_a_reset_comes_before_any_answer() -> None:
    with pytest.raises(ConnectionResetError):
        answered(server.reset)


def test_hung_up_is_an_end_without_a_word() -> None:
    with pytest.raises(RemoteDisconnected):
        answered(server.hung_up)


def test_cut_short_is_less_than_was_announced() -> None:
    with pytest.raises(IncompleteRead) as caught:
        answered(server.cut_short)
    assert caught.value.partial
    assert caught.value.expected


def test_not_json_is_a_whole_answer_all_the_same() -> None:
    reply = answered(server.not_json)
    assert reply.status == 200
    with pytest.raises(ValueError, match="Unterminated string"):
        json.loads(reply.body)


def half_of(connection: HTTPConnection) -> bytes:
    """What arrives of an answer that breaks off halfway."""
    connection.request("POST", "/v1/chat/completions", json.dumps(asked()))
    response = connection.getresponse()
    assert response.status == 200
    return response.read(int(response.headers["Content-Length"]) // 2)


def test_a_reset_halfway_comes_after_half_of_the_body() -> None:
    with ChatServer(server.reset_halfway) as chat_server, client(chat_server) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(asked()))
        with pytest.raises(ConnectionResetError):
            connection.getresponse().read()
    assert chat_server.by_status == {"reset": 1}


def test_a_stalled_answer_is_half_of_it_and_then_silence() -> None:
    with ChatServer(server.stalled) as chat_server, client(chat_server) as connection:
        assert half_of(connection).startswith(b'{"id"')
        assert connection.sock is not None
        connection.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.sock.recv(1)
        assert chat_server.in_flight == 1
        connection.close()
        until(lambda: chat_server.in_flight == 0)
    assert chat_server.by_status == {"stalled": 1}


def test_an_unanswered_request_gets_nothing() -> None:
    with ChatServer(server.unanswered) as chat_server, client(chat_server, 0.1) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(asked()))
        with pytest.raises(TimeoutError):
            connection.getresponse()


def test_late_and_slow_answers_are_whole() -> None:
    with ChatServer(latency=0.05) as chat_server:
        chat_server.script(server.slow(0.1), server.trickling(0.1, chunks=7))
        for least in (0.15, 0.15, 0.05):
            began = time.monotonic()
            assert post(chat_server).texts == answered(server.good).texts
            assert time.monotonic() - began >= least


# --- HTTP ---


def encoded(method: str, path: str, body: bytes, chunks: list[int] | None) -> bytes:
    """A request, its body in chunks of these sizes if any are given."""
    if chunks is None:
        return f"{method} {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    pieces, start = [], 0
    for size in [*chunks, len(body)]:
        if piece := body[start : start + size]:
            pieces.append(f"{len(piece):x};ext=1\r\n".encode() + piece + b"\r\n")
        start += size
    head = f"{method} {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(pieces) + b"0\r\nX-Trailer: t\r\n\r\n"


requests = st.tuples(
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["/", "/v1/models?x=1"]),
    st.binary(max_size=40),
    st.none() | st.lists(st.integers(1, 9), max_size=4),
)


@given(sent=st.lists(requests, max_size=4), cuts=st.lists(st.integers(0, 400)))
def test_requests_are_the_same_in_whatever_pieces_they_come(
    sent: list[tuple[str, str, bytes, list[int] | None]], cuts: list[int]
) -> None:
    stream = b"".join(encoded(*request) for request in sent)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    parser = RequestParser()
    found = [
        request
        for start, end in itertools.pairwise(edges)
        for request in parser.feed(stream[start:end])
    ]
    assert [(r.method, r.path, r.body) for r in found] == [request[:3] for request in sent]


NO_REQUESTS = {
    "no method": b"hello\r\n\r\n",
    "no HTTP": b"GET / FTP/1.1\r\n\r\n",
    "signed length": b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "no length": b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
    "no chunk": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "no end": b"x" * 70_000,
}


@pytest.mark.parametrize("sent", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_what_is_no_request_is_said_to_be_none(chat_server: ChatServer, sent: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        RequestParser().feed(sent)
    assert exchange(chat_server, sent).startswith(b"HTTP/1.1 400 ")


def exchange(chat_server: ChatServer, sent: bytes) -> bytes:
    """All that comes back until the server closes."""
    address = urlsplit(chat_server.url)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as raw:
        raw.sendall(sent)
        return b"".join(iter(lambda: raw.recv(65536), b""))


def test_a_connection_is_kept_and_pipelined_answers_keep_their_order(
    chat_server: ChatServer,
) -> None:
    chat_server.script(server.slow(0.05), server.broken(500), server.hung_up)
    body = json.dumps(asked()).encode()
    several = encoded("POST", "/v1/chat/completions", body, None) * 3
    came = exchange(chat_server, several)
    assert came.index(b"HTTP/1.1 200 OK") < came.index(b"HTTP/1.1 500 Internal Server Error")
    assert chat_server.count == 3


@pytest.mark.parametrize(
    "head", ["GET /health HTTP/1.0", "GET /health HTTP/1.1\r\nConnection: close"]
)
def test_who_wants_no_more_is_let_go(chat_server: ChatServer, head: str) -> None:
    assert exchange(chat_server, f"{head}\r\n\r\n".encode()).startswith(b"HTTP/1.1 200 OK")


def test_a_chunked_request_is_read(chat_server: ChatServer) -> None:
    with client(chat_server) as connection:
        content = json.dumps(asked()).encode()
        parts = iter([content[:10], content[10:]])
        connection.request("POST", "/v1/chat/completions", parts, encode_chunked=True)
        assert connection.getresponse().status == 200
    assert chat_server.requests == [asked()]


def test_other_paths(chat_server: ChatServer) -> None:
    assert get(chat_server, "/v1/models").said["data"][0]["id"] == "kit"
    assert get(chat_server, "/health").status == 200
    assert get(chat_server, "/v1/nothing").status == 404
    assert get(chat_server, "/v1/chat/completions").status == 404
    assert chat_server.count == 0


@pytest.mark.parametrize("content", ["{", "[]", '{"model": "kit"}'])
def test_what_cannot_be_answered_is_a_400(chat_server: ChatServer, content: str) -> None:
    with client(chat_server) as connection:
        connection.request("POST", "/v1/chat/completions", content)
        assert connection.getresponse().status == 400


# --- the server ---


def test_the_script_comes_first_and_everything_is_kept(chat_server: ChatServer) -> None:
    chat_server.script(server.broken(503), server.unauthorised)
    statuses = [post(chat_server, asked(seed=i), X_Number=str(i)).status for i in range(4)]
    assert statuses == [503, 401, 200, 200]
    assert chat_server.requests == [asked(seed=i) for i in range(4)]
    assert [headers["x_number"] for headers in chat_server.headers] == ["0", "1", "2", "3"]
    assert chat_server.count == 4


def test_stats_count_what_became_of_the_requests() -> None:
    with ChatServer(keep=False) as chat_server:
        assert chat_server.stats()["active_seconds"] == 0.0
        chat_server.script(server.broken(500), server.good, server.rate_limited(1))
        for _ in range(4):
            post(chat_server)
        stats = json.loads(get(chat_server, "/stats").body)
    assert stats == chat_server.stats()
    assert stats["requests"] == chat_server.count == 4
    assert stats["by_status"] == {"500": 1, "200": 2, "429": 1}
    assert stats["replies_ok"] == 2
    assert (stats["in_flight"], stats["max_in_flight"]) == (0, 1)
    assert stats["active_seconds"] == stats["last_reply"] - stats["first_request"] > 0
    assert chat_server.requests == chat_server.headers == []


def test_a_client_that_gives_up_is_counted_as_such() -> None:
    with ChatServer(latency=PATIENCE) as chat_server, client(chat_server) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(asked()))
        until(lambda: chat_server.in_flight == 1)
        connection.close()
        until(lambda: chat_server.in_flight == 0)
    assert chat_server.by_status == {"abandoned": 1}


def test_a_mistake_in_a_behaviour_is_no_broken_server() -> None:
    chat_server = ChatServer(lambda body: body["nothing"]).__enter__()
    assert post(chat_server).status == 500
    with pytest.raises(KeyError, match="nothing"):
        chat_server.__exit__(None, None, None)


def test_many_connections_at_a_time_and_closing_while_they_are_open() -> None:
    began = time.monotonic()
    with ExitStack() as clients:
        with ChatServer(server.stalled) as chat_server:
            for number in range(128):
                connection = clients.enter_context(client(chat_server))
                connection.request("POST", "/v1/chat/completions", json.dumps(asked(seed=number)))
            until(lambda: chat_server.in_flight == 128)
        assert chat_server.max_in_flight == 128
        assert chat_server.by_status == {"stalled": 128}
        assert not chat_server._thread.is_alive()
    assert time.monotonic() - began < PATIENCE
    gc.collect()  # an unclosed socket would be a warning here, and so an error


def test_closing_while_connections_come_in_leaves_none_open() -> None:
    def knock(address: tuple[str, int]) -> None:
        with suppress(OSError):
            while True:
                with socket.create_connection(address, timeout=PATIENCE) as raw:
                    raw.sendall(b"GET /health HTTP/1.1\r\n\r\n")

    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            with ChatServer() as chat_server:
                address = ("127.0.0.1", urlsplit(chat_server.url).port or 0)
                knocking = [pool.submit(knock, address) for _ in range(2)]
                assert get(chat_server, "/health").status == 200
            assert [future.result(PATIENCE) for future in knocking] == [None, None]
    gc.collect()


# --- storms ---

SHARES = {"rate_limited": 0.2, "broken": 0.05, "stalled": 0.03, "malformed": 0.05, "reset": 0.02}


@given(
    order=st.lists(st.integers(0, 5), max_size=40).flatmap(
        lambda numbers: st.tuples(st.just(numbers), st.permutations(numbers))
    ),
    seed=st.integers(0, 9),
)
def test_what_a_request_meets_does_not_depend_on_the_order(
    order: tuple[list[int], list[int]], seed: int
) -> None:
    def met(numbers: list[int]) -> dict[int, list[tuple[int, str]]]:
        storm = RandomFaults(seed, rate_limited=0.3, broken=0.2, reset=0.2)
        answers: dict[int, list[tuple[int, str]]] = {}
        for number in numbers:
            answer = storm(Body(asked(seed=number)))
            answers.setdefault(number, []).append((answer.status, answer.end.value))
        return answers

    assert met(order[0]) == met(order[1])


def test_the_shares_of_a_storm_are_what_was_asked_for() -> None:
    storm, count = RandomFaults(seed=7, default=server.without_text, **SHARES), 5000
    for number in range(count):
        storm(Body(asked(seed=number)))
    assert storm.counts.total() == count
    for name, share in {**SHARES, "default": 1 - sum(SHARES.values())}.items():
        spread = (count * share * (1 - share)) ** 0.5
        assert abs(storm.counts[name] - count * share) < 4 * spread, name


def test_a_request_tried_again_draws_again_and_another_seed_is_another_storm() -> None:
    def drawn(seed: int) -> list[int]:
        storm = RandomFaults(seed, broken=0.5)
        return [storm(Body(asked())).status for _ in range(64)]

    assert set(drawn(1)) == {200, 500}
    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize("name", faults())
def test_every_trouble_can_be_all_there_is(name: str) -> None:
    storm = RandomFaults(**{name: 1.0})
    body = Body(asked(), reply='{"user": "hi"}')
    answer, expected = storm(body), faults()[name](body)
    assert (answer.status, answer.end, answer.delay) == (
        expected.status,
        expected.end,
        expected.delay,
    )
    assert storm.counts == {name: 1}


@pytest.mark.parametrize(
    ("shares", "kind"),
    [({"hail": 0.1}, TypeError), ({"reset": -0.1}, ValueError), ({"reset": 1.1}, ValueError)],
)
def test_shares_that_make_no_sense(shares: dict[str, float], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        RandomFaults(**shares)


def outcome(chat_server: ChatServer, body: dict[str, Any]) -> str:
    try:
        return str(post(chat_server, body).status)
    except ConnectionError as error:
        return type(error).__name__


def test_a_storm_over_the_wire_is_the_same_at_any_concurrency() -> None:
    def outcomes(workers: int) -> list[str]:
        storm = RandomFaults(3, rate_limited=0.2, broken=0.1, reset=0.1)
        with ChatServer(storm) as chat_server, ThreadPoolExecutor(workers) as pool:
            bodies = [asked(seed=number) for number in range(60)]
            return list(pool.map(lambda body: outcome(chat_server, body), bodies))

    alone = outcomes(1)
    assert outcomes(12) == alone
    assert set(alone) == {"200", "429", "500", "ConnectionResetError"}


def test_a_storm_asks_for_the_wait_it_was_given() -> None:
    storm = RandomFaults(retry_after=1, rate_limited=1.0)
    assert answered(storm).headers["Retry-After"] == "1"


# --- overload ---


def test_more_than_the_capacity_is_turned_away_at_once() -> None:
    crowded = Overloaded(capacity=3, retry_after=2, default=server.unanswered)
    with ExitStack() as clients:
        chat_server = clients.enter_context(ChatServer(crowded, latency=0.001))
        waiting = [clients.enter_context(client(chat_server)) for _ in range(3)]
        for connection in waiting:
            connection.request("POST", "/v1/chat/completions", json.dumps(asked()))
        until(lambda: chat_server.in_flight == 3)
        chat_server.latency = PATIENCE
        for _ in range(5):
            reply = post(chat_server)
            assert (reply.status, reply.headers["Retry-After"]) == (429, "2")
        assert crowded.rejected == 5

        waiting[0].close()
        until(lambda: chat_server.in_flight == 2)
        chat_server.latency = 0
        crowded.default = server.good
        assert post(chat_server).status == 200
    assert chat_server.max_in_flight == 4


@given(rate=st.integers(1, 50), gaps=st.lists(st.floats(0, 0.5), max_size=200))
@settings(max_examples=50)
def test_a_rate_lets_through_no_more_than_it_says(rate: int, gaps: list[float]) -> None:
    limited, now, passed = Overloaded(rate=rate, default=server.without_text), 0.0, 0
    for gap in gaps:
        now += gap
        passed += limited(Body(asked(), arrived=now)).status == 200
    assert passed <= rate * (now + 1) + 1e-6
    assert passed + limited.rejected == len(gaps)


def test_a_rate_lets_through_what_comes_slowly_enough() -> None:
    limited = Overloaded(rate=4, default=server.without_text)
    assert all(limited(Body(asked(), arrived=n / 4)).status == 200 for n in range(50))
    burst = [limited(Body(asked(), arrived=100.0)).status for _ in range(6)]
    assert burst == [200] * 4 + [429] * 2


# --- the command ---


@contextmanager
def command(*options: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "distill.testing.server", *options],
        cwd=Path(__file__).parents[1],
        env=os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def fetched(url: str, body: Any = None) -> Reply:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=PATIENCE)
    content = None if body is None else json.dumps(body)
    connection.request("GET" if body is None else "POST", parts.path, content)
    response = connection.getresponse()
    try:
        return Reply(response.status, dict(response.headers), response.read())
    finally:
        connection.close()


def end(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    assert process.stderr is not None
    said = process.stderr.read()
    return process.wait(PATIENCE), said


def test_the_command_serves_until_its_input_closes() -> None:
    with command("--rate-limited", "0.5", "--retry-after", "1", "--seed", "4") as (process, told):
        statuses = Counter(
            fetched(f"{told['url']}/chat/completions", asked(seed=n)).status for n in range(40)
        )
        stats = fetched(told["stats"]).said
        assert process.stdin is not None
        process.stdin.close()
        assert end(process) == (0, b"")
    assert set(statuses) == {200, 429}
    assert stats["requests"] == 40
    assert stats["replies_ok"] == statuses[200]
    assert urlsplit(told["url"]).hostname == "127.0.0.1"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_well_on_a_signal(how: signal.Signals, tmp_path: Path) -> None:
    reply = tmp_path / "reply.txt"
    reply.write_text("from a file")
    with command("--reply", str(reply), "--capacity", "1", "--unanswered", "0") as (process, told):
        assert fetched(f"{told['url']}/chat/completions", asked()).texts == ["from a file"]
        process.send_signal(how)
        assert end(process) == (0, b"")


def test_the_command_takes_the_text_of_a_reply() -> None:
    with command("--reply", '{"a": 1}', "--rate", "100") as (_, told):
        assert fetched(f"{told['url']}/chat/completions", asked()).texts == ['{"a": 1}']
