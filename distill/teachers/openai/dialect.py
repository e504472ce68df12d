"""What a server is found to understand, and how it is therefore asked.

A reply's shape is asked for as strict JSON Schema, then as any JSON, then in words alone, as far as
the server goes along; parameters that it refuses are left out. Each is found out and said once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from distill.prompts import render_prompt
from distill.records import FailureReason, Message, digest
from distill.teachers.base import ChatRequest, ReplyError

# Schemas that a server refused, while it took none, after which it is asked with no more of them.
SCHEMAS = 3


class Format(IntEnum):
    """How a reply's shape is asked for, the strictest first."""

    STRICT = 0
    JSON = 1
    WORDS = 2


class UnsupportedError(Exception):
    """The server does not take a parameter of the request."""

    def __init__(self, parameter: str, detail: str) -> None:
        self.parameter = parameter
        self.detail = detail
        super().__init__(detail)


class EncodedRequest(NamedTuple):
    """How one request is put."""

    schema: str
    format: Format
    left_out: frozenset[str]
    body: dict[str, Any]


class Dialect:
    """The knowledge of one server. notice: told, once each, what it does not support"""

    def __init__(self, model: str, notice: Callable[[str], None]) -> None:
        self._model = model
        self._notice = notice
        # By schema: a server may refuse one tool's schema and hold all the others.
        self._formats: dict[str, Format] = {}
        self._usual = Format.STRICT
        self._taken: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()
        self._left_out: frozenset[str] = frozenset()
        self._told: set[str] = set()

    def put(self, request: ChatRequest) -> EncodedRequest:
        """The request in words that the server is believed to understand."""
        schema = digest(request.reply_schema)
        format = self._formats.get(schema, self._usual)
        return EncodedRequest(schema, format, self._left_out, self._body(request, format))

    def heard(self, wording: EncodedRequest, text: str) -> None:
        """A reply came. One that was held to a JSON Schema can only begin with a brace.

        Else it is paid for and may be usable all the same; the next are asked for another way. One
        odd reply among many is no sign.
        """
        if wording.format is not Format.STRICT:
            return
        counts = self._taken if text.lstrip().startswith("{") else self._ignored
        counts[wording.schema] += 1
        if self._ignored[wording.schema] > self._taken[wording.schema]:
            self._plainer(wording, "ignores the JSON Schema of the reply")

    def refused(self, wording: EncodedRequest, error: UnsupportedError) -> None:
        """A parameter was refused. Raises ReplyError where there is no way without it."""
        if error.parameter == "response_format":
            if wording.format is Format.WORDS:
                raise ReplyError(FailureReason.SERVER, error.detail)
            self._plainer(wording, "does not take the format of the reply", error.detail)
        elif error.parameter in wording.left_out:
            raise ReplyError(FailureReason.SERVER, error.detail)
        else:
            self._left_out |= {error.parameter}
            self.tell(f"the server does not take {error.parameter}; it is left out", error.detail)

    def tell(self, text: str, detail: str = "") -> None:
        """Say it, unless it was said before."""
        if text not in self._told:
            self._told.add(text)
            self._notice(f"{text} ({detail})" if detail else text)

    def _plainer(self, wording: EncodedRequest, why: str, detail: str = "") -> None:
        # Requests in flight find out at the same time: only a step down from here counts.
        format = wording.format
        if self._formats.get(wording.schema, self._usual) == format:
            self._formats[wording.schema] = Format(format + 1)
        stepped = sum(known > format for known in self._formats.values())
        if stepped >= SCHEMAS and not self._taken and self._usual == format:
            self._usual = Format(format + 1)
        how = "as any JSON" if format is Format.STRICT else "in words alone"
        self.tell(f"the server {why}; it is asked {how}, and replies are checked as ever", detail)

    def _body(self, request: ChatRequest, format: Format) -> dict[str, Any]:
        messages = [_wire(message) for message in request.messages]
        if format is not Format.STRICT:
            [told] = render_prompt("schema", schema=request.reply_schema)
            messages[-1]["content"] += f"\n\n{told.content}"
        wanted: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
        }
        if "max_tokens" in self._left_out:
            wanted["max_completion_tokens"] = request.max_tokens
        if format is Format.STRICT:
            held = {"name": "reply", "strict": True, "schema": request.reply_schema}
            wanted["response_format"] = {"type": "json_schema", "json_schema": held}
        elif format is Format.JSON:
            wanted["response_format"] = {"type": "json_object"}
        return {
            name: value
            for name, value in wanted.items()
            if value is not None and name not in self._left_out
        }


def _wire(message: Message) -> dict[str, str]:
    # A model's own lone surrogates come back here in a follow-up, and cannot be sent as UTF-8.
    content = message.content.encode("utf-8", "backslashreplace").decode()
    return {"role": message.role, "content": content}
