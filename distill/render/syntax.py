"""What the formats share: their two errors, their limit, and what they read."""

from __future__ import annotations

from typing import NamedTuple

from distill.records import ToolCall

MAX_DEPTH = 64
"""Arguments nested deeper than this are neither written nor read."""


class RenderError(ValueError):
    """An item that cannot be rendered; the caller makes it a Rejection."""


class MalformedError(ValueError):
    """Text that no student should have written; becomes `Parsed.malformed` with this detail."""


class TurnContent(NamedTuple):
    """What a turn says: calls, or a reply in words."""

    calls: tuple[ToolCall, ...] = ()
    reply: str = ""
