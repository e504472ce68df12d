"""A request's `Body`, the `Response` to it, and the `Behaviour` that turns one into the other."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Body(dict[str, Any]):
    """A request's JSON, with what the server knows about the request besides."""

    def __init__(
        self,
        content: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        in_flight: int = 1,
        arrived: float = 0.0,
        reply: str | None = None,
    ) -> None:
        super().__init__(content)
        self.headers = dict(headers or {})
        """Names in lower case."""
        self.in_flight = in_flight
        """Requests that the server had not answered when this one came, this one included."""
        self.arrived = arrived
        """Seconds on the server's monotonic clock."""
        self.reply = reply
        """What a good reply says, where the server has one text for all of them."""

    @property
    def digest(self) -> str:
        """The same for the same content, in every process."""
        content = json.dumps(self, sort_keys=True).encode()
        return hashlib.blake2b(content, digest_size=12).hexdigest()


class End(Enum):
    """How an answer ends."""

    WHOLE = "whole"
    RESET = "reset"
    """The connection breaks: the client gets a TCP RST."""
    CLOSED = "closed"
    """The connection closes as if all were said."""
    STALLED = "stalled"
    """Silence, until the client gives up or the server closes."""


@dataclass(frozen=True)
class Response:
    """What goes back over the wire."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before anything is sent, besides the server's own latency."""
    at_once: bool = False
    """Not even the server's latency is waited for."""
    end: End = End.WHOLE
    sent: int | None = None
    """Bytes of the body that go out before any other end; None: not even the status."""
    pieces: int = 1
    """The body goes out in so many parts,"""
    pause: float = 0.0
    """with so many seconds between two of them."""


Behaviour = Callable[[Body], Response]

_completions = itertools.count(1)


def completion(
    *texts: str | None,
    finish: str = "stop",
    refusal: str | None = None,
    tokens: tuple[int, int] | None = (11, 7),
    id: str | None = None,
) -> Response:
    """A chat completion with one choice per text. tokens: of prompt and of one choice."""
    said: dict[str, Any] = {
        "id": id or f"chatcmpl-{next(_completions)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "kit",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": refusal},
                "finish_reason": finish,
            }
            for index, text in enumerate(texts)
        ],
    }
    if tokens:
        prompt, written = tokens[0], tokens[1] * len(texts)
        said["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }
    return Response(body=to_json(said))


def failure(status: int, message: str, **more: str | int | None) -> Response:
    """An error as OpenAI words it."""
    return Response(status, to_json({"error": {"message": message, **more}}))


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
