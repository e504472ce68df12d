"""What a call's Then says besides its calls: remarks, which are shown, and other cases.

Nothing of a Then may go unseen: what fixes no argument and adds no call is a remark, which models
read with the rule. A remark that contradicts what is trained in every row is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from distill.records import Json
from distill.workflow.masks import FILLED, FIXED, SENTENCE, Read, masked, shown
from distill.workflow.model import Tool
from distill.workflow.problems import excerpt
from distill.workflow.rest import WHERE_GIVEN
from distill.workflow.schema import schema_of
from distill.workflow.values import InvalidInputError

_CASE = re.compile(
    r"\b(?:if|when|whenever|unless|in\s+case|on\s+(?:\w+days?|weekends?|holidays?))\b",
    re.IGNORECASE,
)
_REPLIES = re.compile(
    r"(?:\A|[.,;:(—\n]|\b(?:and|then|but|please|first|also|always|just))\s*"
    r"(?:ask|answer|refuse|reply|respond|decline|apologi[sz]e)\b",
    re.IGNORECASE,
)
_USES = re.compile(
    r"\b(?:use|take|give|send|set|choose|pick|pass|make\s+it|prefer|switch|change|gets?|receives?|"
    r"goes?\s+to|alternatively|instead)\b|:",
    re.IGNORECASE,
)
_JOINTS = (
    r"(?:and|then|with|calls?|also|where|plus|please|always|next|finally|afterwards|after\s+that|"
    r"followed\s+by|too|well|namely)"
)
_EMPTY = re.compile(
    rf"(?:{_JOINTS}|as|the|an?|its|set|to|using|is|are|be|for|it|them|this|these|following|tools?|"
    r"functions?|arguments?|values?|parameters?|fields?|both|exactly|at|in|every|all|cases?|on|of|"
    r"by|give|send|pass|use|fill|must|should|_|\W)+",
    re.IGNORECASE,
)
_EDGES = re.compile(
    rf"\A(?:[^\w\"'“„«(`]|\b{_JOINTS}\b)+|(?:[^\w\"'”“»)\]!?%…`]|\b{_JOINTS}\b)+\Z", re.IGNORECASE
)
_STEP = re.compile(
    r"\b(?:twice|thrice|\w+\s+times|(?:turn|switch)\b.*\b(?:on|off)|enable|disable|activate|"
    r"deactivate|(?:always|exactly|at\s+(?:most|least)|up\s+to)\s+\d+)\b|"
    r"(?:\A|[.,;:(—\n]|\b(?:and|then|but|please|first|also|always|just))\s*(?:hand|create|inform|"
    r"escalate|tell|offer|check|verify|transfer|forward|thank|greet|remind|say|log|"
    r"send\s+(?:(?:the|an?)\s+)?(?:customer|user|client|caller|guest|them|him|her|e-?mail|message))\b",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"\A\W*(?:(?:not|only)\s+(?:for|on|in|at|with)\b|(?:after|before|until|at|from|since|on|in|during)"
    r"\s+(?:\d|\w+days?\b|weekends?\b|holidays?\b|(?:spring|summer|autumn|winter)\b|(?:jan|febr)uary\b|"
    r"march\b|april\b|may\b|june\b|july\b|august\b|(?:septem|octo|novem|decem)ber\b))"
    r"|\w\W+only\W*\Z|\b(?:is|are)\s+(?:excluded|exempt)\b",
    re.IGNORECASE,
)
_ALWAYS = re.compile(r"\b(?:even|no\s+matter)\s*\Z", re.IGNORECASE)
_STRUCK = re.compile(r"~~[^~\n]+~~")


def struck_out(text: str) -> InvalidInputError | None:
    found = _STRUCK.search(text)
    return found and InvalidInputError(
        f"holds {excerpt(found[0])}, which is struck out", "take it out, or write it without ~~"
    )


def find_other_case(
    text: str, reads: Sequence[Read], arguments: Json, tool: Tool
) -> tuple[InvalidInputError, int] | None:
    """The first sentence beside the calls that demands something else in some case.

    text: the Then, from its verb on; reads: what was read of it, the tools' names among it.
    """
    region = masked(text, reads)
    schema = schema_of(tool)
    others = {
        value: name
        for name, given in arguments.items()
        for value in schema.stated_values(schema.properties.get(name, {}))
        if isinstance(value, str) and len(value) > 2 and value != given
    }
    listed = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, others)) or '(?!)'})(?![\w-])")
    for sentence in SENTENCE.finditer(region):
        case = _CASE.search(sentence[0])
        value = listed.search(sentence[0])
        used = _USES.search(sentence[0]) and FIXED not in sentence[0]
        if value and (case or used):
            name = others[value[0]]
            return InvalidInputError(
                f'says "{shown(sentence[0])}", and "{name}" is fixed as '
                f'"{excerpt(str(arguments[name]))}"',
                "a fixed value is fixed in every row: split the rule in two, or leave the value to "
                "the teacher and describe it in words",
            ), sentence.start() + value.start()
    return None


def find_remarks(text: str, reads: Sequence[Read]) -> tuple[str, ...]:
    """The words of a Then that are no part of its calls, piece by piece as they stand there."""
    region = masked(text, reads, quotes=False)
    pieces: list[str] = []
    for sentence in re.finditer(SENTENCE.pattern + r"[.!?]?", region):
        for piece in re.finditer(rf"[^{FIXED}{FILLED}]+", sentence[0]):
            start = sentence.start() + piece.start()
            said = _EDGES.sub("", text[start : start + len(piece[0])])
            if said and not _EMPTY.fullmatch(said):
                pieces.append(said.strip())
    return tuple(pieces)


def demands_more(remark: str, *, is_fixed: bool) -> bool:
    """Whether a remark demands a step, a value or another case, rather than to explain.

    is_fixed: the calls have a fixed value; else a case is one of what the teacher fills
    """
    remark = WHERE_GIVEN.sub("", remark)
    cases = (not _ALWAYS.search(remark[: case.start()]) for case in _CASE.finditer(remark))
    step = _REPLIES.search(remark) or _STEP.search(remark) or _LIMIT.search(remark)
    return bool(step) or (is_fixed and any(cases))


def find_choice(text: str, tools: Mapping[str, Tool]) -> InvalidInputError | None:
    """A choice between two tools, as: `a` or `b`."""
    named = "|".join(map(re.escape, tools)) or r"(?!)"
    found = re.search(
        rf"\bor\s+(?:else\s+)?(?:call\s+)?(?:the\s+)?`({named})`", text, re.IGNORECASE
    )
    return found and InvalidInputError(
        f'says "{excerpt(found[0])}", a choice between tools, which is not read',
        "a rule always calls the same tools: write a rule for each case, with its own When",
    )
