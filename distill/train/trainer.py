"""TRL's SFTTrainer with a language-model head that runs only where there is a label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from trl.trainer.sft_trainer import SFTTrainer


class RoutingTrainer(SFTTrainer):
    """Computes SFTTrainer's loss from logits at the labelled positions alone.

    The first token of an answer, which chooses the tool, counts `first_token_weight` times.

    In routing a label stands on one token of three, or of thirty; the head over the vocabulary is
    most of what a small model computes. TRL spares it on accelerators only, and not for heads
    with more in them than one matrix.
    """

    first_token_weight = 1.0

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        nll = token_losses(model, inputs, self.first_token_weight)
        count = nll.numel() if num_items_in_batch is None else num_items_in_batch
        return nll.sum() / count

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[Tensor, None, None]:
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss, None, None

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None is wanted: the run's report says what was trained, on what, and how well."""


def token_losses(model: Any, inputs: dict[str, Any], first_token_weight: float = 1.0) -> Tensor:
    """The negative log-likelihood of each label that is not -100, weighted, shape [labels]."""
    labels: Tensor = inputs["labels"][:, 1:]
    labelled = labels != -100
    # The last position predicts nothing: its column is never kept.
    keep = torch.nn.functional.pad(labelled, (0, 1))
    logits = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        use_cache=False,
        logits_to_keep=keep,
    ).logits
    first = labelled & (labelled.cumsum(1) == 1)
    weights = 1 + (first_token_weight - 1) * first[labelled].float()
    losses: Tensor = cross_entropy(logits.float(), labels[labelled], reduction="none")
    return weights * losses
