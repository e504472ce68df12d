"""What a page puts around a request, and nobody types: emphasis, checkboxes, speakers."""

from __future__ import annotations

import re
from typing import NamedTuple

from distill.workflow.problems import excerpt
from distill.workflow.quotes import quotation
from distill.workflow.values import InvalidInputError, slots_in

_CHECKBOX = re.compile(r"\[[ xX]?\]\s+|(?:[✅✔☑👍]\ufe0f?|(?:Good|Right)\s*:)\s*(?=\S)")
_WRONG = re.compile(r"(?:[❌✗✘🚫⛔👎]\ufe0f?|(?:Bad|Wrong|Don['’]t)\s*:)\s*(?=\S)")
_SPEAKERS = "User|Customer|Client|Caller|Human|Guest|Visitor|Q"
_SPEAKER = re.compile(rf"(\*\*|__)?(?:{_SPEAKERS})(?:\s*:\s*(?(1)\1)|(?(1)\1\s*:\s*))\s*(?=\S)")
_REPLY = re.compile(
    rf"(?:^|\s)(?:\*\*|__)?((?:{_SPEAKERS}|Assistant|Agent|Bot|Model|System|A)\s*:)(?=\W)"
)
_EMPHASIS = (
    re.compile(r"(?<![\w*\\])(\*{1,3})(?=[^\s*])([^*]*[^\s*])\1(?![\w*])"),
    re.compile(r"\A(_{1,3})(?=[^\s_])(.*[^\s_])\1\Z"),
)
_BREAK = re.compile(r"<br\s{0,9}/?>", re.IGNORECASE)
_NESTED = 3
_TAGS = re.compile(
    r"<(b|i|u|em|strong|mark|small|span|p)\b[^<>]{0,80}>([^<>]*)</\1>", re.IGNORECASE
)
_LEFT = re.compile(
    r"\[[^\[\]]*\]\([^()]*\)|\[\^[^\[\]]+\]|~~[^~]+~~|(?<!\w)</?[a-z]+[^<>]*>|^\[[ xX]?\]"
    r"|^\*\*(?=\S)|(?<=\S)\*\*$|(?<!\*)\*\*(?=\S)[^*]*\S\*\*(?!\*)"
)
QUOTE_IT = "put a request that is meant so into quotes"


class Bare(NamedTuple):
    """A text without what the page put around it, and what that was."""

    text: str
    taken: tuple[str, ...] = ()


def without_prefix(item: str, *, in_not: bool = False) -> Bare:
    """A list item without its checkbox and the name of who speaks. Raises InvalidInputError.

    in_not: the item stands under Not, where a mark of what is wrong says nothing more
    """
    text, taken = item.strip(), []
    if (wrong := _WRONG.match(text)) and not in_not:
        raise InvalidInputError(
            f'is marked as wrong by "{wrong[0].strip()}"',
            "a request that another rule serves stands under Not, with that rule's id behind →",
        )
    for mark in (_CHECKBOX, _WRONG, _SPEAKER):
        if found := mark.match(text):
            taken.append(found[0].strip())
            text = text[found.end() :]
    if not quotation(text, 0) and (found := _REPLY.search(text)) and (taken or not found.start()):
        raise InvalidInputError(
            f'holds "{found[1]}", as several turns do',
            f"write what the user says in one turn; {QUOTE_IT}",
        )
    return Bare(text, tuple(taken))


def without_marks(request: str) -> Bare:
    """A request without emphasis and line breaks. Raises InvalidInputError for other markup."""
    text, taken = request, list[str]()

    def inner(found: re.Match[str]) -> str:
        taken.append(found[0])
        return found[2]

    for mark in (*_EMPHASIS, _TAGS) * _NESTED:
        text = mark.sub(inner, text).strip()
    if _BREAK.search(text):
        taken.append("<br>")
        text = " ".join(_BREAK.sub(" ", text).split())
    if slot := next(slots_in(text), None):
        raise InvalidInputError(
            f"holds the slot {{{slot}}}, which examples do not fill",
            f"write what people type, with a value; {QUOTE_IT}",
        )
    if left := _LEFT.search(text):
        raise InvalidInputError(
            f"holds the markup {excerpt(left[0], 30)}, which students would learn as it stands",
            f"write what people type; {QUOTE_IT}",
        )
    return Bare(text, tuple(taken))
