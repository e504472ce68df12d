"""Runs a Python file with cells as Jupyter does: each cell inside one running event loop.

    python notebook.py FILE [DISTRIBUTION ...]

Until the cell after the first markdown that names an extra (`pip install "distill[...]"`), only the
modules of distill's own requirements can be imported: what comes before needs no extra. The value
of each cell's last expression is printed, as a notebook shows it.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

CELL = re.compile(r"^# %%", re.MULTILINE)


def cells(text: str) -> Iterator[tuple[bool, str]]:
    """Each cell, and whether it is code."""
    for part in CELL.split(text)[1:]:
        head, _, body = part.partition("\n")
        yield "[markdown]" not in head, body


def without_extras(distribution: str) -> set[str]:
    """The distributions that installing `distribution` alone brings along, names normalised."""
    found: set[str] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(distribution, frozenset())]
    while waiting:
        name, extras = waiting.pop()
        key = f"{canonical(name)}[{','.join(sorted(extras))}]"
        if key in found:
            continue
        found |= {key, canonical(name)}
        try:
            required = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # needed on other platforms only
        waiting += [wanted for line in required if (wanted := _required(line, extras))]
    return found


def _required(line: str, extras: frozenset[str]) -> tuple[str, frozenset[str]] | None:
    from packaging.requirements import Requirement

    parsed = Requirement(line)
    chosen = extras or {""}
    if parsed.marker and not any(parsed.marker.evaluate({"extra": extra}) for extra in chosen):
        return None
    return parsed.name, frozenset(parsed.extras)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class OnlyFrom(MetaPathFinder):
    """Refuses to import what no allowed distribution holds, as where it is not installed."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = set(allowed)
        self.holders = importlib.metadata.packages_distributions()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top = name.partition(".")[0]
        holders = self.holders.get(top, ())
        if holders and not {canonical(holder) for holder in holders} & self.allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


async def run(text: str, allowed: set[str]) -> None:
    """Every code cell in one namespace, while this coroutine's loop runs."""
    names: dict[str, Any] = {"__name__": "__main__"}
    guard = OnlyFrom(allowed)
    sys.meta_path.insert(0, guard)
    for is_code, body in cells(text):
        if is_code:
            _execute(body, names)
            await asyncio.sleep(0)
        elif "pip install" in body and guard in sys.meta_path:
            sys.meta_path.remove(guard)


def _execute(body: str, names: dict[str, Any]) -> None:
    tree = ast.parse(body)
    last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    if last is not None:
        tree.body.pop()
    exec(compile(tree, "<cell>", "exec"), names)
    if last is not None:
        print(repr(eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)))


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]).read_text("utf-8"), without_extras("distill")))
