"""A real HTTP server for /v1/chat/completions, with faults in a fixed order or at random.

    with ChatServer() as server:
        server.script(rate_limited(1), broken(500), fenced)   # then `server.default`, which is good
        ...
        assert server.count == 4

    ChatServer(default=RandomFaults(seed=1, rate_limited=0.2, reset=0.02), latency=0.5, keep=False)

A behaviour is a function from the request's body to a `Response` (behaviours.py, faults.py). GET
/v1/models, /health and /stats have no faults.

As a command, it serves until its standard input closes:

    python -m distill.testing.server --latency 0.5 --rate-limited 0.2 --retry-after 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any, Self

from distill import strict_json
from distill.testing.behaviours import *  # noqa: F403 - tests say server.good, server.reset and so on
from distill.testing.behaviours import good
from distill.testing.faults import Overloaded, RandomFaults, faults
from distill.testing.http import Connection, Request
from distill.testing.responses import (
    Behaviour,
    Body,
    Ending,
    Response,
    failure,
    streamed,
    to_json,
)


class ChatServer:
    """The server, in a thread of its own, on a free port of 127.0.0.1.

    default: the behaviour after the end of the script
    latency: seconds before every response
    reply: the text of every good reply; None: sampled from the request's schema
    keep: whether `requests` and `headers` are recorded
    """

    def __init__(
        self,
        default: Behaviour = good,
        *,
        latency: float = 0.0,
        reply: str | None = None,
        keep: bool = True,
    ) -> None:
        self.default = default
        self.latency = latency
        self.requests: list[Body] = []
        self.headers: list[dict[str, str]] = []
        """Of each request, names in lower case."""
        self.count = 0
        """Requests received so far."""
        self.in_flight = 0
        self.max_in_flight = 0
        self.by_status: Counter[str] = Counter()
        """Requests by outcome: the status of a complete response, "reset", "closed", "stalled", or
        "abandoned" where the client disconnected first."""
        self.closing = threading.Event()
        """Set when the server closes, and with it all connections."""
        self._reply = reply
        self._keep = keep
        self._script: deque[Behaviour] = deque()
        self._behaviour_errors: list[Exception] = []
        self._first_request: float | None = None
        self._last_reply: float | None = None
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Future[Any]] = set()

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.closing.set()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._behaviour_errors and error is None:
            raise self._behaviour_errors[0]

    @property
    def url(self) -> str:
        """The base URL, as for --base-url."""
        return f"{self._address}/v1"

    @property
    def stats_url(self) -> str:
        return f"{self._address}/stats"

    def script(self, *behaviours: Behaviour) -> None:
        """The behaviours for the next requests, one each; after them, the default."""
        self._script.extend(behaviours)

    def stats(self) -> dict[str, Any]:
        """The content of /stats. Times are seconds of this machine's monotonic clock."""
        first, last = self._first_request, self._last_reply
        return {
            "requests": self.count,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "first_request": first,
            "last_reply": last,
            "active_seconds": 0.0 if first is None or last is None else last - first,
            "by_status": dict(self.by_status),
            "replies_ok": self.by_status["200"],
        }

    # --- in the server's thread ---

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        # When asyncio's own server closes, it drops connections that it has just accepted.
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._accept)
        await self._stop.wait()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        while pending := {*self._opening, *(connection.closed for connection in self._connections)}:
            for connection in self._connections:
                connection.abort()
            await asyncio.wait(pending)

    def _accept(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client disconnected
        task = self._loop.create_task(
            self._loop.connect_accepted_socket(
                lambda: Connection(self._handle, self._connections), accepted
            )
        )
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _handle(self, request: Request, connection: Connection) -> None:
        match request.method, request.path.partition("?")[0]:
            case "POST", "/v1/chat/completions":
                await self._chat(request, connection)
            case "GET", "/v1/models":
                listed = {"id": "kit", "object": "model", "created": 0, "owned_by": "kit"}
                await connection.send(_json({"object": "list", "data": [listed]}))
            case "GET", "/stats":
                await connection.send(_json(self.stats()))
            case "GET", "/health":
                await connection.send(Response())
            case _:
                await connection.send(failure(404, f"no such path: {request.path}"))

    async def _chat(self, request: Request, connection: Connection) -> None:
        arrived = time.monotonic()
        self._first_request = self._first_request or arrived
        self.count += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        outcome = "abandoned"
        try:
            response = self._decide(request, arrived)
            if response.end is not Ending.COMPLETE:
                outcome = response.end.value
            if (wait := self.latency + response.delay) and not response.immediate:
                await asyncio.sleep(wait)
            await connection.send(response)
            self._last_reply = time.monotonic()
            if response.end is Ending.COMPLETE:
                outcome = str(response.status)
        finally:
            self.in_flight -= 1
            self.by_status[outcome] += 1

    def _decide(self, request: Request, arrived: float) -> Response:
        body = self._read(request, arrived)
        if isinstance(body, Response):
            return body
        if self._keep:
            self.requests.append(body)
            self.headers.append(body.headers)
        behaviour = self._script.popleft() if self._script else self.default
        try:
            response = behaviour(body)
            wants_stream = body.get("stream") and response.body.startswith(b'{"id": "chatcmpl')
            return streamed(response) if wants_stream else response
        except Exception as error:
            # Raised when the server is closed, so that no test takes a bug in a behaviour for a
            # fault on purpose.
            self._behaviour_errors.append(error)
            return failure(500, f"the behaviour itself fails: {error!r}")

    def _read(self, request: Request, arrived: float) -> Body | Response:
        try:
            content = json.loads(request.body)
        except ValueError:
            return failure(400, "the request's body is not JSON")
        if not isinstance(content, dict) or not content.get("messages"):
            return failure(400, "the request has no messages", param="messages")
        return Body(
            content,
            headers=request.headers,
            in_flight=self.in_flight,
            arrived=arrived,
            reply=self._reply,
        )


def _json(value: Any) -> Response:
    return Response(body=to_json(value))


# --- the command ---


def main() -> None:
    """Serve until standard input closes or a SIGTERM or SIGINT; the address goes to stdout."""
    options = _parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    behaviour: Behaviour = RandomFaults(
        options.seed,
        retry_after=options.retry_after,
        delay=options.delay,
        **{name: share for name in faults() if (share := getattr(options, name))},
    )
    if options.capacity or options.rate:
        behaviour = Overloaded(
            capacity=options.capacity,
            rate=options.rate,
            retry_after=options.retry_after,
            default=behaviour,
        )
    with ChatServer(behaviour, latency=options.latency, reply=options.reply, keep=False) as server:
        print(
            strict_json.encode({"url": server.url, "stats": server.stats_url}),
            flush=True,
        )
        sys.stdin.buffer.read()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m distill.testing.server", description=main.__doc__
    )
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every response")
    parser.add_argument("--reply", type=_reply_text, help="the text of good replies, or a file")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--retry-after", type=float, help="of 429 and 503, in seconds")
    parser.add_argument("--delay", type=float, default=1.0, help="seconds of the slow faults")
    parser.add_argument("--capacity", type=int, help="requests in flight; 429 to any more")
    parser.add_argument("--rate", type=float, help="requests per second; 429 to any more")
    for name in faults():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=float, default=0.0, metavar="SHARE", help="of the requests")
    return parser


def _reply_text(given: str) -> str:
    return given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
