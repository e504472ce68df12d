"""The plain padded batch, every row computed whole: what prefix sharing must agree with."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from distill.sharing.cached import IGNORE_INDEX, LossFn, PrefixBatch


def plain_loss(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    decision: Tensor,
    loss_fn: LossFn,
) -> Tensor:
    """The sum of `loss_fn` over all labels of a padded batch, [rows, length] each."""
    targets = labels[:, 1:]
    labelled = targets != IGNORE_INDEX
    # The last position predicts nothing: its column is never kept.
    keep = pad(labelled, (0, 1))
    head: dict[str, Any] = {"logits_to_keep": keep} if supports_logits_to_keep(model) else {}
    logits: Tensor = model(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **head
    ).logits
    kept = logits.reshape(-1, logits.shape[-1]) if head else logits[keep]
    return loss_fn(kept, targets[labelled], decision[:, 1:][labelled])


def to_padded(batches: Sequence[PrefixBatch]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows of all batches with their prefix, as `plain_loss` takes them, [rows, length]."""
    ids, labels, decisions = [], [], []
    for batch in batches:
        unlabelled = torch.full_like(batch.prefix, IGNORE_INDEX)
        undecided = torch.zeros_like(batch.prefix, dtype=torch.bool)
        for suffix, mask, targets, decision in zip(*batch[1:], strict=True):
            ids.append(torch.cat([batch.prefix, suffix[mask]]))
            next_labels = torch.cat([unlabelled, targets[mask]])
            labels.append(pad(next_labels[:-1], (1, 0), value=IGNORE_INDEX))
            decisions.append(pad(torch.cat([undecided, decision[mask]])[:-1], (1, 0)))
    return (
        pad_sequence(ids, batch_first=True),
        pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),
        pad_sequence(decisions, batch_first=True),
    )


def bidirectional_start_ids(model: Any) -> tuple[int, ...]:
    """The ids of tokens that start a part in which the model attends in both directions."""
    return tuple(getattr(model.config, "user_heads", ()))


def supports_logits_to_keep(model: Any) -> bool:
    """Whether the model can compute logits at some positions only."""
    base = getattr(model, "module", model)
    base = base.get_base_model() if hasattr(base, "get_base_model") else base
    # A forward with **kwargs may pass the argument on to that of a base class.
    return any(
        "logits_to_keep" in inspect.signature(vars(kind)["forward"]).parameters
        for kind in type(base).__mro__
        if "forward" in vars(kind)
    )
