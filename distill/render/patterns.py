"""Patterns and formats of schemas as regular expressions of whole texts, as grammars take them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_DAY = (
    r"[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_TIME = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?"
    r"(?:Z|[+-](?:0[0-9]|1[0-9]|2[0-3]):[0-5][0-9])?"
)
FORMATS = {
    "date": _DAY,
    "time": _TIME,
    "date-time": f"(?:{_DAY})T{_TIME}",
    "email": r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,31}@[A-Za-z0-9-]{1,31}(?:\.[A-Za-z]{2,8}){1,2}",
    "uri": r'[A-Za-z][A-Za-z0-9+.-]{0,15}:[^\s<>"\\\x00-\x1F]{1,200}',
}
"""Those that `distill.workflow.formats` checks."""
_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_ASCII = {"d": "0-9", "w": "A-Za-z0-9_"}
_ANYTHING = "(?s:.*)"


def search_regex(pattern: str) -> str:
    """A regular expression of the texts in which `pattern` is found somewhere."""
    branches = []
    for parts in _branches(pattern):
        before = "" if parts[:1] == ["^"] else _ANYTHING
        after = "" if parts[-1:] == ["$"] else _ANYTHING
        inner = "".join(map(_ascii, parts[not before : len(parts) - (not after)]))
        branches.append(f"{before}(?:{inner}){after}")
    return "|".join(branches)


def _ascii(part: str) -> str:
    """A class of digits or letters of every script as that of the plain ones."""
    if part.startswith("[^"):
        return part
    listed = re.sub(r"\\(.)", lambda found: _ASCII.get(found[1], found[0]), part)
    return f"[{listed}]" if len(part) == 2 and listed != part else listed


def _branches(pattern: str) -> Iterator[list[str]]:
    """The alternatives of a pattern, each as its characters, escapes and classes."""
    branch: list[str] = []
    depth = 0
    for part in _PARTS.findall(pattern):
        depth += (part == "(") - (part == ")")
        if part == "|" and depth == 0:
            yield branch
            branch = []
        else:
            branch.append(part)
    yield branch


def lark_regex(expression: str) -> str:
    """A regular expression as Lark writes one: between slashes, in one line."""
    escaped = re.sub(r"\\.|/", lambda found: found[0] if found[0] != "/" else r"\/", expression)
    return f"/{escaped}/".replace("\n", r"\n")
