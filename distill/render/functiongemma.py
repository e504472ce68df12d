"""FunctionGemma's notation: declarations, calls and responses between marker tokens.

The grammar of a call, with strings between two `<escape>` and no way to escape a marker:

    call    = "<start_function_call>call:" name object "<end_function_call>"
    object  = "{" [key ":" value {"," key ":" value}] "}"
    key     = plain identifier | string
    value   = string | number | "true" | "false" | "null" | object | "[" [value {"," value}] "]"
    string  = "<escape>" characters "<escape>"

Source: https://ai.google.dev/gemma/docs/functiongemma/formatting-and-best-practices
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from distill.records import Json, Message, ToolCall
from distill.render.syntax import MAX_DEPTH, MalformedError, RenderError, TurnContent

ESCAPE = "<escape>"
CALL = ("<start_function_call>", "<end_function_call>")
RESPONSE = ("<start_function_response>", "<end_function_response>")
DECLARATION = ("<start_function_declaration>", "<end_function_declaration>")
TURN = ("<start_of_turn>", "<end_of_turn>")
MARKERS = (*TURN, *DECLARATION, *CALL, *RESPONSE, ESCAPE)
"""The tokens that a tokenizer must hold to be rendered in this format."""

STOPS = (TURN[1], RESPONSE[0])
"""A turn ends with its end marker, or, after calls, where a response is expected."""

INVALID_MARKERS = (TURN[0], *DECLARATION, RESPONSE[1])
"""Markers after which a turn can no longer be read, whatever follows."""

DEVELOPER = "You are a model that can do function calling with the following functions"
"""The sentence that FunctionGemma was trained to expect before the declarations."""

_UNMARKED_CALL = re.compile(r"call:\s*[\w.-]+\s*\{")
_NAME = re.compile(r"[^\s{}<>:]+")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BLANK = re.compile(r"[ \t\r\n]*")
_UNSAID = ("$schema", "additionalProperties", "title")
# The published template prints Python's None for a null argument.
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "None": None}


def write(calls: Sequence[ToolCall]) -> str:
    """The calls as the assistant says them; RenderError for what the format cannot express."""
    return "".join(f"{CALL[0]}call:{_named(c.name)}{_object(c.arguments)}{CALL[1]}" for c in calls)


def declare(tool: Mapping[str, Any]) -> str:
    """The declaration of an OpenAI function schema; keys sorted, types in upper case."""
    function = tool.get("function", tool)
    fields: Json = {
        "description": function.get("description") or "",
        "parameters": _schema(function.get("parameters") or {"type": "object"}),
    }
    name = _named(function["name"])
    return f"{DECLARATION[0]}declaration:{name}{_object(fields)}{DECLARATION[1]}"


def declare_name(tool: Mapping[str, Any]) -> str:
    """A declaration that says no more of a tool than its name, as the published template does."""
    name = _named(tool.get("function", tool)["name"])
    return f"{DECLARATION[0]}declaration:{name}{_object({'description': ''})}{DECLARATION[1]}"


def developer_turn(declarations: Iterable[str], instructions: str) -> str:
    """The turn that holds the trigger sentence, further instructions and the declarations."""
    return f"{TURN[0]}developer\n{instructions}{''.join(declarations)}{TURN[1]}\n"


def conversation(messages: Sequence[Message]) -> str:
    """The turns up to where the model speaks next.

    A tool's answer stands inside the model's turn, which is still open after it.
    """
    if not messages:
        raise RenderError("an empty conversation")
    turns = ""
    open_turn = False
    for message in messages:
        if message.role == "tool":
            turns += ("" if open_turn else f"{TURN[0]}model\n") + respond(message)
            open_turn = True
            continue
        if message.role == "assistant":
            turns += "" if open_turn else f"{TURN[0]}model\n"
            turns += safe(message.content) + write(message.tool_calls)
            open_turn = bool(message.tool_calls)
            turns += "" if open_turn else f"{TURN[1]}\n"
            continue
        turns += f"{TURN[1]}\n" if open_turn else ""
        role = "developer" if message.role == "system" else message.role
        turns += f"{TURN[0]}{role}\n{safe(message.content)}{TURN[1]}\n"
        open_turn = False
    return turns if open_turn else turns + f"{TURN[0]}model\n"


def respond(message: Message) -> str:
    """A tool's answer: the fields of a JSON object, anything else as `value`."""
    try:
        answer = json.loads(message.content)
    except ValueError:
        answer = message.content
    fields = answer if isinstance(answer, dict) else {"value": answer}
    return f"{RESPONSE[0]}response:{_named(message.name or 'tool')}{_object(fields)}{RESPONSE[1]}"


def safe(text: str) -> str:
    """The text, if it holds no marker: the format has no way to quote one."""
    for marker in MARKERS:
        if marker in text:
            raise RenderError(f"the text holds {marker}, which the format cannot quote")
    return text


def read(text: str) -> TurnContent:
    """What a turn without its end marker says; MalformedError for anything but calls or words."""
    text = text.strip()
    if invalid := next((marker for marker in INVALID_MARKERS if marker in text), None):
        raise MalformedError(f"{invalid} inside a turn")
    if not any(marker in text for marker in MARKERS) and not _UNMARKED_CALL.match(text):
        return TurnContent(reply=text)
    return TurnContent(calls=tuple(_Reader(text).calls()))


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RenderError(f"the name {name!r} holds characters that the format cannot express")
    return name


def _string(text: str) -> str:
    return f"{ESCAPE}{safe(text)}{ESCAPE}"


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else _string(key)


def _object(fields: Mapping[str, JsonValue], depth: int = 0) -> str:
    pairs = (f"{_key(key)}:{_value(value, depth + 1)}" for key, value in sorted(fields.items()))
    return "{" + ",".join(pairs) + "}"


def _value(value: JsonValue, depth: int = 0) -> str:
    if depth > MAX_DEPTH:
        raise RenderError(f"an argument is nested more than {MAX_DEPTH} deep")
    match value:
        case str():
            return _string(value)
        case dict():
            return _object(value, depth)
        case list():
            return "[" + ",".join(_value(item, depth + 1) for item in value) + "]"
        case _:
            return _scalar(value)


def _scalar(value: int | float | bool | None) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        raise RenderError(f"the number {value} does not exist in JSON") from None


def _schema(value: Any) -> Any:
    """A JSON Schema as declarations have it: types in upper case, nothing that says nothing."""
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _keyword(key, item)
        for key, item in value.items()
        if key not in _UNSAID and item not in ({}, [])
    }


def _keyword(key: str, value: Any) -> Any:
    match key:
        case "type":
            return _type(value)
        case "properties":
            return {name: _schema(schema) for name, schema in value.items()}
        case "enum" | "const" | "default" | "examples" | "required":
            return value
        case _:
            return _schema(value)


def _type(value: Any) -> str:
    names = value if isinstance(value, list) else [value]
    return str(next((name for name in names if name != "null"), "null")).upper()


class _Reader:
    """Recursive descent over the text of one turn."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def calls(self) -> Iterable[ToolCall]:
        while self.at < len(self.text):
            yield self.call()
            self.skip()

    def call(self) -> ToolCall:
        self.expect(CALL[0])
        self.expect("call:")
        name = self.match(_NAME, "the name of a tool")
        arguments = self.object(0)
        self.expect(CALL[1])
        return ToolCall(name=name, arguments=arguments)

    def object(self, depth: int) -> Json:
        fields: Json = {}
        self.expect("{")
        if self.take("}"):
            return fields
        while True:
            key = self.string() if self.sees(ESCAPE) else self.match(_PLAIN_KEY, "an argument")
            if key in fields:
                raise MalformedError(f"the argument {key!r} is given twice")
            self.expect(":")
            fields[key] = self.value(depth + 1)
            if self.take("}"):
                return fields
            self.expect(",")

    def array(self, depth: int) -> list[JsonValue]:
        items: list[JsonValue] = []
        self.expect("[")
        if self.take("]"):
            return items
        while True:
            items.append(self.value(depth + 1))
            if self.take("]"):
                return items
            self.expect(",")

    def value(self, depth: int) -> JsonValue:
        if depth > MAX_DEPTH:
            raise MalformedError(f"an argument is nested more than {MAX_DEPTH} deep")
        if self.sees(ESCAPE):
            return self.string()
        if self.sees("{"):
            return self.object(depth)
        if self.sees("["):
            return self.array(depth)
        for word, meaning in _WORDS.items():
            if self.take(word):
                return meaning
        return self.number()

    def string(self) -> str:
        self.expect(ESCAPE)
        end = self.text.find(ESCAPE, self.at)
        if end < 0:
            raise MalformedError("a string has no end")
        found, self.at = self.text[self.at : end], end + len(ESCAPE)
        if inner := next((marker for marker in MARKERS if marker in found), None):
            raise MalformedError(f"{inner} inside a string")
        return found

    def number(self) -> int | float:
        return _number(self.match(_NUMBER, "a value"))

    def skip(self) -> None:
        blank = _BLANK.match(self.text, self.at)
        assert blank is not None
        self.at = blank.end()

    def sees(self, what: str) -> bool:
        self.skip()
        return self.text.startswith(what, self.at)

    def take(self, what: str) -> bool:
        if self.sees(what):
            self.at += len(what)
            return True
        return False

    def expect(self, what: str) -> None:
        if not self.take(what):
            raise MalformedError(f"expected {what} at {self.here()}")

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        self.skip()
        found = pattern.match(self.text, self.at)
        if found is None:
            raise MalformedError(f"expected {what} at {self.here()}")
        self.at = found.end()
        return found.group()

    def here(self) -> str:
        return repr(self.text[self.at : self.at + 30]) if self.at < len(self.text) else "the end"


def _number(digits: str) -> int | float:
    try:
        number = int(digits) if re.fullmatch(r"-?[0-9]+", digits) else float(digits)
    except ValueError:
        raise MalformedError(f"the number {digits[:20]}... is too long") from None
    if number in (float("inf"), float("-inf")):
        raise MalformedError(f"the number {digits} is too large")
    return number
