"""The client against bytes that are no proper HTTP: each is a failed attempt, none a traceback."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import office

from distill.asking.ask import MalformedReplyError
from distill.asking.writing import read_reply, write_request
from distill.config import TeacherConfig
from distill.records import FailureReason
from distill.teachers.base import ChatReply, ReplyError
from distill.teachers.openai.client import OpenAITeacher

KEY = "sk-very-secret-0123456789"
ASKED = write_request(office.scenario(), office.OFFICE, TeacherConfig())
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
GOOD = json.dumps({"choices": [{"message": {"content": "hello"}}]}).encode()


class Answered(NamedTuple):
    outcome: ChatReply | ReplyError
    requests: list[bytes]
    seconds: float


def answered(response: bytes, *, endless: bytes = b"", timeout: float = 5.0) -> Answered:
    """What one request becomes when a server answers with these bytes, and then for ever those."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            requests.append(head)
            here = writer.get_extra_info("sockname")[1]
            writer.write(response.replace(b"{port}", str(here).encode()))
            await writer.drain()
            while endless:
                writer.write(endless)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def ask() -> ChatReply | ReplyError:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}/v1"
            teacher = OpenAITeacher("kit", url, KEY, timeout, 1, first_backoff=0.01, patience=0.05)
            try:
                return await teacher.complete(ASKED)
            except ReplyError as error:
                return error
            finally:
                await teacher.close()

    began = time.monotonic()
    outcome = asyncio.run(ask())
    return Answered(outcome, requests, time.monotonic() - began)


BROKEN = {
    "nothing": b"",
    "no status line": b"}\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "TLS": b"\x15\x03\x03\x00\x02\x02\x28",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status in letters": b"HTTP/1.1 OK\r\n\r\n",
    "a header without a colon": OK + b"nonsense\r\n\r\n" + GOOD,
    "a header without a name": OK + b": x\r\n\r\n" + GOOD,
    "a NUL in a header": OK + b"X-A: \0\r\n\r\n" + GOOD,
    "a header without an end": OK + b"X-A: " + b"a" * 100_000,
    "a status line without an end": b"HTTP/1.1 200 " + b"a" * 100_000,
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + GOOD,
    "a length in letters": OK + b"Content-Length: many\r\n\r\n" + GOOD,
    "a length below zero": OK + b"Content-Length: -1\r\n\r\n" + GOOD,
    "a length that is too long": OK + b"Content-Length: 9999\r\n\r\n" + GOOD,
    "a chunk that is no number": CHUNKED + b"\r\nzz\r\nabc\r\n0\r\n\r\n",
    "a chunk that is cut": CHUNKED + b"\r\nff\r\nabc",
    "chunks without an end": CHUNKED + b"\r\n3\r\nabc\r\n",
    "bad gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "bad deflate": OK + b"Content-Encoding: deflate\r\nContent-Length: 3\r\n\r\nabc",
    "bad brotli": OK + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
    "bad zstd": OK + b"Content-Encoding: zstd\r\nContent-Length: 3\r\n\r\nabc",
    "gzip cut short": OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(GOOD)[:-20],
    "a charset that is none": OK + b"Content-Type: text/x; charset=zz\r\n\r\nabc",
    "a redirect to nowhere": b"HTTP/1.1 307 x\r\nLocation: http://\r\n\r\n",
    "a redirect to odd bytes": b"HTTP/1.1 307 x\r\nLocation: http://\xff\xfe:x/\r\n\r\n",
    "a redirect to another protocol": b"HTTP/1.1 307 x\r\nLocation: ftp://h/\r\n\r\n",
    "a redirect without a place": b"HTTP/1.1 307 x\r\nContent-Length: 0\r\n\r\n",
    "a redirect to itself": b"HTTP/1.1 307 x\r\nLocation: /v1\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "an error with odd bytes": b"HTTP/1.1 500 \xff\r\nX-A: \xff\r\n\r\n\xff\xfe",
    "an odd wait": b"HTTP/1.1 429 x\r\nRetry-After: nan\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("response", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_response_is_a_failed_attempt(response: bytes) -> None:
    found = answered(response)
    assert isinstance(found.outcome, ReplyError), found.outcome
    assert found.outcome.detail
    assert KEY not in found.outcome.detail
    assert found.outcome.detail.isprintable()
    assert found.seconds < 5


@given(
    response=st.one_of(
        st.binary(max_size=200),
        st.builds(lambda a, b: OK + a + b"\r\n\r\n" + b, st.binary(max_size=40), st.binary()),
        st.builds(lambda a: CHUNKED + b"\r\n" + a, st.binary(max_size=60)),
    )
)
@settings(max_examples=25, deadline=None)
def test_any_bytes_are_a_reply_or_a_failed_attempt(response: bytes) -> None:
    assert isinstance(answered(response).outcome, ChatReply | ReplyError)


@pytest.mark.parametrize("name", [b"X-A", b"Server", b"Content-Type", b"Date", b"Set-Cookie"])
def test_odd_bytes_in_a_header_do_no_harm(name: bytes) -> None:
    length = f"\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode()
    found = answered(b"HTTP/1.1 200 OK\r\n" + name + b": \xe9\xff\x80" + length + GOOD)
    assert isinstance(found.outcome, ReplyError) or found.outcome.text == "hello"


def endless() -> Iterator[tuple[str, bytes, bytes]]:
    event = b'data: {"choices": [{"delta": {"content": "and so on "}}]}\n\n' * 1000
    yield "a body", OK + b"\r\n", b"a" * 65536
    yield "a stream of events", OK + b"\r\n", event
    yield "chunks", CHUNKED + b"\r\n", b"1000\r\n" + b"a" * 4096 + b"\r\n"
    yield "an error", b"HTTP/1.1 400 Bad\r\n\r\n", b"a" * 65536
    yield "headers", OK, b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"
    yield "a compressed body", OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"a" * 10**6)


@pytest.mark.parametrize(
    ("first", "then"), [pytest.param(a, b, id=name) for name, a, b in endless()]
)
def test_an_endless_response_ends(first: bytes, then: bytes) -> None:
    found = answered(first, endless=then)
    assert isinstance(found.outcome, ReplyError)
    assert found.outcome.reason is FailureReason.SERVER
    assert found.seconds < 4


def test_a_flood_of_informational_responses_ends() -> None:
    flood = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    found = answered(b"", endless=flood * 100, timeout=0.5)
    assert isinstance(found.outcome, ReplyError)
    assert found.seconds < 3


def test_another_host_never_gets_the_key() -> None:
    place = b"HTTP/1.1 307 x\r\nLocation: http://localhost:{port}/v1/chat/completions\r\n"
    found = answered(place + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
    assert isinstance(found.outcome, ReplyError)
    own, *others = found.requests
    assert KEY.encode() in own
    assert not [head for head in others if KEY.encode() in head]


@pytest.mark.parametrize(
    "content",
    [
        '{"user": ' + "1" * 5000 + "}",
        "[" * 20_000 + "]" * 20_000,
        '{"a":' * 20_000 + "1" + "}" * 20_000,
    ],
    ids=["digits", "arrays", "objects"],
)
@pytest.mark.parametrize("inside", [True, False], ids=["content", "body"])
def test_numbers_and_depth_beyond_reading_are_a_bad_reply(content: str, inside: bool) -> None:
    body = json.dumps({"choices": [{"message": {"content": content}}]}) if inside else content
    head = OK + f"Content-Length: {len(body)}\r\n\r\n".encode()
    found = answered(head + body.encode())
    if inside:
        assert isinstance(found.outcome, ChatReply)
        with pytest.raises(MalformedReplyError):
            read_reply(found.outcome.text, ASKED.task, "kit")
    else:
        assert isinstance(found.outcome, ReplyError)
