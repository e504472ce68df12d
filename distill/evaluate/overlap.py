"""Token F1 as in SQuAD, for argument values and for their grounding in the prompt."""

from __future__ import annotations

import itertools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from pydantic import JsonValue

from distill.records import ExpectedCall, Json, ToolCall
from distill.workflow.schema import json_equal

# Not shared with data validation, whose list may change: scores must stay comparable.
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
_MAX_PERMUTED_CALLS = 6
"""More calls of one tool than this are paired in order instead of optimally."""


def token_f1(one: Sequence[str], other: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over two bags of words; 1 if both are empty."""
    if not one or not other:
        return float(not one and not other)
    common = sum((Counter(one) & Counter(other)).values())
    return 2 * common / (len(one) + len(other))


def squad_f1(predicted: str, expected: str) -> float:
    """SQuAD's F1: token F1 that ignores case, punctuation and articles.

    Source: https://rajpurkar.github.io/SQuAD-explorer/, evaluate-v1.1; ASCII text scores the same.
    """
    return token_f1(_squad_words(predicted), _squad_words(expected))


def content_words(text: str) -> list[str]:
    """The words in lower case, in order, without STOP_WORDS."""
    return [word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]


def argument_f1(calls: Sequence[ToolCall], expected: Sequence[ExpectedCall]) -> float | None:
    """The mean score over arguments; None if no arguments are expected.

    Strings score their SQuAD F1, other values 0 or 1. A missing or unexpected argument scores 0,
    and so does every argument of a missing call. Calls of the same tool are paired so that the
    score is highest; calls of unexpected tools are ignored.
    """
    if not any(call.arguments for call in expected):
        return None
    total, count = 0.0, 0
    for name in dict.fromkeys(call.name for call in expected):
        required = [call.arguments or {} for call in expected if call.name == name]
        predicted = [call.arguments for call in calls if call.name == name]
        score, number = _best_pairing(predicted, required)
        total, count = total + score, count + number
    return total / count


def grounding_f1(calls: Sequence[ToolCall], said: str) -> float:
    """Token F1 between the content words of string arguments and of what was said; 0 if none."""
    texts = (text for call in calls for text in _strings(call.arguments))
    words = [word for text in texts for word in content_words(text)]
    return token_f1(words, content_words(said)) if words else 0.0


def _squad_words(text: str) -> list[str]:
    kept = "".join(char for char in text.lower() if not _is_punctuation(char))
    return [word for word in kept.split() if word not in _ARTICLES]


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def _best_pairing(predicted: Sequence[Json], expected: Sequence[Json]) -> tuple[float, int]:
    """Sum of scores and number of arguments, for the best pairing of calls of one tool."""
    padded: list[Json | None] = [*predicted, *[None] * (len(expected) - len(predicted))]
    orders = itertools.permutations(padded, len(expected))
    if len(padded) > _MAX_PERMUTED_CALLS:
        orders = iter([tuple(padded[: len(expected)])])  # type: ignore[assignment]
    totals = []
    for order in orders:
        scores = [_argument_scores(*pair) for pair in zip(order, expected, strict=True)]
        totals.append((sum(score for score, _ in scores), sum(number for _, number in scores)))
    return max(totals, key=lambda total: total[0] / total[1] if total[1] else 1.0)


def _argument_scores(predicted: Json | None, expected: Json) -> tuple[float, int]:
    """Sum of scores and number of arguments of one call; None is a missing call."""
    if predicted is None:
        return 0.0, len(expected)
    common = [name for name in expected if name in predicted]
    scores = (_value_score(predicted[name], expected[name]) for name in common)
    return sum(scores), len({*expected, *predicted})


def _value_score(predicted: JsonValue, expected: JsonValue) -> float:
    if isinstance(predicted, str) and isinstance(expected, str):
        return squad_f1(predicted, expected)
    return float(json_equal(predicted, expected))


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
