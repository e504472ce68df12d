"""Short trainings of a tiny model on rows that begin alike, in this process or in several.

Run as a program it is one of several processes: `python -m kit.sharing OUT`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from kit.rows import decision, mixed_rows, tiny, with_lora
from kit.together import meeting

STEPS = 20
_TIMES = ("runtime", "per_second")


def made(
    kind: Any,
    folder: Path,
    *,
    model: Any = None,
    accumulation: int = 1,
    steps: int = STEPS,
    checkpointing: bool = False,
    weight: float = 1.0,
    **attributes: Any,
) -> Any:
    """A trainer of 32 rows, 8 a step, that evaluates every 5."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl.trainer.sft_config import SFTConfig

    from distill.students.quiet import silence_transformers

    silence_transformers()
    rows = [row for seed in range(3) for row in mixed_rows(seed)][:32]
    data = Dataset.from_list(
        [
            {
                "input_ids": row.ids,
                "labels": row.labels,
                "decision": decision(torch.tensor(row.labels)).tolist(),
            }
            for row in rows
        ]
    )
    world = int(os.environ.get("WORLD_SIZE", "1"))
    settings = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=8 // accumulation // world,
        gradient_accumulation_steps=accumulation,
        per_device_eval_batch_size=4,
        max_steps=steps,
        learning_rate=1e-3,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=checkpointing,
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        save_strategy="no",
        eval_strategy="steps",
        eval_steps=5,
        lr_scheduler_type="constant",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = kind(
        model=model if model is not None else tiny("gemma3-16"),
        args=settings,
        train_dataset=data,
        eval_dataset=data.select(range(12)),
        processing_class=_tokenizer(),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.decision_weight = weight
    for name, value in attributes.items():
        setattr(trainer, name, value)
    return trainer


def _tokenizer() -> Any:
    """What the trainer asks for the token that pads, and nothing else."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def trained(kind: Any, folder: Path, **settings: Any) -> Any:
    trainer = made(kind, folder, **settings)
    trainer.train()
    return trainer


def log_of(trainer: Any) -> list[dict[str, float]]:
    """What was logged at each step and evaluation, times aside."""
    return [
        {name: value for name, value in entry.items() if not name.endswith(_TIMES)}
        for entry in trainer.state.log_history
        if "train_runtime" not in entry
    ]


JOBS: dict[str, dict[str, Any]] = {
    "cache": {"accumulation": 1},
    "chunks": {"accumulation": 4, "rows_at_once": 1},
    "flat": {"accumulation": 1, "prefix_sharing": "flat"},
}
"""Trainings that are to end alike in one process and in two."""


def jobs(out: Path) -> dict[str, Any]:
    """For each job its log and its weights."""
    from distill.train.trainer import RoutingTrainer

    found = {}
    for name, settings in JOBS.items():
        model = with_lora(tiny("gemma3-16"))
        # A weight that nothing uses, for which no gradient comes.
        model.idle = torch.nn.Parameter(torch.ones(2))
        trainer = trained(RoutingTrainer, out, model=model, steps=2, **settings)
        assert trainer.sharing_mode == settings.get("prefix_sharing", "cache")
        weights = [w.detach().flatten() for w in trainer.model.parameters() if w.requires_grad]
        found[name] = {"log": log_of(trainer), "weights": torch.cat(weights)}
    return found


def processes(count: int, out: Path, timeout: float = 240) -> dict[str, Any]:
    """What so many processes find that do the jobs together."""
    out.mkdir()
    tests = str(Path(__file__).parents[1])
    with meeting(count) as environment:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "kit.sharing", str(out)],
                env={**os.environ, **environment, "PYTHONPATH": tests, "RANK": r, "LOCAL_RANK": r},
                stderr=subprocess.PIPE,
                text=True,
            )
            for r in map(str, range(count))
        ]
        try:
            errors = [process.communicate(timeout=timeout)[1] for process in started]
        finally:
            for process in started:
                process.kill()
    assert not any(process.returncode for process in started), "\n".join(errors)
    found: dict[str, Any] = torch.load(out / "found.pt")
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    own = jobs(folder)
    if os.environ["RANK"] == "0":
        torch.save(own, folder / "found.pt")
