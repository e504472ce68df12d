"""The loss of the labels, and the sums behind the metrics that training logs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, nll_loss

_CHUNK = 64


class Sums(NamedTuple):
    """Sums over labels, unweighted; each a number, or a tensor of one."""

    labels: Tensor
    loss: Tensor
    """Cross entropy, in nats."""
    entropy: Tensor
    """Of the model's distribution at each label, in nats."""
    correct: Tensor
    """Labels that are the model's first choice."""
    decisions: Tensor
    """Labels at which the allowed answers part."""
    decision_loss: Tensor
    decision_correct: Tensor

    def as_trl(self) -> dict[str, float]:
        """The means that TRL logs, by its names."""
        count = max(float(self.labels), 1)
        entropy, correct = float(self.entropy), float(self.correct)
        return {"entropy": entropy / count, "mean_token_accuracy": correct / count}

    def as_logged(self) -> dict[str, float]:
        """The mean loss of a label without weights, and that and the accuracy of a decision."""
        count = max(float(self.decisions), 1)
        return {
            "token_loss": float(self.loss) / max(float(self.labels), 1),
            "decision_loss": float(self.decision_loss) / count,
            "decision_accuracy": float(self.decision_correct) / count,
        }

    def plus(self, other: Sums) -> Sums:
        return Sums(*(one + more for one, more in zip(self, other, strict=True)))


class LabelLoss:
    """A `LossFn` for `distill.sharing`: the summed cross entropy, with statistics for metrics.

    The loss of a decision token counts `decision_weight` times; statistics are not weighted.
    """

    def __init__(self, decision_weight: float = 1.0) -> None:
        self.decision_weight = decision_weight
        self.labels = 0
        self._sums: list[Tensor] = []

    def __call__(self, logits: Tensor, targets: Tensor, decision: Tensor) -> Tensor:
        log_probs = log_softmax(logits, -1, dtype=torch.float32)
        losses = nll_loss(log_probs, targets, reduction="none")
        self.labels += len(targets)
        self._add_statistics(log_probs.detach(), losses.detach(), targets, decision)
        return (torch.where(decision, self.decision_weight, 1.0) * losses).sum()

    def _add_statistics(
        self, log_probs: Tensor, losses: Tensor, targets: Tensor, decision: Tensor
    ) -> None:
        # In chunks: [labels, vocabulary] might be the largest tensor of the whole step.
        for start in range(0, max(1, len(targets)), _CHUNK):
            chunk, loss, target, decided = (
                part[start : start + _CHUNK] for part in (log_probs, losses, targets, decision)
            )
            # A logit of -inf, as of padded vocabulary, has no entropy: 0 * -inf would be NaN.
            finite = chunk.clamp(min=torch.finfo(chunk.dtype).min)
            correct = chunk.argmax(-1) == target
            parts = Sums(
                labels=torch.ones_like(loss),
                loss=loss,
                entropy=-chunk.exp().mul_(finite).sum(dtype=torch.float64),
                correct=correct,
                decisions=decided,
                decision_loss=loss[decided],
                decision_correct=correct[decided],
            )
            self._sums.append(torch.stack([part.sum(dtype=torch.float64) for part in parts]))

    def sums(self) -> Tensor:
        """What `Sums` holds, as one tensor, [7]."""
        return torch.stack(self._sums).sum(0)
