"""CONTRIBUTING's map names every room, and its hooks are commands that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def rooms() -> set[str]:
    """Packages and modules right below distill/."""
    below = (ROOT / "distill").iterdir()
    return {
        path.stem
        for path in below
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    }


def test_the_map_names_every_room_and_no_other() -> None:
    table = CONTRIBUTING.partition("## The map of rooms")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `(\w+)` \| \S", table, re.MULTILINE)
    assert sorted(named) == sorted(rooms())


def test_folders_of_the_repository_are_there() -> None:
    for name in ("prompts", "schemas", "docs", "examples", "benchmarks", "tests"):
        assert f"`{name}/`" in CONTRIBUTING
        assert (ROOT / name).is_dir()
    for name in re.findall(r"`((?:tests|distill|docs)/[\w/.]+\.\w+)`", CONTRIBUTING):
        assert (ROOT / name).is_file(), name


def test_targets_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^make ([\w-]+)", CONTRIBUTING, re.MULTILINE)
    assert len(targets) > 5
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_hooks_run_what_is_installed_and_download_nothing() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    entries = {hook["id"]: hook["entry"].split() for hook in hooks}
    assert set(entries) == {"ruff-check", "ruff-format", "mypy", "reference"}
    tools = Path(sys.executable).parent
    for program, *arguments in entries.values():
        assert program.startswith(".venv/bin/")
        name = Path(program).name
        assert name == "python" or (tools / name).exists(), name
        assert not arguments or arguments[0] in ("check", "format", "docs/generate_reference.py")


def test_the_reference_hook_passes() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    (entry,) = [h["entry"] for h in config["repos"][0]["hooks"] if h["id"] == "reference"]
    command = [sys.executable, *entry.split()[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
