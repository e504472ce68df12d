"""What the call formats share: errors, the nesting limit, and a parsed turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import JsonValue

from distill.records import ToolCall

MAX_DEPTH = 64
"""Arguments nested deeper than this are neither written nor parsed."""


class RenderError(ValueError):
    """A conversation or call that the format cannot express; the caller makes it a Rejection."""


class MalformedError(ValueError):
    """An assistant turn that is not in the format; the message becomes `Parsed.detail`."""


class TurnContent(NamedTuple):
    """A parsed assistant turn: tool calls, and the text in front of them or instead of them."""

    calls: tuple[ToolCall, ...] = ()
    reply: str = ""


@dataclass(frozen=True)
class ArgumentSyntax:
    """How a format writes arguments, piece by piece; `distill.render.grammars` is made of it."""

    comma: str
    colon: str
    quote: str
    """Before and after a text."""
    character: str
    """A regular expression of one character of a text as it is written, escapes among them."""
    plain: str
    """The same of the characters that are written as themselves."""
    key: Callable[[str], str]
    """The name of an argument as it is written."""
    value: Callable[[JsonValue], str]
    """A value as it is written; raises RenderError for what the format cannot express."""
    key_quote: str = ""
    """Before and after a name of letters, digits and underscores."""
    sorts_names: bool = False
