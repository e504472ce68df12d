"""The flat way of prefix sharing: one row, one forward pass, for when no cache can be kept.

Gradient checkpointing computes activations twice and drops the cache; processes that gather their
weights layer by layer (FSDP) must all make the same number of passes. Both are served by writing
all that a batch holds into one row

    p | s_1 | s_2 | ... | p' | s'_1 | ...

with positions that restart behind the prefix, and a mask by which a token sees its prefix and its
own row up to itself. The sum of losses is again that of the plain batch, term for term (see
`distill.sharing.cached`). It costs P + sum S_n tokens, without padding, but attention over the
whole length: pairs of tokens of different rows are computed and masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill.sharing.cached import IGNORED, LossFn, PrefixBatch


class _Row(NamedTuple):
    """A whole batch as one row: for each of its T tokens, shape [T]."""

    ids: Tensor
    positions: Tensor
    owner: Tensor
    """The number of the row that it belongs to; prefixes have numbers of their own."""
    prefix: Tensor
    """The number of the prefix that it sees."""
    targets: Tensor
    first: Tensor


def flat_loss(model: Any, batches: Sequence[PrefixBatch], score: LossFn) -> Tensor:
    """The sum of `score` over all labels of all batches, in one forward pass.

    Raises ValueError for models whose layers attend in other ways than to all before them or to a
    window of it, and for what computes attention without a ready mask.
    """
    if getattr(model, "reads_both_ways", False):
        raise ValueError("the model reads a part of each row in both directions")
    row = _one_row(batches)
    seen = (row.owner[:, None] == row.owner) | (row.prefix[:, None] == row.owner)
    distance = row.positions[:, None] - row.positions
    keep = row.targets != IGNORED
    logits: Tensor = model(
        input_ids=row.ids[None],
        position_ids=row.positions[None],
        attention_mask=attention_masks(model, (seen & (distance >= 0))[None], distance[None]),
        use_cache=False,
        logits_to_keep=keep[None],
    ).logits
    return score(logits.reshape(-1, logits.shape[-1]), row.targets[keep], row.first[keep])


def _one_row(batches: Sequence[PrefixBatch]) -> _Row:
    parts: list[_Row] = []
    for batch in batches:
        number = len(parts)
        parts.append(_part(batch.prefix, 0, number, number))
        for at, real in enumerate(batch.real):
            own = (part[at][real] for part in (batch.suffixes, batch.targets, batch.first))
            parts.append(_part(next(own), len(batch.prefix), len(parts), number, *own))
    return _Row(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _part(
    ids: Tensor,
    start: int,
    owner: int,
    prefix: int,
    targets: Tensor | None = None,
    first: Tensor | None = None,
) -> _Row:
    """A prefix, or what follows it in one row; a prefix has no targets."""
    return _Row(
        ids,
        torch.arange(start, start + len(ids), device=ids.device),
        torch.full_like(ids, owner),
        torch.full_like(ids, prefix),
        torch.full_like(ids, IGNORED) if targets is None else targets,
        torch.zeros_like(ids, dtype=torch.bool) if first is None else first,
    )


def attention_masks(model: Any, seen: Tensor, distance: Tensor) -> Any:
    """What transformers takes as a ready mask: a tensor, or one for each kind of layer.

    seen: which query may look at which key, windows aside, [rows, queries, keys], bool;
    distance: by how many positions the key stands before the query, the same shape or [1, ...].
    Gemma3 would silently give one bare tensor to its windowed and its other layers alike.
    """
    config = model.config.get_text_config(decoder=True)
    if "flash" in config._attn_implementation:
        raise ValueError(f"{config._attn_implementation} takes no ready mask")
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if unknown := kinds - {"full_attention", "sliding_attention"}:
        raise ValueError(f"layers of the kind {', '.join(sorted(unknown))} take no ready mask")
    near = seen if window is None else seen & (distance < window)
    eager = config._attn_implementation == "eager"
    full, sliding = (_added(m, model.dtype) if eager else m[:, None] for m in (seen, near))
    if kinds:
        return {"full_attention": full, "sliding_attention": sliding}
    return sliding


def _added(seen: Tensor, kind: torch.dtype) -> Tensor:
    """The mask as what is added to attention scores."""
    blank = torch.zeros_like(seen, dtype=kind)
    return blank.masked_fill(~seen, torch.finfo(kind).min)[:, None]
