"""The front matter of a page: one `key: text` a line, read as YAML events.

Events build nothing, so that depth, aliases, tags and dates cost nothing and cannot go wrong.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from distill.errors import WorkflowError
from distill.workflow.problems import excerpt

MARK = "---"
MAX_LENGTH = 50_000
"""Characters between the marks."""
_INVISIBLE = "\ufeff\u200b\u200e\u200f"
_TEXT = "tag:yaml.org,2002:str"
_USAGE = "write one setting a line, for example: tools: tools.json"


class Setting(NamedTuple):
    """A value of the front matter; `is_text` is false for what YAML takes for something else."""

    value: str
    is_text: bool
    line: int


class FrontMatter(NamedTuple):
    """The settings by name, and the number of lines at the page's start that hold them."""

    settings: dict[str, Setting]
    size: int


def read_front_matter(path: Path, lines: list[str]) -> FrontMatter:
    """Raises WorkflowError, with the line, for anything but flat text that is given once."""
    opening = next((n for n, line in enumerate(lines) if line.strip(_INVISIBLE + " \t")), 0)
    if lines[opening].strip(_INVISIBLE).rstrip() != MARK:
        _reject_other_forms(path, lines, opening)
        return FrontMatter({}, 0)
    closing = next(
        (n for n in range(opening + 1, len(lines)) if lines[n].rstrip() in (MARK, "...")), None
    )
    if closing is None:
        raise WorkflowError(
            "the front matter is not closed",
            place=f"{path}:{opening + 1}",
            hint="end it with a line of three hyphens: ---",
        )
    text = "\n".join(lines[opening + 1 : closing])
    if len(text) > MAX_LENGTH:
        raise WorkflowError(
            f"the front matter has {len(text):,} characters",
            place=f"{path}:{opening + 1}",
            hint=f"keep it under {MAX_LENGTH:,}: it names the title and the files",
        )
    settings: dict[str, Setting] = {}
    try:
        for key, setting in _settings(path, text, opening + 2):
            if key in settings:
                raise WorkflowError(
                    f'the front matter gives "{key}" twice, first at line {settings[key].line}',
                    place=f"{path}:{setting.line}",
                    hint="keep one of the two",
                )
            settings[key] = setting
    except yaml.YAMLError as error:
        raise _not_yaml(path, error, opening + 2) from None
    return FrontMatter(settings, closing + 1)


def _settings(path: Path, text: str, first: int) -> Iterator[tuple[str, Setting]]:
    frames = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent)
    events = (e for e in yaml.parse(text, Loader=yaml.SafeLoader) if not isinstance(e, frames))
    resolver: Any = yaml.resolver.Resolver()
    start: Any = next(events, None)
    if start is None:
        return
    if not isinstance(start, yaml.MappingStartEvent):
        _provoke(events)
        kind = "list" if isinstance(start, yaml.SequenceStartEvent) else "text"
        raise WorkflowError(
            f"the front matter is a {kind}, not a list of keys with values",
            place=f"{path}:{first + start.start_mark.line}",
            hint=_USAGE,
        )
    while True:
        key: Any = next(events)
        if isinstance(key, yaml.MappingEndEvent):
            return
        line = first + key.start_mark.line
        _require_scalar(key, "a key of the front matter", f"{path}:{line}", events)
        value: Any = next(events)
        what = f'the front matter\'s "{excerpt(key.value)}"'
        _require_scalar(value, what, f"{path}:{line}", events)
        tag = resolver.resolve(yaml.ScalarNode, value.value, value.implicit)
        yield key.value, Setting(value.value, tag == _TEXT, line)


def _require_scalar(event: Any, what: str, place: str, following: Iterator[Any]) -> None:
    if not isinstance(event, yaml.ScalarEvent):
        _provoke(following)
        raise WorkflowError(
            f"{what} is not text", place=place, hint=f"put it in quotes, if it is one; {_USAGE}"
        )
    if event.tag is not None or event.anchor is not None:
        mark = event.tag or f"&{event.anchor}"
        raise WorkflowError(
            f"{what} is marked with {excerpt(mark)}, which means nothing here",
            place=place,
            hint=f"take the mark off, or put the text in quotes; {_USAGE}",
        )


def _provoke(events: Iterator[Any]) -> None:
    """Let an error of syntax that stands close behind be told first."""
    for _ in itertools.islice(events, 50):
        pass


def _reject_other_forms(path: Path, lines: list[str], opening: int) -> None:
    """Front matter without its fences, or of another kind, would pass for prose."""
    line = lines[opening].strip(_INVISIBLE + " \t")
    if line == "+++" or re.match(r"(?:title|tools|gold|words)[ \t]*[:=][ \t]*\S", line):
        raise WorkflowError(
            "the page begins with settings that are not between lines of three hyphens",
            place=f"{path}:{opening + 1}",
            hint=f"put a line --- before and after them; {_USAGE}",
        )


def _not_yaml(path: Path, error: yaml.YAMLError, first: int) -> WorkflowError:
    mark = getattr(error, "problem_mark", None)
    line = first + mark.line if mark else first
    why = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    return WorkflowError(
        f"the front matter is not valid YAML: {excerpt(why, 200)}",
        place=f"{path}:{line}",
        hint='put values that hold ":" or "#" in quotes, for example: title: "Desk: tier 1"',
    )
