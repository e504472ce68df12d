"""The Python environment of each contender: made when it is missing, found when it is there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from peers.contenders import Contender
from peers.processes import last_line


class NotRun(Exception):  # noqa: N818 - it is no error of this script
    """Why a contender takes no part."""


def interpreter(contender: Contender, envs: Path) -> Path:
    """The Python that runs a contender, in an environment that is made when it is missing."""
    if not contender.package:
        return Path(sys.executable)
    folder = envs / contender.environment
    python, done = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join(contender.requirements)
    as_wanted = done.exists() and done.read_text("utf-8") == wanted
    if not as_wanted or version(python, contender) != contender.version:
        click.echo(f"installing {', '.join(contender.requirements)} into {folder}", err=True)
        ran([sys.executable, "-m", "venv", "--clear", str(folder)])
        install(python, contender)
        done.write_text(wanted, "utf-8")
    return python


def install(python: Path, contender: Contender) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        ran([*pip, *contender.requirements])
    except NotRun:
        if not contender.loose:
            raise
        own = [f"{part}=={contender.version}" for part in contender.parts]
        ran([*pip, "--no-deps", *own])
        ran([*pip, *loosened(python, contender), *contender.extras])


def loosened(python: Path, contender: Contender) -> list[str]:
    """What the parts of a contender require, without the pins that are let go."""
    code = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]: print(*m.requires(name) or (), sep='\\n')"
    )
    named = ran([str(python), "-c", code, *contender.parts])
    found = set()
    for line in filter(None, named.split("\n")):
        name = re.split(r"[^\w.-]", line)[0]
        if name in contender.loose:
            found.add(name)
        elif name not in contender.parts and "extra ==" not in line:
            found.add(line)
    return sorted(found)


def ran(command: Sequence[str]) -> str:
    """What a step of an installation printed."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotRun(f"cannot be installed: {last_line(done.stderr, having='ERROR')}")
    return done.stdout


def version(python: Path, contender: Contender) -> str:
    """The contender's version, as its environment says; "" when it does not say."""
    package = contender.environment or contender.name
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    try:
        done = subprocess.run([str(python), "-c", code, package], capture_output=True, text=True)
    except OSError:
        return ""  # there is no interpreter, or none that runs
    return done.stdout.strip()
