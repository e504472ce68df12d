"""What a rule that calls nothing says: its very words, or how they are to be found."""

from __future__ import annotations

import re

from distill.records import TargetKind
from distill.workflow.masks import masked
from distill.workflow.problems import excerpt
from distill.workflow.quotes import CLOSERS, quotation, without_emphasis
from distill.workflow.values import InvalidInputError

_QUOTED_LINE = re.compile(r"^\s*>\s?", re.MULTILINE)
_HOW = re.compile(
    r"(?:for|with|that|whether|about|by|politely|briefly|how|in|them|him|her|the\s+(?:customer|user|"
    r"caller|guest|client))\b",
)
_CASE = re.compile(
    r"\b(?:unless|otherwise|except(?:ing)?\s+(?:if|when|for|on|in|at)|excepting|if\s+not|"
    r"only\s+(?:if|when|for|on|in|at|during))\b",
    re.IGNORECASE,
)
_CASE_BEHIND = re.compile(
    r"\x02\W{0,4}(?:if|when|whenever|while|during|until|on\s+\w+days?|at\s+(?:night|weekends?))\b",
    re.IGNORECASE,
)
# What may follow the words without changing them.
_ENDING = re.compile(
    r"[\s*_]*(?:\([^()]*\)|[,–—-]*\s*(?:and\s+)?(?:nothing\s+(?:else|more)|always|exactly|verbatim|"
    r"word\s+for\s+word|as\s+it\s+(?:is|stands)))?[\s*_]*[.!?]?[\s*_]*",
    re.IGNORECASE,
)


def words_to_say(kind: TargetKind, body: str, *, after_colon: bool) -> str:
    """The words behind the verb; empty where they tell how to reply, which only a model can do.

    Words are quoted, or stand behind a colon or a capital letter: "ask for the order number" is
    no question. Raises InvalidInputError for words of some cases only, and for no words.
    """
    body = _QUOTED_LINE.sub("", body.strip()).strip()
    if not body.strip(" .:"):
        raise InvalidInputError(
            f"does not say what to {kind}",
            f'add the words to say, as: **Then** {kind}: "…"',
        )
    first = body.partition("\n")[0]
    words = sole_quotation(first)
    if words is None:
        words = _unquoted_words(body, after_colon=after_colon)
        if words:
            return words
    shown = masked(first, ())
    if case := _CASE.search(shown) or _CASE_BEHIND.search(shown):
        said = case[0].strip("\x02 .,;*_")
        raise InvalidInputError(
            f"says {excerpt(first)}, where {said} begins another case",
            "a rule does one thing: write a rule of its own for the other case; put words to say "
            f'between quotes, all of them, as: **Then** {kind}: "…"',
        )
    return words


def _unquoted_words(body: str, *, after_colon: bool) -> str:
    words = without_emphasis(body)
    code = quotation(words, 0) if words.startswith("`") else None
    if code and code.end == len(words):
        return code.text
    opening = next((each for each in words if each.isalnum() or each in CLOSERS or each == "{"), "")
    tells_how = opening.islower() and (not after_colon or bool(_HOW.match(words)))
    return "" if opening in CLOSERS or (tells_how and not words.endswith("?")) else words


def sole_quotation(text: str) -> str | None:
    """The one quotation of a sentence, where nothing but a remark follows it."""
    for position, character in enumerate(text):
        if (
            character in CLOSERS
            and character != "`"
            and not text[position - 1 : position].isalnum()
        ):
            quoted = quotation(text, position)
            if quoted is None or not _ENDING.fullmatch(text, quoted.end):
                return None
            return quoted.text.strip()
    return None
