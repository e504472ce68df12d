"""The main job from rules to report, by the command line, with a student of two layers."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ARMS = ["base", "tuned", "majority", "tfidf", "minilm"]
SCORES = {
    "n",
    "tool_accuracy",
    "full_call_accuracy",
    "malformed_rate",
    "argument_f1",
    "grounding_f1",
}


@pytest.fixture
def run_all(desk: Path, distill: Run, tiny_student: Path) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        # A fixed number of threads: the bytes of two trainings are compared.
        settings = "[train]\nbatch_size = 8\nepochs = 2\nthreads = 1\n"
        settings += "[evaluate]\nmax_new_tokens = 16\n"
        (desk / "distill.toml").write_text(settings)
        common = ("--rules", desk / "rules.md", "--target", 40, "--student", tiny_student)
        done = distill("run", *common, "--out", "run", *arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    return run


def test_from_rules_to_report(run_all: Callable[..., str], distill: Run, tmp_path: Path) -> None:
    said = run_all()
    for words in ("gold", "test", "tuned", "tfidf", "report.md"):
        assert words in said
    run = tmp_path / "run"
    assert (run / "7-train" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "7-train" / "adapter" / "adapter_model.safetensors").exists()
    assert list((run / "7-train" / "tensorboard").iterdir())
    states = json.loads(distill("status", "run", "--json").stdout)["stages"]
    assert {state["state"] for state in states} == {"done"}
    report = json.loads((run / "report.json").read_text("utf-8"))
    assert report["missing"] == []
    for dataset in ("gold", "test"):
        assert set(report["evaluations"][dataset]) == set(ARMS)
        assert len((run / "8-evaluate" / dataset / "tuned.jsonl").read_text().splitlines()) > 2
    scored = json.loads(distill("eval", "run", "--json").stdout)
    assert [one["data"] for one in scored] == ["gold", "test"]


def test_a_file_of_rows_is_scored(
    run_all: Callable[..., str], distill: Run, tmp_path: Path
) -> None:
    run_all()
    rows = [
        {"user_content": "where are the coins?", "tool_name": "search_collection"},
        {
            "messages": [
                {"role": "user", "content": "how much is it?"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"function": {"name": "visitor_info", "arguments": '{"topic": "price"}'}}
                    ],
                },
            ]
        },
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = distill("eval", "run", "--data", "rows.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    scored = json.loads(done.stdout)
    assert list(scored["arms"]) == ARMS
    for scores in scored["arms"].values():
        assert scores["n"] == 2
        assert scores.keys() >= SCORES
    routed = distill("route", "run", "where are the coins?", "--json")
    assert routed.returncode == 0, routed.stderr
    said = json.loads(routed.stdout)
    assert said.keys() == {
        "calls",
        "reply",
        "malformed",
        "repaired",
        "detail",
        "raw",
        "confidence",
        "tools",
    }
    if said["confidence"] is not None:
        assert 0 <= sum(said["tools"].values()) <= 1.0001


def test_training_goes_on_after_a_kill(
    run_all: Callable[..., str], distill: Run, tmp_path: Path
) -> None:
    run_all()
    run = tmp_path / "run"
    whole = (run / "7-train" / "adapter" / "adapter_model.safetensors").read_bytes()
    shutil.copytree(run, tmp_path / "killed")
    checkpoints = tmp_path / "killed" / "7-train" / "checkpoints"
    train = [sys.executable, "-m", "distill", "train", "killed", "--redo"]
    child = subprocess.Popen(train, cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")) and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    other = distill("train", "killed", "--seed", 5)
    if list(checkpoints.glob("checkpoint-*")):
        assert other.returncode == 1
        assert "train.seed: 0 -> 5" in other.stderr
    assert distill("train", "killed").returncode == 0
    again = (tmp_path / "killed" / "7-train" / "adapter" / "adapter_model.safetensors").read_bytes()
    assert again == whole


@pytest.mark.parametrize(
    "command",
    [
        *(
            "init",
            "check",
            "plan",
            "gen",
            "train",
            "eval",
            "report",
            "status",
            "show",
            "route",
            "run",
        ),
        *("ablate", "export", "push"),
    ],
)
def test_every_command_explains_itself(distill: Run, command: str) -> None:
    done = distill(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 5
