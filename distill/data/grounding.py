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
# Scripts without word spacing (Thai, Lao, Burmese, Khmer, kana, CJK): each character is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_COMPOUND = re.compile(r"\w+(?:[-'’.]\w+)+")
_SUFFIXES = (
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
    """The stems of the words in `text`, in order, without stop words."""
    return [stem(word) for word in _words(fold(text)) if word not in STOP_WORDS]


def fold(text: str) -> str:
    """`text` casefolded, in NFKD, without combining marks."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """A folded word without its English suffix, so that `configure` matches `configuration`."""
    if not word.isalpha():
        return word
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(suffix)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


class _Source(NamedTuple):
    text: str
    folded: str
    stems: frozenset[str]
    numbers: frozenset[Decimal]


@lru_cache(maxsize=1024)
def _indexed(text: str) -> _Source:
    folded = fold(text)
    words = _words(folded)
    compounds = (re.sub(r"\W", "", compound) for compound in _COMPOUND.findall(folded))
    stems = frozenset(stem(word) for word in (*words, *compounds))
    numbers = frozenset((*_numbers_in_digits(folded), *_numbers_in_words(words)))
    return _Source(text, folded, stems, numbers)


def _contains(source: _Source, value: str) -> bool:
    words = set(content_words(value))
    if not words:
        folded = fold(value).strip()
        if folded:
            return folded in source.folded
        # Folding removes a value of combining marks alone, such as ¨.
        return bool(value.strip()) and value.strip() in source.text
    matched = {word for word in words if word in source.stems or _number(word) in source.numbers}
    # An identifier or an amount is wrong when one of its digits is.
    unmatched_digits = any(char.isdigit() for word in words - matched for char in word)
    return not unmatched_digits and 2 * len(matched) >= len(words)


def _words(folded: str) -> list[str]:
    return _WORD.findall(folded)


def _number(word: str) -> Decimal | None:
    found = re.fullmatch(r"(\d+)(?:st|nd|rd|th)?", word)
    return Decimal(found[1]) if found else None


_DIGITS = re.compile(r"(\d+(?:[.,]\d+)*)\s?(%|[a-z]+)?")
_MULTIPLIERS = {"%": Decimal("0.01"), "k": Decimal(1000), "m": Decimal(10**6), "bn": Decimal(10**9)}
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
    """All values that digits may stand for: `1,200` is 1200 and 1.2, `3k` is 3 and 3000."""
    for digits, unit in _DIGITS.findall(folded):
        parts = re.split("[.,]", digits)
        values = {*parts, "".join(parts)}
        if len(parts) > 1:
            values.add(f"{''.join(parts[:-1])}.{parts[-1]}")
        factor = _MULTIPLIERS.get(unit) or Decimal(_SCALES.get(unit, 1))
        for value in map(Decimal, values):
            yield value
            yield value * factor


def _numbers_in_words(words: Iterable[str]) -> Iterator[Decimal]:
    """Numbers in English words: `twenty five`, `two hundred and six`, `three thousand`."""
    number, group, last = 0, 0, ""
    for word in (*words, ""):
        if word == "and" and last in _SCALES:
            continue
        unit = _UNITS.get(word)
        # "twenty five" and "hundred six" go on; "five six" are two numbers.
        extends = last in _SCALES or (_UNITS.get(last, 0) >= 20 and unit in range(1, 10))
        if last and word not in _SCALES and (unit is None or not extends):
            yield Decimal(number + group)
            number, group, last = 0, 0, ""
        if unit is not None:
            group, last = group + unit, word
        elif word in _SCALES:
            group, last = (group or 1) * _SCALES[word], word
            if _SCALES[word] >= 1000:
                number, group = number + group, 0
