"""The vocabulary of a rule, from its section of rules.md or from words.md."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from distill.workflow.examples import ARROW
from distill.workflow.markdown import (
    Block,
    Part,
    Section,
    join_lines,
    parts,
    preamble,
    read_page,
    sections,
)
from distill.workflow.model import Words
from distill.workflow.problems import Problems, did_you_mean, excerpt, slug
from distill.workflow.values import slots_in

LISTS = ("things", "actions", "phrases", "slots")
SHARED = "shared"
TOPIC = "topic"
"""The slot of what a request is about, which is no list."""
# Marks that hold an entry together; none is also an apostrophe, and none opens within a word.
_QUOTED = r"(?<!\w)\"[^\"]*\"|“[^“”]*”|„[^„“”]*[“”]|«[^«»]*»|»[^«»]*«"
_BETWEEN_DIGITS = re.compile(r"\d+(?:,\d+)+")
_THOUSANDS = r"(?<!\d)(?<!\d,)\d{1,3}(?:,\d{3})+(?!\d|,\d)"
_ARTICLES = ("a", "an", "the", "my", "our", "your", "some")
_SLOT_LINE = re.compile(r"`?\{?([^\W\d]\w*)\}?`?\s*:\s*(.*)", re.DOTALL)


class Item(NamedTuple):
    """One list entry and its line."""

    text: str
    path: Path
    line: int


class WordLists(NamedTuple):
    """The lists of one section: entries by list name."""

    things: list[Item]
    actions: list[Item]
    phrases: list[Item]
    slots: dict[str, list[Item]]

    @classmethod
    def empty(cls) -> WordLists:
        return cls([], [], [], {})

    def texts(self) -> list[Item]:
        """Every entry that may contain slots."""
        return [*self.things, *self.actions, *self.phrases]

    def add(self, other: WordLists) -> None:
        """Add another section's entries."""
        for mine, theirs in zip(self[:3], other[:3], strict=True):
            mine.extend(theirs)
        for name, values in other.slots.items():
            self.slots.setdefault(name, []).extend(values)

    def words(self) -> Words:
        """The lists as a record, without repeated entries."""
        return Words(
            things=_without_repeats(self.things),
            actions=_without_repeats(self.actions),
            phrases=_without_repeats(self.phrases),
            slots={name: _without_repeats(values) for name, values in self.slots.items()},
        )


_MORE = re.compile(r"[….]+|(?:and so on|etc|usw|tbd)\b\W*|todo\b.*", re.IGNORECASE)


def read_list(name: str, blocks: Iterable[Block], into: WordLists, problems: Problems) -> None:
    """Take the blocks under one of LISTS' headings in."""
    blocks = list(blocks)
    has_bullets = any(block.kind == "item" for block in blocks)
    for block in blocks:
        if not block.text.strip():
            continue
        is_prose = block.kind == "paragraph" and (has_bullets or "\n" in block.text.strip())
        if is_prose or _is_table(block.text):
            problems.add(
                block.line,
                f'"{excerpt(block.text)}" is no bullet of {name.title()}',
                "write one entry a bullet, and what is no entry as a comment: <!-- … -->",
            )
            continue
        bold = block.kind == "paragraph" and re.fullmatch(r"\s*(\*\*|__).*\1\s*:?", block.text)
        if block.kind == "other" or bold:
            problems.add(
                block.line,
                f'"{excerpt(block.text)}" is not understood in {name.title()}',
                "write one entry a bullet, without bullets inside of it",
            )
        elif name == "slots":
            _read_slot(block, into, problems)
        else:
            entries = getattr(into, name)
            for item in _entries(block, problems.path, ";"):
                _check_entry(item, problems)
                _check_marks(item, problems, is_phrase=name == "phrases")
                _check_arrow(item, problems)
                if name != "phrases":
                    _advise_on_commas(item, problems)
                entries.append(item)


def read_words(path: Path, rules: Collection[str], problems: Problems) -> dict[str, WordLists]:
    """words.md: the lists of each rule, those under SHARED for all rules."""
    problems = problems.of(path)
    page = read_page(path)
    if page.front:
        problems.add(1, "has front matter, which words do not need", "remove it")
    found: dict[str, WordLists] = {}
    for block in preamble(page):
        if block.kind == "item":
            problems.add(block.line, "words before the first rule", "put them under ## rule-id")
    for section in sections(page):
        name = _rule_named(section, rules, problems)
        lists = found.setdefault(name, WordLists.empty()) if name else WordLists.empty()
        for part in parts(section):
            _read_part(part, lists, problems)
        if name == SHARED:
            _check_shared(lists, problems)
    return found


def merge_lists(own: WordLists, words: WordLists | None, shared: WordLists | None) -> WordLists:
    """A rule's lists: its section's, words.md's, and shared slots that it does not have itself."""
    if words is not None:
        own.add(words)
    for name, values in (shared.slots if shared else {}).items():
        own.slots.setdefault(name, values)
    return own


def _read_part(part: Part, into: WordLists, problems: Problems) -> None:
    if part.name in LISTS:
        read_list(part.name, part.blocks, into, problems)
    elif not part.name or part.name == "words":
        reject_text_outside_lists(part, problems)
    else:
        reject_unknown_heading(part, problems)


def reject_text_outside_lists(part: Part, problems: Problems) -> None:
    """Report text outside of LISTS, which would be ignored."""
    for block in part.blocks:
        if block.kind == "paragraph" and block.text.strip():
            problems.advise(
                block.line,
                f'"{excerpt(block.text)}" stands under none of the lists of words',
                "nothing reads it: put words under Things, Actions, Phrases or Slots, as bullets",
            )
        elif block.text.strip() and block.kind != "heading":
            problems.add(
                block.line,
                f'"{excerpt(block.text)}" stands under none of the lists of words',
                "put it under a heading: Things, Actions, Phrases or Slots",
            )


def reject_unknown_heading(part: Part, problems: Problems) -> None:
    """Report a heading that is none of LISTS."""
    hint = did_you_mean(part.title, [name.title() for name in LISTS], "lists")
    problems.add(part.line, f'unknown list of words "{part.title}"', hint)


def _rule_named(section: Section, rules: Collection[str], problems: Problems) -> str | None:
    name = section.title.split(":")[0].strip().strip("`")
    if name.casefold() == SHARED:
        return SHARED
    if name in rules:
        return name
    if slug(section.title) in rules:
        return slug(section.title)
    hint = did_you_mean(name, [*rules, "Shared"], "rules")
    problems.add(section.line, f'words for the unknown rule "{name}"', hint)
    return None


def _check_shared(lists: WordLists, problems: Problems) -> None:
    for item in lists.texts()[:1]:
        problems.add(
            item.line,
            "Shared holds more than slots",
            "move things, actions and phrases under the rule that they belong to",
        )


def _read_slot(block: Block, into: WordLists, problems: Problems) -> None:
    found = _SLOT_LINE.match(join_lines(block.text))
    if found is None:
        problems.add(
            block.line,
            f'"{excerpt(block.text)}" is no slot list',
            "write its name, then its values, as: - project: Chimera, Atlas, Orion",
        )
        return
    separator = ";" if ";" in found[2] else ","
    values = _entries(block._replace(text=found[2]), problems.path, separator)
    if not values:
        problems.add(
            block.line, f'the slot "{found[1]}" has no values', "list them after the colon"
        )
    if found[1] == TOPIC:
        problems.add(
            block.line,
            f'the slot list is named "{TOPIC}", and {{{TOPIC}}} stands for what a request is about',
            "give it another name, and write that in braces",
        )
    if separator == ",":
        _check_numbers(found[1], join_lines(found[2]), block.line, problems)
    for item in values:
        _check_arrow(item, problems)
        _check_entry(item, problems, r"(?:and|or)\s+.*|[\[|].*|.*[\]|]|.*\s\|\s.*")
    into.slots.setdefault(found[1], []).extend(values)


def _entries(block: Block, path: Path, separator: str) -> list[Item]:
    """The entries of a bullet. A separator within quotes separates nothing.

    Nor does a comma within 1,000 where others have a blank behind them.
    Quotes are taken off where they hold a separator, or stand around every entry: else they are
    the entry's own, as people type them.
    """
    line = join_lines(block.text)
    number = _THOUSANDS if re.search(r",\s", line) else r"(?!)"
    split = re.compile(rf"(?:{_QUOTED}|{number}|[^{separator}])+")
    texts = [text for part in split.findall(line) if (text := part.strip())]
    inner = [text[1:-1].strip() if re.fullmatch(_QUOTED, text) else None for text in texts]
    if all(inner) or any(separator in text for text in inner if text):
        texts = [inside or text for inside, text in zip(inner, texts, strict=True)]
    return [Item(text, path, block.line) for text in texts]


def _check_numbers(name: str, text: str, line: int, problems: Problems) -> None:
    """Add a problem for commas between digits that may be within a number, or between two."""
    bare = re.sub(_QUOTED, "", text)
    is_spaced = re.search(r",\s", bare) is not None
    bare = re.sub(_THOUSANDS, "", bare) if is_spaced else bare
    found = _BETWEEN_DIGITS.search(bare)
    if found and (is_spaced or re.search(r",0\d\d\b", found[0])):
        problems.add(
            line,
            f'the slot "{name}" has "{excerpt(found[0])}", which may be one number or several',
            'write ", " between entries, or "; " where they have commas',
        )


def _is_table(text: str) -> bool:
    return any({"|", "-"} <= set(line) <= set("|-: \t") for line in text.split("\n"))


def _check_entry(item: Item, problems: Problems, code: str = r"(?!)") -> None:
    """What ends a list in prose, or holds the place of an entry, is none; nor is what `code` is."""
    if re.fullmatch(code, item.text):
        cause, hint = "is part of a list in prose or code", "write: name: first, second, third"
    elif _MORE.fullmatch(item.text):
        cause, hint = "is no entry", "take it out, or write the entries"
    else:
        return
    problems.add(item.line, f'"{excerpt(item.text)}" {cause}', hint)


def _check_arrow(item: Item, problems: Problems) -> None:
    """An arrow with something on both sides belongs to Examples and Not."""
    text = item.text
    if any(text[: a.start()].strip() and text[a.end() :].strip() for a in ARROW.finditer(text)):
        problems.add(
            item.line,
            f'"{excerpt(item.text)}" has an arrow, which words do not need',
            "leave it out with what follows it: arguments stand under Examples in rules.md",
        )


def _advise_on_commas(item: Item, problems: Problems) -> None:
    """Things and actions that are separated by commas are one entry."""
    pieces = [piece.split() for piece in re.sub(_QUOTED, "…", item.text).split(",")]
    if len(pieces) < 2 or not all(pieces):
        return
    alike = len({words[0].casefold() for words in pieces} | {*_ARTICLES}) == len(_ARTICLES)
    short = len(pieces) > 2 and all(len(words) < 4 for words in pieces)
    if (alike or short) and pieces[-1][0].casefold() not in ("and", "or"):
        problems.of(item.path).advise(
            item.line,
            f'"{excerpt(item.text)}" is read as one entry',
            "write one a bullet, or separate them by semicolons",
        )


def _check_marks(item: Item, problems: Problems, *, is_phrase: bool) -> None:
    cause = _unbalanced(item.text, "[]") or _unbalanced(item.text, "{}")
    if cause is None and not is_phrase and "[" in item.text:
        cause = "marks a topic in brackets, which only phrases do"
    if cause is None and item.text.count("{") != len(list(slots_in(item.text))):
        cause = "has braces around something that is no slot's name"
    if cause is not None:
        problems.add(
            item.line,
            f'"{excerpt(item.text)}" {cause}',
            "write phrases as: who is the [owner of {project}]",
        )


def _unbalanced(text: str, pair: str) -> str | None:
    depth = 0
    for character in text:
        depth += (character == pair[0]) - (character == pair[1])
        if depth not in (0, 1):
            return f'has a "{character}" too many'
    return f'does not close its "{pair[0]}"' if depth else None


def _without_repeats(items: Iterable[Item]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.text for item in items))
