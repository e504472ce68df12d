"""Arguments behind a request without an arrow between them, as `where is 5 (query: "5")`."""

from __future__ import annotations

import re
from typing import NamedTuple

from distill.workflow.arguments import name_pattern, read_pairs
from distill.workflow.model import Tool
from distill.workflow.schema import leaves
from distill.workflow.values import InvalidInputError, argument_errors

_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_MARKS = r"[`\"'*“„]{0,3}"
_QUOTED = r"[\"“„«][^\"”“»]*[\"”“»]"
_ENDS = r"[`\"'*”“]{0,3}"
HINT = "write: - the request → name: value; put a request that is meant so into quotes"


class Tail(NamedTuple):
    """The request before it, and the arguments as they are written."""

    request: str
    written: str


def split_tail(text: str, tool: Tool) -> Tail | None:
    """The arguments of `tool` that follow the request in brackets or behind a separator.

    They are its arguments where they are set with =, quoted, or said in the request as well; other
    words behind a colon are the request's own. None where there are none. Raises InvalidInputError
    where they may be either.
    """
    name = rf"{_MARKS}(?i:{name_pattern(tool)}){_ENDS}\s*"
    named = rf"{name}[:=]"
    start = re.search(rf"(?:([(\[{{])|[,;:|–—]|(?<=\s)-{{1,2}})\s*(?={named})", text)
    if start is None or not text[: start.start()].strip():
        if re.search(rf"(?<![\w.-])(?:{name}=\s*\S|{named}\s*{_QUOTED}\W*\Z)", text):
            raise _doubtful()
        return None
    request, written = text[: start.start()].strip(), text[start.end() :].strip(" .")
    if bracket := start[1]:
        if not written.endswith(_CLOSERS[bracket]):
            raise _doubtful()
        written = written[:-1].strip()
    quoted = re.search(rf"{named}\s*[\"'“„«`‘]", written)
    if quoted or "=" in written or _is_said(request, written, tool):
        return Tail(request, written)
    if bracket:
        raise _doubtful()
    return None


def _is_said(request: str, written: str, tool: Tool) -> bool:
    """Whether a whole call's arguments are written, all of them words of the request."""
    try:
        arguments = read_pairs(written, tool)
    except InvalidInputError:
        return False
    said = request.casefold()
    return not argument_errors(tool, arguments) and all(
        re.search(rf"(?<!\w){re.escape(str(leaf.value).casefold())}(?!\w)", said)
        for leaf in leaves(arguments)
    )


def _doubtful() -> InvalidInputError:
    return InvalidInputError(
        "may have arguments, without an arrow between blanks before them", HINT
    )
