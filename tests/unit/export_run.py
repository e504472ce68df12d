"""A run folder with a tiny trained student, without the time that training takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import export_students as tiny
import render_tokenizers as kit
import torch

from distill.config import Config
from distill.files import write_records
from distill.records import Case, Example, Message, Scenario, Target, ToolCall
from distill.run.folder import RunFolder
from distill.run.manifest import StageEntry
from distill.students.quiet import ignore_peft_warnings
from distill.workflow.model import CallSpec, Rule, RuleExample, Then, Workflow

WORKFLOW = Workflow(
    name="office",
    title="Office search",
    prose="",
    rules=(
        Rule(
            id="docs",
            title="Documents",
            when="Always.",
            then=Then(kind="call", calls=(CallSpec(tool=kit.TOOLS[0].name),), text="Call it."),
            examples=(RuleExample(text="How many sick days are there?"),),
            text="## docs",
        ),
    ),
    tools=kit.TOOLS,
    gold=(
        Case(id="g", messages=(Message(role="user", content="Where is the gate?"),), kind="answer"),
    ),
)
WORDS = ("meals", "travel", "weather", "policy", "project", "Lisbon")
MORE = ("limit", "data", "company", "search", "Zürich", "2024", "mail")


def example(text: str) -> Example:
    scenario = Scenario.of(
        rule="docs", target="call", tools=(kit.TOOLS[0].name,), style="plain", topic=text, seed=0
    )
    call = ToolCall(name=kit.TOOLS[0].name, arguments={"query": text})
    said = (Message(role="user", content=f"What of {text}?"),)
    return Example.of(scenario, said, Target(kind="call", calls=(call,)), "test")


def student_folder(family: str, folder: Path, **changes: Any) -> Path:
    tiny.model(family, **changes).save_pretrained(folder)
    tiny.tokenizer(family).save_pretrained(folder)
    return folder


def adapt(base: Any, folder: Path, seed: int = 0, **settings: Any) -> None:
    """Write an adapter of random weights that change what the student says."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    known = {"target_modules": "all-linear"} | settings
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=16, **known)
    with ignore_peft_warnings():
        model: Any = get_peft_model(base, lora)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * (0.1 if "lora" in name else 0.05))
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)


def make_run(path: Path, student: str, adapter: Callable[[Path], None], **train: Any) -> RunFolder:
    """A run whose stage train is done with what `adapter` writes."""
    train = {"student": student, "threads": 1} | train
    config = Config.load(None, {"train": train, "evaluate": {"max_new_tokens": 8}})
    run = RunFolder.create(path, WORKFLOW, config)
    rows = [example(f"{one} {other}") for one in WORDS for other in MORE]
    for name, some in (("train", rows[25:]), ("dev", rows[:3]), ("test", rows[3:25])):
        write_records(path / "6-split" / f"{name}.jsonl", some)
    adapter(path / "7-train" / "adapter")
    trained(run)
    return run


def trained(run: RunFolder, **counts: Any) -> None:
    """Remember the stage train as the pipeline does."""
    from distill.stages.stage import settings_of
    from distill.stages.train import STAGE

    entry = StageEntry(
        settings=settings_of(STAGE, run),
        inputs=run.digests(STAGE.reads),
        outputs=run.digests(STAGE.writes),
        counts={"trained": 7, "steps": 3, **counts},
        seconds=1.0,
    )
    run.remember("train", entry)
