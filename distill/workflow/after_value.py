"""Whether the sentence of a fixed value goes on in a way that changes the value."""

from __future__ import annotations

import re

# Words that change nothing about the value before them.
_HARMLESS = re.compile(
    r"(?:always|too|as\s+well|also|here|now|please|instead|exactly|only|first|next|then|finally|"
    r"afterwards|regardless|immediately|right\s+away|at\s+once|directly|as\s+(?:soon|quickly|fast)\s+as\s+possible|no\s+matter\s+what|"
    r"without\s+(?:exception|delay)|each\s+time|every\s+time|at\s+all\s+times|in\s+(?:all|any|every)\s+cases?|"
    r"for\s+(?:it|them|him|her|this|that|these|those)(?!\s+\w))\b"
    r"\s*(?=[^\w\s]|\Z|\n|(?:and|then|with)\b|as\s+well)",
    re.IGNORECASE,
)
# What tells why, and not when.
_REASON = re.compile(
    r"(?:so\s+that|because|in\s+order\s+to|to\s+(?!\d)|even\s+(?:if|when|though|on|for|in)\b|"
    r"since\s+(?:the|it|they|we|this|that|more|our|no|people|customers?)\b|instead\s+of|rather\s+than|as\s+(?!long|soon|far))",
    re.IGNORECASE,
)
# How a slot's text is written, as the customer wrote it.
_AS_WRITTEN = re.compile(
    r"(?:as|without|exactly|unchanged|verbatim|which|word\s+for\s+word)\b", re.IGNORECASE
)
# What takes a value back, or half of it.
_DOUBT = re.compile(
    r"\W*(?:where\s+(?:appropriate|possible|needed)|case\s+by\s+case|as\s+(?:needed|appropriate|of\b)|"
    r"with\s+(?:some\s+)?exceptions?|temporar\w+|for\s+now|at\s+the\s+moment|to\s+be\s+confirmed|"
    r"t\.?b\.?[cd]|alternatively|cc)\b|\s*\([^()]*(?:\d|:)[^()]*\)",
    re.IGNORECASE,
)
# What changes a slot's text, which is trained as it stands.
REWRITTEN = re.compile(
    r"(?:in|into)\s+(?:capitals?|caps|(?:lower|upper|title|small|capital)\b|quotes|brackets|"
    r"[A-Z][a-z]+(?:ish|an|ese|ch)\b)|(?:translated|shortened|summari[sz]ed|converted|rounded|"
    r"reversed|abbreviated|capitali[sz]ed|(?:lower|upper)cased)\b"
)
_JOINT = re.compile(r"(?:and|then|call)\b", re.IGNORECASE)
_BEFORE_NAME = re.compile(r"(?:(?:plus|with|using|where|the|its)\s+)+", re.IGNORECASE)
_CONDITION = re.compile(
    r"(?:but|only|except|excluding|unless|if|when|whenever|while|until|in\s+(?:most|some|many|the)?"
    r"\s*(?:cases?|event)|provided|depending|for\s+(?!it\b|them\b|all\b|every\b|each\b)|during|"
    r"on\s+(?!behalf)|at\s+(?:most|least)|or\b|"
    r"(?:more|less|fewer|above|below|over|under|up|higher|lower|most|least)\b)",
    re.IGNORECASE,
)
# A line that begins with a condition in lower case goes on with the one above.
_SENTENCE_END = re.compile(rf"\n(?!\s*(?=[a-z])(?i:{_CONDITION.pattern}))|;|[.!](?=\s|\Z)")
_MAGNITUDE = re.compile(r"\s*(?:[%‰½+]|k\b|and\s+a\s+half\b)")
_PERSON = r"(?:customer|user|caller|client|request|person)"
_NAMED = r"(?:(?:they|he|she|the\s+\w+)\s+\w+|named|given|mentioned|concerned|in\s+question)"
# What a number counts; "3 thousands" and "3 percents" are other numbers.
UNIT = re.compile(
    r"\s+(?!(?:thousand|million|hundred|dozen|percent|time|plu|minu|le|alway|sometime|perhap|"
    r"afterward|upward|onward|weekend|thi|doe|unle|acro|ye|versu|it|ha|wa|"
    r"(?:mon|tue|wedne|thur|fri|satur|sun|holi)(?:s?day))s+\b)"
    r"(?:[a-zäöü-]{2,20}s|euro|EUR|USD|GBP|CHF|kg|km|cm|mm|[kMG]B|people|in\s+total|"
    r"(?:result|item|entry|hit|day|hour|minute|week|month|year|order|message|line|row)\b)"
    r"(?:\s+(?:per|each|a)\s+(?:page|request|call|order|search|day))?(?!\w)"
)
_VALUE = re.compile(r"-?\d|\{\w+\}|[\"“„«]")


def unread_behind(
    rest: str, name: str, value: str, *, is_text: bool, is_fixed: bool, is_number: bool = False
) -> str | None:
    """What follows a value in its sentence and is no harmless ending; None where nothing does.

    rest: the text from the end of the value on
    name: a pattern for the names of the tool's arguments
    value: a pattern for the values that the argument's schema lists
    is_text: the value is text without quotes, which commas end
    is_fixed: the value holds no slot
    is_number: a unit may follow the value
    """
    if is_number and (part := _MAGNITUDE.match(rest)):
        return part[0].strip()
    if is_number and (unit := UNIT.match(rest)):
        rest = rest[unit.end() :]
    sentence = _SENTENCE_END.split(rest, maxsplit=1)[0]
    if re.match(r"[-–/:.,'’*]\d|\s*[*×x^]\s*\d|\s*\+\s*[\"“{]|\s+and\s+[\"“]", sentence):
        return sentence.strip()
    if is_fixed and _DOUBT.match(sentence):
        return sentence.strip()
    concerned = re.compile(
        rf"(?:for|on|of)\s+(?:(?:this|that|all|every|each|any)\s+\w+|(?:the|their|its|his|her)\s+(?:{_PERSON}|{name}))"
        rf"(?!['’\w])(?:\s+{_NAMED})?(?=\s*(?:[^\w\s]|\Z|\n|(?:and|then|with|only)\b))",
        re.IGNORECASE,
    )
    behind = re.sub(r"\A[*_)\]}%€$£]+", "", sentence).strip()
    while behind:
        if re.match(rf"(?:{_BEFORE_NAME.pattern})?{name}", behind, re.IGNORECASE):
            return None
        mark = re.match(r"(?:[,&|(—–…]|and\b)\s*", behind, re.IGNORECASE)
        if mark:
            listed = mark[0].startswith(",") and not re.match(name, behind[mark.end() :])
            behind = behind[mark.end() :]
            is_value = _VALUE.match(behind) or re.match(rf"`?(?:{value})", behind, re.IGNORECASE)
            if not is_fixed and REWRITTEN.match(behind):
                return sentence.strip()
            if not is_fixed and _AS_WRITTEN.match(behind):
                return None
            if listed and (is_value or (is_text and _is_text(behind))):
                return sentence.strip()
            harmless = _HARMLESS.match(behind)
            if is_fixed and not harmless and _CONDITION.match(behind):
                return sentence.strip()
            if harmless is None:
                return None
        if not is_fixed and REWRITTEN.match(behind):
            return sentence.strip()
        harmless = _HARMLESS.match(behind) or concerned.match(behind)
        if harmless is None:
            passes = not is_fixed or not behind[0].isalnum() or _is_plain(behind)
            return None if passes else sentence.strip()
        behind = behind[harmless.end() :].strip()
    return None


def _is_plain(behind: str) -> bool:
    return bool(_JOINT.match(behind) or _REASON.match(behind))


def _is_text(behind: str) -> bool:
    """Whether the words behind a comma may belong to the text before it."""
    return bool(re.match(r"\w", behind)) and not _JOINT.match(behind)
