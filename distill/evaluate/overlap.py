"""How much two texts have in common: SQuAD's token F1, for arguments and for grounding."""

from __future__ import annotations

import itertools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from pydantic import JsonValue

from distill.records import ExpectedCall, Json, ToolCall, canonical_json

# The metric's own list: the one that sieves data may change, and scores must stay comparable.
_STOP_WORDS = """
a about after all also am an and any are as at be because been before being but by can could did do
does doing for from get give had has have having he her here hers him his how i if in into is it its
just let like may me might mine more most my need no not now of on once only or other our ours out
over own please shall she should show so some such tell than thank thanks that the their theirs them
then there these they this those through to too under until up us very want was we were what when
where which while who whom whose why will with would you your yours
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
_ARTICLES = frozenset({"a", "an", "the"})
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_MOST_ARRANGEMENTS = 6
"""Calls of one tool up to which every way of pairing them is tried."""


def token_f1(one: Sequence[str], other: Sequence[str]) -> float:
    """The harmonic mean of precision and recall over words; 1 where both have none."""
    if not one or not other:
        return float(not one and not other)
    common = sum((Counter(one) & Counter(other)).values())
    return 2 * common / (len(one) + len(other))


def squad_f1(said: str, expected: str) -> float:
    """SQuAD's F1: without case, punctuation and articles.

    Source: https://rajpurkar.github.io/SQuAD-explorer/, evaluate-v1.1; ASCII text scores the same.
    """
    return token_f1(_squad_words(said), _squad_words(expected))


def content_words(text: str) -> list[str]:
    """Words in lower case, in order, without STOP_WORDS."""
    return [word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]


def argument_f1(calls: Sequence[ToolCall], expected: Sequence[ExpectedCall]) -> float | None:
    """The mean over arguments of how well each was met; None where none are expected.

    Strings score their SQuAD F1, other values 0 or 1. A missing or an unexpected argument scores
    0, and so does every argument of a call that was expected and not made. Calls of one tool are
    paired as suits them best; calls that nobody expected cost nothing here.
    """
    if not any(call.arguments for call in expected):
        return None
    total, count = 0.0, 0
    for name in dict.fromkeys(call.name for call in expected):
        wanted = [call.arguments or {} for call in expected if call.name == name]
        made = [call.arguments for call in calls if call.name == name]
        score, number = _best_pairing(made, wanted)
        total, count = total + score, count + number
    return total / count


def grounding_f1(calls: Sequence[ToolCall], prompt: str) -> float:
    """Token F1 of the content words of the calls' string arguments and of the prompt; 0 if none."""
    texts = (text for call in calls for text in _strings(call.arguments))
    said = [word for text in texts for word in content_words(text)]
    return token_f1(said, content_words(prompt)) if said else 0.0


def _squad_words(text: str) -> list[str]:
    kept = "".join(char for char in text.lower() if not _is_punctuation(char))
    return [word for word in kept.split() if word not in _ARTICLES]


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def _best_pairing(made: Sequence[Json], wanted: Sequence[Json]) -> tuple[float, int]:
    """The score and the number of arguments of the best way to pair calls of one tool."""
    padded: list[Json | None] = [*made, *[None] * (len(wanted) - len(made))]
    orders = itertools.permutations(padded, len(wanted))
    if len(padded) > _MOST_ARRANGEMENTS:
        orders = iter([tuple(padded[: len(wanted)])])  # type: ignore[assignment]
    pairings = (
        [_arguments(said, expected) for said, expected in zip(order, wanted, strict=True)]
        for order in orders
    )
    totals = ((sum(s for s, _ in pairing), sum(n for _, n in pairing)) for pairing in pairings)
    return max(totals, key=lambda total: total[0] / total[1] if total[1] else 1.0)


def _arguments(said: Json | None, expected: Json) -> tuple[float, int]:
    if said is None:
        return 0.0, len(expected)
    names = dict.fromkeys([*expected, *said])
    met = (_met(said[n], expected[n]) for n in names if n in said and n in expected)
    return sum(met), len(names)


def _met(said: JsonValue, expected: JsonValue) -> float:
    if isinstance(said, str) and isinstance(expected, str):
        return squad_f1(said, expected)
    return float(canonical_json(said) == canonical_json(expected))


def _strings(value: JsonValue) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _strings(inner)
        case list():
            for inner in value:
                yield from _strings(inner)
