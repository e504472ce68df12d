"""What a server is found to support, and requests encoded for it.

A reply's schema is sent as a strict JSON Schema; a server that does not take that is asked for any
JSON object, and then by the prompt alone. Parameters that it rejects are omitted. Each of these is
found out once, and reported once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from distill.files import encoded
from distill.prompts import render_prompt
from distill.records import FailureReason, digest
from distill.teachers.base import ChatRequest, ReplyError

# Schemas that a server rejected, while it followed none, after which it is sent no others.
MAX_REJECTED_SCHEMAS = 3


class ResponseFormat(IntEnum):
    """How the schema of a reply is enforced, the strictest first."""

    JSON_SCHEMA = 0
    JSON_OBJECT = 1
    PROMPT = 2


class UnsupportedError(Exception):
    """The server does not support a parameter of the request."""

    def __init__(self, parameter: str, detail: str) -> None:
        self.parameter = parameter
        self.detail = detail
        super().__init__(detail)


class EncodedRequest(NamedTuple):
    """The body of a request, and what it was encoded for."""

    schema_id: str
    format: ResponseFormat
    body: dict[str, Any]


class Dialect:
    """The dialect of one server. notice: called once with each thing that it does not support"""

    def __init__(self, model: str, notice: Callable[[str], None]) -> None:
        self._model = model
        self._notice = notice
        # By schema: a server may reject one tool's schema and support all the others.
        self._formats: dict[str, ResponseFormat] = {}
        self._default_format = ResponseFormat.JSON_SCHEMA
        # Replies that followed a strict schema, or did not, by schema.
        self._followed: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()
        self._omitted: frozenset[str] = frozenset()
        self._streams = False
        self._notified: set[str] = set()

    def encode(self, request: ChatRequest) -> EncodedRequest:
        """The request in the strictest form that the server is not known to reject."""
        schema_id = digest(request.reply_schema)
        format = self._formats.get(schema_id, self._default_format)
        return EncodedRequest(schema_id, format, self._body(request, format))

    def on_reply(self, sent: EncodedRequest, text: str) -> None:
        """Learn from a reply. One that follows a strict schema can only begin with a brace.

        Any other is paid for and may be usable all the same; the format of the next requests is
        downgraded, unless more replies follow the schema than do not.
        """
        if sent.format is not ResponseFormat.JSON_SCHEMA:
            return
        counts = self._followed if text.lstrip().startswith("{") else self._ignored
        counts[sent.schema_id] += 1
        if self._ignored[sent.schema_id] > self._followed[sent.schema_id]:
            self._downgrade(sent, "ignores the JSON Schema of the reply")

    def on_unsupported(self, sent: EncodedRequest, error: UnsupportedError) -> None:
        """Do without a parameter from now on. Raises ReplyError where that cannot be done."""
        if error.parameter == "response_format":
            if sent.format is ResponseFormat.PROMPT:
                raise ReplyError(FailureReason.SERVER, error.detail)
            self._downgrade(sent, "does not take the format of the reply", error.detail)
        elif error.parameter == "stream":
            if "stream" in sent.body:
                raise ReplyError(FailureReason.SERVER, error.detail)
            self._streams = True
            self.notify_once("the server answers in a stream only; it is asked so", error.detail)
        elif error.parameter not in sent.body:
            raise ReplyError(FailureReason.SERVER, error.detail)
        else:
            self._omitted |= {error.parameter}
            text = f"the server does not take {error.parameter}; it is left out"
            self.notify_once(text, error.detail)

    def notify_once(self, text: str, detail: str = "") -> None:
        """Call `notice`, unless it was called with the same text before."""
        if text not in self._notified:
            self._notified.add(text)
            self._notice(f"{text} ({detail})" if detail else text)

    def _downgrade(self, sent: EncodedRequest, why: str, detail: str = "") -> None:
        # Several requests in flight find out at one time: the format goes down by one step only.
        format = sent.format
        if self._formats.get(sent.schema_id, self._default_format) == format:
            self._formats[sent.schema_id] = ResponseFormat(format + 1)
        rejected = sum(known > format for known in self._formats.values())
        is_enough = rejected >= MAX_REJECTED_SCHEMAS and not self._followed
        if is_enough and self._default_format == format:
            self._default_format = ResponseFormat(format + 1)
        how = "as any JSON" if format is ResponseFormat.JSON_SCHEMA else "in words alone"
        self.notify_once(
            f"the server {why}; it is asked {how}, and replies are checked as ever", detail
        )

    def _body(self, request: ChatRequest, format: ResponseFormat) -> dict[str, Any]:
        # Lone surrogates of a model come back in a reprompt, and cannot be sent as UTF-8.
        messages = [
            {"role": message.role, "content": encoded(message.content).decode()}
            for message in request.messages
        ]
        if format is not ResponseFormat.JSON_SCHEMA:
            [instruction] = render_prompt("schema", schema=request.reply_schema)
            messages[-1]["content"] += f"\n\n{instruction.content}"
        parameters: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
        }
        if "max_tokens" in self._omitted:
            parameters["max_completion_tokens"] = request.max_tokens
        if format is ResponseFormat.JSON_SCHEMA:
            schema = {"name": "reply", "strict": True, "schema": request.reply_schema}
            parameters["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif format is ResponseFormat.JSON_OBJECT:
            parameters["response_format"] = {"type": "json_object"}
        if self._streams:
            # Without the option, a stream tells no usage.
            parameters |= {"stream": True, "stream_options": {"include_usage": True}}
        return {
            name: value
            for name, value in parameters.items()
            if value is not None and name not in self._omitted
        }
