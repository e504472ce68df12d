"""The requests of a rule: its Examples, and what Not gives to other rules."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from distill.workflow.examples import ARROW, is_quoted, read_example, split_arrow
from distill.workflow.markdown import Block, Part, Section, join_lines, parts
from distill.workflow.model import CounterExample, RuleExample, Then, Tool
from distill.workflow.page_marks import Bare, without_marks, without_prefix
from distill.workflow.problems import Problems, did_you_mean, excerpt
from distill.workflow.quotes import unquoted
from distill.workflow.schema import json_equal
from distill.workflow.strays import check_request
from distill.workflow.values import InvalidInputError

# Where prose belongs that stands in a list of requests.
_PROSE_IN = {
    "examples": "a note stands above Examples, or below a heading of its own, as: ### Notes",
    "not": "as: - the request → id-of-the-other-rule; what it excludes in words belongs to When",
}


def _list_items(name: str, rule_parts: list[Part], problems: Problems) -> list[Block]:
    """The list items of the parts called `name`.

    Other content there is reported, except for a paragraph that introduces the list by a colon.
    """
    items = []
    for block in (block for part in rule_parts if part.name == name for block in part.blocks):
        introduces = block.kind == "paragraph" and block.text.rstrip().endswith(":")
        if block.kind == "item" and block.text.strip():
            items.append(block._replace(text=join_lines(block.text)))
        elif block.text.strip() and not introduces:
            problems.add(
                block.line,
                f'"{excerpt(block.text)}" is not understood in {name.title()}',
                "write each request as one bullet, without bullets inside of it"
                + (f"; {_PROSE_IN[name]}" if block.kind == "paragraph" else ""),
            )
    return items


def read_examples(
    rule_id: str, then: Then, rule_parts: list[Part], tools: Mapping[str, Tool], problems: Problems
) -> list[RuleExample]:
    """The requests under Examples; wrong ones are added to `problems`."""
    examples: list[RuleExample] = []
    for item in _list_items("examples", rule_parts, problems):
        try:
            read = read_example(item.text, then, tools)
        except InvalidInputError as error:
            request = ARROW.split(item.text, maxsplit=1)[0].strip()
            subject = f'rule "{rule_id}", example "{excerpt(request)}"'
            problems.add(item.line, f"{subject} {error.cause}", error.hint)
        else:
            check_request(read.request, read.taken, item.line, problems)
            examples.append(
                RuleExample(
                    text=read.request,
                    arguments=read.arguments,
                    line=item.line,
                    left_out=read.left_out,
                )
            )
    _reject_second(rule_id, examples, problems)
    return examples


def _reject_second(rule_id: str, examples: Iterable[RuleExample], problems: Problems) -> None:
    """Report a request that has other arguments the second time."""
    first: dict[str, RuleExample] = {}
    for example in (each for each in examples if each.arguments is not None):
        other = first.setdefault(" ".join(example.text.casefold().split()), example)
        if not json_equal(other.arguments, example.arguments):
            problems.add(
                example.line,
                f'rule "{rule_id}" gives "{excerpt(example.text)}" other arguments than in line '
                f"{other.line}",
                "keep the one of the two that is right",
            )


def read_counter_examples(
    rule_id: str, rule_parts: list[Part], problems: Problems
) -> list[CounterExample]:
    """The requests under Not with the rules that win; wrong ones are added to `problems`."""
    examples = []
    for item in _list_items("not", rule_parts, problems):
        try:
            text, winner, taken = _counter_example(item.text)
        except InvalidInputError as error:
            problems.add(
                item.line, f'rule "{rule_id}", "{excerpt(item.text)}" {error.cause}', error.hint
            )
            continue
        if not winner or not text:
            problems.add(
                item.line,
                f'rule "{rule_id}" does not say which rule wins for "{excerpt(text)}"',
                "write: - the request → id-of-the-other-rule; what the rule excludes in words "
                "belongs to When",
            )
        else:
            check_request(text, taken, item.line, problems)
            examples.append(
                CounterExample(
                    text=text, winner=unquoted(winner.rstrip(". ")).strip("*"), line=item.line
                )
            )
    return examples


def _counter_example(item: str) -> tuple[str, str | None, tuple[str, ...]]:
    """The request, the rule that wins, and the page markup that was taken off."""
    start = without_prefix(item, in_not=True)
    text, winner = split_arrow(start.text, last=True)
    bare = Bare(text) if is_quoted(start.text) else without_marks(text)
    return bare.text, winner, (*start.taken, *bare.taken)


def check_winners(rule_sections: list[Section], ids: Collection[str], problems: Problems) -> None:
    """Add a problem for each winner under Not that is no other rule, or one of two."""
    # Read again from the sections, as rules whose Then is wrong are not among the parsed rules.
    discarded = Problems(problems.path)
    for section, rule_id in zip(rule_sections, ids, strict=True):
        first: dict[str, CounterExample] = {}
        for example in read_counter_examples(rule_id, parts(section), discarded):
            other = first.setdefault(" ".join(example.text.casefold().split()), example)
            if other.winner != example.winner:
                problems.add(
                    example.line,
                    f'rule "{rule_id}" gives "{excerpt(example.text)}" to "{example.winner}", and '
                    f'to "{other.winner}" in line {other.line}',
                    "keep the one of the two that is right",
                )
            if example.winner not in ids:
                hint = _winner_hint(
                    example.winner, [name for name in ids if name not in ("", rule_id)]
                )
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


def _winner_hint(written: str, ids: Collection[str]) -> str:
    """What to write for a winner that is no rule's id, where it may hold one."""
    named = [name for name in ids if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", written)]
    if named:
        return f"write only the id of the one rule that wins, as: → {max(named, key=len)}"
    return did_you_mean(written, ids, "rules")
