"""What is said to a model: strict rendering of prompts/*.md, and each prompt's digest.

A prompt is a Markdown file with Jinja2 in it. The lines `# system`, `# user` and `# assistant`
begin its messages; what stands before the first of them is a note for people and is never sent.
"""

from __future__ import annotations

import operator
import re
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import jinja2
import jinja2.meta

from distill import strict_json
from distill.errors import InputFileError
from distill.files import read_text, resource
from distill.records import Message, Record, digest

Role = Literal["system", "user", "assistant"]
_HEADING = re.compile(r"^# (system|user|assistant)[ \t]*$", re.MULTILINE)


def render_prompt(name: str, **values: Any) -> tuple[Message, ...]:
    """The messages of prompts/NAME.md with `values` filled in; values are never templates.

    Raises InputFileError naming every value that the prompt needs and was not given.
    """
    return _shipped(name).render(values)


def prompt_digest(name: str) -> str:
    """The identity of what prompts/NAME.md sends; its note for people does not count."""
    return _shipped(name).digest


class Part(NamedTuple):
    """One message of a prompt."""

    role: Role
    source: str
    line: int
    """Where the part's text begins in the file."""


class Prompt:
    """A parsed prompt file."""

    def __init__(self, parts: tuple[Part, ...], place: Path) -> None:
        self.parts = parts
        self.place = place
        self._templates = [self._compile(part) for part in parts]
        self._needs = [sorted(_variables(part)) for part in parts]
        self._last: dict[int, tuple[list[Any], str]] = {}

    @classmethod
    def parse(cls, text: str, place: Path) -> Self:
        """The prompt that `text` holds. Raises InputFileError for a bad template or no part."""
        found = list(_HEADING.finditer(text))
        if not found:
            raise InputFileError(
                "has no part to send",
                place=place,
                hint="begin each message with a line of its own: # system, # user or # assistant",
            )
        ends = [heading.start() for heading in found[1:]] + [len(text)]
        parts = tuple(
            Part(
                role=cast(Role, heading[1]),
                source=text[heading.end() : end],
                line=text.count("\n", 0, heading.end()) + 1,
            )
            for heading, end in zip(found, ends, strict=True)
        )
        return cls(parts, place)

    @cached_property
    def digest(self) -> str:
        return digest([[part.role, part.source.strip()] for part in self.parts])

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names of the values that the prompt needs."""
        return frozenset().union(*map(_variables, self.parts))

    def render(self, values: dict[str, Any]) -> tuple[Message, ...]:
        """`render_prompt` for this prompt."""
        missing = sorted(self.variables - values.keys())
        if missing:
            raise InputFileError(
                f"needs values that it was not given: {', '.join(missing)}",
                place=self.place,
                hint=f"give them, or use only: {', '.join(sorted(values)) or 'no value at all'}",
            )
        return tuple(
            Message(role=part.role, content=self._text(number, values))
            for number, part in enumerate(self.parts)
        )

    def _text(self, number: int, values: dict[str, Any]) -> str:
        # A workflow's rules and tools stand in thousands of prompts: they are written once.
        needed = [values[name] for name in self._needs[number]]
        kept, text = self._last.get(number, ([], ""))
        if kept and all(map(operator.is_, kept, needed)):
            return text
        text = self._filled_in(self._templates[number], values)
        if all(isinstance(value, Record) for value in needed):
            self._last[number] = (needed, text)
        return text

    def _filled_in(self, template: jinja2.Template, values: dict[str, Any]) -> str:
        try:
            return template.render(values).strip()
        except jinja2.TemplateError as error:
            raise InputFileError(
                f"cannot be filled in: {error.message}",
                place=self.place,
                hint="correct the name there; a value has only the fields of its record",
            ) from None

    def _compile(self, part: Part) -> jinja2.Template:
        try:
            return _environment().from_string(part.source)
        except jinja2.TemplateSyntaxError as error:
            raise InputFileError(
                f"is not a valid template: {error.message}",
                place=f"{self.place}:{part.line + error.lineno - 1}",
                hint="see https://jinja.palletsprojects.com for the syntax",
            ) from None


def _variables(part: Part) -> set[str]:
    env = _environment()
    return jinja2.meta.find_undeclared_variables(env.parse(part.source)) - set(env.globals)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    # Prompts are plain text for models: escaping for HTML would put entities into them.
    env = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    # Jinja's own `tojson` writes <, > and ' as escapes, again for HTML.
    env.filters["json"] = strict_json.encode
    return env


@cache
def _shipped(name: str) -> Prompt:
    path = resource("prompts", f"{name}.md")
    return Prompt.parse(read_text(path), path)
