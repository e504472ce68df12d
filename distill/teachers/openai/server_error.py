"""What a server says when it refuses: its own words, its status, and the parameter it means.

There is no common form: OpenAI sends an object, Gemini a list of one, Mistral and FastAPI a list of
`detail`, xAI and vLLM a string, proxies HTML; some send it with status 200.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

# Characters of a server's words that are kept.
MAX_WORDS = 2000
# Keys under which servers put their words, in the order in which they are looked for.
_WORDS = ("message", "detail", "msg", "error_msg", "status_msg", "errorMessage", "error")
# Statuses of the errors that come by name, where a body has no number.
_STATUSES = {
    "rate_limit": 429,
    "too_many_requests": 429,
    "resource_exhausted": 429,
    "insufficient_quota": 402,
    "invalid_api_key": 401,
    "authentication": 401,
    "unauthenticated": 401,
    "permission": 403,
    "model_not_found": 404,
    "overloaded": 503,
    "unavailable": 503,
    "timeout": 504,
    "invalid_request": 400,
    "invalid_argument": 400,
}
_FIXED = frozenset({"model", "messages"})
# Between a parameter's name and the words that refuse it.
_NEAR = 90
_UNSUPPORTED = re.compile(
    r"unsupported|not supported|(not|n't) support|unrecogni[sz]ed|unknown|unexpected|not permitted"
    r"|forbidden|not allowed|extraneous|cannot find field|not a valid (field|param)|not available"
    r"|unavailable|not implemented|deprecated|no longer|additional propert"
)
# Said of a value: a parameter without which the request means the same may be left out.
_UNWANTED = re.compile(r"\b(invalid|must|should|only|may not|can(not|'t)|out of range|too large)\b")
# As servers say "response format", among them those that build a grammar from it.
_FORMAT = re.compile(
    r"response_?format|json[_ ]?schema|json[_ ]object|json[_ ]mode|grammar|structured[_ ]output"
    r"|guided[_ ](json|decoding)|(response|output)_schema|output_format"
)
_STREAM_ONLY = re.compile(
    r"\bnon-?stream|only supports?\b.{0,20}\bstream"
    r"|stream.{0,30}\b(must|only|required|enable|true)\b"
)


class ServerError(NamedTuple):
    """An error as the server puts it; names it does not give are empty."""

    status: int
    words: str
    code: str = ""
    type: str = ""
    param: str = ""


def read_error(status: int, body: bytes) -> ServerError:
    """The error in the body of a response, which may be JSON, HTML, text or nothing."""
    text = body[: 8 * MAX_WORDS].decode("utf-8", "replace")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    found = _named(status, value) if isinstance(value, dict | list) else None
    return found or ServerError(status, _plain(text))


def error_of_reply(value: Any) -> ServerError | None:
    """The error that a body of status 200 holds instead of a reply."""
    if not isinstance(value, dict):
        return None
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    holder = first if isinstance(first, dict) and first.get("error") else value
    is_error = holder.get("error") or (choices is None and any(_texts(value)))
    if not is_error:
        return None
    found = _named(0, holder) or ServerError(0, str(holder)[:MAX_WORDS])
    return found._replace(status=_status(found) or 500)


def refused_parameter(error: ServerError, sent: Mapping[str, Any]) -> str | None:
    """The parameter of `sent` that the server refuses, if it is one that can be left out.

    `stream` stands for a server that answers in a stream only, and was not asked to.
    """
    words = _folded(error)
    names = [name for name in sent if name not in _FIXED]
    param = error.param.rpartition(".")[2]
    if param in names and _is_refused(param, f"{param} {words}", error.code):
        return param
    if "stream" not in sent and _STREAM_ONLY.search(words):
        return "stream"
    others = [name for name in names if name != "response_format"]
    refused = [name for name in others if _says_near(_UNSUPPORTED, name, words)]
    if refused:
        return refused[0]
    # What is said of a format names none but itself, however it is said.
    if "response_format" in sent and _FORMAT.search(f"{words} {param.casefold()}"):
        return "response_format"
    return next((name for name in others if _is_refused(name, words, "")), None)


def _is_refused(name: str, words: str, code: str) -> bool:
    if code in ("unsupported_parameter", "unsupported_value"):
        return True
    if _says_near(_UNSUPPORTED, name, words):
        return True
    # A value of max_tokens may be too large for the rest of the request: no reason to set none.
    return not name.startswith("max_") and _says_near(_UNWANTED, name, words)


def _says_near(what: re.Pattern[str], name: str, words: str) -> bool:
    spelled = name.replace("_", "[_ ]?")
    return any(
        what.search(words, max(0, found.start() - _NEAR), found.end() + _NEAR)
        for found in re.finditer(rf"(?<![\w-]){spelled}(?![\w-])", words)
    )


def _folded(error: ServerError) -> str:
    return f"{error.code} {error.type} {error.words}".casefold()


_MAX_DEPTH = 20


def _named(status: int, value: Any) -> ServerError | None:
    """The error in JSON; None where it has no words."""
    if isinstance(value, list):
        value = value[0] if value else {}
    if not isinstance(value, dict):
        return None
    error = value.get("error") or value
    if isinstance(error, str):
        inner = {**value, "message": error}
    else:
        inner = error if isinstance(error, dict) else {}
    words = " ".join(_texts(inner)) or " ".join(_texts(value))
    if not words:
        return None
    code, kind = (_label(inner, *keys) for keys in (("code", "status_code"), ("type", "status")))
    return ServerError(status, words[:MAX_WORDS], code, kind, _label(inner, "param", "field"))


def _label(value: Mapping[str, Any], *keys: str) -> str:
    found = (value.get(key) for key in keys)
    return next((str(one)[:80] for one in found if isinstance(one, str | int) and one), "")


def _texts(value: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """The words of an error object, without the request that some servers repeat in it."""
    for key in _WORDS:
        if text := _text(value.get(key), depth):
            yield text
            break
    nested = value.get("base_resp")
    if isinstance(nested, dict) and depth <= _MAX_DEPTH:
        yield from _texts(nested, depth + 1)
    metadata = value.get("metadata")
    # OpenRouter: what the provider behind it said.
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        yield metadata["raw"]


def _text(value: Any, depth: int = 0) -> str:
    # Words lie a few levels deep; a body of brackets alone may have tens of thousands.
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(value, str):
        try:
            inner = json.loads(value) if value.lstrip()[:1] in ("{", "[") else None
        except (ValueError, RecursionError):
            inner = None
        return (_text(inner, depth + 1) if inner else "") or value
    if isinstance(value, list):
        return "; ".join(text for item in value[:20] if (text := _text(item, depth + 1)))
    if isinstance(value, dict):
        text = " ".join(_texts(value, depth + 1))
        where = value.get("loc")
        # Pydantic's place of a fault: ["body", "seed"].
        return f"{_place(where)}: {text}" if isinstance(where, list) else text
    return ""


def _place(where: Iterable[Any]) -> str:
    return ".".join(str(part) for part in where if part != "body") or "body"


def _status(error: ServerError) -> int:
    """The HTTP status that an error without one stands for; 0 if it tells none."""
    for label in (error.code, error.type):
        if label.isdecimal() and 400 <= int(label) <= 599:
            return int(label)
    for label in (error.code, error.type):
        folded = re.sub(r"\W+", "_", label.casefold())
        for name, status in _STATUSES.items():
            if name in folded:
                return status
    return 0


def _plain(text: str) -> str:
    """Text, or the text of HTML without its tags, styles and scripts."""
    if re.search(r"<(!doctype|html|head|body)\b", text[:500], re.IGNORECASE):
        text = re.sub(r"(?is)<(style|script)\b.*?(</\1>|\Z)", " ", text)
        text = html.unescape(re.sub(r"<[^<>]*>", " ", text))
    return " ".join(text.split())[:MAX_WORDS] or "no words"
