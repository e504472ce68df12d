"""The loss of labels, and what a training reports of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, nll_loss

_AT_ONCE = 64


class Tally:
    """A score for `distill.sharing`: the summed loss of labels, which are counted on the way.

    The first label of a row weighs `first_token_weight`; what is counted is not weighted.
    """

    def __init__(self, first_token_weight: float = 1.0) -> None:
        self.first_token_weight = first_token_weight
        self.labels = 0
        self._sums: list[Tensor] = []

    def __call__(self, logits: Tensor, targets: Tensor, first: Tensor) -> Tensor:
        log_probs = log_softmax(logits, -1, dtype=torch.float32)
        self._count(log_probs.detach(), targets)
        weights = torch.where(first, self.first_token_weight, 1.0)
        return (weights * nll_loss(log_probs, targets, reduction="none")).sum()

    def _count(self, log_probs: Tensor, targets: Tensor) -> None:
        self.labels += len(targets)
        # In parts: the vocabulary is wide, and one more tensor of all labels might be the largest
        # of the whole step.
        for start in range(0, max(1, len(targets)), _AT_ONCE):
            part, own = (whole[start : start + _AT_ONCE] for whole in (log_probs, targets))
            entropy = -part.exp().mul_(part).sum(dtype=torch.float64)
            correct = (part.argmax(-1) == own).sum(dtype=torch.float64)
            self._sums.append(torch.stack([entropy, correct]))

    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """How many labels, their entropy in nats, and how many are the model's first choice."""
        entropy, correct = torch.stack(self._sums).sum(0)
        return torch.full_like(entropy, self.labels), entropy, correct
