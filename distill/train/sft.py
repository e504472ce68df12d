"""Splits to adapter: LoRA by PEFT, the loop by TRL, on rows that distill rendered itself."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config import TrainConfig
from distill.errors import StudentError, WriteError
from distill.records import Example, Json, Rejection
from distill.render import Rendered, Renderer
from distill.students.base import Student, TrainDefaults
from distill.students.quiet import hush_transformers, no_telemetry, peft_warnings_ignored
from distill.train.rows import Rows, render_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill.train.trainer import RoutingTrainer
    from distill.train.watch import Curve, Progress

_MOST_AT_ONCE = 16
_KEPT_CHECKPOINTS = 2
"""The best one, and the one to go on from."""


@dataclass(frozen=True)
class TrainResult:
    """What a training did. Rows that came in = `trained` + `dev` + rejected ones."""

    trained: int
    dev: int
    rejected: list[Rejection]
    steps: int
    seconds: float
    """Of this process; one that went on from a checkpoint counts from there."""
    best_dev_loss: float | None
    """Of the adapter that was kept; None without dev rows."""
    curve: Curve

    @property
    def counts(self) -> Json:
        reasons = Counter(rejection.reason.value for rejection in self.rejected)
        return {
            "trained": self.trained,
            "dev": self.dev,
            "rejected": dict(sorted(reasons.items())),
            "steps": self.steps,
            "best_dev_loss": self.best_dev_loss,
        }


@dataclass(frozen=True)
class Recipe:
    """The settings in force: what distill.toml says, else what is sensible for the student."""

    defaults: TrainDefaults
    seed: int
    epochs: float
    learning_rate: float
    batch_size: int
    max_length: int
    lora_r: int
    lora_alpha: int

    @classmethod
    def of(cls, settings: TrainConfig, student: Student) -> Recipe:
        """Raises StudentError for more tokens than the student has positions."""
        defaults = student.defaults

        def chosen(name: str) -> Any:
            value = getattr(settings, name)
            return getattr(defaults, name) if value is None else value

        max_length = chosen("max_length")
        if settings.max_length is not None and max_length > student.context:
            raise StudentError(
                f"has {student.context} positions, and max_length is {max_length}",
                place=student.name,
                hint=f"set max_length to at most {student.context}, or choose another student",
            )
        alpha = settings.lora_alpha
        if alpha is None:
            # A rank of one's own keeps the student's ratio of scale to rank.
            alpha = max(1, round(defaults.lora_alpha / defaults.lora_r * chosen("lora_r")))
        return cls(
            defaults=defaults,
            seed=settings.seed,
            epochs=chosen("epochs"),
            learning_rate=chosen("learning_rate"),
            batch_size=chosen("batch_size"),
            max_length=min(max_length, student.context),
            lora_r=chosen("lora_r"),
            lora_alpha=alpha,
        )


def train(
    student: Student,
    renderer: Renderer,
    train: Sequence[Example],
    dev: Sequence[Example],
    settings: TrainConfig,
    folder: Path,
    *,
    progress: Progress,
) -> TrainResult:
    """Tune `student` on `train` and keep the adapter that is best on `dev`.

    Writes adapter/, metrics.jsonl, loss.png and tensorboard/ into `folder`, and goes on from
    checkpoints/ where there are any: they must be of the same settings and rows.
    Raises StudentError when no row is left to train on, WriteError when the disk is full.
    """
    began = time.monotonic()
    recipe = Recipe.of(settings, student)
    rows = render_rows(train, renderer, recipe.max_length)
    dev_rows = render_rows(dev, renderer, recipe.max_length)
    _require_rows(rows, len(train), recipe.max_length)
    set_threads(settings.threads)
    trainer = _run(student, recipe, rows.kept, dev_rows.kept, folder, progress)
    from distill.train.watch import loss_curve, plot_losses

    curve = loss_curve(trainer.state.log_history)
    plot_losses(curve, folder / "loss.png")
    return TrainResult(
        trained=len(rows.kept),
        dev=len(dev_rows.kept),
        rejected=rows.rejected + dev_rows.rejected,
        steps=trainer.state.global_step,
        seconds=time.monotonic() - began,
        best_dev_loss=min((point.loss for point in curve.dev), default=None),
        curve=curve,
    )


def set_threads(threads: int) -> None:
    """Let torch compute with so many threads; 0 means every core that this process may use."""
    import torch

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))


def _require_rows(rows: Rows, asked: int, max_length: int) -> None:
    if rows.kept:
        return
    if not asked:
        raise StudentError(
            "there is no example to train on",
            place="6-split/train.jsonl",
            hint="make more data: distill gen with a larger --target",
        )
    first = rows.rejected[0]
    raise StudentError(
        f"none of the {asked} training examples fits the student: {first.reason}: {first.detail}",
        place="6-split/train.jsonl",
        hint=f"raise max_length above {max_length}, shorten the declarations, "
        "or choose a student with more positions",
    )


def _trainer(
    student: Student,
    recipe: Recipe,
    rows: Sequence[Rendered],
    dev: Sequence[Rendered],
    folder: Path,
    progress: Progress,
) -> RoutingTrainer:
    no_telemetry()
    hush_transformers()
    from torch.utils.tensorboard import SummaryWriter
    from transformers import PrinterCallback
    from transformers.integrations.integration_utils import TensorBoardCallback

    from distill.train.trainer import RoutingTrainer
    from distill.train.watch import Watch

    trainer = RoutingTrainer(
        model=_with_lora(student.read(), recipe),
        args=_arguments(recipe, folder, len(rows), has_dev=bool(dev)),
        train_dataset=_dataset(rows),
        eval_dataset=_dataset(dev) if dev else None,
        processing_class=student.tokenizer,
        callbacks=[
            Watch(progress, folder / "metrics.jsonl"),
            TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"))),  # type: ignore[no-untyped-call]
        ],
    )
    trainer.first_token_weight = recipe.defaults.first_token_weight
    # It prints each log on stdout, which belongs to results.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _with_lora(model: PreTrainedModel, recipe: Recipe) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    target = recipe.defaults.target_modules
    set_seed(recipe.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        target_modules=target if isinstance(target, str) else list(target),
        modules_to_save=list(recipe.defaults.modules_to_save) or None,
    )
    with peft_warnings_ignored():
        return get_peft_model(model, config)


def _arguments(recipe: Recipe, folder: Path, rows: int, *, has_dev: bool) -> Any:
    import torch
    from trl.trainer.sft_config import SFTConfig

    on_gpu = torch.cuda.is_available()
    part = _part(recipe.batch_size)
    steps = max(1, round(-(-rows // recipe.batch_size) * recipe.epochs))
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        seed=recipe.seed,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.defaults.scheduler,
        warmup_steps=round(steps * recipe.defaults.warmup),
        per_device_train_batch_size=part,
        gradient_accumulation_steps=recipe.batch_size // part,
        per_device_eval_batch_size=part,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch" if has_dev else "no",
        save_strategy="epoch",
        save_total_limit=_KEPT_CHECKPOINTS,
        load_best_model_at_end=has_dev,
        metric_for_best_model="eval_loss" if has_dev else None,
        greater_is_better=False if has_dev else None,
        logging_steps=1,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        activation_checkpointing=False,
        dataloader_pin_memory=on_gpu,
        disable_tqdm=True,
        report_to="none",
        # The rows are rendered and measured: TRL is to neither cut, shuffle nor drop them.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def _part(batch: int) -> int:
    """Rows computed together: the largest divisor of `batch` up to 16.

    Logits of more rows over a vocabulary of 30,000 outgrow a processor's cache, and what the C
    library keeps at hand instead of asking the system for memory each time.
    """
    return max(part for part in range(1, min(batch, _MOST_AT_ONCE) + 1) if batch % part == 0)


def _dataset(rows: Sequence[Rendered]) -> Any:
    from datasets import Dataset  # type: ignore[import-untyped]

    return Dataset.from_dict(
        {
            "input_ids": [row.ids for row in rows],
            "labels": [
                [token if said else -100 for token, said in zip(row.ids, row.mask, strict=True)]
                for row in rows
            ],
        }
    )


def _run(
    student: Student,
    recipe: Recipe,
    rows: Sequence[Rendered],
    dev: Sequence[Rendered],
    folder: Path,
    progress: Progress,
) -> RoutingTrainer:
    """Train to the end, and save the adapter whole or not at all."""
    from safetensors import SafetensorError

    from distill.train.checkpoints import newest_whole

    try:
        start = newest_whole(folder / "checkpoints")
        trainer = _trainer(student, recipe, rows, dev, folder, progress)
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        _save_adapter(trainer, folder / "adapter")
    except OSError as error:
        raise WriteError.from_os(error, folder) from None
    except SafetensorError as error:
        raise WriteError(
            f"the weights cannot be written: {error}",
            place=folder,
            hint="free some space, then run the same command again: it goes on",
        ) from None
    return trainer


def _save_adapter(trainer: RoutingTrainer, adapter: Path) -> None:
    draft = adapter.with_name(".adapter.part")
    shutil.rmtree(draft, ignore_errors=True)
    parts: tuple[Any, ...] = (trainer.model, trainer.processing_class)
    for part in parts:
        part.save_pretrained(str(draft))
    # PEFT's card is an empty form that names the folder the weights came from.
    (draft / "README.md").unlink(missing_ok=True)
    shutil.rmtree(adapter, ignore_errors=True)
    draft.rename(adapter)
