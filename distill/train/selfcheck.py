"""Whether prefix sharing agrees with the plain batch on this model, checked on a few real rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill.sharing import IGNORE_INDEX, LossFn, PrefixBatch, flat_loss, shared_loss
from distill.sharing.plain import plain_loss, to_padded

MAX_ROWS = 4

FP32_TOLERANCE = 1e-3
"""The largest difference of one token's loss in float32, relative to losses above one.

Sums in another order change a loss by some 1e-6, and by 1e-5 in deep models; a wrong mask, position
or layer changes it by more than 1e-2.
"""

BF16_TOLERANCE = 0.05
"""The mean difference over tokens where numbers have eight bits of mantissa.

A bfloat16 logit between 16 and 32 is a multiple of 1/8: single tokens differ by that much between
two orders of summation, in both directions; their mean does not.
"""


class Difference(NamedTuple):
    """How prefix sharing differs from the plain batch."""

    ratio: float
    """Relative to the tolerance: above 1, sharing is wrong."""
    description: str


def compare_with_plain(model: Any, batches: Sequence[PrefixBatch], mode: str) -> Difference:
    """Compare the losses of a few rows token by token, in eval mode and without gradients.

    mode: "cache" or "flat". A model that fails in this mode has an infinite difference; only
    running out of memory is raised.
    """
    rows = sample(batches)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            plain = _token_losses(lambda loss_fn: plain_loss(model, *to_padded(rows), loss_fn))
            shared = _token_losses(lambda loss_fn: _shared_loss(model, rows, mode, loss_fn))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return Difference(float("inf"), f"it failed with {type(error).__name__}: {error}")
    finally:
        model.train(training)
        # autocast caches weights that it cast without gradients, and would use them in training.
        torch.clear_autocast_cache()
    fp32 = model.dtype == torch.float32 and not torch.is_autocast_enabled(plain.device.type)
    return _difference(plain, shared, fp32=fp32)


def sample(batches: Sequence[PrefixBatch]) -> list[PrefixBatch]:
    """At most MAX_ROWS rows of the largest group that shares a prefix, and one row of another."""
    order = sorted(batches, key=lambda batch: (len(batch.prefix) > 0, len(batch.suffixes)))
    return [
        _sample_rows(batch, count) for batch, count in zip(order[::-1], (MAX_ROWS, 1), strict=False)
    ]


def _sample_rows(batch: PrefixBatch, count: int) -> PrefixBatch:
    """`count` rows from the shortest to the longest, only labelled ones if there are any."""
    targets = batch.targets
    labelled = (targets != IGNORE_INDEX).any(1).nonzero().flatten()
    rows = labelled if len(labelled) else torch.arange(len(targets), device=targets.device)
    step = max(1, (len(rows) - 1) // max(1, count - 1))
    return batch.select(rows[::step][:count])


def _shared_loss(model: Any, batches: Sequence[PrefixBatch], mode: str, loss_fn: LossFn) -> Tensor:
    if mode == "flat":
        return flat_loss(model, batches, loss_fn)
    # Chunks of fewer rows than there are, so that a cache is used more than once.
    return shared_loss(model, batches, loss_fn, rows_at_once=MAX_ROWS - 1)


def _token_losses(compute: Callable[[LossFn], Tensor]) -> Tensor:
    """The loss of each label, in the order of the rows."""
    losses: list[Tensor] = []

    def loss_fn(logits: Tensor, targets: Tensor, decision: Tensor) -> Tensor:
        losses.append(cross_entropy(logits.float(), targets, reduction="none"))
        return losses[-1].sum()

    compute(loss_fn)
    return torch.cat(losses)


def _difference(plain: Tensor, shared: Tensor, *, fp32: bool) -> Difference:
    if plain.shape != shared.shape:
        return Difference(float("inf"), f"it has {len(shared)} losses instead of {len(plain)}")
    if not len(plain):
        return Difference(0.0, "")
    differences = (plain - shared).abs()
    if fp32:
        found = float((differences / plain.clamp(min=1)).max())
        tolerance, kind = FP32_TOLERANCE, "relative, of the worst token"
    else:
        found, tolerance, kind = float(differences.mean()), BF16_TOLERANCE, "mean over tokens"
    description = f"losses differ by {found:.2g} ({kind}), where rounding explains {tolerance:g}"
    return Difference(found / tolerance, description)
