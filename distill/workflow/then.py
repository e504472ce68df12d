"""What follows **Then**: a verb, and what it is done with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from distill.records import TARGET_KINDS, TargetKind
from distill.workflow.calls import prepared, read_calls
from distill.workflow.fixed import MisreadError
from distill.workflow.markdown import Block, plain_lines
from distill.workflow.model import Then, Tool
from distill.workflow.problems import closest_match, excerpt
from distill.workflow.replies import sole_quotation, words_to_say
from distill.workflow.values import InvalidInputError

MAX_LENGTH = 8_000
"""Characters in a Then."""

USAGE = (
    'start it with call, ask, answer or refuse, as: **Then** call `tool` with `name` = "{topic}"'
)
_TOOL = re.compile(r"`([^`\n(]+)[^`\n]*`|(?<![\w.-])([A-Za-z_][\w.-]*)\(")
_OTHER_CASE = re.compile(r"\n\W*((?:else|otherwise|unless|except|if\s+not)\b[^\n]*)", re.IGNORECASE)
_VERB = re.compile(
    r"[^\w`\"'“„«‘(\[{<]*(?:(?:first|always|please|immediately|just|now)[\s:*_,]+(?=\w))?"
    r"([^\W\d_]+)\**_*\s*[:,]?\s*",
    re.IGNORECASE,
)


class ThenError(Exception):
    """A Then that is not understood, and the line of the page."""

    def __init__(self, error: InvalidInputError, line: int) -> None:
        super().__init__(error.cause)
        self.cause, self.hint, self.line = error.cause, error.hint, line


def read_then_part(blocks: Sequence[Block], tools: Mapping[str, Tool]) -> Then:
    """The action that the blocks under a Then demand. Raises ThenError."""
    lines: list[str] = []
    numbers: list[int] = []
    for block in blocks:
        for offset, line in enumerate(plain_lines(block)):
            if line.strip():
                lines.append(line.strip())
                numbers.append(block.line + offset)
    text = "\n".join(lines)
    try:
        return read_then(text, tools)
    except MisreadError as error:
        before = text.count("\n", 0, error.offset) if lines else 0
        raise ThenError(error, numbers[before]) from None
    except InvalidInputError as error:
        raise ThenError(error, (numbers or [blocks[0].line])[0]) from None


def read_then(text: str, tools: Mapping[str, Tool]) -> Then:
    """The action that a sentence, and the lines below it, demand. Raises InvalidInputError."""
    if len(text) > MAX_LENGTH:
        raise InvalidInputError(
            f"has a Then of {len(text):,} characters", f"keep it under {MAX_LENGTH:,}"
        )
    if other := _OTHER_CASE.search(text):
        error = InvalidInputError(
            f'goes on with "{excerpt(other[0].strip())}", which is another case',
            "a rule has one Then: write a rule of its own for the other case",
        )
        raise MisreadError(error, other.start(1))
    written = prepared(text, tools)
    verb = _VERB.match(written)
    kind = _kind(verb[1]) if verb else None
    if verb is None or kind is None:
        first = f'starts with "{excerpt(verb[1])}"' if verb else "is empty"
        near = closest_match(verb[1].casefold(), TARGET_KINDS, 0.75) if verb else None
        hint = f'did you mean "{near}"? {USAGE}' if near else USAGE
        raise InvalidInputError(f"has a Then that {first}", hint)
    if kind == "call":
        read = read_calls(written, verb.end(), tools)
        lines = _lines(text, 1 + written.count("\n", 0, read.end))
        return Then(kind=kind, calls=read.calls, text=lines, remarks=read.remarks)
    said = _VERB.match(text) or verb
    body = text[said.end() :]
    first, _, below = body.partition("\n")
    quoted = sole_quotation(first)
    _reject_tools(first if quoted is None else first.replace(quoted, ""), below, kind, tools)
    reply = words_to_say(kind, body, after_colon=":" in said[0].partition(said[1])[2])
    return Then(kind=kind, reply=reply, text=text if quoted is None else _lines(text, 1))


def _reject_tools(said: str, below: str, kind: TargetKind, tools: Mapping[str, Tool]) -> None:
    """Only a call calls tools: a reply that names one means two things at once."""
    for found in re.finditer(
        r"`([^`\n(]+)[^`\n]*`|(?<![\w.-])([A-Za-z_][\w.-]*)\(", f"{said}\n{below}"
    ):
        name = found[1] or found[2]
        if name.strip() in tools:
            raise InvalidInputError(
                f'says {kind}, and names the tool "{name.strip()}"',
                f"a rule calls tools or says something: start with call, or leave the name out of "
                f"what to {kind}",
            )


def _lines(text: str, count: int) -> str:
    return "\n".join(text.split("\n")[:count])


def _kind(verb: str) -> TargetKind | None:
    word = verb.casefold()
    return next((kind for kind in TARGET_KINDS if word in (kind, f"{kind}s")), None)
