"""The benchmarks run on a model of two layers, and their rows say what they must."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FIELDS = {
    *("shape", "prefix", "batch", "tokens", "threads", "load", "precision", "machine"),
    *("seconds", "trl_seconds", "gathered_seconds", "ratio", "tokens_per_second"),
    *("loss_difference", "peak_mb", "trl_peak_mb", "gathered_peak_mb", "matmul_share"),
}


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training

    return training


def run(script: ModuleType, *arguments: str) -> tuple[list[dict[str, Any]], str]:
    import torch

    threads = torch.get_num_threads()
    done = CliRunner().invoke(script.main, [*arguments, "--json", "rows.json"])
    torch.set_num_threads(threads)
    assert done.exception is None, done.output
    return json.loads(Path("rows.json").read_text("utf-8")), done.output


def test_all_variants_compute_one_loss(training: ModuleType, in_place: Path) -> None:
    (row,), said = run(training, "--quick", "--shape", "tiny", "--prefix", "50", "--repeats", "1")
    assert row.keys() >= FIELDS
    assert (row["shape"], row["prefix"], row["batch"], row["threads"]) == ("tiny", 50, 4, 1)
    assert abs(row["loss_difference"]) < 1e-5
    losses = [entry["losses"][0] for entry in row["variants"].values()]
    assert set(row["variants"]) == set(training.NAMES)
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-5)
    assert row["ratio"] == row["trl_seconds"] / row["seconds"]
    assert "| tiny | 50 | 4 |" in said


def test_a_variant_over_the_limit_says_so(training: ModuleType, in_place: Path) -> None:
    small = ("--shape", "tiny", "--prefix", "20", "--batch", "4", "--repeats", "1")
    (row,), said = run(training, *small, "--variants", "trl", "--limit", "0")
    assert row["trl_seconds"] is None
    assert row["ratio"] is None
    assert row["variants"]["trl"]["projected_seconds"] > 0
    assert "over 0 s (projected" in said


def test_rows_of_several_runs_make_one_table(training: ModuleType, in_place: Path) -> None:
    small = ("--shape", "tiny", "--prefix", "20", "--batch", "2", "--repeats", "1")
    run(training, *small, "--variants", "shared", "--append", "all.json")
    run(training, *small, "--variants", "gathered", "--append", "all.json")
    (row,) = json.loads(Path("all.json").read_text("utf-8"))
    assert row["gathered_ratio"] == row["gathered_seconds"] / row["seconds"]
    assert abs(row["gathered_loss_difference"]) < 1e-5


def test_what_needs_more_memory_than_there_is_is_not_run(
    training: ModuleType, in_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import steps

    monkeypatch.setattr(steps, "free_memory", lambda device: 1.0)
    small = ("--shape", "tiny", "--prefix", "20", "--batch", "4", "--repeats", "1")
    (row,), said = run(training, *small, "--variants", "gathered")
    assert row["gathered_seconds"] is None
    assert "needs about" in said


def test_decoding_says_what_generate_says(training: ModuleType, in_place: Path) -> None:
    import evaluation

    small = ("--shape", "tiny", "--prefix", "30", "--new-tokens", "4", "--repeats", "1")
    found, _ = run(evaluation, *small, "--cases", "5", "--share", "0.4", "--share", "1")
    assert [row["full_correct"] for row in found] == [2, 5]
    for row in found:
        assert row["identical"] == row["cases"] == 5
        assert row["ratio"] == row["generate_seconds"] / row["seconds"]


@pytest.fixture
def in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
