"""Where settings come from, and which source may set what.

Flags win over the file that `--config` names, that one over a distill.toml that is found beside the
rules or in the working directory, that one over the user's own file. A file that is found and the
config.json of a run may be somebody else's, as they travel with rules and data: of them, what runs
a command, loads code, names a secret or an address (`Config.personal_settings`) is never used.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distill.config import Config, Setting, Tables, overlaid, read_toml, redacted_url
from distill.errors import Problem, UsageError
from distill.files import read_text
from distill.strict_json import encode

FILE = "distill.toml"


def user_file() -> Path:
    """The user's own settings, as ~/.config/distill/distill.toml."""
    import click

    return Path(click.get_app_dir("distill")) / FILE


def found_file(rules: Iterable[Path]) -> Path | None:
    """The distill.toml beside the rules, or the one here."""
    candidates = [place / FILE for place in (*(path.parent for path in rules), Path())]
    return next((path for path in candidates if path.is_file()), None)


def load_settings(config: Path | None, found: Path | None, flags: Tables) -> Config:
    """The settings of `config`, or else of a file that was found, under `flags`.

    Raises UsageError for a setting that is wrong, or that a file which was found may not set.
    """
    beneath = _user_tables()
    made = Config.load(config or found, flags, beneath=beneath)
    if found is not None and config is None:
        mine = Config.load(None, flags, beneath=beneath)
        if problems := list(_foreign_settings(found, mine, flags)):
            raise UsageError.of(problems)
    return made


def personal_tables(config: Path | None) -> dict[str, dict[str, Any]]:
    """What `config` and the user's own file say of the settings that only the user may set."""
    tables = overlaid(_user_tables(), read_toml(config) if config else {})
    chosen: dict[str, dict[str, Any]] = {}
    for section, name in Config.personal_settings():
        if name in tables.get(section, {}):
            chosen.setdefault(section, {})[name] = tables[section][name]
    return chosen


def set_by(tables: Tables) -> set[Setting]:
    """The settings to which tables give a value."""
    return {
        (section, name)
        for section, table in tables.items()
        for name, value in table.items()
        if value is not None
    }


def refusal(place: object, setting: Setting, value: Any, ways: Iterable[str]) -> Problem:
    """What is said of a setting that stands where only the user's own may stand."""
    name, shown = ".".join(setting), redacted_url(value) if setting[1] == "base_url" else value
    return Problem(
        str(place),
        f"{name} = {encode(shown)} stands in a file that may be somebody else's, and is not "
        f"used: {Config.personal_settings()[setting]}",
        f"to use it: {', or '.join(ways)}",
    )


def flag_of(setting: Setting, value: Any) -> str:
    """How a flag gives a setting of only the user's its value."""
    if isinstance(value, tuple):
        return shlex.join(f"--vllm-arg={each}" for each in value)
    shown = redacted_url(value) if setting[1] == "base_url" else value
    return f"--{setting[1].replace('_', '-')} {shlex.quote(shown)}"


def _user_tables() -> Tables:
    """The user's own file. Raises UsageError for settings in it that decide what is made."""
    path = user_file()
    if not path.is_file():
        return {}
    Config.load(path)
    tables = read_toml(path)
    for section, name in set_by(tables):
        table = getattr(Config(), section)
        if name in table.identity() or (section, name) == ("data", "rows"):
            raise UsageError(
                f"{section}.{name} decides what is made, and is no matter of who makes it",
                place=path,
                hint=f"put it into the {FILE} beside the rules",
            )
    return tables


def _foreign_settings(found: Path, mine: Config, flags: Tables) -> Iterator[Problem]:
    """What a file that was found sets otherwise than the user's own sources do."""
    tables, alone = read_toml(found), Config.load(found)
    for setting in sorted(Config.personal_settings().keys() & set_by(tables) - set_by(flags)):
        value = alone.value(setting)
        own = mine.teacher.address if setting[1] == "base_url" else mine.value(setting)
        if value != own:
            ways = (f"--config {found}", flag_of(setting, value), f"put it into {user_file()}")
            yield refusal(_line(found, setting[1]), setting, value, ways)


def _line(path: Path, name: str) -> str:
    """The file, with the line on which a name is given a value."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if re.search(rf"(?<![\w-]){name}[\"']?\s*=", line.partition("#")[0]):
            return f"{path}:{number}"
    return str(path)
