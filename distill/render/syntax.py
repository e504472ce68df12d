"""What the call formats share: errors, the nesting limit, and a parsed turn."""

from __future__ import annotations

from typing import NamedTuple

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
