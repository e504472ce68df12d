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
    """A loss, in nats for a token, after so many steps."""

    step: int
    loss: float


class Curve(NamedTuple):
    """How the loss fell."""

    train: list[LossPoint]
    dev: list[LossPoint]


class Watch(TrainerCallback):
    """Tells `progress` of each step, and keeps metrics.jsonl equal to the trainer's own log."""

    def __init__(self, progress: Progress, metrics: Path) -> None:
        self.progress = progress
        self.metrics = metrics
        self.note = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress(state.global_step, state.max_steps, self.note)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress(state.global_step, state.max_steps, self.note)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        curve = loss_curve(state.log_history)
        last = [("loss", curve.train[-1:]), ("dev", curve.dev[-1:])]
        self.note = ", ".join(f"{name} {points[0].loss:.3f}" for name, points in last if points)
        # Written whole: a training that goes on from a checkpoint repeats steps.
        rows = [json.dumps(_timeless(row), sort_keys=True) for row in state.log_history]
        write_text(self.metrics, "".join(f"{row}\n" for row in rows))


def loss_curve(history: Sequence[Mapping[str, Any]]) -> Curve:
    """The losses in a trainer's log."""

    def points(name: str) -> list[LossPoint]:
        return [LossPoint(int(row["step"]), float(row[name])) for row in history if name in row]

    return Curve(points("loss"), points("eval_loss"))


def _timeless(row: Mapping[str, Any]) -> dict[str, Any]:
    timed = ("_runtime", "_per_second")
    return {name: value for name, value in row.items() if not name.endswith(timed)}


def plot_losses(curve: Curve, path: Path) -> None:
    """Training and dev loss over the steps, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for points, label, style in ((curve.train, "train", "-"), (curve.dev, "dev", "o-")):
        if points:
            axes.plot([p.step for p in points], [p.loss for p in points], style, label=label)
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)", yscale="log")
    axes.grid(which="both", alpha=0.25)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
