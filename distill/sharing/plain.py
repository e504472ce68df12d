"""The plain padded batch: every row computed whole. What sharing must agree with."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from distill.sharing.cached import IGNORED, LossFn, PrefixBatch


def plain_loss(
    model: Any, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, score: LossFn
) -> Tensor:
    """The sum of `score` over all labels of a padded batch, [rows, length] each."""
    targets = labels[:, 1:]
    labelled = targets != IGNORED
    # The last position predicts nothing: its column is never kept.
    keep = pad(labelled, (0, 1))
    wanted: dict[str, Any] = {"logits_to_keep": keep} if supports_logits_to_keep(model) else {}
    logits: Tensor = model(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **wanted
    ).logits
    own = logits.reshape(-1, logits.shape[-1]) if wanted else logits[keep]
    first = labelled & (labelled.cumsum(1) == 1)
    return score(own, targets[labelled], first[labelled])


def padded(batches: Sequence[PrefixBatch]) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of batches, each whole: input ids, mask and labels, [rows, length] each."""
    ids, labels = [], []
    for batch in batches:
        unlabelled = torch.full_like(batch.prefix, IGNORED)
        for suffix, real, targets in zip(batch.suffixes, batch.real, batch.targets, strict=True):
            ids.append(torch.cat([batch.prefix, suffix[real]]))
            following = torch.cat([unlabelled, targets[real]])
            labels.append(pad(following[:-1], (1, 0), value=IGNORED))
    mask = [torch.ones_like(row) for row in ids]
    return (
        pad_sequence(ids, batch_first=True),
        pad_sequence(mask, batch_first=True),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    )


def bidirectional_start_ids(model: Any) -> tuple[int, ...]:
    """The tokens from which on a model reads in both directions, as the embedded student does."""
    return tuple(getattr(model.config, "user_heads", ()))


def supports_logits_to_keep(model: Any) -> bool:
    """Whether the model's head can run at some positions only."""
    base = getattr(model, "module", model)
    base = base.get_base_model() if hasattr(base, "get_base_model") else base
    # A class may pass on to the one below it what it does not name.
    return any(
        "logits_to_keep" in inspect.signature(vars(kind)["forward"]).parameters
        for kind in type(base).__mro__
        if "forward" in vars(kind)
    )
