"""What stands in a row as it was given: stored as text or not, readable, and under known keys."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from distill import strict_json
from distill.strict_json import JsonError
from distill.workflow.problems import closest_match, excerpt
from distill.workflow.values import InvalidInputError

MAX_DEPTH = 100
"""Levels of lists and objects in a row; what is deeper is no call that a student can write."""


def decoded(value: Any, what: str, hint: str) -> Any:
    """A value that may have been stored as its JSON text; blank text is no value.

    hint: what to write where the text is not JSON
    """
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        read = strict_json.decode(value)
    except JsonError as error:
        raise InvalidInputError(
            f"has {what} in text that is not JSON ({error}): {excerpt(value)}", hint
        ) from None
    require_readable(read)
    return read


def require_readable(value: Any) -> None:
    """Raise InvalidInputError for a value nested too deeply, or with what is no character."""
    # Level by level: a recursive walk would itself fail on what the decoder lets through.
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = (each for each in level if isinstance(each, dict | list))
        level = [c for each in inner for c in (each.values() if isinstance(each, dict) else each)]
    if level:
        raise InvalidInputError(
            f"is nested more than {MAX_DEPTH} levels deep", "no student can write such a call"
        )
    try:
        strict_json.encode(value).encode()
    except UnicodeEncodeError:
        raise InvalidInputError(
            "holds half of a surrogate pair, which is no character",
            r"write the whole character, or both halves, as \ud83d\ude00",
        ) from None


def require_known_keys(
    given: Mapping[str, Any], known: tuple[str, ...], foreign: Mapping[str, str], where: str
) -> None:
    """Raise InvalidInputError for a key that would be left out though it means something.

    foreign: keys that are known from elsewhere, and what to write instead
    """
    for key in given:
        if key in foreign:
            raise InvalidInputError(f'has the key "{key}" in {where}', foreign[key])
        if key not in known and (near := _misspelt(key, known)) is not None:
            raise InvalidInputError(
                f'has the unknown key "{key}" in {where}',
                f'did you mean "{near}"? A note of your own needs another name',
            )


@lru_cache(maxsize=1024)
def _misspelt(key: str, known: tuple[str, ...]) -> str | None:
    return closest_match(key, known, cutoff=0.85)


def is_absent(value: Any) -> bool:
    """Whether nothing is given: null, or an object of nulls, as tables fill their columns."""
    if isinstance(value, dict):
        return bool(value) and all(map(is_absent, value.values()))
    return value is None
