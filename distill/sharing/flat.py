"""Flat prefix sharing: one row, one forward pass, for when no KV cache can be kept.

Gradient checkpointing recomputes activations and drops the cache; processes that gather their
weights layer by layer (FSDP) must all make the same number of passes. Both work when the whole
batch is written into one row

    p | s_1 | s_2 | ... | p' | s'_1 | ...

with positions that restart after the prefix, and a mask by which a token attends to its prefix and
to its own row up to itself. The sum of losses is again that of the plain batch, term for term (see
`distill.sharing.cached`). It costs P + sum S_n tokens, without padding, but attention over the
whole length: pairs of tokens of different rows are computed and masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill.sharing.cached import IGNORE_INDEX, LossFn, PrefixBatch


class _FlatRow(NamedTuple):
    """A whole batch as one row: for each of its T tokens, shape [T]."""

    ids: Tensor
    positions: Tensor
    segment: Tensor
    """The number of the prefix or suffix that the token belongs to."""
    prefix_segment: Tensor
    """The number of the prefix that the token attends to."""
    targets: Tensor
    decision: Tensor


def flat_loss(model: Any, batches: Sequence[PrefixBatch], loss_fn: LossFn) -> Tensor:
    """The sum of `loss_fn` over all labels of all batches, in one forward pass.

    Raises ValueError for models with attention that is neither causal nor a causal sliding window,
    and for attention implementations that take no mask.
    """
    if getattr(model, "has_bidirectional_spans", False):
        raise ValueError("the model reads a part of each row in both directions")
    row = _flatten(batches)
    same_row = row.segment[:, None] == row.segment
    visible = same_row | (row.prefix_segment[:, None] == row.segment)
    distance = row.positions[:, None] - row.positions
    keep = row.targets != IGNORE_INDEX
    logits: Tensor = model(
        input_ids=row.ids[None],
        position_ids=row.positions[None],
        attention_mask=attention_masks(model, (visible & (distance >= 0))[None], distance[None]),
        use_cache=False,
        logits_to_keep=keep[None],
    ).logits
    return loss_fn(logits.reshape(-1, logits.shape[-1]), row.targets[keep], row.decision[keep])


def _flatten(batches: Sequence[PrefixBatch]) -> _FlatRow:
    segments: list[_FlatRow] = []
    for batch in batches:
        prefix = len(segments)
        segments.append(_segment(batch.prefix, 0, prefix, prefix))
        for index, mask in enumerate(batch.mask):
            ids, targets, decision = (
                part[index][mask] for part in (batch.suffixes, batch.targets, batch.decision)
            )
            start = len(batch.prefix)
            segments.append(_segment(ids, start, len(segments), prefix, targets, decision))
    return _FlatRow(*(torch.cat(column) for column in zip(*segments, strict=True)))


def _segment(
    ids: Tensor,
    start: int,
    segment: int,
    prefix_segment: int,
    targets: Tensor | None = None,
    decision: Tensor | None = None,
) -> _FlatRow:
    """A prefix, or the suffix of one row, from position `start` on; a prefix has no targets."""
    return _FlatRow(
        ids,
        torch.arange(start, start + len(ids), device=ids.device),
        torch.full_like(ids, segment),
        torch.full_like(ids, prefix_segment),
        torch.full_like(ids, IGNORE_INDEX) if targets is None else targets,
        torch.zeros_like(ids, dtype=torch.bool) if decision is None else decision,
    )


def attention_masks(model: Any, visible: Tensor, distance: Tensor) -> Any:
    """The custom mask that transformers takes: a tensor, or a dict of one for each layer type.

    visible: which query may attend to which key, sliding windows aside, [rows, queries, keys],
    bool; distance: query position minus key position, the same shape or [1, ...]. Gemma3 would
    silently give a bare tensor to sliding and full layers alike. Raises ValueError for attention
    implementations and layer types that take no custom mask.
    """
    config = model.config.get_text_config(decoder=True)
    if "flash" in config._attn_implementation:
        raise ValueError(f"{config._attn_implementation} takes no ready mask")
    window = getattr(config, "sliding_window", None)
    layer_types = set(getattr(config, "layer_types", None) or ())
    if unknown := layer_types - {"full_attention", "sliding_attention"}:
        raise ValueError(f"layers of the kind {', '.join(sorted(unknown))} take no ready mask")
    in_window = visible if window is None else visible & (distance < window)
    eager = config._attn_implementation == "eager"
    full, sliding = (
        _additive(mask, model.dtype) if eager else mask[:, None] for mask in (visible, in_window)
    )
    if layer_types:
        return {"full_attention": full, "sliding_attention": sliding}
    return sliding


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as eager attention takes it: added to the attention scores."""
    zeros = torch.zeros_like(visible, dtype=dtype)
    return zeros.masked_fill(~visible, torch.finfo(dtype).min)[:, None]
