"""A student of two layers and a few rows: what tests of training train, alone or together."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from distill.config import TrainConfig
from distill.records import Example, Message, Scenario, Target, ToolCall
from distill.render import Renderer
from distill.students.base import Student, TrainDefaults
from distill.students.embedded import verified_folder
from distill.students.wordpiece import load_tokenizer
from distill.train import sft
from distill.workflow.model import Tool

TOOL = Tool(
    name="search_google",
    description="Search.",
    parameters={"type": "object", "properties": {"query": {"type": "string"}}},
)
RULES = Path(__file__).parents[2] / "schemas" / "knowledge_router" / "rules.md"
WORDS = ["gold", "copper", "silver", "iron", "zinc", "lead", "tin", "nickel", "cobalt", "chrome"]
DEFAULTS = TrainDefaults(
    epochs=3, learning_rate=2e-2, batch_size=4, max_length=64, lora_r=4, lora_alpha=8
)
SETTINGS = TrainConfig(threads=1)


def tiny_model(weights: Path | None = None) -> Any:
    """The same random weights each time, or those in a folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if weights is not None:
        return LlamaForCausalLM.from_pretrained(weights)
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


def tiny_student() -> Student:
    return Student(
        name="tiny",
        tokenizer=load_tokenizer(verified_folder() / "vocab.txt", [TOOL]),
        declarations="none",
        defaults=DEFAULTS,
        fingerprint="tiny",
        context_length=64,
        load_weights=tiny_model,
    )


def tiny_renderer(student: Student) -> Renderer:
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


def train_tiny(
    folder: Path,
    settings: TrainConfig = SETTINGS,
    *,
    train: list[Example] = TRAIN,
    dev: list[Example] = DEV,
    progress: Any = lambda *_: None,
    notice: Any = lambda _: None,
    student: Student | None = None,
) -> sft.TrainResult:
    """The tiny student on ten rows; three epochs of steps of four rows, unless told otherwise."""
    student = student or tiny_student()
    renderer = tiny_renderer(student)
    return sft.train(
        student, renderer, train, dev, settings, folder, progress=progress, notice=notice
    )


def made_run(base: Path) -> Path:
    """A run folder below `base` that has its data, ten rows of gold and a tiny student."""
    from distill.cli.main import cli

    shutil.copytree(RULES.parent, base / "workflow")
    gold = base / "workflow" / "gold.jsonl"
    gold.write_text("".join(gold.read_text("utf-8").splitlines(keepends=True)[::12]), "utf-8")
    tiny_model().save_pretrained(base / "student")
    tiny_student().tokenizer.save_pretrained(base / "student")
    settings = f'[train]\nstudent = "{base / "student"}"\nbatch_size = 8\ndeclarations = "none"\n'
    (base / "distill.toml").write_text(settings, "utf-8")
    run, config = str(base / "run"), str(base / "distill.toml")
    rules = str(base / "workflow" / RULES.name)
    asked = ["gen", "--rules", rules, "--out", run, "--target", "20", "--config", config]
    cli(asked, standalone_mode=False)
    return base / "run"
