"""FunctionGemma's format: tool declarations, calls and responses between special tokens (markers).

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

from distill import strict_json
from distill.records import Json, Message, ToolCall
from distill.render.syntax import (
    MAX_DEPTH,
    ArgumentSyntax,
    MalformedError,
    RenderError,
    TurnContent,
)

ESCAPE = "<escape>"
CALL = ("<start_function_call>", "<end_function_call>")
RESPONSE = ("<start_function_response>", "<end_function_response>")
DECLARATION = ("<start_function_declaration>", "<end_function_declaration>")
TURN = ("<start_of_turn>", "<end_of_turn>")
MARKERS = (*TURN, *DECLARATION, *CALL, *RESPONSE, ESCAPE)
"""The special tokens that a tokenizer must have to use this format."""

STOPS = (TURN[1], RESPONSE[0])
"""Stop tokens: the end of a turn, or, after calls, the start of the tool's response."""

INVALID_MARKERS = (TURN[0], *DECLARATION, RESPONSE[1])
"""Markers that no assistant turn may contain: a turn with one is malformed whatever follows."""

TRIGGER_SENTENCE = "You are a model that can do function calling with the following functions"
"""FunctionGemma was trained with this sentence in front of the declarations."""

_UNMARKED_CALL = re.compile(r"call:\s*[\w.-]+\s*\{")
_NAME = re.compile(r"[^\s{}<>:]+")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WHITESPACE = re.compile(r"[ \t\r\n]*")
_OMITTED_KEYWORDS = ("$schema", "additionalProperties", "title")
# The published template prints Python's None for a null argument.
_LITERALS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "None": None}


def write(calls: Sequence[ToolCall]) -> str:
    """The calls as text of the assistant's turn; RenderError for what the format cannot express."""
    return "".join(
        f"{CALL[0]}call:{_checked_name(c.name)}{_object(c.arguments)}{CALL[1]}" for c in calls
    )


def declare(tool: Mapping[str, Any]) -> str:
    """The declaration of an OpenAI function schema: keys sorted, types in upper case."""
    function = tool.get("function", tool)
    fields: Json = {
        "description": function.get("description") or "",
        "parameters": _schema(function.get("parameters") or {"type": "object"}),
    }
    name = _checked_name(function["name"])
    return f"{DECLARATION[0]}declaration:{name}{_object(fields)}{DECLARATION[1]}"


def declare_name(tool: Mapping[str, Any]) -> str:
    """A declaration of the tool's name alone, as the published template writes it."""
    name = _checked_name(tool.get("function", tool)["name"])
    return f"{DECLARATION[0]}declaration:{name}{_object({'description': ''})}{DECLARATION[1]}"


def developer_turn(declarations: Iterable[str], instructions: str) -> str:
    """The developer turn: instructions, which begin with TRIGGER_SENTENCE, and the declarations."""
    return f"{TURN[0]}developer\n{instructions}{''.join(declarations)}{TURN[1]}\n"


def conversation(messages: Sequence[Message]) -> str:
    """The turns as text, up to the point where the model generates.

    A tool's response is part of the model's turn, which stays open after it.
    """
    if not messages:
        raise RenderError("an empty conversation")
    turns = ""
    open_turn = False
    for message in messages:
        if message.role == "tool":
            turns += ("" if open_turn else f"{TURN[0]}model\n") + tool_response(message)
            open_turn = True
            continue
        if message.role == "assistant":
            turns += "" if open_turn else f"{TURN[0]}model\n"
            turns += reject_markers(message.content) + write(message.tool_calls)
            open_turn = bool(message.tool_calls)
            turns += "" if open_turn else f"{TURN[1]}\n"
            continue
        turns += f"{TURN[1]}\n" if open_turn else ""
        role = "developer" if message.role == "system" else message.role
        turns += f"{TURN[0]}{role}\n{reject_markers(message.content)}{TURN[1]}\n"
        open_turn = False
    return turns if open_turn else turns + f"{TURN[0]}model\n"


def result_fields(message: Message) -> Json:
    """A tool message's content: a JSON object's fields, and anything else as the field `value`."""
    try:
        content = json.loads(message.content)
    except (ValueError, RecursionError):
        content = message.content
    return content if isinstance(content, dict) else {"value": content}


def tool_response(message: Message) -> str:
    """A tool message as the response's fields."""
    name = _checked_name(message.name or "tool")
    return f"{RESPONSE[0]}response:{name}{_object(result_fields(message))}{RESPONSE[1]}"


def reject_markers(text: str) -> str:
    """The text unchanged; RenderError if it contains a marker, which the format cannot quote."""
    for marker in MARKERS:
        if marker in text:
            raise RenderError(f"the text holds {marker}, which the format cannot quote")
    return text


def read(text: str) -> TurnContent:
    """Parse a turn without its stop token; MalformedError unless it is only calls or only text."""
    text = text.strip()
    if invalid := next((marker for marker in INVALID_MARKERS if marker in text), None):
        raise MalformedError(f"{invalid} inside a turn")
    if not any(marker in text for marker in MARKERS) and not _UNMARKED_CALL.match(text):
        return TurnContent(reply=text)
    return TurnContent(calls=tuple(_Parser(text).calls()))


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RenderError(f"the name {name!r} holds characters that the format cannot express")
    return name


def _string(text: str) -> str:
    return f"{ESCAPE}{reject_markers(text)}{ESCAPE}"


def _object(fields: Mapping[str, JsonValue], depth: int = 0) -> str:
    pairs = (f"{_key(name)}:{_value(value, depth + 1)}" for name, value in sorted(fields.items()))
    return "{" + ",".join(pairs) + "}"


def _key(name: str) -> str:
    return name if _PLAIN_KEY.fullmatch(name) else _string(name)


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
            try:
                return strict_json.encode(value)
            except ValueError:
                raise RenderError(f"the number {value} does not exist in JSON") from None


SYNTAX = ArgumentSyntax(
    comma=",",
    colon=":",
    quote=ESCAPE,
    character=r"(?s:.)",
    plain=r"(?s:.)",
    key=_key,
    value=_value,
    sorts_names=True,
)


def _schema(value: Any) -> Any:
    """A JSON Schema as declared: types in upper case, without empty and omitted keywords."""
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _keyword(key, item)
        for key, item in value.items()
        if key not in _OMITTED_KEYWORDS and item not in ({}, [])
    }


def _keyword(key: str, value: Any) -> Any:
    match key:
        case "type":
            names = value if isinstance(value, list) else [value]
            return str(next((name for name in names if name != "null"), "null")).upper()
        case "properties":
            return {name: _schema(schema) for name, schema in value.items()}
        case "enum" | "const" | "default" | "examples" | "required":
            return value
        case _:
            return _schema(value)


class _Parser:
    """Recursive-descent parser of the calls in one turn."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.offset = 0

    def calls(self) -> Iterable[ToolCall]:
        while self.offset < len(self.text):
            yield self.call()
            self.skip_whitespace()

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
        if self.accept("}"):
            return fields
        while True:
            key = self.string() if self.peek(ESCAPE) else self.match(_PLAIN_KEY, "an argument")
            if key in fields:
                raise MalformedError(f"the argument {key!r} is given twice")
            self.expect(":")
            fields[key] = self.value(depth + 1)
            if self.accept("}"):
                return fields
            self.expect(",")

    def array(self, depth: int) -> list[JsonValue]:
        items: list[JsonValue] = []
        self.expect("[")
        if self.accept("]"):
            return items
        while True:
            items.append(self.value(depth + 1))
            if self.accept("]"):
                return items
            self.expect(",")

    def value(self, depth: int) -> JsonValue:
        if depth > MAX_DEPTH:
            raise MalformedError(f"an argument is nested more than {MAX_DEPTH} deep")
        if self.peek(ESCAPE):
            return self.string()
        if self.peek("{"):
            return self.object(depth)
        if self.peek("["):
            return self.array(depth)
        for literal, value in _LITERALS.items():
            if self.accept(literal):
                return value
        return self.number()

    def string(self) -> str:
        self.expect(ESCAPE)
        end = self.text.find(ESCAPE, self.offset)
        if end < 0:
            raise MalformedError("a string has no end")
        content, self.offset = self.text[self.offset : end], end + len(ESCAPE)
        if marker := next((marker for marker in MARKERS if marker in content), None):
            raise MalformedError(f"{marker} inside a string")
        return content

    def number(self) -> int | float:
        digits = self.match(_NUMBER, "a value")
        try:
            number = int(digits) if re.fullmatch(r"-?[0-9]+", digits) else float(digits)
        except ValueError:
            raise MalformedError(f"the number {digits[:20]}... is too long") from None
        if number in (float("inf"), float("-inf")):
            raise MalformedError(f"the number {digits} is too large")
        return number

    def skip_whitespace(self) -> None:
        whitespace = _WHITESPACE.match(self.text, self.offset)
        assert whitespace is not None
        self.offset = whitespace.end()

    def peek(self, token: str) -> bool:
        self.skip_whitespace()
        return self.text.startswith(token, self.offset)

    def accept(self, token: str) -> bool:
        if self.peek(token):
            self.offset += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise MalformedError(f"expected {token} at {self.excerpt()}")

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        self.skip_whitespace()
        found = pattern.match(self.text, self.offset)
        if found is None:
            raise MalformedError(f"expected {what} at {self.excerpt()}")
        self.offset = found.end()
        return found.group()

    def excerpt(self) -> str:
        return (
            repr(self.text[self.offset : self.offset + 30])
            if self.offset < len(self.text)
            else "the end"
        )
