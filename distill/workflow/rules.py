"""Parser of rules.md: one `##` section per rule, with When, Then, Examples, Not and Words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from distill.workflow.markdown import (
    Block,
    Page,
    Part,
    Section,
    join_lines,
    parts,
    plain_lines,
    preamble,
    sections,
)
from distill.workflow.model import Rule, Then, Tool
from distill.workflow.problems import Problems, closest_match, slug
from distill.workflow.requests import check_winners, read_counter_examples, read_examples
from distill.workflow.strays import NO_SLIPS, check_preamble, check_strays
from distill.workflow.then import USAGE, ThenError, read_then_part
from distill.workflow.words import (
    LISTS,
    WordLists,
    read_list,
    reject_text_outside_lists,
    reject_unknown_heading,
)

_HEADING = re.compile(r"`?([a-z0-9][a-z0-9_-]*)`?\s*:\s+(\S.*)", re.DOTALL)
_TEXT_PARTS = ("when", "then", "examples", "not")


class ParsedRule(NamedTuple):
    """A rule without its words, and the word lists of its section, which words.md may extend."""

    rule: Rule
    lists: WordLists
    then_line: int


def read_rules(page: Page, tools: Mapping[str, Tool], problems: Problems) -> list[ParsedRule]:
    """Every rule that parses; errors in all of them are added to `problems`."""
    rule_sections = sections(page)
    if not rule_sections:
        problems.add(
            1, "has no rule", "write each rule under a ## heading, as: ## refunds: Refund an order"
        )
    for block in page.blocks:
        is_title = block.kind == "heading" and block.depth == 1
        if is_title and rule_sections and block.line > rule_sections[0].line:
            problems.add(
                block.line,
                f'"{block.text}" is a # heading among the rules',
                "rules are ## headings, their parts ###; keep # for the page's title",
            )
    check_preamble(preamble(page), problems)
    ids = rule_ids(page)
    _check_ids(rule_sections, ids, problems)
    parsed = [
        _read_rule(page, section, rule_id, tools, problems)
        for section, rule_id in zip(rule_sections, ids, strict=True)
    ]
    check_winners(rule_sections, ids, problems)
    return [rule for rule in parsed if rule is not None]


def rule_ids(page: Page) -> list[str]:
    """The id of each section in order; empty where the heading has none."""
    return [_id_and_title(section)[0] for section in sections(page)]


def _check_ids(rule_sections: list[Section], ids: list[str], problems: Problems) -> None:
    first: dict[str, int] = {}
    for section, rule_id in zip(rule_sections, ids, strict=True):
        if not rule_id:
            problems.add(
                section.line,
                "the heading gives the rule no id",
                "write ## id: Title, as: ## refunds: Refund an order",
            )
        elif rule_id in first:
            problems.add(
                section.line,
                f'rule "{rule_id}" is defined twice, first at line {first[rule_id]}',
                "give one of them another id, as: ## other-id: Title",
            )
        first.setdefault(rule_id, section.line)


def _id_and_title(section: Section) -> tuple[str, str]:
    """Both from `## id: Title`; of a heading without an id, the slug of its title."""
    match = _HEADING.fullmatch(section.title.strip())
    if match:
        return match[1], match[2].strip()
    title = section.title.strip().strip("`")
    return slug(title), title


def _read_rule(
    page: Page, section: Section, rule_id: str, tools: Mapping[str, Tool], problems: Problems
) -> ParsedRule | None:
    """The rule, incomplete where there are problems; None where its Then cannot be parsed."""
    rule_parts = parts(section)
    lists = WordLists.empty()
    word_parts = _read_word_parts(rule_id, rule_parts, lists, problems)
    check_strays(f'rule "{rule_id}"', rule_parts, problems)
    when = _when(rule_id, section, rule_parts, problems)
    then, then_line = _then(rule_id, section, rule_parts, tools, problems)
    if then is None:
        return None
    rule = Rule(
        id=rule_id,
        title=_id_and_title(section)[1],
        when=when,
        then=then,
        examples=tuple(read_examples(rule_id, then, rule_parts, tools, problems)),
        counter_examples=tuple(read_counter_examples(rule_id, rule_parts, problems)),
        text=_text_without_words(page, section, rule_parts, word_parts),
        line=section.line,
        notes=tuple(_notes(rule_parts, word_parts, then)),
    )
    return ParsedRule(rule, lists, then_line)


def _read_word_parts(
    rule_id: str, rule_parts: list[Part], lists: WordLists, problems: Problems
) -> set[int]:
    """Add the entries of the word parts to `lists`; returns the positions of these parts."""
    word_parts: set[int] = set()
    depth: int | None = None  # of the Words heading that encloses the part
    for number, part in enumerate(rule_parts):
        if part.name == "words":
            depth = part.depth
            reject_text_outside_lists(part, problems)
        elif part.name in LISTS:
            read_list(part.name, part.blocks, lists, problems)
        elif part.name in _TEXT_PARTS or not part.name or depth is None or part.depth <= depth:
            depth = None
            _check_heading(rule_id, part, problems)
            continue
        else:
            reject_unknown_heading(part, problems)
        word_parts.add(number)
    return word_parts


def _check_heading(rule_id: str, part: Part, problems: Problems) -> None:
    """Report a heading that looks like a misspelled part; any other is a note to the reader."""
    names = [*_TEXT_PARTS, "words"]
    is_own = not part.name or part.name in (*names, *NO_SLIPS)
    if not is_own and (close := closest_match(part.name, names, 0.8)):
        problems.add(
            part.line,
            f'rule "{rule_id}" has the unknown part "{part.title}"',
            f'did you mean "{close.title()}"?',
        )


def _when(rule_id: str, section: Section, rule_parts: list[Part], problems: Problems) -> str:
    part = _only_part(rule_id, "when", rule_parts, problems)
    text = "\n".join(_as_prose(block) for block in part.blocks) if part else ""
    if not text.strip():
        problems.add(
            part.line if part else section.line,
            f'rule "{rule_id}" does not say when it applies',
            "add a paragraph that starts with **When**, as: **When** the user asks for a refund.",
        )
    return text.strip()


def _as_prose(block: Block) -> str:
    if block.kind == "other":
        return block.text
    return ("- " if block.kind == "item" else "") + join_lines(block.text)


def _then(
    rule_id: str,
    section: Section,
    rule_parts: list[Part],
    tools: Mapping[str, Tool],
    problems: Problems,
) -> tuple[Then | None, int]:
    """The action and its line."""
    part = _only_part(rule_id, "then", rule_parts, problems)
    if part is None or not part.blocks:
        line = part.line if part else section.line
        problems.add(line, f'rule "{rule_id}" does not say what must follow', USAGE)
        return None, line
    line = part.blocks[0].line
    try:
        return read_then_part(part.blocks, tools), line
    except ThenError as error:
        problems.add(error.line, f'rule "{rule_id}" {error.cause}', error.hint)
        return None, line


def _only_part(rule_id: str, name: str, rule_parts: list[Part], problems: Problems) -> Part | None:
    """The part called `name`; further parts of this name are reported."""
    named = [part for part in rule_parts if part.name == name]
    for extra in named[1:]:
        problems.add(
            extra.line,
            f'rule "{rule_id}" has a second {name.title()}',
            "join the two, or make it two rules",
        )
    return named[0] if named else None


def _notes(rule_parts: list[Part], word_parts: set[int], then: Then) -> Iterator[str]:
    """The prose of a section that none of its parts takes up."""
    for number, part in enumerate(rule_parts):
        if number in word_parts or part.name == "when":
            continue
        if part.name == "then":
            lines = [line for block in part.blocks for line in plain_lines(block) if line.strip()]
            yield from lines[1 + then.text.count("\n") :]
            continue
        title = part.title if part.name not in _TEXT_PARTS else ""
        blocks = [b for b in part.blocks if b.kind != "item" or part.name not in _TEXT_PARTS]
        texts = [join_lines(block.text) for block in blocks if block.text.strip()]
        if title or texts:
            yield ": ".join([*([title] if title else []), *([" ".join(texts)] if texts else [])])


def _text_without_words(
    page: Page, section: Section, rule_parts: list[Part], word_parts: set[int]
) -> str:
    """The source text of the section without its word lists."""
    ends = [*(part.line for part in rule_parts[1:]), section.end]
    spans = [
        page.source(part.line, end)
        for number, (part, end) in enumerate(zip(rule_parts, ends, strict=True))
        if number not in word_parts and end > part.line
    ]
    return "\n".join(spans).strip("\n")
