"""What a training reports: progress, metrics.jsonl and the loss plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distill import strict_json
from distill.errors import DivergenceError
from distill.files import write_text
from distill.train.recipe import Recipe
from distill.train.threads import Progress


class LossPoint(NamedTuple):
    """The loss at an optimizer step, in nats per token, with the weight of decision tokens."""

    step: int
    loss: float


class DevPoint(NamedTuple):
    """The dev metrics after an optimizer step."""

    step: int
    loss: float
    """As that of training."""
    decision_accuracy: float
    """The share of decision tokens that are the student's first choice."""


class LossCurve(NamedTuple):
    train: list[LossPoint]
    dev: list[DevPoint]

    @property
    def best(self) -> DevPoint | None:
        """The dev metrics of the adapter that is kept; None without dev rows."""
        # Of equal ones the first, as the trainer keeps it.
        return min(self.dev, key=lambda point: point.loss, default=None)


class DivergenceCallback(TrainerCallback):
    """Raises DivergenceError when a loss or a gradient is not finite, in all processes at once.

    What is logged is the same in all of them.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.recipe = recipe

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        for name, label in _MUST_BE_FINITE.items():
            value = state.log_history[-1].get(name, 0.0)
            if not math.isfinite(value):
                cause = f"{label} is {value} at step {state.global_step} of {state.max_steps}"
                # The loss of a step is that of the weights before it.
                unchanged = state.global_step <= 1 and name != "eval_loss"
                raise divergence_error(cause, self.folder, None if unchanged else self.recipe)


_MUST_BE_FINITE = {"loss": "the loss", "grad_norm": "the gradient", "eval_loss": "the dev loss"}


def divergence_error(cause: str, folder: Path, recipe: Recipe | None) -> DivergenceError:
    """The error for a training that cannot go on.

    cause: as `the loss is nan at step 3 of 9`
    recipe: None where no step was taken yet
    """
    if recipe is None:
        hint = "no step was taken yet: try --precision fp32, or another student"
    else:
        usual = recipe.defaults.peak_learning_rate(recipe.tuning)
        lower = usual if recipe.learning_rate > usual else recipe.learning_rate / 10
        hint = f"the learning rate {recipe.learning_rate:g} is too high: --learning-rate {lower:g}"
    return DivergenceError(f"the training diverged: {cause}", place=folder, hint=hint)


class MetricsCallback(TrainerCallback):
    """Reports each step to `progress`, and appends each log event to metrics.jsonl."""

    def __init__(self, progress: Progress, metrics_file: Path) -> None:
        self.progress = progress
        self.metrics_file = metrics_file
        self.latest: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # A resumed training repeats the events after its checkpoint: they are written anew.
        write_text(self.metrics_file, "".join(map(_metrics_line, state.log_history)))
        self._report(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._report(state)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        for name, label in (("loss", "loss"), ("eval_loss", "dev")):
            if name in state.log_history[-1]:
                self.latest[label] = state.log_history[-1][name]
        with open(self.metrics_file, "a", encoding="utf-8", newline="\n") as file:
            file.write(_metrics_line(state.log_history[-1]))

    def _report(self, state: TrainerState) -> None:
        losses = ", ".join(f"{name} {loss:.3f}" for name, loss in self.latest.items())
        self.progress(state.global_step, state.max_steps, losses)


def loss_curve(history: Sequence[Mapping[str, Any]]) -> LossCurve:
    """The losses in a trainer's log history."""

    train = [LossPoint(int(row["step"]), float(row["loss"])) for row in history if "loss" in row]
    names = ("eval_loss", "eval_decision_accuracy")
    dev = [
        DevPoint(int(row["step"]), *(float(row[name]) for name in names))
        for row in history
        if "eval_loss" in row
    ]
    return LossCurve(train, dev)


def _metrics_line(row: Mapping[str, Any]) -> str:
    """A log event as a line of metrics.jsonl, without timings, so that equal runs are equal bytes.

    The trainer's final summary is left out: it covers this process only, not a resumed training.
    """
    if "train_runtime" in row:
        return ""
    timings = ("_runtime", "_per_second")
    kept = {
        # A metric beside the loss may lack a value; the losses are finite.
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
        if not name.endswith(timings)
    }
    return strict_json.encode(kept, sort_keys=True) + "\n"


def plot_losses(curve: LossCurve, path: Path) -> None:
    """Write a PNG of training and dev loss over the optimizer steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for points, label, style in ((curve.train, "train", "C0-"), (curve.dev, "dev", "C1o-")):
        if points:
            steps, losses = zip(*(point[:2] for point in points), strict=True)
            axes.plot(steps, losses, style, label=label, linewidth=1)
    axes.set(xlabel="optimizer step", ylabel="loss (weighted nats per token)", yscale="log")
    axes.grid(which="both", alpha=0.25)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
