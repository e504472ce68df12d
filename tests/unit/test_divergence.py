"""A training that diverges is no student: one error, nothing done, no NaN in any file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.training import DEV, TRAIN, made_run, tiny_model, tiny_student, train_tiny

from distill import strict_json
from distill.cli.main import cli
from distill.config import TrainConfig
from distill.errors import AlteredRunError, DivergenceError, StudentError, WriteError
from distill.files import write_json, write_lines, write_records
from distill.records import Record
from distill.run.folder import RunFolder
from distill.strict_json import JsonError

HUGE = TrainConfig(threads=1, learning_rate=1e30)
NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("epochs", "dev", "step"),
    [
        (3, DEV, "the loss is nan at step 3 of 9"),
        (0.3, DEV, "the dev loss is nan at step 1 of 1"),
        (0.3, [], "the loss is nan after step 1, the last one"),
    ],
)
def test_a_diverged_training_stops_and_leaves_no_student(
    epochs: float, dev: list[Any], step: str, tmp_path: Path
) -> None:
    settings = HUGE.model_copy(update={"epochs": epochs})
    with pytest.raises(DivergenceError) as caught:
        train_tiny(tmp_path, settings, dev=dev)
    assert str(caught.value) == (
        f"{tmp_path}: the training diverged: {step}\n"
        "  the learning rate 1e+30 is too high: --learning-rate 0.02"
    )
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "checkpoints").exists()
    for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines():
        strict_json.decode(line)


def test_weights_that_are_not_finite_are_no_student(tmp_path: Path) -> None:
    """Here no loss sees them: no row has the token."""

    def load() -> Any:
        model = tiny_model()
        with torch.no_grad():
            model.get_input_embeddings().weight[-1] = math.inf
        return model

    student = replace(tiny_student(), load_weights=load)
    settings = TrainConfig(threads=1, tuning="full", epochs=1)
    with pytest.raises(DivergenceError, match="weights are not finite"):
        train_tiny(tmp_path, settings, dev=[], student=student)
    load().save_pretrained(tmp_path / "whole")
    whole = replace(student, load_weights=tiny_model)
    with pytest.raises(StudentError, match="not finite"):
        whole.load(tmp_path / "whole")


def test_a_student_without_finite_loss_is_told_before_a_step(tmp_path: Path) -> None:
    def load() -> Any:
        model = tiny_model()
        torch.nn.init.constant_(model.lm_head.weight, math.nan)
        return model

    student = replace(tiny_student(), load_weights=load)
    with pytest.raises(DivergenceError, match=r"at step 1 of 9[\s\S]*no step was taken yet"):
        train_tiny(tmp_path, student=student)


def test_the_command_says_it_and_a_lower_rate_needs_no_redo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(made_run(tmp_path))
    train = ["train", run, "--epochs", "1", "--threads", "1", "--learning-rate"]
    with pytest.raises(DivergenceError, match=r"the loss is nan at step \d of 3"):
        cli([*train, "1e30"], standalone_mode=False)
    assert "train" not in RunFolder.open(Path(run)).manifest.stages
    cli([*train, "1e-3"], standalone_mode=False)
    assert "train" in RunFolder.open(Path(run)).manifest.stages
    older_distill_recorded_nan(Path(run))
    capsys.readouterr()
    for command in (["status", run], ["eval", run], ["export", run], ["report", run], train[:2]):
        with pytest.raises(AlteredRunError) as caught:
            cli(command, standalone_mode=False)
        assert f"distill train {run} --redo --learning-rate" in str(caught.value)
        assert "a training that diverged (train)" in str(caught.value)
    cli([*train, "1e-3", "--redo"], standalone_mode=False)
    assert "train" in RunFolder.open(Path(run)).manifest.stages
    cli(["status", run], standalone_mode=False)


def older_distill_recorded_nan(run: Path) -> None:
    path = run / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["stages"]["train"]["counts"]["best_dev_loss"] = math.nan
    path.write_text(json.dumps(manifest), "utf-8")


def test_a_metric_without_a_value_is_null(tmp_path: Path) -> None:
    """Logits of -inf, as of padded vocabulary, are no reason to stop."""

    def load() -> Any:
        model = tiny_model()
        forward = model.lm_head.forward

        def padded(hidden: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = forward(hidden)
            return torch.cat([logits[..., :-1], torch.full_like(logits[..., -1:], -torch.inf)], -1)

        model.lm_head.forward = padded
        return model

    student = replace(tiny_student(), load_weights=load)
    settings = TrainConfig(threads=1, tuning="full", epochs=0.3)
    result = train_tiny(tmp_path, settings, train=TRAIN[:4], dev=[], student=student)
    (row,) = map(strict_json.decode, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert row["loss"] == result.curve.train[0].loss
    assert row["entropy"] > 0


# --- no file holds what is no JSON ---


@given(st.recursive(st.none() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_what_is_written_is_read_back_or_refused(value: Any) -> None:
    try:
        text = strict_json.encode(value)
    except JsonError:
        assert any(word in json.dumps(value) for word in ("NaN", "Infinity"))
    else:
        assert strict_json.decode(text) == value


class Number(Record):
    number: Any


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_writer_refuses_it_and_leaves_the_file(value: float, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("before", "utf-8")
    for write in (
        lambda: write_json(path, {"deep": [value]}),
        lambda: write_records(path, [Number(number=1), Number(number=value)]),
        lambda: write_lines(path, (strict_json.encode(value) for _ in range(1))),
    ):
        with pytest.raises(WriteError, match="not finite"):
            write()
    assert [each.name for each in tmp_path.iterdir()] == ["file.json"]
    assert path.read_text("utf-8") == "before"
