"""Texts that stand where a value is to come: `<topic>`, `TBD`, `as given`, `the order number`."""

from __future__ import annotations

import re

from distill.workflow.arguments import PLACEHOLDER, stated
from distill.workflow.model import Tool
from distill.workflow.problems import excerpt
from distill.workflow.values import InvalidInputError

_STAND_IN = re.compile(
    rf"{PLACEHOLDER.pattern}|-+|_+|\[[^\[\]]*\]|x{{3,}}"
    r"|t\.?b\.?[ad]\.?|todo|fixme|n/?a"
    r"|none|nil|undefined|unset|empty|not (?:set|given|known|specified)|placeholder"
    r"|(?:your|insert)[ _-].+"
    r"|(?:as|see) (?:given|above|below|said|stated|requested|before|asked|in the request|needed)"
    r"|same(?: as above)?|whatever.*",
    re.IGNORECASE,
)
_OWNER = r"(?:the|a|an|this|that|his|her|its|their|your|my|some|any|(?:the )?\w+[’']s)"
_NOUNS = (
    r"name|id|number|no|code|key|date|time|day|topic|subject|title|text|words?|question|query|request"
    r"|message|value|reference|e-?mail|address|phone|amount|item|thing|term|keywords?|input|argument"
)


def require_meant(tool: Tool, name: str, value: object, request: str) -> None:
    """Raise InvalidInputError where a value describes what belongs there, and is not said."""
    if not isinstance(value, str) or value.casefold() in request.casefold():
        return
    last = re.split(r"[_\W]+", name)[-1]
    described = rf"{_OWNER} (?:[\w-]+ ){{0,3}}(?:{_NOUNS}|{re.escape(last)})"
    is_stand_in = _STAND_IN.fullmatch(value) or re.fullmatch(described, value, re.IGNORECASE)
    if is_stand_in and value and not stated(tool, name, value):
        raise InvalidInputError(
            f'gives "{name}" the text "{excerpt(value)}", which stands for a value and is none',
            "write the value that this request has, or leave the arguments out: the teacher gives "
            "them",
        )
