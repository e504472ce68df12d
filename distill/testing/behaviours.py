"""Behaviours of a chat server, good and faulty: functions from a request's body to a `Response`.

Good replies are sampled from the request's JSON Schema, seeded by the request itself: one request,
one reply, in every process. Behaviours here have no state, so that tests can be repeated; those
with state are in faults.py.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from distill import strict_json
from distill.testing.responses import (
    Behaviour,
    Body,
    Ending,
    Response,
    completion,
    failure,
    streamed,
    to_json,
)
from distill.testing.sampler import sample

# --- good replies ---


def valid_text(body: Body, choice: int = 0) -> str:
    """JSON that meets the schema of the request, or words if it has none.

    A function of the messages, the seed and the choice.
    """
    if body.reply is not None:
        return body.reply
    seed = [body["messages"], body.get("seed"), *([choice] if choice else [])]
    value = sample(
        _schema(body), random.Random(strict_json.encode(seed, sort_keys=True, ensure_ascii=True))
    )
    return value if isinstance(value, str) else strict_json.encode(value)


def good(body: Body) -> Response:
    return _completion(body)


def _completion(
    body: Body, change: Callable[[str], str | None] = lambda text: text, **more: Any
) -> Response:
    """A completion with as many choices as the request wants, their texts changed."""
    count = body.get("n") or 1
    return completion(*(change(valid_text(body, choice)) for choice in range(count)), **more)


def replying_with(text: str | None, **more: Any) -> Behaviour:
    return lambda body: _completion(body, lambda _: text, **more)


def _schema(body: Body) -> Any:
    format = body.get("response_format") or {}
    if format.get("type") == "json_schema":
        return format["json_schema"]["schema"]
    # Else the schema that the prompt quotes.
    _, found, rest = str(body["messages"][-1]["content"]).partition('{"type": "object"')
    return json.JSONDecoder().raw_decode(found + rest)[0] if found else {"type": "string"}


# --- replies that do not follow the schema ---


def fenced(body: Body) -> Response:
    return _completion(body, lambda text: f"Here you are:\n```json\n{text}\n```\nAnything else?")


def truncated(body: Body) -> Response:
    """A text that is cut short, with the finish reason of a complete one."""
    return _completion(body, lambda text: text[:-3])


def raw_newline(body: Body) -> Response:
    """A control character within a JSON string, as constrained decoding may write it."""
    return _completion(body, lambda text: text.replace('": "', '": "\n', 1))


def prose(body: Body) -> Response:
    return replying_with("Sure! How about: where is the travel policy?")(body)


def wrong_shape(body: Body) -> Response:
    return replying_with('{"message": "hello"}')(body)


def malformed(body: Body) -> Response:
    """One of the kinds of malformed text, chosen by the request's digest."""
    kinds = (truncated, prose, wrong_shape)
    return kinds[int(body.digest, 16) % len(kinds)](body)


def line_separators(body: Body) -> Response:
    """Unicode characters that some parsers take for line ends."""
    odd = "first\u2028second\u2029third\u0085fourth 😀 שלום"
    return _completion(body, lambda text: _with_user_message(text, odd))


def _with_user_message(text: str, user: str) -> str:
    return strict_json.encode({**json.loads(text), "user": user})


def ignoring_format(body: Body) -> Response:
    """A server that ignores response_format: prose, unless the prompt asks for JSON."""
    return fenced(body) if "JSON Schema" in body["messages"][-1]["content"] else prose(body)


# --- completions without a usable reply ---


def cut_off(body: Body) -> Response:
    """A text that is cut short, with the finish reason `length`."""
    return _completion(body, lambda text: text[:20], finish="length")


def refused(body: Body) -> Response:
    return replying_with(None, refusal="I cannot help with that.")(body)


def filtered(body: Body) -> Response:
    return replying_with("", finish="content_filter")(body)


def without_text(body: Body) -> Response:
    return replying_with(None)(body)


def without_choices(body: Body) -> Response:
    return completion()


def without_usage(body: Body) -> Response:
    return _completion(body, tokens=None)


def same_id(body: Body) -> Response:
    """Every completion has the same id."""
    return _completion(body, id="chatcmpl-0")


# --- responses that break off ---


def not_json(body: Body) -> Response:
    return Response(body=b'{"model": "kit", "choices": [{"mess')


def reset(body: Body) -> Response:
    """The connection is reset before the response."""
    return Response(end=Ending.RESET)


def hung_up(body: Body) -> Response:
    """The connection is closed in order, without a response."""
    return Response(end=Ending.CLOSED)


def unanswered(body: Body) -> Response:
    """Nothing is ever sent."""
    return Response(end=Ending.STALLED)


def _halfway(body: Body, end: Ending) -> Response:
    response = good(body)
    return replace(response, end=end, sent_bytes=len(response.body) // 2)


def reset_halfway(body: Body) -> Response:
    return _halfway(body, Ending.RESET)


def cut_short(body: Body) -> Response:
    """The connection is closed after half of the body."""
    return _halfway(body, Ending.CLOSED)


def stalled(body: Body) -> Response:
    """Headers and half of the body, then nothing."""
    return _halfway(body, Ending.STALLED)


def slow(delay: float) -> Behaviour:
    """A good reply whose first byte comes after `delay` seconds."""
    return lambda body: replace(good(body), delay=delay)


def trickling(seconds: float, chunks: int = 10) -> Behaviour:
    """A good reply whose body takes `seconds` from its first part to its last."""
    return lambda body: replace(good(body), chunks=chunks, chunk_delay=seconds / max(1, chunks - 1))


# --- transient errors ---


def broken(status: int) -> Behaviour:
    return lambda body: failure(status, "the server is broken")


def rate_limited(retry_after: str | float | None = None, *, as_date: bool = False) -> Behaviour:
    """429, with Retry-After where given: seconds, or any text; as_date: as an HTTP date."""
    return lambda body: _with_retry_after(failure(429, "slow down"), retry_after, as_date)


def unavailable(retry_after: str | float | None = None, *, as_date: bool = False) -> Behaviour:
    """503, with Retry-After as for `rate_limited`."""
    return lambda body: _with_retry_after(failure(503, "overloaded"), retry_after, as_date)


def _with_retry_after(
    response: Response, retry_after: str | float | None, as_date: bool
) -> Response:
    if retry_after is None:
        return response
    # A date has whole seconds: rounded up, so that it is never too early.
    when = formatdate(time.time() + float(retry_after) + 1, usegmt=True) if as_date else retry_after
    return replace(response, headers={"Retry-After": str(when)})


def proxy_error(body: Body) -> Response:
    """502 from a proxy, in HTML."""
    page = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
    return Response(502, page, {"Content-Type": "text/html"})


# --- permanent errors ---


def unauthorised(body: Body) -> Response:
    return failure(401, "Incorrect API key provided", code="invalid_api_key")


def unauthorised_by_vllm(body: Body) -> Response:
    """401 as in vLLM 0.32: the error is a string, not an object."""
    return Response(401, to_json({"error": "Unauthorized"}))


def out_of_credit(body: Body) -> Response:
    message = "You exceeded your current quota, please check your plan and billing details."
    return failure(429, message, type="insufficient_quota", code="insufficient_quota")


def unknown_model(body: Body) -> Response:
    return failure(404, f"The model `{body['model']}` does not exist", code="model_not_found")


def too_long(body: Body) -> Response:
    """A context overflow in the words of OpenAI."""
    message = (
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "9411 tokens. Please reduce the length of the messages."
    )
    code = "context_length_exceeded"
    return failure(400, message, type="invalid_request_error", param="messages", code=code)


def too_long_for_vllm(body: Body) -> Response:
    """A context overflow in the words of vLLM 0.32."""
    message = (
        "This model's maximum context length is 1024 tokens. However, your prompt contains at "
        "least 1025 input tokens, which exceeds this limit even without any output tokens. "
        "Please reduce the length of the input prompt. (parameter=input_tokens, value=1025)"
    )
    return failure(400, message, type="BadRequestError", param="input_tokens", code=400)


def refusing(status: int, body: bytes, *names: str) -> Behaviour:
    """This body to every request that has one of the parameters `names`, else a good reply."""
    return lambda asked: Response(status, body) if asked.keys() & {*names} else good(asked)


def thinking(tokens: int) -> Behaviour:
    """A model that thinks for so many tokens, unseen, before a good reply of seven more."""

    def response(body: Body) -> Response:
        allowed = body.get("max_tokens") or body.get("max_completion_tokens") or tokens + 7
        if allowed < tokens + 7:
            return completion("", finish="length", tokens=(11, allowed))
        return _completion(body, tokens=(11, tokens + 7))

    return response


def stream_only(body: Body) -> Response:
    """400 to every request that does not ask for a stream, in the words of DashScope."""
    if body.get("stream"):
        return good(body)
    message = (
        "This model only support stream mode, please enable the stream parameter to access the "
        "model. "
    )
    return failure(400, message, type="invalid_request_error", code="invalid_parameter_error")


def streaming(body: Body) -> Response:
    """A stream of events to every request."""
    return streamed(good(body))


def echoing_key(status: int) -> Behaviour:
    """An error that repeats the client's key."""

    def response(body: Body) -> Response:
        key = body.headers.get("authorization", "").removeprefix("Bearer ")
        return failure(status, f"Incorrect API key provided: {key}. You may not do this.")

    return response


def rejecting_formats(*kinds: str) -> Behaviour:
    """400 to these types of response_format, else a good reply."""

    def response(body: Body) -> Response:
        kind = (body.get("response_format") or {}).get("type")
        if kind in kinds:
            return failure(400, f"Unknown value {kind!r} for response_format", param=None)
        return good(body)

    return response


def rejecting_parameter(name: str) -> Behaviour:
    """400 to requests with one parameter, as for reasoning models."""

    def response(body: Body) -> Response:
        if name in body:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            return failure(400, message, param=name, code="unsupported_parameter")
        return good(body)

    return response
