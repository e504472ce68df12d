"""rules.md: one `##` section per rule, as a domain expert writes it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from distill.records import Json
from distill.workflow.markdown import Block, Page, Part, Section, join_lines, parts, sections
from distill.workflow.model import CounterExample, Rule, RuleExample, Then, Tool
from distill.workflow.problems import Problems, closest_match, did_you_mean, excerpt, slug
from distill.workflow.then import USAGE, read_then
from distill.workflow.values import InvalidInputError, argument_errors, read_arguments, slots_in
from distill.workflow.words import (
    LISTS,
    WordLists,
    read_list,
    reject_text_outside_lists,
    reject_unknown_heading,
)

_HEADING = re.compile(r"`?([a-z0-9][a-z0-9_-]*)`?\s*:\s+(\S.*)", re.DOTALL)
_ARROW = re.compile(r"(?:^|(?<=\s))(?:→|->)(?=\s|$)")
_TEXT_PARTS = ("when", "then", "examples", "not")


class Draft(NamedTuple):
    """A rule, and the words of its section; words.md may add to them."""

    rule: Rule
    lists: WordLists
    then_line: int


class Arrow(NamedTuple):
    """`left → right` of a list item; an arrow in the text itself is written as `\\->`."""

    left: str
    right: str | None


def read_rules(page: Page, tools: Mapping[str, Tool], problems: Problems) -> list[Draft]:
    """Every rule that parses; errors in the others are added to `problems`."""
    found = sections(page)
    if not found:
        problems.add(
            1, "has no rule", "write each rule under a ## heading, as: ## refunds: Refund an order"
        )
    for block in page.blocks:
        if block.kind == "heading" and block.depth == 1 and found and block.line > found[0].line:
            problems.add(
                block.line,
                f'"{block.text}" is a # heading among the rules',
                "rules are ## headings, their parts ###; keep # for the page's title",
            )
    ids = _ids(found, problems)
    drafts = [
        _read_rule(page, section, rule_id, tools, problems)
        for section, rule_id in zip(found, ids, strict=True)
    ]
    _check_winners(found, ids, problems)
    return [draft for draft in drafts if draft is not None]


def rule_ids(page: Page) -> list[str]:
    """The id of each section, in order."""
    return [_title(section)[0] for section in sections(page)]


def split_arrow(text: str, *, last: bool = False) -> Arrow:
    """Split an item at its first (or last) arrow between blanks."""
    arrows = list(_ARROW.finditer(text))
    if not arrows:
        return Arrow(_plain(text), None)
    arrow = arrows[-1 if last else 0]
    return Arrow(_plain(text[: arrow.start()]), text[arrow.end() :].strip())


def _plain(text: str) -> str:
    text = text.strip().replace("\\→", "→").replace("\\->", "->")
    wrapped = len(text) > 1 and (text[0], text[-1]) in (('"', '"'), ("“", "”"))
    return text[1:-1].strip() if wrapped and not re.search(r'["“”]', text[1:-1]) else text


def _ids(found: list[Section], problems: Problems) -> list[str]:
    ids: list[str] = []
    first: dict[str, int] = {}
    for section in found:
        rule_id = _title(section)[0]
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
        ids.append(rule_id)
    return ids


def _title(section: Section) -> tuple[str, str]:
    """The id and the title in a heading."""
    found = _HEADING.fullmatch(section.title.strip())
    if found:
        return found[1], found[2].strip()
    title = section.title.strip().strip("`")
    return slug(title), title


def _read_rule(
    page: Page, section: Section, rule_id: str, tools: Mapping[str, Tool], problems: Problems
) -> Draft | None:
    """The rule, as far as it can be read, for its problems; None where it has no action."""
    found = parts(section)
    lists = WordLists.empty()
    worded = _read_word_parts(rule_id, found, lists, problems)
    when = _when(rule_id, section, found, problems)
    then, then_line = _then(rule_id, section, found, tools, problems)
    if then is None:
        return None
    rule = Rule(
        id=rule_id,
        title=_title(section)[1],
        when=when,
        then=then,
        examples=tuple(_examples(rule_id, then, found, tools, problems)),
        counter_examples=tuple(_counter_examples(rule_id, found, problems)),
        text=_text(page, section, found, worded),
        line=section.line,
    )
    return Draft(rule, lists, then_line)


def _read_word_parts(
    rule_id: str, found: list[Part], lists: WordLists, problems: Problems
) -> set[int]:
    """Fill `lists`; the numbers of the parts that are words."""
    worded: set[int] = set()
    depth: int | None = None
    for number, part in enumerate(found):
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
        worded.add(number)
    return worded


def _check_heading(rule_id: str, part: Part, problems: Problems) -> None:
    """A heading that is no part of a rule is a note for the reader, unless it is a slip."""
    names = [*_TEXT_PARTS, "words"]
    if part.name and part.name not in names and (close := closest_match(part.name, names, 0.8)):
        problems.add(
            part.line,
            f'rule "{rule_id}" has the unknown part "{part.title}"',
            f'did you mean "{close.title()}"?',
        )


def _when(rule_id: str, section: Section, found: list[Part], problems: Problems) -> str:
    part = _sole(rule_id, "when", found, problems)
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
    found: list[Part],
    tools: Mapping[str, Tool],
    problems: Problems,
) -> tuple[Then | None, int]:
    part = _sole(rule_id, "then", found, problems)
    block = part.blocks[0] if part and part.blocks else None
    if part is None or block is None:
        line = part.line if part else section.line
        problems.add(line, f'rule "{rule_id}" does not say what must follow', USAGE)
        return None, line
    try:
        return read_then(block.text, tools), block.line
    except InvalidInputError as fault:
        problems.add(block.line, f'rule "{rule_id}" {fault.cause}', fault.hint)
        return None, block.line


def _sole(rule_id: str, name: str, found: list[Part], problems: Problems) -> Part | None:
    named = [part for part in found if part.name == name]
    for extra in named[1:]:
        problems.add(
            extra.line,
            f'rule "{rule_id}" has a second {name.title()}',
            "join the two, or make it two rules",
        )
    return named[0] if named else None


def _items(name: str, found: list[Part], problems: Problems) -> list[Block]:
    """The list items of the parts called `name`; other content there is reported."""
    items = []
    for block in (block for part in found if part.name == name for block in part.blocks):
        if block.kind == "item" and block.text.strip():
            items.append(block._replace(text=join_lines(block.text)))
        elif block.text.strip() and not _introduces(block):
            problems.add(
                block.line,
                f'"{excerpt(block.text)}" is not understood in {name.title()}',
                "write each request as one bullet, without bullets inside of it",
            )
    return items


def _introduces(block: Block) -> bool:
    return block.kind == "paragraph" and block.text.rstrip().endswith(":")


def _examples(
    rule_id: str, then: Then, found: list[Part], tools: Mapping[str, Tool], problems: Problems
) -> list[RuleExample]:
    examples = []
    for item in _items("examples", found, problems):
        text, right = split_arrow(item.text)
        subject = f'rule "{rule_id}", example "{excerpt(text)}"'
        if not text or right == "":
            missing = "the request" if not text else "the arguments"
            problems.add(
                item.line,
                f"{subject} lacks {missing} beside its arrow",
                'write: - the request → name: "value"; an arrow in the text itself as \\->',
            )
            continue
        try:
            arguments = _arguments(right, then, tools) if right else None
        except InvalidInputError as fault:
            problems.add(item.line, f"{subject} {fault.cause}", fault.hint)
            continue
        examples.append(RuleExample(text=text, arguments=arguments, line=item.line))
    return examples


def _arguments(text: str, then: Then, tools: Mapping[str, Tool]) -> Json:
    """The first call's arguments: the example's own, and those that the rule fixes."""
    if not then.calls:
        raise InvalidInputError(
            f"gives arguments, and the rule says {then.kind}, not call",
            "remove the arrow and what follows; an arrow in the text itself is written as \\->",
        )
    spec = then.calls[0]
    tool = tools[spec.tool]
    fixed = {name: value for name, value in spec.arguments.items() if not any(slots_in(value))}
    own = read_arguments(text, tool)
    for name, value in fixed.items():
        if name in own and own[name] != value:
            raise InvalidInputError(
                f'gives "{name}" another value than the rule does', "change one of the two"
            )
    arguments = {**fixed, **own}
    for fault in argument_errors(tool, arguments):
        raise fault
    return arguments


def _counter_examples(rule_id: str, found: list[Part], problems: Problems) -> list[CounterExample]:
    examples = []
    for item in _items("not", found, problems):
        text, winner = split_arrow(item.text, last=True)
        if not winner or not text:
            problems.add(
                item.line,
                f'rule "{rule_id}" does not say which rule wins for "{excerpt(text)}"',
                "write: - the request → id-of-the-other-rule",
            )
        else:
            examples.append(CounterExample(text=text, winner=winner.strip("`. "), line=item.line))
    return examples


def _check_winners(found: list[Section], ids: Collection[str], problems: Problems) -> None:
    silent = Problems(problems.path)
    for section, rule_id in zip(found, ids, strict=True):
        for example in _counter_examples(rule_id, parts(section), silent):
            if example.winner not in ids:
                hint = did_you_mean(example.winner, ids, "rules")
            elif example.winner == rule_id:
                hint = "name the other rule, or move the request to Examples"
            else:
                continue
            what = "itself" if example.winner == rule_id else f'unknown rule "{example.winner}"'
            problems.add(
                example.line,
                f'rule "{rule_id}" names {what} as the winner for "{excerpt(example.text)}"',
                hint,
            )


def _text(page: Page, section: Section, found: list[Part], worded: set[int]) -> str:
    """The section's source text without its words."""
    ends = [*(part.line for part in found[1:]), section.end]
    spans = [
        page.source(part.line, end)
        for number, (part, end) in enumerate(zip(found, ends, strict=True))
        if number not in worded and end > part.line
    ]
    return "\n".join(spans).strip("\n")
