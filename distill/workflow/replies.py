"""What a rule that calls nothing says: its very words, or how they are to be found."""

from __future__ import annotations

import re
from html import unescape

from distill.records import TargetKind
from distill.workflow.arguments import NOTHING, PLACEHOLDER
from distill.workflow.masks import masked
from distill.workflow.problems import excerpt
from distill.workflow.quotes import CLOSERS, quotation, without_emphasis
from distill.workflow.values import InvalidInputError

_QUOTED_LINE = re.compile(r"^\s*>\s?", re.MULTILINE)
_HOW = r"(?:for|that|whether|about|by|politely|briefly|how|in|them|him|her|what|which|if|of|on|as)"
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
    r"[\s*_]*(?:[,–—-]*\s*(?:and\s+)?(?:nothing\s+(?:else|more)|always|exactly|verbatim|"
    r"word\s+for\s+word|as\s+it\s+(?:is|stands)))?[\s*_]*[.!?]?[\s*_]*",
    re.IGNORECASE,
)
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


def words_to_say(kind: TargetKind, body: str, *, after_colon: bool) -> str:
    """The words behind the verb; empty where they tell how to reply, which only a model can do.

    Words are quoted, or stand alone behind the verb's colon: "ask for the order number" is no
    question. Raises InvalidInputError for words of some cases only, for stand-ins and for none.
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
            return _meant(words, kind)
    shown = masked(first, ())
    if case := _CASE.search(shown) or _CASE_BEHIND.search(shown):
        said = case[0].strip("\x02 .,;*_")
        raise InvalidInputError(
            f"says {excerpt(first)}, where {said} begins another case",
            "a rule does one thing: write a rule of its own for the other case; put words to say "
            f'between quotes, all of them, as: **Then** {kind}: "…"',
        )
    return _meant(words, kind)


def _unquoted_words(body: str, *, after_colon: bool) -> str:
    words = without_emphasis(body)
    code = quotation(words, 0) if words.startswith("`") else None
    if code and code.end == len(words):
        return code.text
    how = re.match(rf"{_HOW}\b", words)
    return (
        words if after_colon and words[0] not in CLOSERS and (not how or words[-1] == "?") else ""
    )


def _meant(words: str, kind: TargetKind) -> str:
    """The words as a reader of the page sees them."""
    if PLACEHOLDER.fullmatch(words) or NOTHING.fullmatch(words):
        raise InvalidInputError(
            f"gives the placeholder {excerpt(words)} as what to say",
            f"write the words, or how they are to be found, as: **Then** {kind} with the fee",
        )
    return unescape(_ESCAPED.sub(r"\1", words)).replace("\xa0", " ")


def sole_quotation(text: str) -> str | None:
    """The one quotation of a sentence, where nothing but a remark follows it.

    What stands before it may not be what the quoted words are about: ask for the "number".
    """
    for position, character in enumerate(text):
        if (
            character in CLOSERS
            and character != "`"
            and not text[position - 1 : position].isalnum()
        ):
            quoted = quotation(text, position)
            about = re.search(rf"\b{_HOW}\b", text[:position], re.IGNORECASE)
            if quoted is None or not _ENDING.fullmatch(text, quoted.end):
                return None
            told = about and not text[:position].rstrip(" *_").endswith((":", "with"))
            return None if told else quoted.text.strip()
    return None
