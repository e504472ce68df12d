"""The virtual environments of the contenders, created when they are missing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from peers.contenders import Contender
from peers.processes import last_line


class UnavailableError(Exception):
    """A contender cannot be installed."""


def interpreter(contender: Contender, envs: Path) -> Path:
    """The Python interpreter of a contender's environment, created when it is missing."""
    if not contender.package:
        return Path(sys.executable)
    folder = envs / contender.environment
    python, done = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join(contender.requirements)
    as_wanted = done.exists() and done.read_text("utf-8") == wanted
    if not as_wanted or version(python, contender) != contender.version:
        click.echo(f"installing {', '.join(contender.requirements)} into {folder}", err=True)
        run_step([sys.executable, "-m", "venv", "--clear", str(folder)])
        install(python, contender)
        done.write_text(wanted, "utf-8")
    return python


def install(python: Path, contender: Contender) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        run_step([*pip, *contender.requirements])
    except UnavailableError:
        if not contender.unpinned:
            raise
        own = [f"{part}=={contender.version}" for part in contender.distributions]
        run_step([*pip, "--no-deps", *own])
        run_step([*pip, *unpinned_requirements(python, contender), *contender.extras])


def unpinned_requirements(python: Path, contender: Contender) -> list[str]:
    """The requirements of a contender's distributions, without the pins of `unpinned` ones."""
    code = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]: print(*m.requires(name) or (), sep='\\n')"
    )
    named = run_step([str(python), "-c", code, *contender.distributions])
    found = set()
    for line in filter(None, named.split("\n")):
        name = re.split(r"[^\w.-]", line)[0]
        if name in contender.unpinned:
            found.add(name)
        elif name not in contender.distributions and "extra ==" not in line:
            found.add(line)
    return sorted(found)


def run_step(command: Sequence[str]) -> str:
    """The output of a command. Raises UnavailableError when it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UnavailableError(f"cannot be installed: {last_line(done.stderr, having='ERROR')}")
    return done.stdout


def version(python: Path, contender: Contender) -> str:
    """The installed version of a contender; "" when it cannot be determined."""
    package = contender.environment or contender.name
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    try:
        done = subprocess.run([str(python), "-c", code, package], capture_output=True, text=True)
    except OSError:
        return ""  # no interpreter, or one that does not run
    return done.stdout.strip()
