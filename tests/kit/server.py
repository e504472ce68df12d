"""A real HTTP server that speaks /v1/chat/completions, well or badly, by schedule.

    with ChatServer() as server:
        server.script(rate_limited(1), broken(500), fenced)   # then `server.default`, which is good
        ...
        assert server.count == 4

A behaviour is a function from the request's body to an `Answer`. Good replies are sampled from the
request's JSON Schema by the request's own digest: one request, one reply, in every process.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from kit.sampler import sample

Body = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What goes back over the wire."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    reset: bool = False
    """Break the connection instead of answering."""


Behaviour = Callable[[Body], Answer]


def completion(text: str | None, *, finish: str = "stop", refusal: str | None = None) -> Answer:
    """A chat completion that says `text`."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return Answer(body=_json({"model": "kit", "choices": [choice], "usage": usage}))


def failure(status: int, message: str, **more: str | None) -> Answer:
    """An error as OpenAI words it."""
    return Answer(status, _json({"error": {"message": message, **more}}))


def valid_text(body: Body) -> str:
    """JSON that meets the schema of the request, the same for the same request."""
    schema = _schema(body)
    seed = json.dumps([body["messages"], body.get("seed")], sort_keys=True)
    return json.dumps(sample(schema, random.Random(seed)), ensure_ascii=False)


def good(body: Body) -> Answer:
    return completion(valid_text(body))


def says(text: str | None, **more: Any) -> Behaviour:
    return lambda body: completion(text, **more)


def fenced(body: Body) -> Answer:
    return completion(f"Here you are:\n```json\n{valid_text(body)}\n```\nAnything else?")


def truncated(body: Body) -> Answer:
    """A text that stops in the middle, though the server calls it complete."""
    return completion(valid_text(body)[:-3])


def cut_off(body: Body) -> Answer:
    """The server says itself that the reply did not fit."""
    return completion(valid_text(body)[:20], finish="length")


def wrong_shape(body: Body) -> Answer:
    return completion('{"message": "hello"}')


def line_separators(body: Body) -> Answer:
    """Characters that some readers take for line ends, and others for nothing at all."""
    value = json.loads(valid_text(body))
    value["user"] = "first\u2028second\u2029third\u0085fourth 😀 שלום"
    return completion(json.dumps(value, ensure_ascii=False))


def without_choices(body: Body) -> Answer:
    return Answer(body=_json({"model": "kit", "choices": []}))


def not_json(body: Body) -> Answer:
    return Answer(body=b'{"model": "kit", "choices": [{"mess')


def reset(body: Body) -> Answer:
    return Answer(reset=True)


def broken(status: int) -> Behaviour:
    return lambda body: failure(status, "the server is broken")


def rate_limited(retry_after: str | float | None = None) -> Behaviour:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = _json({"error": {"message": "slow down"}})
    return lambda _: Answer(429, body, headers)


def slow(delay: float) -> Behaviour:
    return lambda body: Answer(**{**good(body).__dict__, "delay": delay})


def unauthorised(body: Body) -> Answer:
    return failure(401, "Incorrect API key provided", code="invalid_api_key")


def unknown_model(body: Body) -> Answer:
    return failure(404, f"The model `{body['model']}` does not exist", code="model_not_found")


def ignoring_format(body: Body) -> Answer:
    """A server that never reads response_format: prose, until the prompt itself asks for JSON."""
    if "JSON Schema" in body["messages"][-1]["content"]:
        return fenced(body)
    return completion("Sure! How about: where is the travel policy?")


def rejecting_formats(*kinds: str) -> Behaviour:
    """A server that answers 400 to these kinds of response_format, and else is good."""

    def answer(body: Body) -> Answer:
        kind = body.get("response_format", {}).get("type")
        if kind in kinds:
            return failure(400, f"Unknown value {kind!r} for response_format", param=None)
        return good(body)

    return answer


def rejecting_parameter(name: str) -> Behaviour:
    """A server that, as reasoning models do, answers 400 to one parameter."""

    def answer(body: Body) -> Answer:
        if name in body:
            said = f"Unsupported parameter: '{name}' is not supported with this model."
            return failure(400, said, param=name, code="unsupported_parameter")
        return good(body)

    return answer


class ChatServer:
    """The server, in a thread of its own, on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.default: Behaviour = good
        self.requests: list[Body] = []
        self.headers: list[dict[str, str]] = []
        """Those of each request, names in lower case."""
        self._script: deque[Behaviour] = deque()
        self.closing = threading.Event()
        """Set at the end, so that nobody waits for a slow answer any more."""
        self._lock = threading.Lock()
        self._http = _Http(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.hang_up()
        self._http.server_close()

    @property
    def url(self) -> str:
        """The base URL, as for --base-url."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def count(self) -> int:
        """Requests received so far."""
        return len(self.requests)

    def script(self, *behaviours: Behaviour) -> None:
        """Behave so for the next requests, in the order in which they come; then by default."""
        self._script.extend(behaviours)

    def answer(self, body: Body, headers: dict[str, str]) -> Answer:
        with self._lock:
            self.requests.append(body)
            self.headers.append(headers)
            behaviour = self._script.popleft() if self._script else self.default
        return behaviour(body)


class _Http(ThreadingHTTPServer):
    # Threads are waited for when it closes, so that no socket outlives a test.
    daemon_threads = False
    request_queue_size = 256

    def __init__(self, chat: ChatServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.chat = chat
        self.open: set[socket.socket] = set()

    def hang_up(self) -> None:
        """End the connections that clients keep open."""
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # gone already


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without it every reply would wait 40 ms for the client's acknowledgement.
    disable_nagle_algorithm = True
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True  # the client hung up, or we did

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if len(sent) < int(self.headers["Content-Length"]):
            raise ConnectionError("the client hung up in the middle of its request")
        body = json.loads(sent)
        if self.path != "/v1/chat/completions":
            answer = failure(404, f"no such path: {self.path}")
        else:
            answer = self.server.chat.answer(body, {k.lower(): v for k, v in self.headers.items()})
        self.server.chat.closing.wait(answer.delay)
        if answer.reset:
            self._reset()
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _reset(self) -> None:
        # Lingering for no time makes the kernel send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the tests say what matters."""


def _schema(body: Body) -> Any:
    asked = body.get("response_format", {})
    if asked.get("type") == "json_schema":
        return asked["json_schema"]["schema"]
    text = body["messages"][-1]["content"]
    return json.loads(text[text.index('{"type": "object"') :])


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
