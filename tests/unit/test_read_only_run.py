"""A run that may be read and not written, or not even read: what works, and what is said."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from kit.training import RULES, made_run

from distill import open_run

COMMANDS = """
import contextlib, io, json, os, sys
from distill.cli.main import main

run, hidden, *commands = json.load(sys.stdin)
assert not os.access(run, os.W_OK)
said = []
for words in commands:
    place = hidden.pop(0) if hidden else None
    mode = os.stat(place).st_mode if place else 0
    if place:
        os.chmod(place, 0)
    sys.argv, out, err = ["distill", *words], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as left:
            said.append([left.code or 0, out.getvalue(), err.getvalue()])
    if place:
        os.chmod(place, mode)
json.dump(said, sys.stdout)
"""
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def bound_by_permissions() -> None:
    """Root is as everybody else for the program that is started next."""
    if os.geteuid() == 0 and sys.platform == "linux":
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


class Said(NamedTuple):
    code: int
    out: str
    err: str


def distill(run: Path, *commands: list[str], hidden: Sequence[str] = ()) -> list[Said]:
    """What each command says; while the nth runs, the nth of `hidden` cannot be read."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input=json.dumps([str(run), hidden, *commands]),
        capture_output=True,
        text=True,
        preexec_fn=bound_by_permissions,
        cwd=run.parent,
        env={**os.environ, "HOME": str(run.parent)},
    )
    assert done.returncode == 0, done.stderr
    return [Said(*one) for one in json.loads(done.stdout)]


def writable(folder: Path, yes: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200 if yes else path.stat().st_mode & ~0o222)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = made_run(tmp_path_factory.mktemp("made"))
    open_run(path).train(epochs=1, batch_size=20, progress=False)
    (path / ".lock").unlink()
    writable(path, False)
    yield path
    writable(path, True)


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_run_that_cannot_be_written_is_read(run: Path) -> None:
    where, rules, before = str(run), ["--rules", str(RULES), "--out", str(run)], files(run)
    exports = run.parent / "exports"
    reads = [
        ["status", where],
        ["plan", *rules],
        ["show", where],
        ["show", where, "--rejected"],
        ["route", where, "Where is the gate?"],
        ["export", where, "--out", str(exports)],
        ["push", where, "me/router", "--dry-run", "--format", "adapter"],
        ["report", where, "--json"],
        ["report", where],
    ]
    writes = [
        ["gen", *rules],
        ["run", *rules],
        ["plan", *rules, "--probe", "1"],
        ["train", where],
        ["eval", where],
        ["ablate", where],
        ["export", where],
    ]
    said = distill(run, *reads, *writes)
    for words, one in zip(reads, said, strict=False):
        assert one.code == 0, (words, one)
        assert one.out, words
    assert (exports / "hf" / "model.safetensors").is_file()
    assert json.loads(said[len(reads) - 2].out)["workflow"]
    shown = said[len(reads) - 1]
    assert shown.out.startswith("# ")
    assert "cannot be written: its report is shown, and not kept" in shown.err
    for words, one in zip(writes, said[len(reads) :], strict=True):
        assert (one.code, one.out) == (1, ""), (words, one)
        assert one.err.count("error:") == one.err.count("cannot be written: Permission") == 1, one
    assert files(run) == before


def test_what_cannot_be_read_is_said_to_be_unreadable(run: Path) -> None:
    names = ["manifest.json", "6-split/train.jsonl", "6-split", "7-train/adapter"]
    asked = [(run / name, command) for name in names for command in ("status", "report")]
    asked.append((run.parent / "student", "route"))
    request = {"route": ["hello"]}
    said = distill(
        run,
        *([command, str(run), *request.get(command, [])] for _, command in asked),
        hidden=[str(place) for place, _ in asked],
    )
    for (place, _), one in zip(asked, said, strict=True):
        assert one.code == 1, one
        assert one.err.count("error:") == one.err.count("Permission denied") == 1, one
        assert str(place) in one.err
        assert "Permission denied\n  ch" in one.err
        assert "written: Permission" not in one.err
