"""How a chat server may answer, well or badly: functions from a request's body to a `Response`.

Good replies are sampled from the request's JSON Schema by the request's own digest: one request,
one reply, in every process. Nothing here depends on order or remembers anything, so that what a
test saw once it sees again; what remembers is in faults.py.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from distill.testing.responses import Behaviour, Body, End, Response, completion, failure, to_json
from distill.testing.sampler import sample

# --- good replies ---


def valid_text(body: Body, choice: int = 0) -> str:
    """JSON that meets the schema of the request, or words where it has none.

    The same for the same messages, seed and choice.
    """
    if body.reply is not None:
        return body.reply
    asked = [body["messages"], body.get("seed"), *([choice] if choice else [])]
    value = sample(_schema(body), random.Random(json.dumps(asked, sort_keys=True)))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def good(body: Body) -> Response:
    return _writes(body)


def _writes(
    body: Body, change: Callable[[str], str | None] = lambda text: text, **more: Any
) -> Response:
    """What a good reply says, changed, as often as the request wants it."""
    count = body.get("n") or 1
    return completion(*(change(valid_text(body, choice)) for choice in range(count)), **more)


def says(text: str | None, **more: Any) -> Behaviour:
    return lambda body: _writes(body, lambda _: text, **more)


def _schema(body: Body) -> Any:
    asked = body.get("response_format") or {}
    if asked.get("type") == "json_schema":
        return asked["json_schema"]["schema"]
    _, found, rest = str(body["messages"][-1]["content"]).partition('{"type": "object"')
    return json.JSONDecoder().raw_decode(found + rest)[0] if found else {"type": "string"}


# --- texts that are not what was asked for ---


def fenced(body: Body) -> Response:
    return _writes(body, lambda text: f"Here you are:\n```json\n{text}\n```\nAnything else?")


def truncated(body: Body) -> Response:
    """A text that stops in the middle, though the server calls it complete."""
    return _writes(body, lambda text: text[:-3])


def raw_newline(body: Body) -> Response:
    """A control character within a string, as constrained decoding has been seen to write it."""
    return _writes(body, lambda text: text.replace('": "', '": "\n', 1))


def prose(body: Body) -> Response:
    return says("Sure! How about: where is the travel policy?")(body)


def wrong_shape(body: Body) -> Response:
    return says('{"message": "hello"}')(body)


def malformed(body: Body) -> Response:
    """One of the kinds of text that cannot be used, by the request's digest."""
    kinds = (truncated, prose, wrong_shape)
    return kinds[int(body.digest, 16) % len(kinds)](body)


def line_separators(body: Body) -> Response:
    """Characters that some readers take for line ends, and others for nothing at all."""
    odd = "first\u2028second\u2029third\u0085fourth 😀 שלום"
    return _writes(body, lambda text: _with_user(text, odd))


def _with_user(text: str, user: str) -> str:
    return json.dumps({**json.loads(text), "user": user}, ensure_ascii=False)


def ignoring_format(body: Body) -> Response:
    """A server that never reads response_format: prose, until the prompt itself asks for JSON."""
    return fenced(body) if "JSON Schema" in body["messages"][-1]["content"] else prose(body)


# --- completions that say no, or nothing ---


def cut_off(body: Body) -> Response:
    """The server says itself that the reply did not fit."""
    return _writes(body, lambda text: text[:20], finish="length")


def refused(body: Body) -> Response:
    return says(None, refusal="I cannot help with that.")(body)


def filtered(body: Body) -> Response:
    return says("", finish="content_filter")(body)


def without_text(body: Body) -> Response:
    return says(None)(body)


def without_choices(body: Body) -> Response:
    return completion()


def without_usage(body: Body) -> Response:
    return _writes(body, tokens=None)


def same_id(body: Body) -> Response:
    """Every completion bears the same id."""
    return _writes(body, id="chatcmpl-0")


# --- answers that break on the way ---


def not_json(body: Body) -> Response:
    return Response(body=b'{"model": "kit", "choices": [{"mess')


def reset(body: Body) -> Response:
    """The connection breaks before the answer."""
    return Response(end=End.RESET)


def hung_up(body: Body) -> Response:
    """The connection is closed, properly, without an answer."""
    return Response(end=End.CLOSED)


def unanswered(body: Body) -> Response:
    """Nothing ever comes."""
    return Response(end=End.STALLED)


def _halfway(body: Body, end: End) -> Response:
    whole = good(body)
    return replace(whole, end=end, sent=len(whole.body) // 2)


def reset_halfway(body: Body) -> Response:
    return _halfway(body, End.RESET)


def cut_short(body: Body) -> Response:
    """A body shorter than its Content-Length, and then the end."""
    return _halfway(body, End.CLOSED)


def stalled(body: Body) -> Response:
    """Headers and half of the body, then silence."""
    return _halfway(body, End.STALLED)


def slow(delay: float) -> Behaviour:
    """A good reply whose first byte is late."""
    return lambda body: replace(good(body), delay=delay)


def trickling(seconds: float, pieces: int = 10) -> Behaviour:
    """A good reply whose body takes so long, from its first part to its last."""
    return lambda body: replace(good(body), pieces=pieces, pause=seconds / max(1, pieces - 1))


# --- errors that may pass ---


def broken(status: int) -> Behaviour:
    return lambda body: failure(status, "the server is broken")


def rate_limited(retry_after: str | float | None = None, *, as_date: bool = False) -> Behaviour:
    """429, with Retry-After if it is given: seconds, or a text; as_date: as the date they end."""
    return lambda body: _later(failure(429, "slow down"), retry_after, as_date)


def unavailable(retry_after: str | float | None = None, *, as_date: bool = False) -> Behaviour:
    """503, otherwise as rate_limited."""
    return lambda body: _later(failure(503, "overloaded"), retry_after, as_date)


def _later(answer: Response, retry_after: str | float | None, as_date: bool) -> Response:
    if retry_after is None:
        return answer
    # Whole seconds are all that a date can say: rounded up, it is never too early.
    when = formatdate(time.time() + float(retry_after) + 1, usegmt=True) if as_date else retry_after
    return replace(answer, headers={"Retry-After": str(when)})


def proxy_error(body: Body) -> Response:
    """What stands in front of the server speaks, in HTML."""
    page = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
    return Response(502, page, {"Content-Type": "text/html"})


# --- errors that stay ---


def unauthorised(body: Body) -> Response:
    return failure(401, "Incorrect API key provided", code="invalid_api_key")


def unauthorised_by_vllm(body: Body) -> Response:
    """vLLM 0.32's middleware: the error is a word, not an object."""
    return Response(401, to_json({"error": "Unauthorized"}))


def out_of_credit(body: Body) -> Response:
    said = "You exceeded your current quota, please check your plan and billing details."
    return failure(429, said, type="insufficient_quota", code="insufficient_quota")


def unknown_model(body: Body) -> Response:
    return failure(404, f"The model `{body['model']}` does not exist", code="model_not_found")


def too_long(body: Body) -> Response:
    """A context overflow as OpenAI words it."""
    said = (
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "9411 tokens. Please reduce the length of the messages."
    )
    code = "context_length_exceeded"
    return failure(400, said, type="invalid_request_error", param="messages", code=code)


def too_long_for_vllm(body: Body) -> Response:
    """A context overflow as vLLM 0.32 words it."""
    said = (
        "This model's maximum context length is 1024 tokens. However, your prompt contains at "
        "least 1025 input tokens, which exceeds this limit even without any output tokens. "
        "Please reduce the length of the input prompt. (parameter=input_tokens, value=1025)"
    )
    return failure(400, said, type="BadRequestError", param="input_tokens", code=400)


def echoing_key(status: int) -> Behaviour:
    """An error that repeats the client's key."""

    def answer(body: Body) -> Response:
        key = body.headers.get("authorization", "").removeprefix("Bearer ")
        return failure(status, f"Incorrect API key provided: {key}. You may not do this.")

    return answer


def rejecting_formats(*kinds: str) -> Behaviour:
    """A server that answers 400 to these kinds of response_format, and else is good."""

    def answer(body: Body) -> Response:
        kind = (body.get("response_format") or {}).get("type")
        if kind in kinds:
            return failure(400, f"Unknown value {kind!r} for response_format", param=None)
        return good(body)

    return answer


def rejecting_parameter(name: str) -> Behaviour:
    """A server that, as reasoning models do, answers 400 to one parameter."""

    def answer(body: Body) -> Response:
        if name in body:
            said = f"Unsupported parameter: '{name}' is not supported with this model."
            return failure(400, said, param=name, code="unsupported_parameter")
        return good(body)

    return answer
