"""A Then with marks over what was read of it, so that the rest can be judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from distill.workflow.problems import excerpt
from distill.workflow.quotes import CLOSERS, quotation

FIXED, FILLED, QUOTED, DOT = "\x00", "\x01", "\x02", "\x03"
_ABBREVIATION = re.compile(
    r"\b(?:e\.\s?g|i\.\s?e|z\.\s?B|d\.\s?h|etc|approx|incl|resp|vs|cf)\.", re.IGNORECASE
)
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\x00\x01]+|\bwww\.[^\s\x00\x01]+", re.IGNORECASE)
SENTENCE = re.compile(r"(?:[^.;!?\n]|[.!?](?!\s|\Z))+")


class Read(NamedTuple):
    """Where something was read, and whether it is fixed: it holds no slot."""

    start: int
    end: int
    is_fixed: bool


def masked(text: str, reads: Sequence[Read], *, quotes: bool = True) -> str:
    """`text` with what was read, and quotations, as marks of the same length."""
    for start, end, is_fixed in reads:
        text = text[:start] + (FIXED if is_fixed else FILLED) * (end - start) + text[end:]
    text = _ADDRESS.sub(lambda found: QUOTED * len(found[0]), text)
    text = _ABBREVIATION.sub(lambda found: found[0].replace(".", DOT), text)
    position = 0
    while quotes and position < len(text):
        if text[position] in CLOSERS and not text[position - 1 : position].isalnum():
            quoted = quotation(text, position)
            inner = text[position : quoted.end] if quoted else ""
            if quoted and text[position] != "`" and not re.search(r"[\n\x00\x01]", inner):
                text = text[:position] + QUOTED * len(inner) + text[quoted.end :]
                position = quoted.end
        position += 1
    return text


def shown(text: str) -> str:
    return excerpt(re.sub(r"[\x00-\x02]+", "…", text).replace(DOT, ".").strip())
