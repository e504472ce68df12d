"""Training on GPUs: one, several, sharded; killed and gone on with; its memory and its speed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.processes import descendants
from kit.together import run_python, torchrun
from kit.training import made_run, tiny_model, tiny_student, train_tiny
from safetensors.torch import load_file

from distill.config import TrainConfig
from distill.train.processes import ProcessRank
from distill.train.recipe import Recipe, sft_config

pytestmark = pytest.mark.gpu

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "training.py"
TUNINGS = ["lora", "full"]
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
"""What `accelerate launch --use_fsdp --fsdp_version 2` says in the environment."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, device: str) -> Path:
    return made_run(tmp_path_factory.mktemp("made"))


def trained(run: Path, made: Path, launcher: list[object], *settings: str, **more: str) -> Path:
    """A copy of the run `made`, trained for two epochs by `distill train` behind a launcher."""
    shutil.copytree(made, run)
    return go_on(run, launcher, *settings, **more)


def go_on(run: Path, launcher: list[object], *settings: str, **more: str) -> Path:
    done = run_python(*launcher, *command(run), *settings, timeout=300, **more)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return run / "7-train"


def command(run: Path) -> list[object]:
    return ["-m", "distill", "train", run, "--epochs", "2"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "adapter").glob("*.safetensors")))


def dev_losses(folder: Path) -> list[float]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["eval_loss"] for row in rows if "eval_loss" in row]


def assert_alike(one: Path, other: Path, device: str) -> None:
    """The same losses: in bf16, sums of gradients in another order move weights a little."""
    rounding = 1e-2 if device == "cuda" else 1e-5
    assert dev_losses(one) == pytest.approx(dev_losses(other), rel=rounding)
    first, second = weights(one), weights(other)
    assert {name: w.shape for name, w in first.items()} == {n: w.shape for n, w in second.items()}
    if device == "cpu":
        assert all((first[n] - w).norm() <= 1e-5 * w.norm() for n, w in second.items())


@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("sharing", ["auto", "flat", "off"])
def test_a_training_learns_with_weights_of_full_precision(
    tuning: str, sharing: str, tmp_path: Path
) -> None:
    settings = TrainConfig.model_validate({"tuning": tuning, "prefix_sharing": sharing})
    said: list[str] = []
    result = train_tiny(tmp_path, settings, notice=said.append)
    assert result.curve.dev[-1].loss < result.curve.dev[0].loss
    assert {weight.dtype for weight in weights(tmp_path).values()} == {torch.float32}
    assert said == []


def test_one_process_takes_one_gpu(tmp_path: Path) -> None:
    recipe = Recipe.from_config(TrainConfig(), tiny_student())
    found = sft_config(recipe, tmp_path, 10, ProcessRank(0, 1), has_dev=False)
    assert found.n_gpu <= 1
    assert found.bf16 == (torch.cuda.is_available() and torch.cuda.is_bf16_supported(False))


def test_computing_activations_twice_changes_nothing(tmp_path: Path, device: str) -> None:
    losses = []
    for checkpointing in ("off", "on"):
        settings = {"gradient_checkpointing": checkpointing, "prefix_sharing": "flat"}
        folder = tmp_path / checkpointing
        result = train_tiny(folder, TrainConfig.model_validate(settings))
        losses.append([point.loss for point in result.curve.train])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3 if device == "cuda" else 1e-5)


@pytest.mark.parametrize("tuning", TUNINGS)
def test_processes_train_what_one_does(
    tuning: str, made: Path, processes: int, device: str, tmp_path: Path
) -> None:
    alone = trained(tmp_path / "alone", made, [], "--tuning", tuning)
    together = trained(tmp_path / "together", made, torchrun(processes), "--tuning", tuning)
    assert_alike(together, alone, device)


@pytest.mark.parametrize("tuning", TUNINGS)
def test_sharded_weights_are_saved_whole(
    tuning: str, made: Path, processes: int, device: str, tmp_path: Path
) -> None:
    """accelerate shards nothing on processors (its state asks for MULTI_GPU and the like)."""
    if device == "cpu":
        shutil.copytree(made, tmp_path / "run")
        launched = [*torchrun(2), *command(tmp_path / "run")]
        done = run_python(*launched, "--tuning", tuning, **FSDP)
        assert done.returncode != 0
        assert done.stderr.count("accelerate shards weights on accelerators only") == 1
        return
    alone = trained(tmp_path / "alone", made, [], "--tuning", tuning)
    sharded = trained(tmp_path / "sharded", made, torchrun(processes), "--tuning", tuning, **FSDP)
    assert_alike(sharded, alone, device)
    if tuning == "full":
        assert weights(sharded).keys() <= tiny_model().state_dict().keys()


@pytest.mark.parametrize("environment", [{}, FSDP], ids=["whole", "sharded"])
def test_a_killed_training_goes_on_in_several_processes(
    environment: dict[str, str], made: Path, processes: int, device: str, tmp_path: Path
) -> None:
    if environment and device == "cpu":
        pytest.skip("accelerate shards weights on accelerators only")
    alone = trained(tmp_path / "alone", made, torchrun(processes), **environment)
    run = tmp_path / "killed"
    shutil.copytree(made, run)
    kill_after_a_checkpoint(run, torchrun(processes), environment)
    killed = go_on(run, torchrun(processes), **environment)
    assert_alike(killed, alone, device)


def kill_after_a_checkpoint(run: Path, launcher: list[object], more: dict[str, str]) -> None:
    """Start training and kill every process of it once a checkpoint is there."""
    arguments = [sys.executable, *map(str, [*launcher, *command(run)])]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(
        arguments, env={**os.environ, **more}, start_new_session=True, **quiet
    )
    checkpoints = run / "7-train" / "checkpoints"
    try:
        while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
            assert started.poll() is None, "it ended before it wrote a checkpoint"
            time.sleep(0.01)
    finally:
        for pid in [*descendants(started.pid), started.pid]:
            os.kill(pid, signal.SIGKILL)
        started.wait()


@pytest.fixture(scope="module")
def measured(device: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Rows of the benchmark: FunctionGemma's shape on a GPU, a small replica without one."""
    found = tmp_path_factory.mktemp("measured") / "rows.json"
    large = "--shape 270m --prefix 600 --prefix 2000 --batch 64 --variants shared,trl"
    chosen = large if device == "cuda" else "--quick --repeats 1"
    done = run_python(BENCHMARK, *chosen.split(), "--json", found, timeout=900)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    rows: list[dict[str, Any]] = json.loads(found.read_text())
    return rows


def test_steps_are_faster_than_trl_s(measured: list[dict[str, Any]], device: str) -> None:
    bars = {600: 4.0, 2000: 10.0} if device == "cuda" else {200: 1.0}
    assert {row["prefix"] for row in measured} == set(bars)
    for row in measured:
        assert row["ratio"] >= bars[row["prefix"]]
        assert row["tokens_per_second"] > 0
        assert abs(row["loss_difference"]) < (1e-2 if device == "cuda" else 1e-5)


def test_memory_stays_below_trl_s(measured: list[dict[str, Any]], device: str) -> None:
    for row in measured:
        # Resident memory is what the allocator keeps, a small model's least of all.
        room = 1.0 if device == "cuda" else 1.05
        assert row["peak_mb"] <= room * row["trl_peak_mb"]
