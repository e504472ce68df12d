"""The loss of the labels, and the sums behind the metrics that training logs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, nll_loss

_CHUNK = 64


class LabelLoss:
    """A `LossFn` for `distill.sharing`: the summed cross entropy, with statistics for metrics.

    The loss of the first label of a row counts `first_token_weight` times; statistics are not
    weighted.
    """

    def __init__(self, first_token_weight: float = 1.0) -> None:
        self.first_token_weight = first_token_weight
        self.labels = 0
        self._sums: list[Tensor] = []

    def __call__(self, logits: Tensor, targets: Tensor, first_label: Tensor) -> Tensor:
        log_probs = log_softmax(logits, -1, dtype=torch.float32)
        self._add_statistics(log_probs.detach(), targets)
        weights = torch.where(first_label, self.first_token_weight, 1.0)
        return (weights * nll_loss(log_probs, targets, reduction="none")).sum()

    def _add_statistics(self, log_probs: Tensor, targets: Tensor) -> None:
        self.labels += len(targets)
        # In chunks: [labels, vocabulary] might be the largest tensor of the whole step.
        for start in range(0, max(1, len(targets)), _CHUNK):
            chunk, chunk_targets = (part[start : start + _CHUNK] for part in (log_probs, targets))
            # A logit of -inf, as of padded vocabulary, has no entropy: 0 * -inf would be NaN.
            finite = chunk.clamp(min=torch.finfo(chunk.dtype).min)
            entropy = -chunk.exp().mul_(finite).sum(dtype=torch.float64)
            correct = (chunk.argmax(-1) == chunk_targets).sum(dtype=torch.float64)
            self._sums.append(torch.stack([entropy, correct]))

    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """The number of labels, their entropy in nats, and how many the model predicts."""
        entropy, correct = torch.stack(self._sums).sum(0)
        return torch.full_like(entropy, self.labels), entropy, correct
