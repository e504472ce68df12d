"""Grounding: whether a value occurs in a text, comparing stemmed words and numeric values.

A heuristic against invented arguments: half of a string's content words and all of its numbers must
occur. Case, accents and English endings do not count.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

_STOP_WORDS = """
a an and any are as at be been but by can could did do does for from get give had has have how i if
in into is it its let me my need of on or our out please s show so some t tell that the their them
there these they this those to up us was we were what when where which who whose why will with
would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
# Scripts that are written without blanks: each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_COMPOUND = re.compile(r"\w+(?:[-'’.]\w+)+")
_ENDINGS = (
    *("ements", "ations", "ement", "ation", "ments", "ings", "ment", "ions"),
    *("ing", "ion", "ers", "als", "ies", "ed", "er", "es", "al", "ly", "s", "e", "y"),
)


def is_grounded(value: object, text: str) -> bool:
    """Whether `value`, a JSON scalar, occurs in `text`; null and booleans always do."""
    if value is None or isinstance(value, bool):
        return True
    source = _indexed(text)
    if isinstance(value, int | float):
        return abs(Decimal(str(value))) in source.numbers
    return _contains(source, str(value))


def content_words(text: str) -> list[str]:
    """Words in order, folded and stemmed, without stop words."""
    return [stem(word) for word in _words(fold(text)) if word not in STOP_WORDS]


def fold(text: str) -> str:
    """Without case, accents and differences of width."""
    spread = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return "".join(char for char in spread if not unicodedata.combining(char))


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """A word without its English ending, so that `configure` meets `configuration`."""
    if not word.isalpha():
        return word
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


class _Source(NamedTuple):
    text: str
    folded: str
    words: frozenset[str]
    numbers: frozenset[Decimal]


@lru_cache(maxsize=1024)
def _indexed(text: str) -> _Source:
    folded = fold(text)
    words = _words(folded)
    joined = (re.sub(r"\W", "", found) for found in _COMPOUND.findall(folded))
    said = frozenset(stem(word) for word in (*words, *joined))
    return _Source(
        text, folded, said, frozenset((*_numbers_in_digits(folded), *_numbers_in_words(words)))
    )


def _contains(source: _Source, value: str) -> bool:
    words = set(content_words(value))
    if not words:
        plain = fold(value).strip()
        # Of a mark such as ¨ nothing is left by folding.
        return (
            plain in source.folded
            if plain
            else bool(value.strip()) and value.strip() in source.text
        )
    said = {word for word in words if word in source.words or _number(word) in source.numbers}
    # An identifier or an amount is wrong when one digit is.
    unsaid_digits = any(char.isdigit() for word in words - said for char in word)
    return not unsaid_digits and 2 * len(said) >= len(words)


def _words(folded: str) -> list[str]:
    return _WORD.findall(folded)


def _number(word: str) -> Decimal | None:
    found = re.fullmatch(r"(\d+)(?:st|nd|rd|th)?", word)
    return Decimal(found[1]) if found else None


_DIGITS = re.compile(r"(\d+(?:[.,]\d+)*)\s?(%|[a-z]+)?")
_SUFFIXES = {"%": Decimal("0.01"), "k": Decimal(1000), "m": Decimal(10**6), "bn": Decimal(10**9)}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_TEENS = """
zero one/first two/second three/third four/fourth five/fifth six/sixth seven/seventh eight/eighth
nine/ninth ten/tenth eleven twelve/twelfth thirteen fourteen fifteen sixteen seventeen eighteen
nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = {word: n for n, words in enumerate(_TEENS.split()) for word in words.split("/")}
_UNITS |= {word: 10 * n for n, word in enumerate(_TENS.split(), start=2)}


def _numbers_in_digits(folded: str) -> Iterator[Decimal]:
    """Every reading of the numbers in digits: `1,200` is 1200 and 1.2, `3k` is 3 and 3000."""
    for digits, suffix in _DIGITS.findall(folded):
        parts = re.split("[.,]", digits)
        readings = {*parts, "".join(parts)}
        if len(parts) > 1:
            readings.add(f"{''.join(parts[:-1])}.{parts[-1]}")
        factor = _SUFFIXES.get(suffix) or Decimal(_SCALES.get(suffix, 1))
        for reading in map(Decimal, readings):
            yield reading
            yield reading * factor


def _numbers_in_words(words: Iterable[str]) -> Iterator[Decimal]:
    """Numbers in English words: `twenty five`, `two hundred and six`, `three thousand`."""
    number, group, last = 0, 0, ""
    for word in (*words, ""):
        if word == "and" and last in _SCALES:
            continue
        unit = _UNITS.get(word)
        if last and (word not in _SCALES) and not _extends_number(last, unit):
            yield Decimal(number + group)
            number, group, last = 0, 0, ""
        if unit is not None:
            group, last = group + unit, word
        elif word in _SCALES:
            group, last = (group or 1) * _SCALES[word], word
            if _SCALES[word] >= 1000:
                number, group = number + group, 0


def _extends_number(last: str, unit: int | None) -> bool:
    """Whether `unit` belongs to the number that ended in `last` so far."""
    if unit is None:
        return False
    return last in _SCALES or (_UNITS[last] >= 20 and 0 < unit < 10)
