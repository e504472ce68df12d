"""A run of which a file is cut or gone: one message with the file and a way out, no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.training import made_run

from distill import open_run
from distill.cli.main import cli
from distill.errors import DistillError

DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
}
# Copies for the reader, made anew, and what only a training that goes on reads.
COPIES = ("report.md", "README.md", "rules.md", "tools.json", "words.md", "gold.jsonl")
RESUMED = ("checkpoints", "tensorboard", "started.json", "loss.png", ".lock", "replies.sqlite")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = made_run(tmp_path_factory.mktemp("made"))
    open_run(path).train(epochs=1, batch_size=20, progress=False)
    return path


def said(run: Path) -> str | None:
    """The error of a report on the run; None where there is none."""
    try:
        cli(["report", str(run), "--json"], standalone_mode=False)
    except DistillError as error:
        return str(error)
    return None


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_cut_is_named_with_a_way_out(
    kept: Path, tmp_path: Path, damage: str
) -> None:
    run, refused = tmp_path / "run", set[str]()
    files = [path.relative_to(kept) for path in sorted(kept.rglob("*")) if path.is_file()]
    for file in files:
        if {*file.parts} & {*RESUMED} or file.name in COPIES:
            continue
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(kept, run)
        before = (run / file).read_bytes()
        DAMAGES[damage](run / file)
        error = said(run)
        if error is not None:
            refused.add(file.name)
            assert file.name in error
            assert "\n  " in error
        elif file.name == "manifest.json":
            # The report adds its own entry; without a manifest no stage has run yet.
            now = json.loads((run / file).read_bytes())["stages"]
            assert damage == "gone" or now == now | json.loads(before)["stages"]
        else:
            # What is left says the same: it was empty, or lacks the end of its last line.
            assert before.strip() == (run / file).read_bytes().strip(), file
    assert damage != "half" or refused >= {"metrics.jsonl", "adapter_model.safetensors"}
