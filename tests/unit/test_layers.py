"""The plan of rooms: who may import whom, read from the code itself.

A room is a package or a module right below distill/. It may import from itself and from rooms on
lower floors, never from its own floor or from above: so no two rooms can be in a circle.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "distill"

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"strict_json"}),
    frozenset({"errors", "records", "sharing", "version"}),
    # How calls are written in text, below those who read gold and those who render.
    frozenset({"files", "serving", "render.formats"}),
    frozenset({"config", "prompts", "workflow"}),
    frozenset({"sources"}),
    # What a teacher is, below those who ask one; the teachers themselves stand higher.
    frozenset({"render", "run", "teachers.base"}),
    frozenset({"asking", "ledger", "students", "teachers"}),
    frozenset({"data", "train"}),
    frozenset({"evaluate"}),
    frozenset({"cards", "report"}),
    frozenset({"stages"}),
    frozenset({"ablate", "export"}),
    frozenset({"api"}),
    frozenset({"cli", "testing"}),
    frozenset({"__main__"}),
)
ROOMS = frozenset[str]().union(*FLOORS)
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "sklearn", "matplotlib", "openai")

Imports = Mapping[str, frozenset[str]]
"""The modules, without the leading `distill.`, that each module imports."""


# Modules that stand on a lower floor than the rest of their package.
APART = {
    "teachers.base": "teachers.base",
    **dict.fromkeys(("render.formats", "render.functiongemma", "render.syntax"), "render.formats"),
}


def room(module: str) -> str:
    """The room of a module: `teachers.base` is one of its own."""
    return APART.get(module, module.split(".")[0])


def floor(module: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if room(module) in rooms:
            return number
    raise AssertionError(f"distill.{module} is in no room: say on which floor in {__file__}")


def wrong_ways(imports: Imports) -> list[str]:
    """Imports of another room that is not on a lower floor."""
    return [
        f"distill.{module} imports distill.{other}"
        for module, others in imports.items()
        for other in sorted(others)
        if room(other) != room(module) and floor(other) >= floor(module)
    ]


def circle(graph: Mapping[str, frozenset[str]]) -> list[str]:
    """Nodes of a graph that lead back to themselves, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def by_room(imports: Imports) -> dict[str, frozenset[str]]:
    graph: dict[str, set[str]] = {}
    for module, others in imports.items():
        found = {room(other) for other in others} - {room(module)}
        graph.setdefault(room(module), set()).update(found)
    return {name: frozenset(others) for name, others in graph.items()}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (n.removeprefix("distill.") for n in names if n.startswith("distill."))
            continue
        else:
            continue
        if node.module == "distill":
            yield from names
        elif node.module and node.module.startswith("distill."):
            parent = node.module.removeprefix("distill.")
            for name in names:  # `from distill.stages import plan` names a module
                child = PACKAGE.joinpath(*parent.split("."), name)
                is_module = child.with_suffix(".py").exists() or child.is_dir()
                yield f"{parent}.{name}" if is_module else parent


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def imports() -> Imports:
    return {module_name(path): frozenset(imported(path)) for path in modules()}


def test_rooms_import_from_lower_floors_alone() -> None:
    assert wrong_ways(imports()) == []


def test_no_rooms_are_in_a_circle() -> None:
    assert circle(by_room(imports())) == []


def test_no_modules_are_in_a_circle() -> None:
    real = imports()
    # A package's face hands on names of the modules below it, which import each other by name.
    faces = {name for name in real if (PACKAGE.joinpath(*name.split("."))).is_dir()}
    assert circle({name: others for name, others in real.items() if name not in faces}) == []


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("run.folder", "teachers.make"),  # the circle that there once was
        ("teachers.base", "teachers.make"),  # up, within a package
        ("data.plan", "stages.pipeline"),
        ("ablate.ablate", "cli.terminal"),
        ("students.load", "ledger.prices"),  # on the same floor
    ],
)
def test_a_planted_import_is_found(module: str, other: str) -> None:
    planted = imports()
    planted = {**planted, module: planted[module] | {other}}
    assert wrong_ways(planted) == [f"distill.{module} imports distill.{other}"]


def test_a_planted_circle_is_found() -> None:
    planted = imports()
    planted = {**planted, "run.folder": planted["run.folder"] | {"ledger.replies"}}
    planted = {**planted, "ledger.replies": planted["ledger.replies"] | {"run.folder"}}
    assert {"run", "ledger"} <= {*circle(by_room(planted))}


def test_every_room_is_there() -> None:
    assert {room(module) for module in imports()} == ROOMS


# A folder of the run, as `6-split` or `6-split/train.jsonl`.
FOLDER_NAME = re.compile(r"^[0-9]-[a-z]+(/|$)")


def spelled(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and FOLDER_NAME.match(text):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {text!r}"


def test_only_the_layout_spells_folders_of_a_run() -> None:
    elsewhere = [path for path in modules() if module_name(path) != "run.layout"]
    assert [found for path in elsewhere for found in spelled(path)] == []
    assert list(spelled(PACKAGE / "run" / "layout.py"))


@pytest.mark.parametrize("module", ["distill", "distill.cli.main", "distill.stages.pipeline"])
def test_nothing_heavy_is_loaded_before_it_is_needed(module: str) -> None:
    code = f"import sys, {module}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_readable_in_one_sitting(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) < 400


def encoders(source: str) -> list[int]:
    """The lines that use an encoder of the module json, or pydantic's."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps", "JSONEncoder"):
            if isinstance(node.value, ast.Name) and node.value.id == "json":
                found.append(node.lineno)
        elif isinstance(node, ast.Attribute) and node.attr in ("model_dump_json", "to_json"):
            found += [] if isinstance(node.value, ast.Name) else [node.lineno]
        elif isinstance(node, ast.ImportFrom) and node.module == "json":
            found += [node.lineno for alias in node.names if "dump" in alias.name]
    return found


def test_all_json_is_made_by_the_one_encoder() -> None:
    """`json.dumps` writes NaN, which is not JSON; `distill.strict_json.encode` does not."""
    others = [path for path in modules() if module_name(path) != "strict_json"]
    assert [path for path in others if encoders(path.read_text("utf-8"))] == []
    assert len(encoders((PACKAGE / "strict_json.py").read_text("utf-8"))) == 1
    planted = "import json\njson.dumps(1)\nfrom json import dump\nself.row.model_dump_json()\n"
    assert sorted(encoders(planted)) == [2, 3, 4]
