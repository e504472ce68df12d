"""What is seen of a training: progress, metrics.jsonl, TensorBoard and the loss plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distill.files import write_text

Progress = Callable[[int, int, str], None]


class LossPoint(NamedTuple):
    """A loss after so many steps: nats per token, the first weighted as the student has it."""

    step: int
    loss: float


class Curve(NamedTuple):
    """How the loss fell."""

    train: list[LossPoint]
    dev: list[LossPoint]


class Watch(TrainerCallback):
    """Tells `progress` of each step, and keeps metrics.jsonl, one line for each log event."""

    def __init__(self, progress: Progress, metrics: Path) -> None:
        self.progress = progress
        self.metrics = metrics
        self.latest: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # A training that goes on from a checkpoint repeats what came after it.
        write_text(self.metrics, "".join(map(_line, state.log_history)))
        self.progress(state.global_step, state.max_steps, self._note())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress(state.global_step, state.max_steps, self._note())

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        for name, label in (("loss", "loss"), ("eval_loss", "dev")):
            if name in state.log_history[-1]:
                self.latest[label] = state.log_history[-1][name]
        with open(self.metrics, "a", encoding="utf-8", newline="\n") as file:
            file.write(_line(state.log_history[-1]))

    def _note(self) -> str:
        return ", ".join(f"{name} {loss:.3f}" for name, loss in self.latest.items())


def loss_curve(history: Sequence[Mapping[str, Any]]) -> Curve:
    """The losses in a trainer's log."""

    def points(name: str) -> list[LossPoint]:
        return [LossPoint(int(row["step"]), float(row[name])) for row in history if name in row]

    return Curve(points("loss"), points("eval_loss"))


def _line(row: Mapping[str, Any]) -> str:
    """A log event as a line of metrics.jsonl, without what depends on the machine's speed.

    The trainer's closing summary is left out: it sums over this process, not over the training.
    """
    if "train_runtime" in row:
        return ""
    timed = ("_runtime", "_per_second")
    kept = {name: value for name, value in row.items() if not name.endswith(timed)}
    return json.dumps(kept, sort_keys=True) + "\n"


def plot_losses(curve: Curve, path: Path) -> None:
    """Training and dev loss over the steps, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for points, label, style in ((curve.train, "train", "C0-"), (curve.dev, "dev", "C1o-")):
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1)
    axes.set(xlabel="optimizer step", ylabel="loss (weighted nats per token)", yscale="log")
    axes.grid(which="both", alpha=0.25)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
