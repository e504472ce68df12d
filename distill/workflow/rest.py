"""What is left of a call's sentences when all that was read is taken out of them.

It must be connective words, or a plain description of what the teacher fills. A condition beside a
fixed value would be trained as if it held always, and a value in words would be dropped.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from distill.workflow.arguments import name_pattern, named_argument
from distill.workflow.masks import FILLED, FIXED, SENTENCE, Read, masked, shown
from distill.workflow.model import Tool
from distill.workflow.spoken import find_mentions, find_values
from distill.workflow.values import InvalidInputError

WHERE_GIVEN = re.compile(
    r"(?:if|when|where|as\s+far\s+as|in\s+case)\s+(?:any|given|known|needed|present|available|named|"
    r"stated|mentioned|there\s+(?:is|are)\s+(?:one|any|some)|(?:one|any)\s+(?:is|are)\s+\w+|"
    r"(?:they|you|it\s+is|the\s+\w+|he|she)\s+\w+(?:\s+(?:one|it|any|so))?(?=\s*(?:[,.;)\n]|\Z|and\b)))",
    re.IGNORECASE,
)
"""What only says that a description may have nothing to describe, as: the city, if any."""

_BOUNDARY = re.compile(rf"[][,:()—–*{FIXED}{FILLED}]+|\s-\s|\band\b")
_LEADING = re.compile(
    r"(?:(?:then|also|so(?!\s+long)|however|though|although|please|note|that|important|remember|again|now|here|with|"
    r"but(?!\s+(?:not|only|never)))\b[\s:,]*)*",
    re.IGNORECASE,
)
_OBJECT = (
    r"(?:it|them|him|her|this|that|these|those|all|any|every|each|the|its|their|his|a|an|what\w*|"
    r"who\w*|you|us|me|now|example|instance|both|safety|clarity|good|details|reference|information|more)\b|[^\w\s]"
)
_CALL_CONDITION = (
    r"(?:(?:only\s+)?(?:if|when|whenever|unless|in\s+case|provided|as\s+long\s+as)|otherwise|"
    r"else|except|excluding|depending|assuming|only\s+(?:for|on|in|at|with|during|after|before)|"
    r"but\s+(?:not|only|never)|not\s+(?:for|on|in|if|when|during|at|until|before|after))\b"
)
_CONDITION = (
    rf"(?:{_CALL_CONDITION}|for\s+(?!{_OBJECT})|(?:until|during|usually|normally|sometimes|mostly|"
    r"typically|generally|often|preferably|ideally|by\s+default|given\s+(?!by\b|in\b)\w+|supposing|so\s+long\s+as|subject\s+to|upon|save\s+(?:on|for|when)|"
    r"(?:apart|aside)\s+from|other\s+than|never\s+(?:on|for|in|at|if|when|during)|"
    r"(?:though|however|although)\s+(?:not|only|never)|maybe|perhaps|possibly|probably|consider|"
    r"optionally|as\s+a\s+rule|"
    r"as\s+soon\s+as(?!\s+(?:possible|you\s+can))|once\s+(?:the|a|it|they)|should\s+(?:the|a|an|it|they|he|she)|"
    r"where\s+(?:possible|needed|applicable)|in\s+(?:the\s+)?(?:most|some|many|few|case|event)|"
    r"while\s+(?!\w+ing\b)|at\s+(?:night|weekends?|noon)|on\s+(?:\w+days?|weekends?|holidays?))\b)"
)
_CIRCUMSTANCE = (
    rf"(?:{_CONDITION}|for\b(?!\s+(?:it|them|this|that|all|every|each|any|example)\b)|"
    r"(?:on|in|at|after|before|from|within|outside|where|among|concerning|regarding|as\s+to)\b"
    r"(?!\s+(?:all|every|any|each|addition|general|total|the\s+(?:call|request|arguments?))\b))"
)
_HEDGE = re.compile(
    r"\b(?:may|might|can|could|possible|possibly|perhaps|maybe|probably|consider|ideally|normally|"
    r"usually|sometimes|often|preferably|optionally|mostly|typically|generally|by\s+default|"
    r"as\s+a\s+rule|at\s+first)\b",
    re.IGNORECASE,
)  # in front of a value
_UNLIKE = re.compile(
    r"\b(?:exempt\w*|excepted|excluded|(?:does|do)(?:\s+not|n['’]t)\s+(?:apply|hold|do\s+(?:so|this|"
    r"that|it)))\b|\?",
    re.IGNORECASE,
)
_HARD = (
    r"(?:but\s+(?:not|only|never)|except|excluding|unless|otherwise|else|"
    r"only\s+(?:if|when|for|on|in|at|during))\b"
)
_FOR_SOME = r"for\s+the\s+(?!.*\b(?:they|that|which|named|given|of|in|he|she)\b).*\ws\s*\Z"
_PEOPLE = (
    r"(?!(?:(?:for|in)\s+)?(?:all|every|any|each|the|their)\b)(?:\w+\s+){0,2}(?:customers|clients|"
    r"members|users|regulars|vips|subscribers|accounts|guests)\s*(?:with\s*(?:the\s*)?)?\Z"
)
_REMARK = (
    r"(?:(?!read[ -]only\b)(?!.*\b(?:the|its|their|this|that|one|his|her)\b).*\bonly\s*\Z|"
    r".*\b(?:permitting|permits|allowing|applicable)\b|"
    r"(?:if|where|when|wherever)\s+possible\b|"
    rf"{_PEOPLE}|(?:in|on|at|over)\s+the\s+(?:evening|morning|afternoon|night|week|weekend|summer|"
    r"winter|spring|autumn|holidays?)\b|(?:in|on|at|from|between|before|after|till|within|outside|"
    r"over|under)\s+(?!the\b|their\b|its\b|this\b|that\b|all\b|any\b|every\b|our\b|your\b|order\b|"
    r"addition\b|once\b|full\b|short\b|which\b|both\b|behalf\b)\w)"
)  # what stands right behind a fixed value, as: (summer only), in July
_LIMITED = (
    r"(?:only\b(?!\s+(?:the|its|his|her|their|what|one|once|then|a|this|that|use|give|send|pass|keep|"
    r"ask|name|tell|copy|write|take|put|say|set)\b)|exceptions?\b|"
    r"(?:(?:this|that|these|it|they|both|which|the\s+(?:value|rule|same))\s+)?(?:only\s+)?"
    r"(?:applies|apply|holds?|valid|counts?|is\s+(?:meant|valid|only|for|true\s+for)|goes)\s+"
    r"(?!always|even|regardless|also|in\s+all|to\s+all|for\s+all|to\s+every)|do\s+(?:this|that|so|it)\s+(?:only|for|on)|"
    r"(?!.*\b(?:the|its|their|this|that|one|his|her)\b).*\bonly\Z)"
)
_HAVING = re.compile(
    r"(?P<who>(?:[\w'’-]+\s+){1,5})(?:gets?|have|has|needs?|receives?|takes?|requires?|means?|"
    r"wants?|are|is|(?:are|is)\s+\w+\s+with|[→⇒]|[-=]>)\s+(?:the\s+|an?\s+)?\Z",
    re.IGNORECASE,
)
_WITH = re.compile(r"\s*with\b(?!\s+the\b).*,\s*(?:the\s+)?\Z", re.IGNORECASE)
_ANYONE = re.compile(
    r"(?:it|they|this|that|which|we|you|all|the\s+call|every\w*(?:\s+\w+)?|each\s+\w+|always|"
    r"(?:the|its)\s+\w+)\s+",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"(?:with|the|these|those|following|as|follows|fixed|set|using|note|always|call|so|like|use|"
    r"all|also|every|case|cases|in|for|its|then|and|values?|arguments?|parameters?|params|args|"
    r"fields?|inputs?|settings?|options?|important|please|json|body|this|that|where|it|namely|"
    r"default|defaults|remember|too|\W)+\Z",
    re.IGNORECASE,
)
_SAYS_MORE = re.compile(
    r"\d|\b(?:true|false|yes|no|not|never|leave|omit|skip|drop|unset|none|null|empty)\b|n['’]t\b",
    re.IGNORECASE,
)


_NEUTRAL = re.compile(
    r"(?:always|every|each|all|any|cases?|requests?|calls?|times?|sets?|use|using|give|pass|send|fill|put|write|"
    r"make|keep|the|an?|its|their|this|that|these|which|is|are|be|being|must|should|shall|will|has|have|to|as|of|on|"
    r"with|and|then|also|at|in|for|it|they|them|here|there|too|please|note|remember|important|fixed|fix|values?|"
    r"arguments?|parameters?|params|args|fields?|inputs?|settings?|options?|flags?|following|follows|so|now|both|same|exactly|"
    r"equals?|regardless|json|body|again|we|you|want|wants|need|needs|needed|tool|function|plus|namely|"
    r"because|since|even|not|only|but|where|what|how|by|json|like|below|above|further|more|my|our|your|\d+)",
    re.IGNORECASE,
)


class Unread(NamedTuple):
    """What is not understood, and its offset."""

    error: InvalidInputError
    offset: int


class _Clause(NamedTuple):
    words: str  # without leading connectives
    start: int
    is_first: bool  # of its sentence
    before: bool  # a fixed value follows in its sentence
    adjacent: bool  # it stands right behind what was read
    closes: bool  # it stands right before a fixed value
    joined: bool  # "and" joins it to what stands before


def find_unread(
    text: str, span: tuple[int, int], reads: Sequence[Read], given: set[str], tool: Tool
) -> Unread | None:
    """The first thing of a call's sentences that may be neither dropped nor trained always.

    span: the text from the tool's name to the next call
    reads: what was read in it
    given: the arguments that have a value
    """
    # A sentence goes on behind a comma at the end of a line.
    region = re.sub(r",\n(?!\s*[-*])", ", ", masked(text, reads)[span[0] : span[1]])
    is_fixed = any(read.is_fixed for read in reads)
    for sentence in SENTENCE.finditer(region):
        found = _condition(sentence[0], sentence.start() == 0, is_fixed, given, tool)
        if found is not None:
            return Unread(_conditional(*found[:2]), span[0] + sentence.start() + found[2])
    if is_fixed and (unlike := _UNLIKE.search(region)):
        start = max(region.rfind(mark, 0, unlike.start()) for mark in ".;\n") + 1
        said = region[start : unlike.end()]
        return Unread(_conditional(said, "a fixed value"), span[0] + unlike.start())
    own = masked(text, reads, quotes=False)[span[0] : span[1]]
    errors = itertools.chain(find_mentions(region, given, tool), find_values(own, given, tool))
    return next((Unread(error, span[0] + at) for error, at in errors), None)


def _clauses(sentence: str) -> Iterator[_Clause]:
    last = sentence.rfind(FIXED)
    bounds = [(0, 0), *(found.span() for found in _BOUNDARY.finditer(sentence))]
    is_first = True
    for (_, start), (end, _) in zip(bounds, [*bounds[1:], (len(sentence), 0)], strict=True):
        text = sentence[start:end].lstrip()
        leading = _LEADING.match(text)
        words = text[leading.end() if leading else 0 :]
        if words.strip():
            behind = re.sub(r"(?:[][\s,:()—–*|-]|\band\b)+\Z", "", sentence[:start])
            adjacent = behind.endswith((FIXED, FILLED))
            closes = sentence.startswith(FIXED, end)
            joined = bool(re.search(r"\band[\s,]*\Z", sentence[: end - len(words)]))
            yield _Clause(words, end - len(words), is_first, start < last, adjacent, closes, joined)
        is_first = is_first and not words.strip() and start == 0


def _condition(
    sentence: str, is_call: bool, is_fixed: bool, given: set[str], tool: Tool
) -> tuple[str, str, int] | None:
    """The condition, what it is about, and its offset.

    is_call: the sentence begins right behind the tool's name
    """
    has_fixed = FIXED in sentence
    clauses = list(_clauses(sentence))
    for number, clause in enumerate(clauses):
        about = _about(clause, number, is_call=is_call, is_fixed=is_fixed, has_fixed=has_fixed)
        if not about and FILLED in sentence and _is_case(clause.words):
            about = "a value"
        if not about and is_fixed and not has_fixed and number == 0 and not is_call:
            about = _of_the_value(clauses, sentence, given, tool)
        if about:
            return clause.words, about, clause.start
    if has_fixed and not is_call:
        return _subject(sentence, clauses, tool) or _frame(sentence, tool)
    return None


def _frame(sentence: str, tool: Tool) -> tuple[str, str, int] | None:
    """A word in front of a value that says of whom or how often it holds, as: Give VIPs limit 3.

    In a sentence beside the call's only words that say nothing of the kind may lead to a value.
    """
    prefix = re.sub(rf"[{FIXED}{FILLED}]+", ",", sentence[: sentence.index(FIXED)])
    names = rf"(?<![\w-])(?:{name_pattern(tool)})(?![\w-])"
    named = re.sub(names, " ", prefix, flags=re.IGNORECASE)
    *before, last = re.split(r"[,;:]|\band\b", named)
    words = re.findall(r"[^\W\d_\x02\x03][\w'’-]*", last)
    if not words and before and len(before[-1].split()) < 3:  # Couples, guests = 2
        words = before[-1].split()
    if any(not _NEUTRAL.fullmatch(word) for word in words):
        start = len(prefix) - len(prefix.lstrip())
        return sentence.strip(), "a fixed value", start
    return None


def _about(clause: _Clause, number: int, *, is_call: bool, is_fixed: bool, has_fixed: bool) -> str:
    """What the clause is a condition of; empty where it is none."""

    def begins(pattern: str) -> bool:
        return bool(re.match(pattern, clause.words, re.IGNORECASE))

    if begins(r"(?:otherwise|else)\b"):
        return "another case"
    is_given = WHERE_GIVEN.fullmatch(clause.words.strip())
    if is_given and (clause.joined or not (clause.is_first or clause.adjacent)):
        return ""
    if re.fullmatch(r"only\W*", clause.words, re.IGNORECASE):
        return ""
    if clause.closes and re.fullmatch(r"(?:in|for|at)\s*", clause.words, re.IGNORECASE):
        return ""
    if is_call and number == 0 and not clause.adjacent and begins(_CALL_CONDITION):
        return "the call"
    if clause.closes and _HEDGE.search(clause.words):
        return "a fixed value"
    if not is_fixed or not has_fixed:
        return "a fixed value" if is_fixed and clause.is_first is False and begins(_HARD) else ""
    if clause.before:
        of_call = rf"(?:{_CALL_CONDITION}|for\s+{_PEOPLE}|{_REMARK})"
        leading = of_call if is_call and not clause.adjacent else _CIRCUMSTANCE
        return "a fixed value" if begins(leading if clause.is_first else _CONDITION) else ""
    pattern = rf"(?:{_CONDITION}|{_FOR_SOME}|{_REMARK})" if clause.adjacent else _HARD
    return "a fixed value" if begins(pattern) else ""


def _is_case(words: str) -> bool:
    """Whether a value that every row has is said to hold in some."""
    given = WHERE_GIVEN.fullmatch(words.strip())
    return not given and bool(re.match(_CALL_CONDITION, words, re.IGNORECASE))


def _of_the_value(clauses: list[_Clause], sentence: str, given: set[str], tool: Tool) -> str:
    """A sentence beside that of the value, as: Only for late parcels."""
    words = clauses[0].words.strip()
    if re.match(_LIMITED, sentence.strip(), re.IGNORECASE):
        return "a fixed value"
    alone = (
        rf"|{_REMARK}\Z|(?:in|on|at|from|during|until)\s+(?:\w+\s*){{1,4}}\Z"
        if len(clauses) == 1
        else ""
    )
    if not re.match(rf"{_CONDITION}{alone}", words, re.IGNORECASE):
        return ""
    if re.match(_HARD, words, re.IGNORECASE):
        return "a fixed value"
    main = sentence[clauses[1].start :] if len(clauses) > 1 else ""
    pattern = rf"(?<![\w-])({name_pattern(tool)})(?![\w-])"
    names = (each[1] for each in re.finditer(pattern, main, re.IGNORECASE))
    named = any(named_argument(tool, name) in given for name in names)
    return "a fixed value" if not main or named or _SAYS_MORE.search(main) else ""


def _subject(sentence: str, clauses: list[_Clause], tool: Tool) -> tuple[str, str, int] | None:
    """The things that a value is said of, as: Gold customers get limit 3. Late ones: limit 3."""
    prefix = sentence[: sentence.index(FIXED)]
    clause = clauses[0] if clauses and clauses[0].start < len(prefix) else None
    if clause is None:
        return None
    named = re.search(rf"(?<![\w-])(?:{name_pattern(tool)})(?![\w-])", prefix, re.IGNORECASE)
    having = _HAVING.fullmatch(prefix.lstrip())
    labelled = prefix.rstrip().endswith(":") and not _LABEL.match(prefix)
    being = re.match(r"[^,]*\bbeing\b[^,]*,", prefix)
    if (
        being
        or (having and not _ANYONE.fullmatch(having["who"]))
        or (not named and (labelled or _WITH.match(prefix)))
    ):
        return prefix.strip(), "a fixed value", len(prefix) - len(prefix.lstrip())
    return None


def _conditional(words: str, about: str) -> InvalidInputError:
    way_out = {
        "the call": "say under When when the rule holds, and split it in two where cases differ",
        "another case": "split the rule in two: each has its own When, and its own Then",
    }.get(
        about,
        "a fixed value is fixed in every row: split the rule in two, or leave the value to the "
        "teacher and describe it in words",
    )
    return InvalidInputError(
        f'has "{shown(words)}", a condition of {about}, which is not read', way_out
    )
