"""Commands in the documentation exist, with the options that they are shown with."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from distill.cli.main import cli
from distill.config import Config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = "|".join(cli.commands)
# In a block, in a line of text as `distill status RUN`, or behind a launcher's `-m`.
SHOWN = re.compile(rf"(?m)(?:^|`|run: |-m )distill ((?:{COMMANDS})\b[^`\n]*)")


def shown(page: Path) -> Iterator[list[str]]:
    """The words after `distill` of each command on a page."""
    for found in SHOWN.finditer(page.read_text("utf-8")):
        line = found[1].split(" > ")[0].replace("[OPTIONS]", "")
        yield shlex.split(line, comments=True)


def require_parses(words: list[str]) -> None:
    """Raise click's error for an option that is not there, or a value that it does not take."""
    with contextlib.suppress(click.MissingParameter):  # a command may only be named
        cli.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    for words in shown(page):
        require_parses(words)


def test_commands_are_found_and_slips_are_not_let_through() -> None:
    everything = [words for page in PAGES for words in shown(page)]
    assert len(everything) > 60
    assert {words[0] for words in everything} == set(cli.commands)
    with pytest.raises(click.NoSuchOption):
        require_parses(["gen", "--rule", "rules.md"])
    with pytest.raises(click.BadParameter):
        require_parses(["gen", "--rules", "rules.md", "--teacher", "oracle"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_and_files_are_there(page: Path) -> None:
    text = page.read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    # A line of text may break between the two words.
    for target in re.findall(r"(?m)(?:^|`)make\s+([a-z-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(r"\b((?:benchmarks|examples|tests|prompts)/[\w/]+\.\w+)", text):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_prose_are_settings(page: Path) -> None:
    text = page.read_text("utf-8")
    for section, name in re.findall(r"`(data|teacher|train|evaluate)\.(\w+)`", text):
        model = Config.model_fields[section].default
        assert name in type(model).model_fields, f"{section}.{name}"
