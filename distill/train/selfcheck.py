"""Whether prefix sharing agrees with the plain batch on this model, tried on a few real rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distill.sharing import LossFn, PrefixBatch, flat_loss, shared_loss
from distill.sharing.plain import plain_loss, to_padded

MOST_ROWS = 4

EXACT = 1e-3
"""The largest difference of one token's loss, relative to it where it is above one, in float32.

Sums in another order move a loss by some 1e-6, and by 1e-5 in deep models; a wrong mask, position
or layer moves it by more than 1e-2.
"""

COARSE = 0.05
"""The mean difference over tokens where numbers have eight bits of mantissa.

A bfloat16 logit between 16 and 32 is a multiple of 1/8: single tokens differ by that much between
two orders of summation, to both sides; their mean does not.
"""


class Difference(NamedTuple):
    """How a way of sharing differs from the plain batch."""

    size: float
    """As a multiple of what rounding explains: more than 1 is wrong."""
    words: str


def difference(model: Any, batches: Sequence[PrefixBatch], way: str) -> Difference:
    """Compare the losses of a few rows token by token, in eval mode and without gradients.

    It takes one forward pass of the plain batch, and on the flat way one more. What goes wrong in
    a model that cannot be computed this way is a difference, not an error.
    """
    rows = sample(batches)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            plain = _losses(lambda score: plain_loss(model, *to_padded(rows), score))
            shared = _losses(lambda score: _shared(model, rows, way, score))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return Difference(float("inf"), f"it failed with {type(error).__name__}: {error}")
    finally:
        model.train(training)
        # Weights that autocast cast without gradients would be used again where they need them.
        torch.clear_autocast_cache()
    return _measured(plain, shared, exact=_is_exact(model, plain.device))


def sample(batches: Sequence[PrefixBatch]) -> list[PrefixBatch]:
    """At most four rows of the largest group that shares a prefix, and one row of another."""
    order = sorted(batches, key=lambda batch: (len(batch.prefix) > 0, len(batch.suffixes)))
    return [_some(batch, most) for batch, most in zip(order[::-1], (MOST_ROWS, 1), strict=False)]


def _some(batch: PrefixBatch, most: int) -> PrefixBatch:
    """So many rows of a group, from the shortest to the longest, labelled ones if there are any."""
    labelled = batch.first_label.any(1).nonzero().flatten()
    rows = (
        labelled
        if len(labelled)
        else torch.arange(len(batch.first_label), device=batch.first_label.device)
    )
    step = max(1, (len(rows) - 1) // max(1, most - 1))
    return batch.select(rows[::step][:most])


def _shared(model: Any, batches: Sequence[PrefixBatch], way: str, score: LossFn) -> Tensor:
    if way == "flat":
        return flat_loss(model, batches, score)
    # Chunks of fewer rows than there are, so that a cache is used more than once.
    return shared_loss(model, batches, score, rows_at_once=MOST_ROWS - 1)


def _losses(compute: Callable[[LossFn], Tensor]) -> Tensor:
    """The loss of each label, in the order of the rows."""
    seen: list[Tensor] = []

    def score(logits: Tensor, targets: Tensor, first: Tensor) -> Tensor:
        seen.append(cross_entropy(logits.float(), targets, reduction="none"))
        return seen[-1].sum()

    compute(score)
    return torch.cat(seen)


def _is_exact(model: Any, device: torch.device) -> bool:
    return bool(model.dtype == torch.float32) and not torch.is_autocast_enabled(device.type)


def _measured(plain: Tensor, shared: Tensor, *, exact: bool) -> Difference:
    if plain.shape != shared.shape:
        return Difference(float("inf"), f"it has {len(shared)} losses instead of {len(plain)}")
    if not len(plain):
        return Difference(0.0, "")
    apart = (plain - shared).abs()
    found, limit, kind = (
        (float((apart / plain.clamp(min=1)).max()), EXACT, "relative, of the worst token")
        if exact
        else (float(apart.mean()), COARSE, "mean over tokens")
    )
    words = f"losses differ by {found:.2g} ({kind}), where rounding explains {limit:g}"
    return Difference(found / limit, words)
