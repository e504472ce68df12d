"""The resolved settings of one training, and the SFTConfig that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill.config import TrainConfig
from distill.errors import StudentError
from distill.students.base import Student, TrainDefaults, cpu_supports_bf16, gpu_supports_bf16
from distill.train.processes import ProcessRank

SAVE_TOTAL_LIMIT = 2
"""The best checkpoint, and the last one, to resume from."""


@dataclass(frozen=True)
class Recipe:
    """Each setting as given in the config, else the student's default."""

    defaults: TrainDefaults
    seed: int
    epochs: float
    learning_rate: float
    batch_size: int
    """Rows per optimizer step, over all processes."""
    max_length: int
    lora_r: int
    lora_alpha: int
    decision_weight: float
    tuning: Literal["lora", "full"]
    prefix_sharing: str
    rows_at_once: int
    bf16: bool
    """Mixed precision: computed in bf16, trained weights in fp32."""
    gradient_checkpointing: bool
    """Whether activations are recomputed in the backward pass instead of kept."""

    @classmethod
    def from_config(cls, settings: TrainConfig, student: Student) -> Recipe:
        """Raises StudentError where max_length exceeds the student's context length."""
        defaults = student.defaults

        def resolved(name: str) -> Any:
            value = getattr(settings, name)
            return getattr(defaults, name) if value is None else value

        max_length = resolved("max_length")
        if settings.max_length is not None and max_length > student.context_length:
            raise StudentError(
                f"has {student.context_length} positions, and max_length is {max_length}",
                place=student.name,
                hint=f"set max_length to at most {student.context_length}, "
                "or choose another student",
            )
        alpha = settings.lora_alpha
        if alpha is None:
            # Another rank keeps the student's ratio of alpha to rank.
            alpha = max(1, round(defaults.lora_alpha / defaults.lora_r * resolved("lora_r")))
        rate = settings.learning_rate
        return cls(
            defaults=defaults,
            seed=settings.seed,
            epochs=resolved("epochs"),
            learning_rate=defaults.peak_learning_rate(settings.tuning) if rate is None else rate,
            batch_size=resolved("batch_size"),
            max_length=min(max_length, student.context_length),
            lora_r=resolved("lora_r"),
            lora_alpha=alpha,
            decision_weight=resolved("decision_weight"),
            tuning=settings.tuning,
            prefix_sharing=settings.prefix_sharing,
            rows_at_once=settings.rows_at_once,
            bf16=_use_bf16(settings, defaults),
            gradient_checkpointing=settings.gradient_checkpointing == "on",
        )

    def micro_batch_size(self, process: ProcessRank) -> int:
        """How many of its rows of a step a process gives to the trainer at a time.

        In cache mode all of them: the prefix is then computed once per step, and the trainer itself
        holds at most `rows_at_once` of them.
        """
        share = -(-self.batch_size // process.world_size)
        no_cache = self.prefix_sharing in ("flat", "off") or self.gradient_checkpointing
        return min(share, self.rows_at_once) if no_cache or process.sharded else share

    def accumulation_steps(self, process: ProcessRank) -> int:
        """The number of micro-batches of each process in an optimizer step."""
        share = -(-self.batch_size // process.world_size)
        return -(-share // self.micro_batch_size(process))


def _use_bf16(settings: TrainConfig, defaults: TrainDefaults) -> bool:
    if settings.precision != "auto":
        return settings.precision == "bf16"
    return gpu_supports_bf16() or (defaults.bf16_on_cpu and cpu_supports_bf16())


def require_valid_world_size(process: ProcessRank, recipe: Recipe) -> None:
    """Raise StudentError for more processes than rows in a step, and for FSDP without a GPU.

    Without a GPU, accelerate silently ignores that it should shard the weights.
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


def sft_config(
    recipe: Recipe, folder: Path, rows: int, process: ProcessRank, *, has_dev: bool
) -> Any:
    """The SFTConfig of a training of `rows` rows that writes checkpoints into `folder`."""
    import torch
    from trl.trainer.sft_config import SFTConfig

    on_gpu = torch.cuda.is_available()
    micro_batch_size = recipe.micro_batch_size(process)
    steps = max(1, round(-(-rows // recipe.batch_size) * recipe.epochs))
    config = SFTConfig(
        output_dir=str(folder / "checkpoints"),
        seed=recipe.seed,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.defaults.scheduler,
        warmup_steps=round(steps * recipe.defaults.warmup),
        per_device_train_batch_size=micro_batch_size,
        gradient_accumulation_steps=recipe.accumulation_steps(process),
        per_device_eval_batch_size=micro_batch_size,
        eval_strategy="epoch" if has_dev else "no",
        save_strategy="epoch",
        save_total_limit=SAVE_TOTAL_LIMIT,
        load_best_model_at_end=has_dev,
        metric_for_best_model="eval_loss" if has_dev else None,
        greater_is_better=False if has_dev else None,
        logging_steps=1,
        # It would log a loss of zero for NaN.
        logging_nan_inf_filter=False,
        use_cpu=not on_gpu,
        bf16=recipe.bf16,
        activation_checkpointing=recipe.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False}
        if recipe.gradient_checkpointing
        else None,
        # Every trained weight is used in every pass.
        ddp_find_unused_parameters=False,
        log_level_replica="error",
        dataloader_pin_memory=on_gpu,
        disable_tqdm=True,
        report_to="none",
        # The rows are tokenized and filtered by length: TRL must not truncate or drop any.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    if config.n_gpu > 1:
        # One GPU per process: torch's DataParallel copies the model in every step.
        config._n_gpu = 1
    return config
