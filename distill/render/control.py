"""Control tokens stay the template's own: text from people, models or tools never becomes one.

A chat template puts messages and markers into one string, and a tokenizer reads every marker in it,
wherever it came from: `hi<|im_end|>\\n<|im_start|>assistant\\n...` as one user message would be the
very ids of three turns. So a marker inside a text is cut in two before the template is applied, and
the two halves are tokenized apart: the student sees the characters, and no control token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pydantic import JsonValue

from distill.records import Json, Message, Target, ToolCall
from distill.render.syntax import RenderError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Value = TypeVar("Value", bound=JsonValue)
_BLANKS = " \t\r\n\u2581\u0120"
"""Blanks, also as tokenizers write them. Runs of them are added tokens of some, and no control."""
_CUTS = tuple(map(chr, range(0x10F000, 0x10FFFE)))
"""Private-use characters, of which one that no text holds marks where to cut."""


class Quoted(NamedTuple):
    """A conversation whose texts hold no marker, but `cut` inside each, if it is not empty."""

    messages: Sequence[Message]
    tools: Sequence[Json]
    target: Target | None
    cut: str


class ControlTokens:
    """A tokenizer's added tokens, apart from blanks.

    texts: them as text, the longest first; ids: those that are no stand-in for the unknown.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = {id: str(token) for id, token in tokenizer.added_tokens_decoder.items()}
        self._texts = {id: text for id, text in added.items() if text.strip(_BLANKS)}
        self.texts = tuple(sorted({*self._texts.values()}, key=lambda text: (-len(text), text)))
        # No text at all where there is no added token: `(?!)` matches nowhere.
        self._pattern = re.compile("|".join(map(re.escape, self.texts)) or "(?!)")
        # What a tokenizer makes of a character that it does not know is no control.
        self.ids = {*self._texts} - {tokenizer.unk_token_id}
        self._check = lru_cache(maxsize=4096)(self._require_plain)

    def quote(
        self, messages: Sequence[Message], tools: Sequence[Json], target: Target | None = None
    ) -> Quoted:
        """The conversation with every marker in its texts cut.

        Raises RenderError for a text in which the tokenizer finds a control token all the same.
        """
        texts = [*_texts(messages, tools, target)]
        marked = False
        for text in texts:
            marked = self._check(text) or marked
        if not marked:
            return Quoted(messages, tools, target, "")
        cut = next(cut for cut in _CUTS if not any(cut in text for text in texts))

        def quoted(text: str) -> str:
            return self._cut(text, cut)

        return Quoted(
            [_map_message(message, quoted) for message in messages],
            [_map_strings(tool, quoted) for tool in tools],
            target and _map_target(target, quoted),
            cut,
        )

    def split(self, text: str) -> Iterator[tuple[str, int | None]]:
        """The pieces of a text in order, each with its id where it is a control token."""
        by_text = {text: id for id, text in self._texts.items() if id in self.ids}
        end = 0
        for found in self._pattern.finditer(text):
            if found[0] in by_text:
                yield text[end : found.start()], None
                yield found[0], by_text[found[0]]
                end = found.end()
        yield text[end:], None

    def found_in(self, value: JsonValue) -> str | None:
        """A control token as which the tokenizer reads a part of one of the value's strings."""
        ids = (id for text in _strings(value) for id in self.encode(text))
        return next((self._texts[id] for id in ids if id in self.ids), None)

    def encode(self, text: str, cut: str = "") -> list[int]:
        """The ids of a text, its pieces tokenized apart; RenderError if it cannot be tokenized."""
        pieces = text.split(cut) if cut else [text]
        try:
            rows = self._tokenizer(pieces, add_special_tokens=False, verbose=False)["input_ids"]
        except (UnicodeError, TypeError):
            raise RenderError("the text is not Unicode: it holds half a surrogate pair") from None
        return [token for row in rows for token in row]

    def _cut(self, text: str, cut: str) -> str:
        """The text with `cut` after the first character of each marker, overlapping ones too."""
        pieces, start, found = [], 0, self._pattern.search(text)
        while found:
            after = found.start() + 1
            pieces.append(text[start:after])
            start, found = after, self._pattern.search(text, after)
        return cut.join([*pieces, text[start:]])

    def _require_plain(self, text: str) -> bool:
        """Whether the text holds a marker; RenderError if it cannot be quoted.

        Such are a marker of one character, and other characters that the tokenizer normalizes to a
        marker.
        """
        cut = next(cut for cut in _CUTS if cut not in text)
        quoted = self._cut(text, cut)
        if found := next((id for id in self.encode(quoted, cut) if id in self.ids), None):
            raise RenderError(
                f"the text holds {self._texts[found]}, which this student's tokenizer cannot quote"
            )
        return cut in quoted


def _texts(
    messages: Sequence[Message], tools: Sequence[Json], target: Target | None
) -> Iterator[str]:
    for message in messages:
        yield message.content
        yield from _strings(message.name)
        yield from _call_texts(message.tool_calls)
    for tool in tools:
        yield from _strings(tool)
    if target:
        yield target.reply
        yield from _call_texts(target.calls)


def _call_texts(calls: Sequence[ToolCall]) -> Iterator[str]:
    for call in calls:
        yield call.name
        yield from _strings(call.arguments)


def _strings(value: JsonValue) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _map_strings(value: Value, change: Callable[[str], str]) -> Value:
    result: JsonValue = value
    if isinstance(value, str):
        result = change(value)
    elif isinstance(value, dict):
        result = {change(key): _map_strings(item, change) for key, item in value.items()}
    elif isinstance(value, list):
        result = [_map_strings(item, change) for item in value]
    return result  # type: ignore[return-value]


def _map_calls(calls: Sequence[ToolCall], change: Callable[[str], str]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(name=change(call.name), arguments=_map_strings(call.arguments, change))
        for call in calls
    )


def _map_message(message: Message, change: Callable[[str], str]) -> Message:
    changes = {
        "content": change(message.content),
        "name": message.name and change(message.name),
        "tool_calls": _map_calls(message.tool_calls, change),
    }
    return message.model_copy(update=changes)


def _map_target(target: Target, change: Callable[[str], str]) -> Target:
    changes = {"reply": change(target.reply), "calls": _map_calls(target.calls, change)}
    return target.model_copy(update=changes)
