"""Who may import whom, read from the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "distill"

# From the bottom of the house to its roof. A room may import from its own layer and below.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "records", "files", "resources"}),
    frozenset({"config", "workflow", "prompts", "teachers.base"}),
    frozenset(
        [
            "plan",
            "ask",
            "writing",
            "generate",
            "checks",
            "grounding",
            "dedup",
            "balance",
            "split",
            "render",
        ]
    ),
    frozenset({"run", "teachers", "students", "sharing", "train", "evaluate", "report"}),
    frozenset({"work", "pipeline", "terminal", "forecast", "export", "ablate"}),
    frozenset({"cli", "student_commands", "commands", "options", "__main__"}),
)
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "sklearn", "matplotlib", "openai")


def layer(module: str) -> int:
    """The layer of a module named without the leading `distill.`."""
    parts = module.split(".")
    for size in (2, 1):
        name = ".".join(parts[:size])
        for number, rooms in enumerate(LAYERS):
            if name in rooms:
                return number
    raise AssertionError(f"distill.{module} stands in no layer: say where in {__file__}")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the module, without `distill.`, of each import of distill's own."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            if node.module == "distill":
                names = [alias.name for alias in node.names if alias.name != "__version__"]
                yield from ((node.lineno, name) for name in names)
            elif node.module and node.module.startswith("distill."):
                yield node.lineno, node.module.removeprefix("distill.")


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    upwards = [
        f"{path}:{line} imports distill.{other}"
        for line, other in imports(path)
        if layer(other) > layer(name)
    ]
    assert not upwards


def test_the_command_line_loads_nothing_heavy() -> None:
    code = (
        "import sys, distill.cli, distill.pipeline\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_readable_in_one_sitting(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) < 400


def test_the_readme_names_every_file() -> None:
    readme = (PACKAGE.parent / "README.md").read_text("utf-8")
    names = [p.name for p in modules() if p.name != "__init__.py"]
    assert [name for name in names if name not in readme] == []
