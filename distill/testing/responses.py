"""A request's `Body`, the `Response` to it, and the `Behaviour` that turns one into the other."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from distill import strict_json


class Body(dict[str, Any]):
    """The JSON of a request, with its headers and the state of the server."""

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
        """Requests that were unanswered when this one arrived, this one included."""
        self.arrived = arrived
        """Seconds on the server's monotonic clock."""
        self.reply = reply
        """The text of every good reply; None where it is made from the request."""

    @property
    def digest(self) -> str:
        """A hash of the content, the same in every process."""
        content = strict_json.encode(self, sort_keys=True, ensure_ascii=True).encode()
        return hashlib.blake2b(content, digest_size=12).hexdigest()


class Ending(Enum):
    """How a response ends."""

    COMPLETE = "whole"
    RESET = "reset"
    """The connection is reset: the client gets a TCP RST."""
    CLOSED = "closed"
    """The connection is closed as if the response were complete."""
    STALLED = "stalled"
    """Nothing more is sent until the client disconnects or the server closes."""


@dataclass(frozen=True)
class Response:
    """An HTTP response, its delays, and how it breaks off."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before anything is sent, in addition to the server's latency."""
    immediate: bool = False
    """Sent without the server's latency."""
    end: Ending = Ending.COMPLETE
    sent_bytes: int | None = None
    """Bytes of the body that are sent before an incomplete end; None: not even the status."""
    chunks: int = 1
    """The number of parts in which the body is sent."""
    chunk_delay: float = 0.0
    """Seconds between two parts."""


Behaviour = Callable[[Body], Response]

_completions = itertools.count(1)


def completion(
    *texts: str | None,
    finish: str = "stop",
    refusal: str | None = None,
    tokens: tuple[int, int] | None = (11, 7),
    id: str | None = None,
) -> Response:
    """A chat completion with one choice per text. tokens: of the prompt, of one choice"""
    content: dict[str, Any] = {
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
        content["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }
    return Response(body=to_json(content))


def streamed(response: Response) -> Response:
    """A completion as the stream of events that it makes, its texts in small parts."""
    content = strict_json.decode(response.body.decode())
    events: list[Any] = []
    for choice in content.pop("choices", ()):
        finish, message = choice.pop("finish_reason"), choice.pop("message")
        text = message.pop("content") or ""
        parts = [{**message, "content": ""}, *({"content": part} for part in _parts(text))]
        events += ({**content, "choices": [{**choice, "delta": part}]} for part in parts)
        end = {**choice, "delta": {}, "finish_reason": finish}
        events.append({**content, "choices": [end]})
    usage = content.get("usage")
    lines = [{key: value for key, value in event.items() if key != "usage"} for event in events]
    lines += [{**content, "choices": []}] if usage else []
    body = b"".join(b"data: " + to_json(line) + b"\n\n" for line in lines) + b"data: [DONE]\n\n"
    return replace(response, body=body, headers={"Content-Type": "text/event-stream"})


def _parts(text: str, size: int = 7) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def failure(status: int, message: str, **more: str | int | None) -> Response:
    """An error in the format of OpenAI."""
    return Response(status, to_json({"error": {"message": message, **more}}))


def to_json(value: Any) -> bytes:
    return strict_json.encode(value).encode()
