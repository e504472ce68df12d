"""HTTP/1.1 as far as a chat server needs it, on asyncio, and what can go wrong on its wire.

A parser that knows nothing of sockets, and a connection that sends a `Response` the way it
wants to be sent. Keep-alive, pipelining, bodies by Content-Length or in chunks.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

from distill.testing.responses import End, Response

LONGEST_HEAD = 64 * 1024


class MalformedRequestError(ValueError):
    """What came is no HTTP request."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    keep_alive: bool


class RequestParser:
    """Bytes as they come, in any pieces, to whole requests."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> list[Request]:
        """The requests that these bytes complete. Raises MalformedRequestError."""
        self._received += data
        found = []
        while request := self._take():
            found.append(request)
        return found

    def _take(self) -> Request | None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            if len(self._received) > LONGEST_HEAD:
                raise MalformedRequestError("the headers have no end")
            return None
        line, *rest = self._received[:end].decode("latin-1").lstrip("\r\n").split("\r\n")
        headers = _headers(rest)
        found = self._body(end + 4, headers)
        if found is None:
            return None
        body, after = found
        del self._received[:after]
        return Request(*_request_line(line), headers, body, _keeps_alive(line, headers))

    def _body(self, start: int, headers: dict[str, str]) -> tuple[bytes, int] | None:
        """The body and where it ends, if all of it is there."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunks(start)
        end = start + _number(headers.get("content-length", "0"), 10)
        return (bytes(self._received[start:end]), end) if len(self._received) >= end else None

    def _chunks(self, start: int) -> tuple[bytes, int] | None:
        body = bytearray()
        while (line_end := self._received.find(b"\r\n", start)) >= 0:
            size = _number(self._received[start:line_end].decode("latin-1").partition(";")[0], 16)
            end = line_end + 2 + size
            if size == 0:
                return self._trailers(bytes(body), line_end)
            if len(self._received) < end + 2:
                return None
            body += self._received[line_end + 2 : end]
            start = end + 2
        return None

    def _trailers(self, body: bytes, start: int) -> tuple[bytes, int] | None:
        # The blank line follows the last chunk's line at once, or the trailers, which nobody needs.
        end = self._received.find(b"\r\n\r\n", start)
        return (body, end + 4) if end >= 0 else None


def _request_line(line: str) -> tuple[str, str]:
    match line.split(" "):
        case [method, path, version] if version.startswith("HTTP/1."):
            return method, path
    raise MalformedRequestError(f"no request line: {line[:80]!r}")


def _headers(lines: list[str]) -> dict[str, str]:
    split = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in split}


def _keeps_alive(line: str, headers: dict[str, str]) -> bool:
    wish = headers.get("connection", "").lower()
    return wish != "close" and (line.endswith("HTTP/1.1") or wish == "keep-alive")


def _number(text: str, base: int) -> int:
    digits = text.strip()
    # int() alone would also take signs, underscores and prefixes.
    if not digits.isalnum():
        raise MalformedRequestError(f"no length: {text[:80]!r}")
    try:
        return int(digits, base)
    except ValueError:
        raise MalformedRequestError(f"no length: {text[:80]!r}") from None


Handler = Callable[[Request, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client. Its requests are answered one after the other, in the order in which they came.

    handler: answers a request by `send`; cancelled when the client hangs up
    """

    def __init__(self, handler: Handler, open_ones: set[Connection]) -> None:
        self._handler = handler
        self._open_ones = open_ones
        self._parser = RequestParser()
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open_ones.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._waiting.clear()
        if self._task:
            self._task.cancel()
        self._open_ones.discard(self)
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._waiting.extend(self._parser.feed(data))
        except MalformedRequestError as error:
            self._transport.write(_head(Response(400), len(str(error))) + str(error).encode())
            self._transport.close()
        self._answer_next()

    def _answer_next(self) -> None:
        if self._task is None and self._waiting:
            request = self._waiting.popleft()
            self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        await self._handler(request, self)
        self._task = None
        if not request.keep_alive:
            self._transport.close()
        if not self._transport.is_closing():
            self._answer_next()

    async def send(self, answer: Response) -> None:
        """Send it the way it wants to be sent; cancelled where the client hangs up before."""
        if answer.end is End.WHOLE:
            await self._write(answer, answer.body)
        elif answer.sent is not None:
            await self._write(answer, answer.body[: answer.sent])
        match answer.end:
            case End.RESET:
                self.reset()
            case End.CLOSED:
                self._transport.close()
            case End.STALLED:
                await asyncio.get_running_loop().create_future()  # until it is cancelled

    async def _write(self, answer: Response, body: bytes) -> None:
        size = -(-len(body) // answer.pieces) or 1
        self._transport.write(_head(answer, len(answer.body)) + body[:size])
        for start in range(size, len(body), size):
            await asyncio.sleep(answer.pause)
            self._transport.write(body[start : start + size])

    def reset(self) -> None:
        """Break the connection now, whatever was still to be sent."""
        # Lingering for no time makes the kernel send RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self._transport.abort()

    def hang_up(self) -> None:
        """Close now; what was still to be sent is dropped."""
        self._transport.abort()


def _head(answer: Response, length: int) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}"]
    headers = {"Content-Type": "application/json", **answer.headers, "Content-Length": str(length)}
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
