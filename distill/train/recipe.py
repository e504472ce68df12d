"""The settings in force for one training, and what they come to for TRL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill.config import TrainConfig
from distill.errors import StudentError
from distill.students.base import Student, TrainDefaults, cpu_supports_bf16, gpu_supports_bf16
from distill.train.processes import ProcessRank

KEPT_CHECKPOINTS = 2
"""The best one, and the one to go on from."""


@dataclass(frozen=True)
class Recipe:
    """The settings in force: what distill.toml says, else what is sensible for the student."""

    defaults: TrainDefaults
    seed: int
    epochs: float
    learning_rate: float
    batch_size: int
    """Rows per optimizer step, over all processes."""
    max_length: int
    lora_r: int
    lora_alpha: int
    tuning: Literal["lora", "full"]
    prefix_sharing: str
    rows_at_once: int
    bf16: bool
    """Whether it is computed in bf16, beside weights in fp32."""
    checkpointing: bool
    """Whether activations are computed again in the backward pass instead of kept."""

    @classmethod
    def of(cls, settings: TrainConfig, student: Student) -> Recipe:
        """Raises StudentError for more tokens than the student has positions."""
        defaults = student.defaults

        def chosen(name: str) -> Any:
            value = getattr(settings, name)
            return getattr(defaults, name) if value is None else value

        max_length = chosen("max_length")
        if settings.max_length is not None and max_length > student.context_length:
            raise StudentError(
                f"has {student.context_length} positions, and max_length is {max_length}",
                place=student.name,
                hint=f"set max_length to at most {student.context_length}, "
                "or choose another student",
            )
        alpha = settings.lora_alpha
        if alpha is None:
            # A rank of one's own keeps the student's ratio of scale to rank.
            alpha = max(1, round(defaults.lora_alpha / defaults.lora_r * chosen("lora_r")))
        rate = settings.learning_rate
        return cls(
            defaults=defaults,
            seed=settings.seed,
            epochs=chosen("epochs"),
            learning_rate=defaults.rate(settings.tuning) if rate is None else rate,
            batch_size=chosen("batch_size"),
            max_length=min(max_length, student.context_length),
            lora_r=chosen("lora_r"),
            lora_alpha=alpha,
            tuning=settings.tuning,
            prefix_sharing=settings.prefix_sharing,
            rows_at_once=settings.rows_at_once,
            bf16=_in_bf16(settings, defaults),
            checkpointing=settings.gradient_checkpointing == "on",
        )

    def part(self, process: ProcessRank) -> int:
        """How many of its rows of a step a process hands to the trainer at a time.

        All of them where the beginning is shared through a cache: it is then computed once a step,
        and the trainer holds no more than `rows_at_once` of them itself.
        """
        own = -(-self.batch_size // process.world_size)
        one_pass = self.prefix_sharing in ("flat", "off") or self.checkpointing or process.sharded
        return min(own, self.rows_at_once) if one_pass else own

    def parts(self, process: ProcessRank) -> int:
        """In how many parts a process computes its rows of a step."""
        own = -(-self.batch_size // process.world_size)
        return -(-own // self.part(process))


def _in_bf16(settings: TrainConfig, defaults: TrainDefaults) -> bool:
    if settings.precision != "auto":
        return settings.precision == "bf16"
    return gpu_supports_bf16() or (defaults.bf16_on_cpu and cpu_supports_bf16())


def require_valid_world_size(process: ProcessRank, recipe: Recipe) -> None:
    """Raise StudentError when there are more processes than rows in a step, or none can be shared.

    On processors, accelerate would quietly keep whole weights where it was told to shard them.
    """
    import torch

    if process.world_size > recipe.batch_size:
        raise StudentError(
            f"{process.world_size} processes cannot share steps of {recipe.batch_size} rows",
            place="batch_size",
            hint=f"start at most {recipe.batch_size}, or raise it",
        )
    if process.sharded and not torch.cuda.is_available():
        raise StudentError(
            "FSDP was asked for, and accelerate shards weights on accelerators only",
            place="--use_fsdp",
            hint="leave it out: each process then holds all weights",
        )


def arguments(
    recipe: Recipe, folder: Path, rows: int, process: ProcessRank, *, has_dev: bool
) -> Any:
    """The SFTConfig of a training of so many rows."""
    import torch
    from trl.trainer.sft_config import SFTConfig

    on_gpu = torch.cuda.is_available()
    part = recipe.part(process)
    steps = max(1, round(-(-rows // recipe.batch_size) * recipe.epochs))
    config = SFTConfig(
        output_dir=str(folder / "checkpoints"),
        seed=recipe.seed,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.defaults.scheduler,
        warmup_steps=round(steps * recipe.defaults.warmup),
        per_device_train_batch_size=part,
        gradient_accumulation_steps=recipe.parts(process),
        per_device_eval_batch_size=part,
        eval_strategy="epoch" if has_dev else "no",
        save_strategy="epoch",
        save_total_limit=KEPT_CHECKPOINTS,
        load_best_model_at_end=has_dev,
        metric_for_best_model="eval_loss" if has_dev else None,
        greater_is_better=False if has_dev else None,
        logging_steps=1,
        use_cpu=not on_gpu,
        bf16=recipe.bf16,
        activation_checkpointing=recipe.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if recipe.checkpointing else None,
        # Every weight is used in every pass: torch need not look for those that are not.
        ddp_find_unused_parameters=False,
        log_level_replica="error",
        dataloader_pin_memory=on_gpu,
        disable_tqdm=True,
        report_to="none",
        # The rows are rendered and measured: TRL is to neither cut, shuffle nor drop them.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    if config.n_gpu > 1:
        # One process takes one GPU; torch's DataParallel copies the model in every step.
        config._n_gpu = 1
    return config
