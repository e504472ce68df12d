"""Texts that stand where a value is to come: `<topic>`, `TBD`, `as given`, `the order number`."""

from __future__ import annotations

import re

from distill.records import Json
from distill.workflow.arguments import NOTHING, PLACEHOLDER, placeholder, stated
from distill.workflow.model import Tool
from distill.workflow.problems import excerpt
from distill.workflow.schema import leaves
from distill.workflow.values import InvalidInputError

_STAND_IN = re.compile(
    rf"{PLACEHOLDER.pattern}|{NOTHING.pattern}|-+|_+|\[[^\[\]]*\]|x{{3,}}"
    r"|not (?:set|given|known|specified)"
    r"|(?:your|insert)[ _-].+"
    r"|(?:as|see) (?:given|above|below|said|stated|requested|before|asked|in the request|needed)"
    r"|same(?: as above)?|whatever.*"
    r"|(?:taken )?from (?:the|their) (?:request|message|customer|user)",
    re.IGNORECASE,
)
_MARK = re.compile(r"<[A-Za-z][\w .-]*>")
_OWNER = r"(?:the|a|an|this|that|his|her|its|their|your|my|some|any|(?:the )?\w+[’']s)"
_NOUNS = (
    r"name|id|number|no|code|key|date|time|day|topic|subject|title|text|words?|question|query|request"
    r"|message|value|reference|e-?mail|address|phone|amount|item|thing|term|keywords?|input|argument"
)


def is_stand_in(tool: Tool, name: str, value: object) -> bool:
    """Whether a text that the schema does not list describes what belongs there."""
    if not isinstance(value, str) or not value or stated(tool, name, value):
        return False
    last = re.split(r"[_\W]+", name)[-1]
    own = r"[\s_-]+".join(map(re.escape, re.split(r"[_\W]+", name)))
    described = rf"{_OWNER} (?:[\w-]+ ){{0,3}}(?:{_NOUNS}|{re.escape(last)})|{own} (?:{_NOUNS})"
    return bool(_STAND_IN.fullmatch(value) or re.fullmatch(described, value, re.IGNORECASE))


def require_no_mark(tool: Tool, arguments: Json) -> None:
    """Raise InvalidInputError for `<topic>`, which is no value in quotes either."""
    for leaf in leaves(arguments):
        if isinstance(leaf.value, str) and _MARK.fullmatch(leaf.value):
            name = str(leaf.path[0])
            if not stated(tool, name, leaf.value):
                raise placeholder(tool, name, leaf.value)


def require_meant(tool: Tool, name: str, value: object, request: str) -> None:
    """Raise InvalidInputError where a value is a stand-in, and the request does not say it."""
    if is_stand_in(tool, name, value) and str(value).casefold() not in request.casefold():
        raise InvalidInputError(
            f'gives "{name}" the text "{excerpt(str(value))}", which stands for a value and is '
            "none",
            "write the value that this request has, or leave the arguments out: the teacher gives "
            "them",
        )
