"""Quotation marks as people type them, in the scripts and languages that have their own."""

from __future__ import annotations

import re
from typing import NamedTuple

# What closes a quotation, by what opens it. Languages disagree: „German“, ”Swedish”, »Danish«.
CLOSERS = {
    '"': '"', "“": "”", "„": "“”", "‟": "”", "”": "”", "«": "»", "»": "«»", "＂": "＂",
    "'": "'", "‘": "’", "‚": "‘’", "’": "’", "‹": "›", "›": "‹›",
    "「": "」", "『": "』", "〝": "〞〟", "`": "`",
}  # fmt: skip
_APOSTROPHES = "'’‘"
_EMPHASIS = re.compile(r"(\*{1,3}|_{1,3})(?=\S)(.*\S)\1")


class Quotation(NamedTuple):
    """What stands within quotes, and the offset behind them."""

    text: str
    end: int


def quotation(text: str, start: int) -> Quotation | None:
    """The quotation that opens at `start`; None where no quote stands there, or none closes it.

    An apostrophe within a word closes nothing. Code closes with as many backticks as opened it.
    """
    mark = text[start : start + 1]
    if not mark or mark not in CLOSERS:
        return None
    if mark == "`":
        return _code(text, start)
    for found in re.compile(f"[{CLOSERS[mark]}]").finditer(text, start + 2):
        end = found.end()
        if not (found[0] in _APOSTROPHES and text[end : end + 1].isalnum()):
            return Quotation(text[start + 1 : end - 1].strip(), end)
    return None


def unquoted(text: str) -> str:
    """`text` without blanks and quotes around all of it; quotes within it stay."""
    text = text.strip()
    found = quotation(text, 0)
    if found is None or found.end < len(text):
        return text
    return found.text.strip() or text


def without_emphasis(text: str) -> str:
    """`text` without the asterisks or underscores around all of it."""
    found = _EMPHASIS.fullmatch(text.strip())
    return found[2] if found else text


def _code(text: str, start: int) -> Quotation | None:
    size = len(text) - start - len(text[start:].lstrip("`"))
    end = text.find("`" * size, start + size)
    if end <= start:
        return None
    return Quotation(text[start + size : end].strip(), end + size)
