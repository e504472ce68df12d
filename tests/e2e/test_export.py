"""`distill export` and `distill push` as a person calls them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit.hub import Hub

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import export_students as tiny
from export_run import adapt, make_run, student_folder

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    student = student_folder("qwen3", tmp_path / "student")
    return make_run(
        tmp_path / "run", str(student), lambda path: adapt(tiny.model("qwen3"), path)
    ).path


def test_a_student_goes_from_the_run_to_the_hub(run: Path, distill: Run) -> None:
    formats = ("--format", "hf", "--format", "ollama", "--quantization", "f32")
    first = distill("export", run, *formats, "--json")
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert [(one["format"], one["made"], one["same"], one["of"]) for one in found] == [
        ("hf", True, 20, 20),
        ("ollama", True, 20, 20),
    ]
    assert "Ollama itself was not run" in first.stderr
    again = distill("export", run, *formats)
    assert "up to date, 20 of 20 answers as the student's" in again.stdout
    with Hub() as hub:
        there = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": hub.token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }
        planned = distill("push", run, "me/router", "--dry-run", environment=there)
        assert (planned.returncode, hub.steps) == (0, [])
        assert "model.safetensors" in planned.stdout
        done = distill("push", run, "me/router", "--private", environment=there)
        assert done.returncode == 0, done.stderr
        kept = hub.repositories["me/router"]
        folder = run / "export" / "hf"
        assert kept.private
        assert kept.files == {path.name: path.read_bytes() for path in folder.iterdir()}
        refused = distill("push", run, "you/router", environment=there | {"HF_TOKEN": "hf_stolen"})
    assert refused.returncode == 1
    assert "hf auth login" in refused.stderr
    assert hub.token not in done.stdout + done.stderr
    assert "hf_stolen" not in refused.stdout + refused.stderr
