"""The part of HTTP/1.1 that a chat server needs, on asyncio, with faults of the connection.

A parser without sockets, and a connection that sends a `Response` with its delays and faults.
Keep-alive, pipelining, bodies by Content-Length or in chunks.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

from distill.testing.responses import Ending, Response

LONGEST_HEAD = 64 * 1024


class MalformedRequestError(ValueError):
    """The bytes received are no HTTP request."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    keep_alive: bool


class RequestParser:
    """An incremental parser: bytes in any chunks to complete requests."""

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
        return Request(*_request_line(line), headers, body, _is_keep_alive(line, headers))

    def _body(self, start: int, headers: dict[str, str]) -> tuple[bytes, int] | None:
        """The body and the offset of its end; None if it is not complete."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunked_body(start)
        end = start + _parse_length(headers.get("content-length", "0"), 10)
        return (bytes(self._received[start:end]), end) if len(self._received) >= end else None

    def _chunked_body(self, start: int) -> tuple[bytes, int] | None:
        body = bytearray()
        while (line_end := self._received.find(b"\r\n", start)) >= 0:
            size = _parse_length(
                self._received[start:line_end].decode("latin-1").partition(";")[0], 16
            )
            end = line_end + 2 + size
            if size == 0:
                return self._trailers(bytes(body), line_end)
            if len(self._received) < end + 2:
                return None
            body += self._received[line_end + 2 : end]
            start = end + 2
        return None

    def _trailers(self, body: bytes, start: int) -> tuple[bytes, int] | None:
        # After the last chunk: a blank line, or trailers, which are ignored, and a blank line.
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


def _is_keep_alive(line: str, headers: dict[str, str]) -> bool:
    wish = headers.get("connection", "").lower()
    return wish != "close" and (line.endswith("HTTP/1.1") or wish == "keep-alive")


def _parse_length(text: str, base: int) -> int:
    digits = text.strip()
    # int() alone would also accept signs, underscores and prefixes.
    if not digits.isalnum():
        raise MalformedRequestError(f"no length: {text[:80]!r}")
    try:
        return int(digits, base)
    except ValueError:
        raise MalformedRequestError(f"no length: {text[:80]!r}") from None


Handler = Callable[[Request, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    """A connection to one client. Its requests are answered one at a time, in their order.

    handler: answers a request with `send`; cancelled when the client disconnects
    connections: the set of open connections, in which this one puts itself
    """

    def __init__(self, handler: Handler, connections: set[Connection]) -> None:
        self._handler = handler
        self._connections = connections
        self._parser = RequestParser()
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._waiting.clear()
        if self._task:
            self._task.cancel()
        self._connections.discard(self)
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._waiting.extend(self._parser.feed(data))
        except MalformedRequestError as error:
            self._transport.write(_head(Response(400), len(str(error))) + str(error).encode())
            self._transport.close()
        self._respond_next()

    def _respond_next(self) -> None:
        if self._task is None and self._waiting:
            request = self._waiting.popleft()
            self._task = asyncio.get_running_loop().create_task(self._respond(request))

    async def _respond(self, request: Request) -> None:
        await self._handler(request, self)
        self._task = None
        if not request.keep_alive:
            self._transport.close()
        if not self._transport.is_closing():
            self._respond_next()

    async def send(self, response: Response) -> None:
        """Send a response with its delays and faults; cancelled when the client disconnects."""
        if response.end is Ending.COMPLETE:
            await self._write(response, response.body)
        elif response.sent_bytes is not None:
            await self._write(response, response.body[: response.sent_bytes])
        match response.end:
            case Ending.RESET:
                self.reset()
            case Ending.CLOSED:
                self._transport.close()
            case Ending.STALLED:
                await asyncio.get_running_loop().create_future()  # until cancelled

    async def _write(self, response: Response, body: bytes) -> None:
        size = -(-len(body) // response.chunks) or 1
        self._transport.write(_head(response, len(response.body)) + body[:size])
        for start in range(size, len(body), size):
            await asyncio.sleep(response.chunk_delay)
            self._transport.write(body[start : start + size])

    def reset(self) -> None:
        """Break the connection now, and drop what is still to be sent."""
        # With a linger time of zero, the kernel sends RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self._transport.abort()

    def abort(self) -> None:
        """Close the connection now, and drop what is still to be sent."""
        self._transport.abort()


def _head(response: Response, length: int) -> bytes:
    lines = [f"HTTP/1.1 {response.status} {_reason_phrase(response.status)}"]
    headers = {
        "Content-Type": "application/json",
        **response.headers,
        "Content-Length": str(length),
    }
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _reason_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
