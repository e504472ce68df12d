"""Training on a model of two layers: the loss falls, a kill costs nothing, nothing is lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.config import TrainConfig
from distill.errors import StudentError, WriteError
from distill.records import Example, Message, Reason, Scenario, Target, ToolCall
from distill.render import Renderer
from distill.students.base import Student, TrainDefaults
from distill.students.embedded import verified_folder
from distill.students.wordpiece import load_tokenizer
from distill.train import sft
from distill.train.checkpoints import newest_whole
from distill.workflow.model import Tool

TOOL = Tool(
    name="search_google",
    description="Search.",
    parameters={"type": "object", "properties": {"query": {"type": "string"}}},
)
WORDS = ["gold", "copper", "silver", "iron", "zinc", "lead", "tin", "nickel", "cobalt", "chrome"]
DEFAULTS = TrainDefaults(
    epochs=3, learning_rate=2e-2, batch_size=4, max_length=64, lora_r=4, lora_alpha=8
)
SETTINGS = TrainConfig(threads=1)


def tiny_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=30522,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
        )
    )


@pytest.fixture(scope="module")
def student() -> Student:
    return Student(
        name="tiny",
        tokenizer=load_tokenizer(verified_folder() / "vocab.txt", [TOOL]),
        declarations="none",
        defaults=DEFAULTS,
        fingerprint="tiny",
        context=64,
        read=tiny_model,
    )


@pytest.fixture(scope="module")
def renderer(student: Student) -> Renderer:
    return Renderer(student.tokenizer, [TOOL], declarations="none")


def example(prompt: str, query: str = "x") -> Example:
    scenario = Scenario.of(
        rule="r", target="call", tools=(TOOL.name,), style="plain", topic=prompt, seed=0
    )
    call = ToolCall(name=TOOL.name, arguments={"query": query})
    said = (Message(role="user", content=prompt),)
    return Example.of(scenario, said, Target(kind="call", calls=(call,)), "test")


TRAIN = [example(f"price of {word}", word) for word in WORDS]
DEV = [example(f"{word} price", word) for word in WORDS[:3]]


def run(
    student: Student,
    renderer: Renderer,
    folder: Path,
    *,
    train: list[Example] = TRAIN,
    dev: list[Example] = DEV,
    settings: TrainConfig = SETTINGS,
    progress: Any = lambda *_: None,
) -> sft.TrainResult:
    return sft.train(student, renderer, train, dev, settings, folder, progress=progress)


@pytest.fixture(scope="module")
def done(
    student: Student, renderer: Renderer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, sft.TrainResult]:
    folder = tmp_path_factory.mktemp("run") / "7-train"
    return folder, run(student, renderer, folder)


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


def test_nothing_is_said_on_stdout(
    student: Student, renderer: Renderer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(student, renderer, tmp_path)
    assert capfd.readouterr().out == ""


def test_progress_counts_every_step(student: Student, renderer: Renderer, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    run(student, renderer, tmp_path, progress=lambda *told: seen.append(told))
    assert [told[0] for told in seen] == list(range(10))
    assert {told[1] for told in seen} == {9}
    assert "dev" in seen[-1][2]


def test_a_seed_gives_the_same_adapter(
    student: Student, renderer: Renderer, done: tuple[Path, sft.TrainResult], tmp_path: Path
) -> None:
    run(student, renderer, tmp_path)
    assert adapter_bytes(tmp_path) == adapter_bytes(done[0])
    run(student, renderer, tmp_path / "other", settings=TrainConfig(threads=1, seed=1))
    assert adapter_bytes(tmp_path / "other") != adapter_bytes(done[0])


class Killed(BaseException):
    """As sudden as SIGKILL for whoever does not catch everything."""


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("at", [1, 4, 7])
def test_a_killed_training_ends_as_one_that_was_not(
    at: int,
    torn: bool,
    student: Student,
    renderer: Renderer,
    done: tuple[Path, sft.TrainResult],
    tmp_path: Path,
) -> None:
    def kill(step: int, *_: object) -> None:
        if step == at:
            raise Killed

    with pytest.raises(Killed):
        run(student, renderer, tmp_path, progress=kill)
    checkpoints = sorted((tmp_path / "checkpoints").glob("checkpoint-*"))
    assert len(checkpoints) == at // 3
    if torn and checkpoints:
        half = checkpoints[-1] / "optimizer.pt"
        half.write_bytes(half.read_bytes()[:1000])
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    again = run(student, renderer, moved)
    assert again.steps == 9
    assert again.curve == done[1].curve
    assert adapter_bytes(moved) == adapter_bytes(done[0])
    assert (moved / "metrics.jsonl").read_bytes() == (done[0] / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    "part", ["trainer_state.json", "scheduler.pt", "adapter_model.safetensors", "rng_state.pth"]
)
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_torn_checkpoint_is_passed_over(
    part: str, damage: str, student: Student, renderer: Renderer, tmp_path: Path
) -> None:
    run(student, renderer, tmp_path)
    folder = tmp_path / "checkpoints"
    first, last = sorted(folder.glob("checkpoint-*"))
    (last / part).write_bytes(b"") if damage == "cut" else (last / part).unlink()
    assert newest_whole(folder) == first
    assert not last.exists()


def test_rows_are_trained_or_rejected_never_cut(
    student: Student, renderer: Renderer, tmp_path: Path
) -> None:
    long, marked = example("gold " * 80), example("say <escape> twice")
    result = run(student, renderer, tmp_path, train=[*TRAIN, long, marked], dev=[*DEV, long])
    assert [rejection.reason for rejection in result.rejected] == [
        Reason.TOO_LONG_FOR_STUDENT,
        Reason.UNRENDERABLE,
        Reason.TOO_LONG_FOR_STUDENT,
    ]
    assert result.trained + result.dev + len(result.rejected) == len(TRAIN) + len(DEV) + 3
    assert result.counts["rejected"] == {"too_long_for_student": 2, "unrenderable": 1}
    assert "and 64 fit" in result.rejected[0].detail


def test_without_dev_rows_the_last_adapter_is_kept(
    student: Student, renderer: Renderer, tmp_path: Path
) -> None:
    result = run(student, renderer, tmp_path, dev=[])
    assert result.best_dev_loss is None
    assert adapter_bytes(tmp_path)


@pytest.mark.parametrize(
    ("rows", "says"),
    [([], "no example to train on"), ([example("gold " * 80)], "none of the 1 training examples")],
)
def test_nothing_to_train_on_has_a_way_out(
    rows: list[Example], says: str, student: Student, renderer: Renderer, tmp_path: Path
) -> None:
    with pytest.raises(StudentError, match=says):
        run(student, renderer, tmp_path, train=rows)


def test_more_tokens_than_positions_are_refused(
    student: Student, renderer: Renderer, tmp_path: Path
) -> None:
    with pytest.raises(StudentError, match="has 64 positions"):
        run(student, renderer, tmp_path, settings=TrainConfig(max_length=65))


def test_a_disk_that_refuses_is_a_write_error(
    student: Student, renderer: Renderer, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").write_text("a file stands here", encoding="utf-8")
    with pytest.raises(WriteError, match="cannot be written"):
        run(student, renderer, tmp_path)


def test_settings_win_over_the_student_s_defaults(student: Student) -> None:
    recipe = sft.Recipe.of(TrainConfig(lora_r=8, epochs=0.5, batch_size=6), student)
    assert (recipe.lora_r, recipe.lora_alpha) == (8, 16)
    assert (recipe.epochs, recipe.batch_size) == (0.5, 6)
    assert recipe.learning_rate == DEFAULTS.learning_rate
    assert sft.Recipe.of(TrainConfig(lora_alpha=5), student).lora_alpha == 5


def test_a_long_default_is_cut_to_the_positions(student: Student) -> None:
    roomy = replace(student, defaults=replace(DEFAULTS, max_length=2048))
    assert sft.Recipe.of(TrainConfig(), roomy).max_length == 64


def test_the_loss_is_trl_s(student: Student, renderer: Renderer) -> None:
    from transformers import DataCollatorForSeq2Seq

    from distill.train.rows import render_rows
    from distill.train.trainer import token_losses

    model = tiny_model()
    rows = render_rows(TRAIN, renderer, 64).kept
    collate = DataCollatorForSeq2Seq(student.tokenizer, padding="longest")
    batch = collate(list(sft._dataset(rows)))
    labels = batch["labels"]
    whole = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = torch.nn.functional.cross_entropy(
        whole[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
    )
    torch.testing.assert_close(token_losses(model, dict(batch)).sum(), expected)


def test_the_first_token_of_an_answer_can_weigh_more(student: Student, renderer: Renderer) -> None:
    from distill.train.rows import render_rows
    from distill.train.trainer import token_losses

    row = render_rows(TRAIN[:1], renderer, 64).kept[0]
    labels = [token if said else -100 for token, said in zip(row.ids, row.mask, strict=True)]
    batch = {"input_ids": torch.tensor([row.ids]), "labels": torch.tensor([labels])}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    model = tiny_model()
    plain, weighted = token_losses(model, batch), token_losses(model, batch, 4.0)
    torch.testing.assert_close(weighted[0], 4 * plain[0])
    torch.testing.assert_close(weighted[1:], plain[1:])


@pytest.mark.parametrize(("batch", "part"), [(32, 16), (16, 16), (7, 7), (34, 2), (18, 9), (1, 1)])
def test_a_batch_is_computed_in_equal_parts(batch: int, part: int) -> None:
    assert sft._part(batch) == part


def test_an_interrupted_write_of_the_adapter_leaves_none(
    student: Student, renderer: Renderer, done: tuple[Path, sft.TrainResult], tmp_path: Path
) -> None:
    shutil.copytree(done[0] / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / ".adapter.part").mkdir()
    (tmp_path / ".adapter.part" / "junk").write_text("x", encoding="utf-8")
    run(student, renderer, tmp_path)
    assert not (tmp_path / ".adapter.part").exists()
    assert not (tmp_path / "adapter" / "junk").exists()
    assert adapter_bytes(tmp_path) == adapter_bytes(done[0])
