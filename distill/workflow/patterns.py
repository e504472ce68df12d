"""Patterns of users' schemas, searched in bounded time."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]

MAX_SECONDS = 1.0
"""Of the processor, for one pattern and one text: one that needs more may backtrack for ever."""

# What `regex` would read as its own, a fuzzy match, is a plain brace to `re` and to JSON Schema.
_BRACE = re.compile(r"(\\N\{[^}]*\}|\\[pP]\{[^}]*\}|\\.)|\{(?!\d*,\d*\}|\d+\})", re.DOTALL)


class SlowPatternError(Exception):
    """A search that did not end in time; str() names the text and the pattern."""


def occurs(pattern: str, text: str) -> bool:
    """Whether `pattern` is found somewhere in `text`. Raises SlowPatternError."""
    found = _search(pattern, text)
    if found is None:
        raise SlowPatternError(f"{text!r} takes too long to match {pattern!r}")
    return found


def is_searchable(pattern: str) -> bool:
    """Whether a pattern can be searched for."""
    try:
        _compiled(pattern)
    except (regex.error, OverflowError, RecursionError):
        return False
    return True


@lru_cache(maxsize=1 << 12)
def _search(pattern: str, text: str) -> bool | None:
    try:
        return _compiled(pattern).search(text, timeout=MAX_SECONDS) is not None
    except TimeoutError:
        return None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    return regex.compile(_BRACE.sub(lambda found: found[1] or r"\{", pattern))
