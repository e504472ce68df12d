"""What looks like a part of a rule and is none: found, so that it does not pass for prose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from distill.workflow.examples import ARROW
from distill.workflow.markdown import ALIASES, PARTS, Block, Part, parse_label, part_name
from distill.workflow.problems import Problems, closest_match, comma_list, excerpt

_TAGS = re.compile(r"<[^<>]*>")
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_LABEL = re.compile(
    r"\s*(?:[-*+]\s+)?(?:(\*\*|__)\s*([^*_:]{2,20}?)\s*:?\s*\1|([A-Z][a-z]{2,19}):)"
)
_BOLD = re.compile(r"(\*\*|__)[^*_]{1,60}\1\s*:?")
_GLUED = re.compile(r"#{2,6}[^\s#]|#{1,6}\s+\S")
_MARKUP = re.compile(
    r"\[[^\[\]]*\]\([^()]*\)|(?<!\w)\[[^\[\]]{2,}\]|\*\*[^*]+\*\*|~~[^~]+~~|</?[a-z]+[^<>]*>"
    r"|^\[[ xX]\]|\{[A-Za-z_]\w*\}"
)
MAX_LABEL = 200
"""Characters of a line that may be a label."""
NO_SLIPS = ("note", "notes", "thus", "wordy")
_LISTS = ("examples", "not", "things", "actions", "phrases", "slots")
_NAMES = (*PARTS, *ALIASES)


def check_strays(subject: str, rule_parts: Sequence[Part], problems: Problems) -> None:
    """Add a problem or advice for each line that is likely meant as more than prose.

    subject: how messages name the section
    """
    for part in rule_parts:
        for number, block in enumerate(part.blocks):
            following = part.blocks[number + 1] if number + 1 < len(part.blocks) else None
            of_label = part.depth == 0 and block.line == part.line
            if not of_label and not (block.kind == "item" and part.name in _LISTS):
                _check_lines(subject, block, problems)
            if block.kind == "paragraph" and following and following.kind == "item":
                _check_bold(subject, block, problems)
        if part.name not in (*_LISTS, "when", "then", "words"):
            _check_list(subject, part, problems)


def check_preamble(blocks: Iterable[Block], problems: Problems) -> None:
    """Parts before the first rule belong to none."""
    below = ""
    for block in blocks:
        _check_lines("the page", block, problems)
        if block.kind == "heading" and block.depth > 1:
            below = block.text
        elif block.kind == "item" and below:
            problems.advise(
                block.line,
                f'the page has a list under "{excerpt(below)}" before its first rule',
                "it is prose that only models read; examples stand under their rule",
            )
            below = ""
        name = part_name(block.text) if block.kind == "heading" else ""
        label = parse_label(block.text) if block.kind in ("paragraph", "item") else None
        if name in PARTS or label:
            problems.add(
                block.line,
                f'"{excerpt(block.text)}" stands before the first rule',
                "write each rule under a ## heading, as: ## refunds: Refund an order",
            )
        elif block.kind == "item" and ARROW.search(block.text):
            _refuse_arrow("the page", block, problems)


def check_request(text: str, taken: Sequence[str], line: int, problems: Problems) -> None:
    """Advise on a request from which page markup was taken off, or that has some in quotes.

    taken: the markup
    """
    if taken:
        problems.advise(
            line,
            f'the request "{excerpt(text)}" is read without the markup of '
            f"{comma_list(excerpt(part, 30) for part in taken)}",
            "take it out; put the request into quotes where people type it so",
        )
    elif found := _MARKUP.search(text):
        problems.advise(
            line,
            f'the request "{excerpt(text)}" holds the markup {excerpt(found[0], 30)}',
            "students are trained on it as it stands: take it out unless people type it",
        )


def _check_lines(subject: str, block: Block, problems: Problems) -> None:
    lines = block.text.split("\n")
    for offset, line in enumerate(lines):
        if len(line) > MAX_LABEL:
            continue
        place = block.line + offset
        bare = _EDGES.sub("", _TAGS.sub("", line))
        alone = len(lines) == 1 or (bool(bare) and bare != line.strip()) or bare[:1].isupper()
        if bare.casefold() in _NAMES and alone and block.kind != "heading":
            problems.add(
                place,
                f'{subject} has "{excerpt(line)}" on a line, which begins no part there',
                f"write it as a heading of its own, outside of lists, quotes and code: "
                f"### {part_name(bare).title()}",
            )
            continue
        if block.kind == "other":
            _check_hidden(subject, line, place, problems)
            continue
        if _GLUED.match(line) and block.kind == "paragraph":
            problems.add(
                place,
                f'{subject} has "{excerpt(line)}", which is no heading',
                "put a blank after the # signs, and none before them",
            )
        elif found := _LABEL.match(line):
            name = (found[2] or found[3]).casefold()
            near = None if name in NO_SLIPS else closest_match(name, _NAMES, 0.8)
            if near and name not in _NAMES:
                problems.add(
                    place,
                    f'{subject} has the unknown part "{found[2] or found[3]}"',
                    f'did you mean "{part_name(near).title()}"?',
                )


def _check_hidden(subject: str, line: str, place: int, problems: Problems) -> None:
    """A part within a list, a quote or code is part of that, not of the rule."""
    inner = re.sub(r"^(?:\s*(?:>|[-*+]\s|\d{1,9}[.)]\s))*\s*", "", _TAGS.sub("", line))
    heading = re.match(r"#{1,6}\s+(.*)", inner)
    if (parse_label(inner) and not heading) or (heading and part_name(heading[1]) in PARTS):
        problems.add(
            place,
            f'{subject} has "{excerpt(line)}" within a list, a quote, code or HTML',
            "write it on a line of its own, outside of them",
        )


def _check_bold(subject: str, block: Block, problems: Problems) -> None:
    if _BOLD.fullmatch(block.text.strip()) and not parse_label(block.text):
        problems.advise(
            block.line,
            f'{subject} has "{excerpt(block.text)}" above a list, which begins no part',
            "the list is a note that only models read; parts are When, Then, Examples, Not, Words",
        )


def _check_list(subject: str, part: Part, problems: Problems) -> None:
    """A list that no part takes up."""
    items = [block for block in part.blocks if block.kind == "item" and block.text.strip()]
    for item in items:
        if ARROW.search(item.text):
            _refuse_arrow(subject, item, problems)
    if items and not any(ARROW.search(item.text) for item in items):
        what = f'under "{excerpt(part.title)}"' if part.title else "under none of its parts"
        problems.advise(
            items[0].line,
            f"{subject} has a list {what}, which is a note that only models read",
            "if it is meant for a part, put it under When, Then, Examples, Not or Words",
        )


def _refuse_arrow(subject: str, item: Block, problems: Problems) -> None:
    problems.add(
        item.line,
        f'{subject} has "{excerpt(item.text)}", with an arrow, outside of Examples and Not',
        "put it under ### Examples or ### Not, or write it without the arrow",
    )
