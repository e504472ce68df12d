"""Training on a model of two layers: the loss falls, a kill costs nothing, nothing is lost."""

from __future__ import annotations

import json
import resource
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.training import (
    DEFAULTS,
    DEV,
    TRAIN,
    example,
    tiny_model,
    tiny_student,
)
from kit.training import train_tiny as run

from distill.config import TrainConfig
from distill.errors import StudentError, WriteError
from distill.records import Example, Reason
from distill.train import sft
from distill.train.checkpoints import latest_complete_checkpoint
from distill.train.recipe import Recipe


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, sft.TrainResult]:
    folder = tmp_path_factory.mktemp("run") / "7-train"
    return folder, run(folder)


def adapter_bytes(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def test_the_loss_falls_and_the_best_adapter_is_kept(done: tuple[Path, sft.TrainResult]) -> None:
    _, result = done
    assert result.steps == 9
    assert (result.trained, result.dev, result.rejected) == (10, 3, [])
    assert len(result.curve.dev) == 3
    assert result.curve.dev[-1].loss < result.curve.dev[0].loss
    assert result.best_dev_loss == min(point.loss for point in result.curve.dev)


def test_the_folder_holds_what_the_run_needs(done: tuple[Path, sft.TrainResult]) -> None:
    folder, result = done
    names = {path.name for path in (folder / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    assert "README.md" not in names
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["eval_loss"] for row in rows if "eval_loss" in row] == [
        point.loss for point in result.curve.dev
    ]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "tensorboard").glob("events.*"))


def test_nothing_is_said_on_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    assert capfd.readouterr().out == ""


def test_progress_counts_every_step(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    run(tmp_path, progress=lambda *told: seen.append(told))
    assert [told[0] for told in seen] == list(range(10))
    assert {told[1] for told in seen} == {9}
    assert "dev" in seen[-1][2]


def test_a_seed_gives_the_same_adapter(done: tuple[Path, sft.TrainResult], tmp_path: Path) -> None:
    run(tmp_path)
    assert adapter_bytes(tmp_path) == adapter_bytes(done[0])
    run(tmp_path / "other", TrainConfig(threads=1, seed=1))
    assert adapter_bytes(tmp_path / "other") != adapter_bytes(done[0])


class Killed(BaseException):
    """As sudden as SIGKILL for whoever does not catch everything."""


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("at", [1, 4, 7])
def test_a_killed_training_ends_as_one_that_was_not(
    at: int,
    torn: bool,
    done: tuple[Path, sft.TrainResult],
    tmp_path: Path,
) -> None:
    def kill(step: int, *_: object) -> None:
        if step == at:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path, progress=kill)
    checkpoints = sorted((tmp_path / "checkpoints").glob("checkpoint-*"))
    assert len(checkpoints) == at // 3
    if torn and checkpoints:
        half = checkpoints[-1] / "optimizer.pt"
        half.write_bytes(half.read_bytes()[:1000])
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    again = run(moved)
    assert again.steps == 9
    assert again.curve == done[1].curve
    assert adapter_bytes(moved) == adapter_bytes(done[0])
    assert (moved / "metrics.jsonl").read_bytes() == (done[0] / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, sft.TrainResult]:
    """A full tuning of every weight, with activations computed twice."""
    folder = tmp_path_factory.mktemp("whole") / "7-train"
    return folder, run(folder, FULL)


FULL = TrainConfig(threads=1, tuning="full", gradient_checkpointing="on", epochs=2)
PARTS = ["trainer_state.json", "scheduler.pt", "optimizer.pt", "rng_state.pth"]


@pytest.mark.parametrize("part", [*PARTS, "adapter_model.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_torn_checkpoint_is_passed_over(
    part: str, damage: str, done: tuple[Path, sft.TrainResult], tmp_path: Path
) -> None:
    assert_passed_over(done[0] / "checkpoints", part, damage, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_torn_checkpoint_of_a_full_model_is_passed_over(
    damage: str, whole: tuple[Path, sft.TrainResult], tmp_path: Path
) -> None:
    assert_passed_over(whole[0] / "checkpoints", "model.safetensors", damage, tmp_path)


def test_without_the_best_weights_there_is_no_checkpoint_to_go_on_from(
    done: tuple[Path, sft.TrainResult], tmp_path: Path
) -> None:
    """The trainer would end in the last weights, and only warn."""
    last = sorted((done[0] / "checkpoints").glob("*"))[-1]
    copy = tmp_path / last.name
    shutil.copytree(last, copy)
    state = json.loads((copy / "trainer_state.json").read_text("utf-8"))
    state["best_model_checkpoint"] = "/elsewhere/checkpoint-3"
    (copy / "trainer_state.json").write_text(json.dumps(state), "utf-8")
    assert latest_complete_checkpoint(tmp_path) is None
    shutil.copytree(last, copy)
    assert latest_complete_checkpoint(tmp_path) == copy


def test_names_of_sets_are_sorted(done: tuple[Path, sft.TrainResult]) -> None:
    """Their order is that of the process's hashes; hardly one in 14! is sorted."""
    config = json.loads((done[0] / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert config["target_modules"] == sorted(config["target_modules"])
    assert len(config["target_modules"]) == 14


def assert_passed_over(checkpoints: Path, part: str, damage: str, folder: Path) -> None:
    shutil.copytree(checkpoints, folder, dirs_exist_ok=True)
    first, last = sorted(folder.glob("checkpoint-*"))
    assert latest_complete_checkpoint(folder) == last
    path = last / part
    path.write_bytes(path.read_bytes()[:-40]) if damage == "cut" else path.unlink()
    assert latest_complete_checkpoint(folder) == first
    assert not last.exists()


def test_a_checkpoint_in_shards_is_whole_with_all_of_them(
    whole: tuple[Path, sft.TrainResult], tmp_path: Path
) -> None:
    last = tmp_path / "checkpoint-6"
    shutil.copytree(sorted((whole[0] / "checkpoints").glob("*"))[-1], last)
    model = tiny_model()
    (last / "model.safetensors").unlink()
    model.save_pretrained(last, max_shard_size="1MB")
    shards = sorted(last.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert latest_complete_checkpoint(tmp_path) == last
    shards[0].unlink()
    assert latest_complete_checkpoint(tmp_path) is None


def test_what_fsdp_leaves_is_a_checkpoint(
    done: tuple[Path, sft.TrainResult], tmp_path: Path
) -> None:
    """By the names of accelerate: folders of shards, the file .metadata last."""
    last = tmp_path / "checkpoint-9"
    shutil.copytree(sorted((done[0] / "checkpoints").glob("*"))[-1], last)
    for name in ("adapter_model.safetensors", "optimizer.pt"):
        (last / name).unlink()
    for name in ("pytorch_model_fsdp_0", "optimizer_0"):
        (last / name).mkdir()
        (last / name / ".metadata").touch()
    (last / "rng_state.pth").rename(last / "rng_state_0.pth")
    assert latest_complete_checkpoint(tmp_path) == last
    (last / "optimizer_0" / ".metadata").unlink()
    assert latest_complete_checkpoint(tmp_path) is None


def test_full_tuning_trains_every_weight(whole: tuple[Path, sft.TrainResult]) -> None:
    folder, result = whole
    names = {path.name for path in (folder / "adapter").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert not {"training_args.bin", "adapter_config.json", "README.md"} & names
    tuned = tiny_student().load(folder / "adapter")
    before = tiny_model().state_dict()
    assert all(not torch.equal(weight, before[name]) for name, weight in tuned.state_dict().items())
    assert result.curve.dev[-1].loss < result.curve.dev[0].loss
    assert not tuned.training


def test_a_killed_full_tuning_ends_as_one_that_was_not(
    whole: tuple[Path, sft.TrainResult], tmp_path: Path
) -> None:
    def kill(step: int, *_: object) -> None:
        if step == 4:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path, FULL, progress=kill)
    assert run(tmp_path, FULL).curve == whole[1].curve
    one, other = (folder / "adapter" / "model.safetensors" for folder in (tmp_path, whole[0]))
    assert one.read_bytes() == other.read_bytes()


def test_activations_computed_twice_change_nothing(
    whole: tuple[Path, sft.TrainResult], tmp_path: Path
) -> None:
    once = run(tmp_path, FULL.model_copy(update={"gradient_checkpointing": "off"}))
    for found, expected in zip(once.curve.train, whole[1].curve.train, strict=True):
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_weights_that_were_trained_before_take_smaller_steps() -> None:
    student = tiny_student()
    assert Recipe.from_config(TrainConfig(tuning="full"), student).learning_rate == pytest.approx(
        2e-3
    )
    given = TrainConfig(tuning="full", learning_rate=1.0)
    assert Recipe.from_config(given, student).learning_rate == 1.0


def test_a_full_memory_has_a_way_out(tmp_path: Path) -> None:
    def read() -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore.")

    with pytest.raises(StudentError, match="Tried to allocate") as caught:
        run(tmp_path, student=replace(tiny_student(), load_weights=read))
    assert "rows_at_once" in str(caught.value)


def test_rows_are_trained_or_rejected_never_cut(tmp_path: Path) -> None:
    long, marked = example("gold " * 80), example("say \ud800 twice")
    result = run(tmp_path, train=[*TRAIN, long, marked], dev=[*DEV, long])
    assert [rejection.reason for rejection in result.rejected] == [
        Reason.TOO_LONG_FOR_STUDENT,
        Reason.UNRENDERABLE,
        Reason.TOO_LONG_FOR_STUDENT,
    ]
    assert result.trained + result.dev + len(result.rejected) == len(TRAIN) + len(DEV) + 3
    assert result.counts["rejected"] == {"too_long_for_student": 2, "unrenderable": 1}
    assert "and 64 fit" in result.rejected[0].detail


def test_without_dev_rows_the_last_adapter_is_kept(tmp_path: Path) -> None:
    result = run(tmp_path, dev=[])
    assert result.best_dev_loss is None
    assert adapter_bytes(tmp_path)


@pytest.mark.parametrize(
    ("rows", "says"),
    [([], "no example to train on"), ([example("gold " * 80)], "none of the 1 training examples")],
)
def test_nothing_to_train_on_has_a_way_out(rows: list[Example], says: str, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=says):
        run(tmp_path, train=rows)


def test_more_tokens_than_positions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="has 64 positions"):
        run(tmp_path, TrainConfig(max_length=65))


def test_a_disk_that_is_full_from_the_start_on_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    threads: list[object] = []
    monkeypatch.setattr(threading, "excepthook", threads.append)

    def full(*_: object) -> None:
        # Python ignores SIGXFSZ, so that a write fails as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))

    try:
        with pytest.raises(WriteError, match="free some space"):
            run(tmp_path / "7-train", progress=full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # The thread of the board's writer shows no traceback.
    assert not threads
    assert run(tmp_path / "7-train").steps == 9


def test_a_disk_that_refuses_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file stands here", encoding="utf-8")
    with pytest.raises(WriteError, match="cannot be written"):
        run(tmp_path)


def test_settings_win_over_the_student_s_defaults() -> None:
    student = tiny_student()
    recipe = Recipe.from_config(TrainConfig(lora_r=8, epochs=0.5, batch_size=6), student)
    assert (recipe.lora_r, recipe.lora_alpha) == (8, 16)
    assert (recipe.epochs, recipe.batch_size) == (0.5, 6)
    assert recipe.learning_rate == DEFAULTS.learning_rate
    assert Recipe.from_config(TrainConfig(lora_alpha=5), student).lora_alpha == 5


def test_a_long_default_is_cut_to_the_positions() -> None:
    roomy = replace(tiny_student(), defaults=replace(DEFAULTS, max_length=2048))
    assert Recipe.from_config(TrainConfig(), roomy).max_length == 64


def test_an_interrupted_write_of_the_adapter_leaves_none(
    done: tuple[Path, sft.TrainResult], tmp_path: Path
) -> None:
    shutil.copytree(done[0] / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / ".adapter.part").mkdir()
    (tmp_path / ".adapter.part" / "junk").write_text("x", encoding="utf-8")
    run(tmp_path)
    assert not (tmp_path / ".adapter.part").exists()
    assert not (tmp_path / "adapter" / "junk").exists()
    assert adapter_bytes(tmp_path) == adapter_bytes(done[0])
