"""Collects problems so that all are reported together, with suggestions for misspelled names."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from distill.errors import Problem

MAX_LISTED = 12
# Characters of a message: names may be as long as the page.
MAX_SHOWN = 1_000
# Longer names are no slips, and the comparison takes the square of their length.
MAX_COMPARED = 200
OBEYED = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


@dataclass
class Problems:
    """The problems of one file; several files may share one list."""

    path: Path
    found: list[Problem] = field(default_factory=list)
    advice: list[Problem] = field(default_factory=list)

    def add(self, line: int, cause: str, hint: str) -> None:
        shown = Problem(
            f"{self.path}:{line}", truncate(cause, MAX_SHOWN), truncate(hint, MAX_SHOWN)
        )
        self.found.append(shown)

    def advise(self, line: int, cause: str, hint: str) -> None:
        """Add what may be wrong, and is no error."""
        cause, hint = truncate(cause, MAX_SHOWN), truncate(hint, MAX_SHOWN)
        self.advice.append(Problem(f"{self.path}:{line}", cause, hint))

    def of(self, path: Path) -> Problems:
        """The same lists, for another file."""
        return Problems(path, self.found, self.advice)


def sorted_by_line(found: Iterable[Problem]) -> list[Problem]:
    """Problems in the order in which they are met when reading, file by file."""
    items = list(found)
    files = list(dict.fromkeys(problem.place.rpartition(":")[0] for problem in items))

    def position(problem: Problem) -> tuple[int, int]:
        file, _, line = problem.place.rpartition(":")
        return files.index(file), int(line)

    return sorted(items, key=position)


def closest_match(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that `name` is most likely a slip of."""
    if len(name) > MAX_COMPARED:
        return None
    by_fold = {item.casefold(): item for item in known}
    close = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=cutoff)
    return by_fold[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str], what: str) -> str:
    """A hint for an unknown `name`: the nearest known one, or all of them."""
    names = list(known)
    close = closest_match(name, names)
    if close is not None:
        return f'did you mean "{close}"?'
    return f"known {what}: {comma_list(names)}" if names else f"there are no {what} yet"


def comma_list(names: Iterable[str]) -> str:
    """Names for a message; a long list says how many it leaves out."""
    items = list(names)
    more = len(items) - MAX_LISTED
    return ", ".join(items[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def slug(text: str) -> str:
    """An id made of a title: lower case, words joined by hyphens, any script."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[^\w]+", "-", folded).strip("-")


def truncate(text: str, limit: int) -> str:
    """`text`, cut to `limit` characters and an ellipsis where it is longer."""
    return text if len(text) <= limit else f"{text[:limit]}…"


def visible(text: str) -> str:
    """`text` with every character escaped that a terminal obeys or that cannot be printed.

    Control characters but line ends and tabs, those that turn the direction of text, and halves of
    surrogate pairs: `\\x1b`, `\\u202e`.
    """
    return OBEYED.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def excerpt(text: str, limit: int = 60) -> str:
    """The start of a text, as one line for a message that a terminal may show."""
    return truncate(visible(" ".join(text.split())), limit)


def as_markdown(text: str) -> str:
    """Any text as one line of inline Markdown, also in a table cell; line ends are shown as ⏎."""
    line = re.sub(r"\r\n|[\n\r\u2028\u2029]", " ⏎ ", text)
    visible = "".join(char if char.isprintable() else f"<U+{ord(char):04X}>" for char in line)
    single_spaced = re.sub(r"\s+", " ", visible).strip()
    return re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", single_spaced)
