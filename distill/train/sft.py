"""Supervised fine-tuning: LoRA by PEFT, the loop by TRL, on rows that distill has tokenized."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.config import TrainConfig
from distill.errors import DivergenceError, StudentError
from distill.files import write_json
from distill.records import Example, Json, Rejection
from distill.render import Renderer
from distill.run import layout
from distill.run.folder import read_json
from distill.students.base import Student
from distill.students.public import remove_local_path
from distill.students.quiet import disable_telemetry, ignore_peft_warnings, silence_transformers
from distill.students.torch_errors import translate_torch_errors
from distill.train import processes
from distill.train.board import board_callback, quiet_board
from distill.train.recipe import Recipe as Recipe
from distill.train.recipe import require_valid_world_size, sft_config
from distill.train.rows import Row, Rows, render_rows
from distill.train.threads import Progress, adapt_threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill.train.metrics import LossCurve
    from distill.train.sampler import StepTrainer


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training. Rows that came in = `trained` + `dev` + rejected ones."""

    trained: int
    dev: int
    rejected: list[Rejection]
    steps: int
    seconds: float
    """Of this process; a resumed training counts from its checkpoint."""
    curve: LossCurve

    @property
    def best_dev_loss(self) -> float | None:
        """Of the adapter that was kept; None without dev rows."""
        return self.curve.best and self.curve.best.loss

    @property
    def best_dev_accuracy(self) -> float | None:
        """Of the same: the share of decision tokens that are the student's first choice."""
        return self.curve.best and self.curve.best.decision_accuracy

    @property
    def counts(self) -> Json:
        reasons = Counter(rejection.reason.value for rejection in self.rejected)
        return {
            "trained": self.trained,
            "dev": self.dev,
            "rejected": dict(sorted(reasons.items())),
            "steps": self.steps,
            "best_dev_loss": self.best_dev_loss,
            "best_dev_accuracy": self.best_dev_accuracy,
        }


class TrainJob(NamedTuple):
    """One training, with everything that it needs."""

    student: Student
    recipe: Recipe
    rows: Sequence[Row]
    dev: Sequence[Row]
    folder: Path
    progress: Progress
    notice: Callable[[str], None]


def train(
    student: Student,
    renderer: Renderer,
    train: Sequence[Example],
    dev: Sequence[Example],
    settings: TrainConfig,
    folder: Path,
    *,
    progress: Progress,
    notice: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Tune `student` on `train` and keep the weights that are best on `dev`.

    Writes adapter/, metrics.jsonl, loss.png and tensorboard/ into `folder`, and resumes from
    checkpoints/ if there are any: they must be of the same settings and rows. With tuning "full",
    adapter/ holds the whole model. Every process of a distributed training calls this; the main
    process writes. Raises StudentError when no row is left to train on or the memory is too small,
    DivergenceError when a loss is not finite, WriteError when the disk is full.
    """
    started = time.monotonic()
    recipe = Recipe.from_config(settings, student)
    rows = render_rows(train, renderer, recipe.max_length)
    dev_rows = render_rows(dev, renderer, recipe.max_length)
    _require_rows(rows, len(train), recipe.max_length)
    require_valid_world_size(processes.process_rank(), recipe)
    progress = adapt_threads(settings.threads, progress, notice)
    job = TrainJob(student, recipe, rows.kept, dev_rows.kept, folder, progress, notice)
    trainer = _run(job)
    from distill.train.metrics import loss_curve, plot_losses

    curve = loss_curve(trainer.state.log_history)
    if processes.is_main_process():
        plot_losses(curve, folder / "loss.png")
    return TrainResult(
        trained=len(rows.kept),
        dev=len(dev_rows.kept),
        rejected=rows.rejected + dev_rows.rejected,
        steps=trainer.state.global_step,
        seconds=time.monotonic() - started,
        curve=curve,
    )


def _require_rows(rows: Rows, examples: int, max_length: int) -> None:
    if rows.kept:
        return
    if not examples:
        raise StudentError(
            "there is no example to train on",
            place=layout.SPLITS["train"],
            hint="make more data: distill gen with a larger --target",
        )
    first = rows.rejected[0]
    raise StudentError(
        f"none of the {examples} training examples fits the student: "
        f"{first.reason}: {first.detail}",
        place=layout.SPLITS["train"],
        hint=f"raise max_length above {max_length}, shorten the declarations, "
        "or choose a student with more positions",
    )


def _run(job: TrainJob) -> StepTrainer:
    """Train, from the latest checkpoint if there is one, and save atomically."""
    from distill.train.checkpoints import latest_complete_checkpoint, tokens_seen

    with (
        translate_torch_errors(job.folder, LESS_MEMORY),
        quiet_board(),
        _without_diverged_checkpoints(job.folder / "checkpoints"),
        processes.translate_connection_errors(),
    ):
        model = _trainable(job.student.load_weights(), job.recipe)
        # Workers start here: an error that all would meet was raised above, in one process.
        checkpoint = processes.broadcast_from_main(
            lambda: latest_complete_checkpoint(job.folder / "checkpoints")
        )
        trainer = _trainer(model, job)
        if checkpoint:
            # TRL starts counting at zero in each process.
            trainer._total_train_tokens = tokens_seen(checkpoint)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        _require_convergence(trainer, job)
        _save(trainer, job.folder / "adapter", job.student.fingerprint)
    return trainer


@contextmanager
def _without_diverged_checkpoints(folder: Path) -> Iterator[None]:
    """A training that diverged is not gone on with: other settings begin a new one."""
    try:
        yield
    except DivergenceError:
        if processes.is_main_process():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _require_convergence(trainer: StepTrainer, job: TrainJob) -> None:
    """Raise StudentError where the last steps left weights or a loss that are not finite.

    The dev loss was looked at whenever it was logged; without dev rows, the loss of a step of
    training rows stands for it.
    """
    model: Any = trainer.model
    weights = (weight for weight in model.parameters() if weight.requires_grad)
    broken = not all(bool(weight.isfinite().all()) for weight in weights)
    from distill.train.metrics import divergence_error

    cause = ""
    if trainer.max_over_processes(broken):
        cause = "weights are not finite"
    elif not job.dev:
        rows = trainer.get_eval_dataloader(_dataset(job.rows[: job.recipe.batch_size]))
        metrics = trainer.evaluation_loop(rows).metrics
        assert metrics is not None
        loss = float(metrics["eval_loss"])
        cause = "" if math.isfinite(loss) else f"the loss is {loss}"
    if cause:
        cause = f"{cause} after step {trainer.state.global_step}, the last one"
        raise divergence_error(cause, job.folder, job.recipe)


def _trainable(model: PreTrainedModel, recipe: Recipe) -> Any:
    """The model with LoRA adapters, or with every weight trainable."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(recipe.seed)
    if recipe.tuning == "full":
        return model.requires_grad_(True)
    target = recipe.defaults.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        target_modules=target if isinstance(target, str) else list(target),
        modules_to_save=list(recipe.defaults.modules_to_save) or None,
    )
    with ignore_peft_warnings():
        return get_peft_model(model, config)


def _trainer(model: Any, job: TrainJob) -> StepTrainer:
    disable_telemetry()
    silence_transformers()
    from transformers import PrinterCallback

    from distill.sharing import bidirectional_start_ids
    from distill.train.sampler import StepTrainer

    process, recipe = processes.process_rank(), job.recipe
    trainer = StepTrainer(
        model=model,
        args=sft_config(recipe, job.folder, len(job.rows), process, has_dev=bool(job.dev)),
        train_dataset=_dataset(job.rows),
        eval_dataset=_dataset(job.dev) if job.dev else None,
        processing_class=job.student.tokenizer,
        callbacks=_callbacks(job),
    )
    trainer.process = process
    trainer.rows_per_step = recipe.batch_size
    trainer.rows_per_micro_batch = recipe.micro_batch_size(process)
    trainer.decision_weight = recipe.decision_weight
    trainer.prefix_sharing, trainer.rows_at_once = recipe.prefix_sharing, recipe.rows_at_once
    trainer.bidirectional_start_ids = bidirectional_start_ids(model)
    trainer.notice = job.notice
    # It prints each log event on stdout, which is for results.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _callbacks(job: TrainJob) -> list[Any]:
    from distill.train.metrics import DivergenceCallback, MetricsCallback

    divergence = DivergenceCallback(job.folder, job.recipe)
    if not processes.is_main_process():
        return [divergence]
    board = board_callback(job.folder / "tensorboard")
    return [divergence, MetricsCallback(job.progress, job.folder / "metrics.jsonl"), board]


LESS_MEMORY = (
    "set rows_at_once to 4 or 1, or gradient_checkpointing to on; the result stays the same"
)


def _dataset(rows: Sequence[Row]) -> Any:
    """The rows as the trainer takes them, and the dummy row; see `sampler.DUMMY_ROW`."""
    from datasets import Dataset  # type: ignore[import-untyped]

    from distill.sharing import IGNORE_INDEX

    dummy = rows[0].ids[:2]
    labels = [row.labels(IGNORE_INDEX) for row in rows]
    return Dataset.from_dict(
        {
            "input_ids": [*(row.ids for row in rows), dummy],
            "labels": [*labels, [IGNORE_INDEX] * len(dummy)],
            "decision": [*(row.decision for row in rows), [False] * len(dummy)],
        }
    )


def _save(trainer: StepTrainer, adapter: Path, fingerprint: str) -> None:
    """Write the trained weights and the tokenizer; shards of FSDP are gathered."""
    partial = adapter.with_name(".adapter.part")
    if processes.is_main_process():
        shutil.rmtree(partial, ignore_errors=True)
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(partial))
    if not processes.is_main_process():
        return
    # PEFT's model card is an empty template with the local path of the base model.
    for unwanted in ("README.md", "training_args.bin"):
        (partial / unwanted).unlink(missing_ok=True)
    remove_local_path(partial, fingerprint)
    _sort_sets(partial / "adapter_config.json")
    # At no instant is there half an adapter.
    aside = adapter.with_name(".adapter.old")
    shutil.rmtree(aside, ignore_errors=True)
    if adapter.exists():
        adapter.rename(aside)
    partial.rename(adapter)
    shutil.rmtree(aside, ignore_errors=True)


def _sort_sets(config: Path) -> None:
    """PEFT writes sets of names in the order of the process's hashes: equal runs differ by it."""
    if not config.exists():
        return
    settings = read_json(config)
    for name in ("target_modules", "modules_to_save"):
        value = settings.get(name)
        settings[name] = sorted(value, key=str) if isinstance(value, list) else value
    write_json(config, settings)
