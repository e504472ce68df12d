"""How a request is typed: casing, punctuation, contractions and the odd slip of the finger."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import NamedTuple


class Piece(NamedTuple):
    """Part of a request; a fixed one carries an argument, and is never misspelt."""

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


def is_lower(style: str, rng: Random) -> bool:
    """Whether a request of that style is typed in lower case throughout."""
    return rng.random() < (0.7 if style == "keywords" else 0.35)


def typed(pieces: list[Piece], mark: str, tail: str, lower: bool, rng: Random) -> str:
    """Type `pieces`, then the mark that ends the request, then what follows it."""
    pieces = [piece for piece in pieces if piece.text]
    if rng.random() < 0.5:
        pieces = [_each_free(piece, _contracted) for piece in pieces]
    if lower and rng.random() < 0.4:
        pieces = [_each_free(piece, _without_apostrophes) for piece in pieces]
    if rng.random() < 0.09:
        pieces = _misspelt(pieces, rng)
    if not lower and rng.random() < 0.95:
        pieces = _capitalised(pieces)
        tail = tail[:1].upper() + tail[1:] if mark else tail
    text = "".join(piece.text for piece in pieces).strip()
    text += _end(mark, rng, more=bool(tail)) + (f" {tail}" if tail else "")
    return text.lower() if lower else text


def _each_free(piece: Piece, change: Callable[[str], str]) -> Piece:
    return piece if piece.fixed else Piece(change(piece.text))


def _contracted(text: str) -> str:
    for full, short in _CONTRACTIONS:
        text = text.replace(full, short)
    return text


def _without_apostrophes(text: str) -> str:
    return re.sub(r"(?<=[a-z])['’](?=[a-z])", "", text)


def _misspelt(pieces: list[Piece], rng: Random) -> list[Piece]:
    spots = [
        (number, match.span())
        for number, piece in enumerate(pieces)
        if not piece.fixed
        for match in re.finditer(r"[a-z]{4,}", piece.text)
    ]
    if not spots:
        return pieces
    number, (start, end) = rng.choice(spots)
    text = pieces[number].text
    wrong = text[:start] + _slip(text[start:end], rng) + text[end:]
    return [*pieces[:number], Piece(wrong), *pieces[number + 1 :]]


def _slip(word: str, rng: Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    match rng.randrange(3):
        case 0:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case 1:
            return word[:at] + word[at + 1 :]
        case _:
            return word[:at] + word[at] + word[at:]


def _capitalised(pieces: list[Piece]) -> list[Piece]:
    done: list[Piece] = []
    starts = True
    for text, fixed in pieces:
        # node.js, iPhone and utils-core keep the case that they are known by.
        if starts and re.match(r"[a-z]+(?:[\s,.!?:;]|$)", text):
            text = text[:1].upper() + text[1:]
        if not fixed:
            text = _NEXT_SENTENCE.sub(lambda found: found[1] + found[2].upper(), text)
        starts = not fixed and bool(re.search(r"[.!?] +$", text))
        done.append(Piece(text, fixed))
    return done


def _end(mark: str, rng: Random, *, more: bool) -> str:
    chance = rng.random()
    if more:
        return mark or ","  # Without a mark it would run into what follows.
    if mark.endswith("?"):
        return "" if chance < 0.33 else "??" if chance < 0.35 else "?"
    if mark:
        return "!" if chance < 0.02 else "." if chance < 0.4 else ""
    return ""
