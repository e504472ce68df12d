"""A Markdown page as front matter and flat blocks that know their lines.

Only what rules.md and words.md are made of is told apart: headings, paragraphs and list items.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from distill.errors import InputFileError, WorkflowError
from distill.files import read_text
from distill.workflow.front_matter import Setting, read_front_matter

# Blocks are all that is asked for: the text within them is taken as it is written, unparsed.
# Link definitions and indented code would swallow phrases such as "[topic]: who knows?", and a
# ruler under a paragraph is meant as a ruler, not as a heading.
_MARKDOWN = MarkdownIt("commonmark").disable(["reference", "code", "lheading", "inline"])

PARTS = ("when", "then", "examples", "not", "words", "things", "actions", "phrases", "slots")
ALIASES = {"example": "examples", "counter-examples": "not", "counterexamples": "not"}
_NAMES = "|".join([*PARTS, *ALIASES])
_BOLD_LABEL = re.compile(rf"(?is)\s*(?:\*\*|__)\s*({_NAMES})\s*:?\s*(?:\*\*|__)\s*:?[ \t]*(.*)")
_PLAIN_LABEL = re.compile(rf"(?is)(?-i:(?=[A-Z]))({_NAMES}):[ \t]*(.*)")
# Marks that are not seen, and would hide the sign after them that makes a heading or a list.
_INVISIBLE = "\ufeff\u200b\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069"
# Bullets of word processors, and their blanks behind the sign of a heading or a list.
_BULLET = re.compile(r"^(\s*)[•▪◦‣●○·]\s+")
_SIGN = re.compile(r"^[\s>]*(?:#{1,6}|[-*+]|\d{1,9}[.)])[\u00a0\u2007\u202f]+")
MAX_BYTES = 4_000_000
"""Bytes of a page."""
_TABLE_RULE = re.compile(r"[\s|:-]*\|[\s|:-]*")
_OPEN_COMMENT = re.compile(r"(?m)^(?:[ \t]|>|[-*+][ \t]|\d{1,9}[.)][ \t])*<!--")
_FENCE = re.compile(r"\s*(?:```|~~~)")
_MARKS = re.compile(r"^(?:\s*(?:>|[-*+]\s|\d{1,9}[.)]\s))*\s*")


class Block(NamedTuple):
    """One heading, paragraph or list item; `other` is everything else, as it stands there."""

    kind: Literal["heading", "paragraph", "item", "other"]
    text: str
    line: int
    """The first line, counted from 1."""
    depth: int = 0
    """1 to 6 for headings."""


class Label(NamedTuple):
    """A paragraph's leading `**Name**` or `Name:`, one of PARTS, and the text after it."""

    name: str
    rest: str


class Page(NamedTuple):
    """A parsed Markdown file."""

    path: Path
    front: dict[str, Setting]
    lines: list[str]
    """All lines; those of the front matter and of comments are blank."""
    blocks: list[Block]

    def source(self, start: int, end: int) -> str:
        """The lines from `start` up to and without `end`, counted from 1."""
        return "\n".join(self.lines[start - 1 : end - 1])


class Section(NamedTuple):
    """A `##` heading and what stands under it."""

    title: str
    line: int
    end: int
    """The line of the next section, or the one after the last."""
    blocks: list[Block]


class Part(NamedTuple):
    """What stands under a `###` heading or behind a label; the name is one of PARTS if known."""

    name: str
    title: str
    line: int
    depth: int
    """3 to 6 for headings, 0 for labels and for what stands before any."""
    blocks: list[Block]


def read_page(path: Path) -> Page:
    """Raises InputFileError for an unreadable file, WorkflowError for bad front matter."""
    lines = [_plain_marks(line) for line in _sized_text(path).split("\n")]
    front = read_front_matter(path, lines)
    lines[: front.size] = [""] * front.size
    shown = _without_comments(path, "\n".join(lines))
    root = SyntaxTreeNode(_MARKDOWN.parse(shown))
    lines = shown.split("\n")
    return Page(path, front.settings, lines, list(_blocks(root, lines)))


def _plain_marks(line: str) -> str:
    line = _BULLET.sub(r"\1- ", line.lstrip(_INVISIBLE))
    return _SIGN.sub(lambda found: re.sub(r"[\u00a0\u2007\u202f]", " ", found[0]), line)


def _without_comments(path: Path, text: str) -> str:
    """`text` without HTML comments, on the same lines. Raises WorkflowError for an open one."""
    kept, position = [], 0
    while (start := text.find("<!--", position)) >= 0 and (end := text.find("-->", start)) >= 0:
        is_code = text[start - 1 : start] == "`"
        comment = text[start : end + 3]
        kept += [text[position:start], comment if is_code else "\n" * comment.count("\n")]
        position = end + 3
    text = "".join([*kept, text[position:]])
    if still_open := _OPEN_COMMENT.search(text):
        raise WorkflowError(
            "a comment is opened by <!-- and not closed, so that it hides the rest of the page",
            place=f"{path}:{text.count(chr(10), 0, still_open.end()) + 1}",
            hint="end it with -->",
        )
    return text


def _sized_text(path: Path) -> str:
    size = path.stat().st_size if path.is_file() else 0
    if size > MAX_BYTES:
        raise InputFileError(
            f"is a page of {size / 1e6:.1f} MB",
            place=path,
            hint=f"keep it under {MAX_BYTES / 1e6:.0f} MB: it is read whole, and by models",
        )
    return read_text(path)


def preamble(page: Page) -> list[Block]:
    """What stands before the first `##` heading."""
    first = next((n for n, block in enumerate(page.blocks) if _opens(block)), len(page.blocks))
    return page.blocks[:first]


def sections(page: Page) -> list[Section]:
    """The `##` sections in order."""
    starts = [n for n, block in enumerate(page.blocks) if _opens(block)]
    found = []
    for start, end in pairwise([*starts, len(page.blocks)]):
        head = page.blocks[start]
        last = page.blocks[end].line if end < len(page.blocks) else len(page.lines) + 1
        found.append(Section(head.text, head.line, last, page.blocks[start + 1 : end]))
    return found


def parts(section: Section) -> list[Part]:
    """A section's parts in order; the first, without a name, holds what stands before any."""
    found = [Part("", "", section.line, 0, [])]
    for block in section.blocks:
        if block.kind == "heading":
            name = part_name(block.text)
            found.append(Part(name, block.text, block.line, block.depth, []))
            continue
        label = _label_here(block, found[-1].name)
        if label is None:
            found[-1].blocks.append(block)
            continue
        rest = [Block("paragraph", label.rest, block.line)] if label.rest.strip() else []
        found.append(Part(label.name, label.name.title(), block.line, 0, rest))
    return found


def _opens(block: Block) -> bool:
    return block.kind == "heading" and block.depth == 2


def _label_here(block: Block, part: str) -> Label | None:
    # In a list of examples or words, an item is content whatever it starts with.
    if block.kind == "other" or (block.kind == "item" and part not in ("", "when", "then")):
        return None
    return parse_label(block.text)


def parse_label(text: str) -> Label | None:
    """The label that a paragraph or a list item starts with."""
    found = _BOLD_LABEL.match(text) or _PLAIN_LABEL.match(text)
    return Label(part_name(found[1]), found[2]) if found else None


def part_name(text: str) -> str:
    """The name of a part as in PARTS, or `text` folded where it is none of them."""
    name = text.strip().strip("*_").rstrip(":").casefold()
    return ALIASES.get(name, name)


def join_lines(text: str) -> str:
    """A paragraph joined into one line."""
    return " ".join(line.strip(" \t") for line in text.split("\n")).strip()


def plain_lines(block: Block) -> list[str]:
    """A block as lines that stand for themselves: a paragraph is one, a table is one a row."""
    lines = block.text.split("\n")
    if block.kind != "other" and not any(_TABLE_RULE.fullmatch(line) for line in lines):
        return [join_lines(block.text)]
    return ["" if _FENCE.match(line) else _MARKS.sub("", line) for line in lines]


def _blocks(root: SyntaxTreeNode, lines: list[str]) -> Iterator[Block]:
    for node in root.children:
        if node.type == "heading":
            yield Block("heading", _inline(node), _line(node), int(node.tag[1]))
        elif node.type == "paragraph":
            yield from _at_labels(Block("paragraph", _inline(node), _line(node)))
        elif node.type in ("bullet_list", "ordered_list"):
            for item in node.children:
                yield from _item(item, lines)
        elif not _is_silent(node):
            yield _other(node, lines)


def _item(item: SyntaxTreeNode, lines: list[str]) -> Iterator[Block]:
    children = [child for child in item.children if not _is_silent(child)]
    if children and children[0].type in ("paragraph", "html_block"):
        first = children.pop(0)
        text = first.content.strip() if first.type == "html_block" else _inline(first)
        yield from _at_labels(Block("item", text, _line(first)))
    elif not children:
        yield Block("item", "", _line(item))
    for child in children:
        yield _other(child, lines)


def _at_labels(block: Block) -> Iterator[Block]:
    """Split a block at lines that start with a bold label: authors forget the blank line."""
    lines = block.text.split("\n")
    starts = [n for n, line in enumerate(lines) if n and _starts_part(block, line)]
    for start, end in pairwise([0, *starts, len(lines)]):
        kind = block.kind if start == 0 else "paragraph"
        yield Block(kind, "\n".join(lines[start:end]), block.line + start)


def _starts_part(block: Block, line: str) -> bool:
    return bool(_BOLD_LABEL.match(line)) or (
        block.kind == "paragraph" and bool(_PLAIN_LABEL.match(line))
    )


def _other(node: SyntaxTreeNode, lines: list[str]) -> Block:
    start, end = node.map or (0, 0)
    return Block("other", "\n".join(lines[start:end]), start + 1)


def _is_silent(node: SyntaxTreeNode) -> bool:
    return node.type == "hr" or (node.type == "html_block" and node.content.startswith("<!--"))


def _inline(node: SyntaxTreeNode) -> str:
    return node.children[0].content if node.children else ""


def _line(node: SyntaxTreeNode) -> int:
    return (node.map or (0, 0))[0] + 1
