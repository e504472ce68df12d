"""Generating data: the same bytes, whatever happens on the way."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.config import Config
from distill.files import file_digest
from distill.ledger.replies import ReplyStore
from distill.run.folder import RunFolder, locked
from distill.stages.pipeline import make_data
from distill.teachers.base import ChatReply
from distill.workflow import load_workflow
from distill.workflow.own_rows import with_rows

Run = Callable[..., "subprocess.CompletedProcess[str]"]


class Silent:
    """A watcher that says nothing."""

    def begins(self, stage: str) -> None: ...

    def progress(self, done: int, total: int, note: str = "") -> None: ...

    def ends(self, stage: str, counts: Any, seconds: float) -> None: ...

    def notice(self, text: str) -> None: ...


def generate(rules: Path, path: Path, target: int = 12) -> None:
    with locked(path, create=True):
        config = Config.load(None, {"data": {"target": target}})
        workflow, own = load_workflow(rules), rules.with_name("rows.jsonl")
        workflow = with_rows(workflow, own) if own.exists() else workflow
        make_data(RunFolder.create(path, workflow, config), Silent())


def data_files(path: Path) -> dict[str, str]:
    """Digest by name of every data file of a run."""
    files = [p for p in path.rglob("*") if p.suffix in {".jsonl", ".md", ".json"}]
    kept = [p for p in files if p.name != "manifest.json"]
    return {p.relative_to(path).as_posix(): file_digest(p) for p in sorted(kept)}


def test_two_runs_with_one_seed_are_the_same_bytes(
    desk: Path, distill: Run, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        done = distill("gen", "--rules", desk / "rules.md", "--target", 30, "--out", name)
        assert done.returncode == 0, done.stderr
    assert data_files(tmp_path / "one") == data_files(tmp_path / "two")
    distill("gen", "--rules", desk / "rules.md", "--target", 30, "--out", "three", "--seed", 1)
    assert data_files(tmp_path / "one") != data_files(tmp_path / "three")


def test_conservation_and_quotas(desk: Path, distill: Run, tmp_path: Path) -> None:
    assert (
        distill("gen", "--rules", desk / "rules.md", "--target", 31, "--out", "run").returncode == 0
    )
    stages = json.loads((tmp_path / "run" / "manifest.json").read_text())["stages"]
    for name in ("validate", "dedup", "balance"):
        counts = stages[name]["counts"]
        assert counts["in"] == counts["kept"] + sum(counts["rejected"].values())
    made = stages["generate"]["counts"]
    assert made["in"] == stages["plan"]["counts"]["scenarios"]
    assert made["in"] == made["candidates"] + sum(made["failures"].values())
    assert sum(stages["split"]["counts"].values()) == 31


def _killed_at(rules: Path, path: Path, instant: int) -> None:
    """Generate, and die by SIGKILL just before the `instant`-th write."""
    writes = 0

    def count() -> None:
        nonlocal writes
        writes += 1
        if writes == instant:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        # A rename, or an open for writing: every write of a file begins and ends with one of them.
        if event == "os.rename" or (event == "open" and str(arguments[1]) in {"w", "wb", "a+"}):
            count()

    put = ReplyStore.put

    def counted(self: ReplyStore, *arguments: Any) -> ChatReply:
        count()
        kept = put(self, *arguments)
        count()
        return kept

    ReplyStore.put = counted  # type: ignore[method-assign]
    sys.addaudithook(watch)
    generate(rules, path)


def test_killed_at_any_write_it_ends_in_the_same_bytes(desk: Path, tmp_path: Path) -> None:
    rules = desk / "rules.md"
    call = {"tool_name": "search_collection", "tool_arguments": {"query": "lions"}}
    said = {"show me the zebras": None, "where do the marble lions stand": "test"}
    rows = [{"user_content": text, **call, "split": split} for text, split in said.items()]
    (desk / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    generate(rules, tmp_path / "whole")
    expected = data_files(tmp_path / "whole")
    fork = multiprocessing.get_context("fork")
    kills = 0
    while True:
        path = tmp_path / f"killed{kills}"
        child = fork.Process(target=_killed_at, args=(rules, path, kills + 1))
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        generate(rules, path)
        assert data_files(path) == expected, f"killed at write {kills + 1}"
        kills += 1
    assert kills > 40


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(
    desk: Path, distill: Run, tmp_path: Path
) -> None:
    gen = ["gen", "--rules", str(desk / "rules.md"), "--target", "60", "--out", "run"]
    command = [sys.executable, "-m", "distill", *gen]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    started = tmp_path / "run" / "config.json"
    while not started.exists() and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert "Traceback" not in said
    assert child.returncode in (130, 0), said
    assert distill(*gen).returncode == 0
    generate(desk / "rules.md", tmp_path / "other", target=60)
    assert data_files(tmp_path / "run") == data_files(tmp_path / "other")


AWKWARD = {
    "crlf": "Where is\r\nthe coin room?",
    "separator": "Where is\u2028the coin room?",
    "emoji": "Where is the coin room? 🏛️👩🏽‍🎨",
    "right to left": "אֵיפֹה חֲדַר הַמַּטְבְּעוֹת؟ أين غرفة العملات",
    "long": "coin " * 2000,
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_text_passes_through_unharmed(
    desk: Path, distill: Run, tmp_path: Path, name: str
) -> None:
    text = AWKWARD[name]
    row = {"user_content": text, "tool_name": "search_collection", "rule": "collection"}
    with open(desk / "gold.jsonl", "a", encoding="utf-8", newline="") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\r\n")
    done = distill("gen", "--rules", desk / "rules.md", "--target", 12, "--out", "run")
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "run" / "inputs" / "workflow.json").read_text("utf-8"))
    said = [case["messages"][-1]["content"] for case in stored["gold"]]
    assert text in said
