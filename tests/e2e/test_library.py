"""distill as a library: an installed wheel, an empty folder, a live event loop."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from kit.training import tiny_model, tiny_student

import distill
from distill.config import Config
from distill.errors import StaleRunError, UsageError, WorkflowError
from distill.evaluate.score import cases_of
from distill.records import Example
from distill.run import layout
from distill.stages.pipeline import GIVEN_UP_AFTER
from distill.testing.server import ChatServer
from distill.workflow.cases import cases_of_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout; nothing is fetched to build it."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds distill as pip installs it, and nothing else."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(site), str(wheel)], check=True, capture_output=True)
    return site


def in_empty_folder(site: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python where only the installed distill can be found."""
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_the_wheel_carries_what_is_read_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "distill").rglob("*.py")}
    shipped = {
        f"distill/_shipped/{path.relative_to(ROOT).as_posix()}"
        for folder in ("prompts", "schemas/starter")
        for path in (ROOT / folder).iterdir()
    }
    assert names == code | shipped | {"distill/py.typed", "distill/ledger/prices.toml"}


def test_the_example_notebook_runs_in_a_live_loop(installed: Path, tmp_path: Path) -> None:
    notebook = ROOT / "examples" / "notebook.py"
    runner = ROOT / "tests" / "kit" / "notebook.py"
    done = in_empty_folder(installed, tmp_path, str(runner), str(notebook))
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "('order-status', 'call')" in said[0] or "call" in said[0]
    assert any("data.target: 60 -> 61" in line for line in said)
    assert "'tuned'" in done.stdout
    manifest = json.loads((tmp_path / "runs" / "notebook" / layout.MANIFEST).read_text())
    assert {"split", "train", "evaluate"} <= manifest["stages"].keys()


def test_the_notebook_needs_its_extra_where_it_says_so(installed: Path, tmp_path: Path) -> None:
    """The guard of the test above is real: without the cell that names the extra, it refuses."""
    text = (ROOT / "examples" / "notebook.py").read_text("utf-8")
    (tmp_path / "cells.py").write_text(text.replace("pip install", "install"), "utf-8")
    runner = ROOT / "tests" / "kit" / "notebook.py"
    done = in_empty_folder(installed, tmp_path, str(runner), "cells.py")
    assert done.returncode != 0
    assert "MissingExtraError" in done.stderr
    assert "pip install 'distill[train]'" in done.stderr


def test_importing_distill_loads_nothing_of_it(installed: Path, tmp_path: Path) -> None:
    code = "import sys, distill; print(sorted(m for m in sys.modules if m.startswith('distill')))"
    done = in_empty_folder(installed, tmp_path, "-c", code)
    assert done.stdout.strip() == "['distill', 'distill.version']", done.stderr


def test_every_name_of_the_library_is_there() -> None:
    assert dir(distill) == sorted(distill.__all__)
    for name in distill.__all__:
        assert getattr(distill, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = distill.nothing


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import distill; distill.load_workflow", "PlatformError"),
        ("import runpy; runpy.run_module('distill', run_name='__main__')", "error: "),
    ],
)
def test_on_windows_a_message_names_wsl(tmp_path: Path, code: str, said: str) -> None:
    # As on Windows, fcntl cannot be imported.
    windows = f"import sys; sys.platform = 'win32'; sys.modules['fcntl'] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", windows], capture_output=True, text=True)
    assert done.returncode == 1
    assert said in done.stderr
    assert "WSL" in done.stderr
    assert ("Traceback" in done.stderr) == (said == "PlatformError")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> distill.Run:
    """A run with its data, made from inside a running event loop."""
    base = tmp_path_factory.mktemp("library")
    tiny_model().save_pretrained(base / "student")
    tiny_student().tokenizer.save_pretrained(base / "student")
    distill.write_starter(base / "shop")

    async def cell() -> distill.Run:
        return distill.make_data(
            base / "shop" / "rules.md",
            base / "run",
            data={"target": 40},
            train={"student": str(base / "student"), "declarations": "none"},
            progress=False,
        )

    return asyncio.run(cell())


def test_settings_come_from_the_file_beside_the_rules_and_the_call_wins(made: distill.Run) -> None:
    assert made.config.data.target == 40
    assert made.config.train.epochs == 16  # the starter's distill.toml
    assert made.config.data.seed == Config().data.seed


def test_the_same_call_returns_the_finished_run(made: distill.Run) -> None:
    before = (made.path / layout.MANIFEST).read_bytes()
    again = distill.make_data(
        made.path.parent / "shop" / "rules.md",
        made.path,
        data={"target": 40},
        progress=False,
    )
    assert (made.path / layout.MANIFEST).read_bytes() == before
    assert again.path == made.path


def test_errors_are_those_of_the_command_line(made: distill.Run, tmp_path: Path) -> None:
    rules = made.path.parent / "shop" / "rules.md"
    with pytest.raises(StaleRunError, match=r"data\.target: 40 -> 41"):
        distill.make_data(rules, made.path, data={"target": 41}, progress=False)
    with pytest.raises(UsageError, match="tagret"):
        distill.make_data(rules, tmp_path / "run", data={"tagret": 41}, progress=False)
    with pytest.raises(UsageError, match="data: is a table of settings, not list"):
        distill.make_data(rules, tmp_path / "run", data=[1], progress=None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="epoch"):
        made.train(epoch=1, progress=False)
    (tmp_path / "rules.md").write_text("# Nothing\n")
    with pytest.raises(WorkflowError):
        distill.load_workflow(tmp_path / "rules.md")
    with pytest.raises(distill.DistillError, match="no student was trained"):
        made.route("where is my parcel?")


def test_what_is_no_path_and_no_row_is_named(made: distill.Run) -> None:
    rules, no_path = made.path.parent / "shop" / "rules.md", [1]
    for name, call in {
        "path": lambda: distill.open_run(no_path),  # type: ignore[arg-type]
        "workflow": lambda: distill.make_data(no_path),  # type: ignore[arg-type]
        "gold": lambda: distill.load_workflow(rules, gold=no_path),  # type: ignore[arg-type]
        "out": lambda: distill.make_data(rules, no_path),  # type: ignore[arg-type]
        "config": lambda: distill.make_data(rules, config=no_path),  # type: ignore[arg-type]
    }.items():
        with pytest.raises(UsageError, match=f"^{name}: is a path, not list"):
            call()
    for data in (3, {"user_content": "hi", "target": "answer"}):
        with pytest.raises(UsageError, match="data: is neither a path nor a list of rows"):
            made.evaluate(data, progress=None)  # type: ignore[arg-type]
    rows = [{"user_content": "hi", "target": "ask"}, {"user_content": "x", "tool_name": "find"}]
    with pytest.raises(WorkflowError, match='data:2: the row names unknown tool "find"'):
        made.evaluate(rows, progress=None)


def test_a_server_is_asked_from_within_a_running_loop(
    made: distill.Run, tmp_path: Path, chat_server: ChatServer
) -> None:
    """Its replies are random words: none is accepted, each is kept, and a second call asks none."""

    async def cell() -> None:
        for _ in range(2):
            with pytest.raises(distill.DistillError, match=r"came to nothing: .* [1-9]"):
                distill.make_data(
                    made.path.parent / "shop" / "rules.md",
                    tmp_path / "run",
                    data={"target": 7},
                    teacher={
                        "kind": "openai",
                        "model": "m",
                        "base_url": chat_server.url,
                        "gate": 0,
                    },
                    progress=False,
                )
            asked.append(chat_server.count)

    asked: list[int] = []
    asyncio.run(cell())
    # A cell without an example is given up.
    assert 0 < asked[0] == asked[1] <= 7 * 2 * GIVEN_UP_AFTER
    assert (tmp_path / "run" / layout.REPLIES).exists()


def test_examples_are_a_dataset_that_keeps_every_value(made: distill.Run, tmp_path: Path) -> None:
    from datasets import Dataset  # type: ignore[import-untyped]

    from distill.files import read_records

    dataset = made.examples("train")
    dataset.to_parquet(tmp_path / "train.parquet")
    rows = list(Dataset.from_parquet(str(tmp_path / "train.parquet"), cache_dir=str(tmp_path)))
    examples = read_records(made.path / layout.SPLITS["train"], Example)
    assert len(rows) == len(examples) > 20
    for row, example in zip(rows, examples, strict=True):
        assert row["id"] == example.id
        label: dict[str, Any] = row["messages"][-1]
        calls = [call["function"] for call in label.get("tool_calls", ())]
        assert calls == [call.model_dump() for call in example.target.calls]
        assert label["content"] == example.target.reply
        assert [tool["function"]["name"] for tool in row["tools"]] == [*example.scenario.tools]
    # What a program gets is what it may give, though a table has one column for all arguments.
    for read, case in zip(
        cases_of_rows(rows, tools=made.workflow.tools, rules=made.workflow.rules),
        cases_of(examples),
        strict=True,
    ):
        assert (read.messages, read.kind, read.calls) == (case.messages, case.kind, case.calls)
        assert read.rule == case.rule
    with pytest.raises(UsageError, match="validation"):
        made.examples("validation")


def test_a_student_is_trained_scored_and_asked(made: distill.Run) -> None:
    async def cells() -> None:
        made.train(epochs=1, threads=1, progress=False)
        scores = made.evaluate(max_new_tokens=8, progress=False)
        assert {"base", "tuned", "tfidf"} <= scores["gold"].keys()
        rows = [{"user_content": "where is AB-1001?", "tool_name": "find_order"}]
        (dataset,) = given = made.evaluate(rows, max_new_tokens=8, progress=False)
        assert dataset.startswith("rows-")
        assert given[dataset]["tuned"].n == 1
        answer = made.route("where is my parcel?")
        assert answer.raw
        assert made.route("where is my parcel?") == answer
        with pytest.raises(UsageError, match="blank"):
            made.route(" ")

    asyncio.run(cells())
    assert made.config.train.epochs == 1
    assert {state.stage: state.state for state in made.status()}["evaluate"] == "done"
    assert made.report().evaluations["gold"]["tuned"].n > 0
