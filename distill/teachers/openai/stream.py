"""Server-sent events of a streamed completion, put together as one completion."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_BEGIN = re.compile(rb"\A\s*(data|event|id|retry)?:")


def is_stream(body: bytes) -> bool:
    """Whether a body is a stream of events and no JSON."""
    return bool(_BEGIN.match(body[:1000]))


def merge_events(body: bytes) -> dict[str, Any]:
    """The completion that a stream's events make: texts joined, the last usage and error kept.

    Raises ValueError or RecursionError for an event that is no JSON object, and ValueError where
    the stream breaks off before its end.
    """
    choice: dict[str, Any] = {}
    joined: dict[str, list[str]] = {}
    calls: dict[int, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    ended = False
    for event in _events(body):
        if event is None:
            ended = True
            continue
        whole |= {key: event[key] for key in ("model", "usage", "error") if event.get(key)}
        choices = event.get("choices") or []
        if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            continue
        found = choices[0]
        choice |= {key: found[key] for key in ("finish_reason", "error") if found.get(key)}
        delta = found.get("delta") or found.get("message")
        _join(delta if isinstance(delta, dict) else {}, joined, calls)
    if not (ended or choice or "error" in whole):
        raise ValueError("the stream breaks off")
    message: dict[str, Any] = {name: "".join(parts) for name, parts in joined.items()}
    for call in calls.values():
        call["function"]["arguments"] = "".join(call["function"]["arguments"])
    message["tool_calls"] = list(calls.values())
    choices = [{**choice, "message": message}] if joined or calls or choice else []
    return {**whole, "choices": choices}


def _join(
    delta: dict[str, Any], joined: dict[str, list[str]], calls: dict[int, dict[str, Any]]
) -> None:
    for name in ("content", "refusal", "reasoning_content", "reasoning"):
        part = delta.get(name)
        if isinstance(part, list):
            part = "".join(str(one.get("text") or "") for one in part if isinstance(one, dict))
        if isinstance(part, str):
            joined.setdefault(name, []).append(part)
    listed = delta.get("tool_calls")
    for position, call in enumerate(listed if isinstance(listed, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            continue
        number = call.get("index")
        number = number if isinstance(number, int) else position
        merged = calls.setdefault(number, {"function": {"arguments": []}})
        if isinstance(function.get("arguments"), str):
            merged["function"]["arguments"].append(function["arguments"])


def _events(body: bytes) -> Iterator[dict[str, Any] | None]:
    """The events as JSON objects; None for the one that ends the stream."""
    text = body.decode("utf-8", "replace")
    for block in re.split(r"\r?\n\r?\n|\r\r", text):
        lines = [line[5:] for line in re.split(r"\r\n|\r|\n", block) if line.startswith("data:")]
        data = "\n".join(line.removeprefix(" ") for line in lines).strip()
        if not data:
            continue
        if data == "[DONE]":
            yield None
            continue
        event = json.loads(data)
        if not isinstance(event, dict):
            raise ValueError("an event is no object")
        yield event
