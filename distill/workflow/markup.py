"""Tool calls that stand as text in an assistant's turn, in the formats of chat models."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from distill import strict_json
from distill.records import ToolCall
from distill.render.formats import FUNCTION_GEMMA, HERMES, JSON
from distill.render.syntax import MalformedError
from distill.strict_json import JsonError
from distill.workflow.problems import excerpt
from distill.workflow.values import InvalidInputError

CALL_FORM = '"tool_calls": [{"name": "…", "arguments": {…}}]'
_FENCE = "```"

# Special tokens of any model, the tags of calls, and ways of writing them that are not read.
_MARKUP = re.compile(
    r"""
    <\|[^|<>\s]{1,40}\|> | <｜[^｜<>]{1,40}｜> | \[/?(?:TOOL_CALLS|TOOL_REQUEST|ARGS|INST)\]
    | </?(?:tool_calls?|function_calls?|functioncall|tool_use|tool_response)\b[^<>]{0,80}>
    | </?(?:start|end)_(?:function_(?:call|response|declaration)|of_turn)>
    | <function[=\s] | </function> | <(?:\w{1,20}:)?invoke\b | <parameter[=\s]
    | ^Action\ Input: | \bto=functions\. | \A\s*call:\s*[\w.-]{1,64}\s*\{
    | ```(?:tool|function)_
    | \{\s{0,40}"name"\s{0,40}:\s{0,40}"[^"]{0,64}"\s{0,40},\s{0,40}"(?:arguments|parameters)"
    """,
    re.VERBOSE | re.MULTILINE,
)
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
# Llama's <function=name>{…}</function>, and Mistral's [TOOL_CALLS]name[ARGS]{…}.
_NAMED = re.compile(r"\s*(?:<function=|\[TOOL_CALLS\])\s*([\w.-]+)\s*(?:>|\[ARGS\])?\s*(?=\{)")
_NAMED_END = re.compile(r"\s*(?:</function>)?\s*")
# The language that stands behind an opening fence.
_INFO = re.compile(r"\A[ \t]*[\w-]*\s*(?=[{\[])")
# What may be the name of a tool that is called in code or in the lines of another format.
_NAME = r"([A-Za-z_][\w.-]{0,63})"
_CALLED = re.compile(
    rf"\b{_NAME}(?:\(|\s{{0,9}}\{{)"
    rf"|^[\s\"'`{{-]{{0,20}}(?:name|tool|tool_name|function|action)[\"'`]?\s{{0,9}}[:=]\s{{0,9}}[\"'`]?{_NAME}"
    rf"|\A[\s`]*{_NAME}[\s`.]*\Z",
    re.MULTILINE | re.IGNORECASE,
)
_CALL_KEYS = ({"name", "function", "tool", "tool_name"}, {"arguments", "parameters", "args"})
_WRAPPER_KEYS = {"tool_calls", "function_call"}


def calls_in_text(text: str, tools: Collection[str] | None) -> tuple[ToolCall, ...]:
    """The calls that an assistant's text holds; none where it is words.

    tools: the names of those that are offered; None where they are not known
    Read are the formats of Hermes, FunctionGemma, Llama and Mistral, and JSON, in a code fence or
    not. Raises InvalidInputError for what looks like a call and is not in one of them.
    """
    text = _THOUGHTS.sub("", text)
    body = _fenced_call(text, tools)
    if body is None:
        if not _has_markup(text, tools):
            return ()
        body = text
    try:
        calls = _read(body)
    except MalformedError as error:
        raise _unread(text, f": {error}") from None
    if not calls:
        raise _unread(text)
    return calls


def _read(text: str) -> tuple[ToolCall, ...]:
    if "<tool_call>" in text:
        return HERMES.read(text).calls
    if "<start_function_call>" in text:
        return FUNCTION_GEMMA.read(text).calls
    if _NAMED.match(text):
        return tuple(_named_calls(text))
    return JSON.read(text).calls


def _named_calls(text: str) -> Iterator[ToolCall]:
    at = 0
    while at < len(text):
        opening = _NAMED.match(text, at)
        if opening is None:
            raise MalformedError(f"words after a call: {text[at : at + 30]!r}")
        try:
            arguments, end = strict_json.decode_prefix(text, opening.end())
        except JsonError as error:
            raise MalformedError(f"not JSON: {error}") from None
        yield ToolCall(name=opening[1], arguments=arguments)
        closing = _NAMED_END.match(text, end)
        at = closing.end() if closing else end


def _has_markup(text: str, tools: Collection[str] | None) -> bool:
    if _MARKUP.search(text) or _is_call_json(text, tools):
        return True
    return tools is not None and any(
        name in tools for found in _CALLED.finditer(text) for name in found.groups()
    )


def _fenced_call(text: str, tools: Collection[str] | None) -> str | None:
    """What stands in the code fence that a turn ends with, where it is a call."""
    _, *blocks = text.split(_FENCE)
    fenced = [_INFO.sub("", block) for block in blocks[::2]]
    found = [block for block in fenced if _is_call_json(block, tools)]
    if found and (len(fenced) > 1 or "".join(blocks[1:]).strip()):
        raise _unread(text, ": words or more code follow the call")
    return found[0] if found else None


def _is_call_json(text: str, tools: Collection[str] | None) -> bool:
    """Whether the text begins with JSON that is meant as a call, well formed or not."""
    text = text.strip()
    if not text.startswith(("{", "[")):
        return False
    try:
        value, _ = strict_json.decode_prefix(text)
    except JsonError:
        return all(any(f'"{key}"' in text for key in keys) for keys in _CALL_KEYS)
    return any(_is_call(item, tools) for item in (value if isinstance(value, list) else [value]))


def _is_call(value: Any, tools: Collection[str] | None) -> bool:
    return isinstance(value, dict) and (
        all(keys & value.keys() for keys in _CALL_KEYS)
        or bool(_WRAPPER_KEYS & value.keys())
        or isinstance(value.get("function"), dict)
        or (isinstance(value.get("name"), str) and value["name"] in (tools or ()))
    )


def _unread(text: str, why: str = "") -> InvalidInputError:
    return InvalidInputError(
        f"has an assistant's turn whose text looks like a call and is not read as one{why}: "
        f'"{excerpt(text)}"',
        f"write {CALL_FORM} in place of the text; where it is words, take the markup out",
    )
