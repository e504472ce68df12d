"""The answer in a choice of a chat completion, apart from the thoughts that some models write.

Servers put the answer into `content` as a string or as a list of parts, or into a tool call;
thoughts into fields of their own, or into `content` between marks.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from distill import strict_json

# Where a model's thoughts begin and end in its text.
_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
)
# gpt-oss, as its tokens are spelled, and as servers leave it that drop them.
_HARMONY = re.compile(r"<\|channel\|>\s*final[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_HARMONY_END = re.compile(r"<\|(?:return|end|call)\|>")
_BARE_HARMONY = re.compile(r"\Aanalysis.*?assistantfinal", re.DOTALL)
# Passages of thoughts before one answer.
_MOST_THOUGHTS = 16
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


class Answer(NamedTuple):
    """What a choice says; `thought`: whether it holds thoughts beside its text."""

    text: str
    refusal: str
    thought: bool
    calls: int


def read_choice(choice: Any) -> Answer:
    """The answer in a choice, whatever of it is missing or of another form."""
    choice = choice if isinstance(choice, dict) else {}
    message = choice.get("message") or choice.get("delta") or choice.get("text") or {}
    message = message if isinstance(message, dict) else {"content": message}
    written, refusal = _content(message.get("content"))
    text, thought = without_thoughts(written)
    calls = [_arguments(call) for call in _calls(message)]
    thoughts = " ".join(_content(message.get(name))[0] for name in _THOUGHTS).strip()
    if not text.strip() and len(calls) == 1:
        # A server that answers structured output as a call of a tool.
        text = calls[0]
    elif not text.strip() and not thought and _is_object(thoughts):
        # vLLM's parsers of thoughts take the whole of an answer for them when there are none.
        text, thoughts = thoughts, ""
    if isinstance(message.get("refusal"), str):
        refusal = message["refusal"]
    return Answer(text, refusal, thought or bool(thoughts), len(calls))


def without_thoughts(text: str) -> tuple[str, bool]:
    """`text` after the thoughts that it begins with, and whether there were any.

    Thoughts that do not end are all of the text: nothing is left. What stands in an answer's
    strings is left alone.
    """
    thought = False
    for _ in range(_MOST_THOUGHTS):
        text = text.lstrip()
        if text[:1] == "{":
            return text, thought
        if rest := _after_harmony(text):
            return rest, True
        if text.startswith(("<|channel|>", "<|start|>")):
            return "", True
        opened = next((marks for marks in _MARKS if text.startswith(marks[0])), None)
        if opened:
            text, thought = text[len(opened[0]) :].partition(opened[1])[2], True
            continue
        # A chat template may open them itself: then the text has their end alone.
        closed = next((end for _, end in _MARKS if "{" in text.partition(end)[2]), None)
        if closed is None:
            return text, thought
        text, thought = text.partition(closed)[2], True
    return text, thought


def _after_harmony(text: str) -> str:
    found = list(_HARMONY.finditer(text))
    if found:
        return _HARMONY_END.split(text[found[-1].end() :], maxsplit=1)[0]
    bare = _BARE_HARMONY.match(text)
    return text[bare.end() :] if bare else ""


def _content(content: Any) -> tuple[str, str]:
    """The text of a message's content, and its refusal."""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, dict):
        if "type" not in content and "text" not in content:
            return _encoded(content), ""  # parsed by the server already
        content = [content]
    texts, refusals = [], []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type", "text") in ("text", "output_text"):
            texts.append(str(part.get("text") or ""))
        elif isinstance(part, dict) and isinstance(part.get("refusal"), str):
            refusals.append(part["refusal"])
    return "".join(texts), " ".join(refusals)


def _calls(message: dict[str, Any]) -> list[Any]:
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        return calls
    legacy = message.get("function_call")
    return [{"function": legacy}] if isinstance(legacy, dict) else []


def _arguments(call: Any) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if isinstance(arguments, dict):
        return _encoded(arguments)
    return arguments if isinstance(arguments, str) else ""


def _encoded(value: dict[str, Any]) -> str:
    try:
        return strict_json.encode(value)
    except strict_json.JsonError:
        return str(value)  # which is not JSON either


def _is_object(text: str) -> bool:
    if text[:1] != "{":
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
