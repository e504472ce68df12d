"""Surface noise of a request: casing, punctuation, contractions and an occasional typo."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import NamedTuple


class Span(NamedTuple):
    """A part of a request; a fixed one holds an argument, and keeps its spelling."""

    text: str
    fixed: bool = False


_CONTRACTIONS = (
    ("what is ", "what's "),
    ("where is ", "where's "),
    ("do not ", "don't "),
    ("I am ", "I'm "),
    ("I would ", "I'd "),
    ("there is ", "there's "),
)
_NEXT_SENTENCE = re.compile(r"([.!?] +)([a-z])")


def draw_lower_case(style: str, rng: Random) -> bool:
    """Whether a request of that style is to be all in lower case."""
    return rng.random() < (0.7 if style == "keywords" else 0.35)


def realize(spans: list[Span], mark: str, closer: str, lower: bool, rng: Random) -> str:
    """The text of a request: its spans, the mark that ends it, and the closer after that."""
    spans = [span for span in spans if span.text]
    if rng.random() < 0.5:
        spans = [_unless_fixed(span, _with_contractions) for span in spans]
    if lower and rng.random() < 0.4:
        spans = [_unless_fixed(span, _without_apostrophes) for span in spans]
    if rng.random() < 0.09:
        spans = _with_typo(spans, rng)
    if not lower and rng.random() < 0.95:
        spans = _with_capitals(spans)
        closer = closer[:1].upper() + closer[1:] if mark else closer
    text = "".join(span.text for span in spans).strip()
    text += _end_mark(mark, rng, more=bool(closer)) + (f" {closer}" if closer else "")
    return text.lower() if lower else text


def _unless_fixed(span: Span, change: Callable[[str], str]) -> Span:
    return span if span.fixed else Span(change(span.text))


def _with_contractions(text: str) -> str:
    for full, short in _CONTRACTIONS:
        text = text.replace(full, short)
    return text


def _without_apostrophes(text: str) -> str:
    return re.sub(r"(?<=[a-z])['’](?=[a-z])", "", text)


def _with_typo(spans: list[Span], rng: Random) -> list[Span]:
    words = [
        (number, match.span())
        for number, span in enumerate(spans)
        if not span.fixed
        for match in re.finditer(r"[a-z]{4,}", span.text)
    ]
    if not words:
        return spans
    number, (start, end) = rng.choice(words)
    text = spans[number].text
    text = text[:start] + _typo(text[start:end], rng) + text[end:]
    return [*spans[:number], Span(text), *spans[number + 1 :]]


def _typo(word: str, rng: Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    match rng.randrange(3):
        case 0:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case 1:
            return word[:at] + word[at + 1 :]
        case _:
            return word[:at] + word[at] + word[at:]


def _with_capitals(spans: list[Span]) -> list[Span]:
    done: list[Span] = []
    starts = True
    for text, fixed in spans:
        # Names such as node.js, iPhone and utils-core keep their case.
        if starts and re.match(r"[a-z]+(?:[\s,.!?:;]|$)", text):
            text = text[:1].upper() + text[1:]
        if not fixed:
            text = _NEXT_SENTENCE.sub(lambda found: found[1] + found[2].upper(), text)
        starts = not fixed and bool(re.search(r"[.!?] +$", text))
        done.append(Span(text, fixed))
    return done


def _end_mark(mark: str, rng: Random, *, more: bool) -> str:
    chance = rng.random()
    if more:
        return mark or ","  # without a mark it would run into the closer
    if mark.endswith("?"):
        return "" if chance < 0.33 else "??" if chance < 0.35 else "?"
    if mark:
        return "!" if chance < 0.02 else "." if chance < 0.4 else ""
    return ""
