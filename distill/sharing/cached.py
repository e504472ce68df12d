"""Fine-tuning on rows with a common prefix: the prefix is computed once, with gradients.

A row is a prefix p, the same in N rows, and its own suffix s_n, which holds every label. In a
decoder, what position t computes depends only on positions up to t, and a layer sees the earlier
ones only through their keys and values. So the keys and values of the prefix, KV(p), are the same
in all rows, and

    L = sum_n l(s_n, KV(p))

is the loss of the plain padded batch, term for term: positions and masks are those of the whole
row. It costs P + N S tokens instead of N (P + S). The gradient is that of the plain batch as well,
by the chain rule, since KV(p) is a node of the graph that N suffixes read:

    dL/dw = sum_n dl(s_n, KV)/dw + (sum_n dl(s_n, KV)/dKV) dKV/dw

The second term is one backward pass through the prefix. Its first factor is a sum over rows, so it
can be accumulated chunk by chunk: `_ChunkedLoss` runs the forward and backward pass of a few rows
at a time and keeps only the sums, then runs the backward pass of the prefix, and returns all
gradients to autograd. Memory holds one prefix and one chunk, however many rows there are, and each
row is still computed once.

This requires causal attention and a cache that is nothing but keys and values. Sliding windows are
supported: the mask is made from positions. Dropout would differ in one point: one mask would be
drawn for the prefix of all rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from distill.sharing.groups import partition

IGNORE_INDEX = -100
"""The label of a token that has no loss."""

LossFn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The summed loss of logits [labels, vocabulary], targets [labels] and `decision` [labels]."""


class PrefixBatch(NamedTuple):
    """Rows that share a prefix: P tokens, N rows, suffixes of up to S tokens."""

    prefix: Tensor
    """Token ids, [P]; P may be 0."""
    suffixes: Tensor
    """Token ids, [N, S], padded on the right."""
    mask: Tensor
    """False where `suffixes` is padding, [N, S], bool."""
    targets: Tensor
    """The label of the next token at each position, or IGNORE_INDEX, [N, S]."""
    decision: Tensor
    """True where the target is a token at which the allowed answers part, [N, S], bool."""

    def chunks(self, max_rows: int) -> Iterator[PrefixBatch]:
        """Batches of at most `max_rows` rows, each as wide as its longest one."""
        for start in range(0, len(self.suffixes), max_rows):
            yield self.select(slice(start, start + max_rows))

    def select(self, rows: slice | Tensor) -> PrefixBatch:
        """Some of the rows, as wide as the longest one of them."""
        width = int(self.mask[rows].sum(1).max())
        return PrefixBatch(self.prefix, *(part[rows, :width] for part in self[1:]))

    def to(self, device: torch.device) -> PrefixBatch:
        return PrefixBatch(*(part.to(device, non_blocking=True) for part in self))


def group_by_prefix(
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    decision: Tensor,
    bidirectional_start_ids: Sequence[int] = (),
) -> list[PrefixBatch]:
    """Split a padded batch, [rows, length] each, into batches of rows with a common prefix.

    decision: whether a label is one at which the allowed answers part, bool

    The token before a label, which predicts it, is always in the suffix. Where a model attends in
    both directions within part of a row, `bidirectional_start_ids` are the ids of the tokens that
    start such a part: a prefix ends before the last one of them.
    """
    # On the CPU: each row would be one synchronization with the GPU.
    ids, labels, mask = input_ids.cpu(), labels.cpu(), attention_mask.cpu().bool()
    limits = _max_prefix_lengths(ids, labels, mask, bidirectional_start_ids).tolist()
    row_ids = [row[own] for row, own in zip(ids, mask, strict=True)]
    row_labels = [row[own] for row, own in zip(labels, mask, strict=True)]
    row_decision = [row[own] for row, own in zip(decision.cpu(), mask, strict=True)]
    groups = partition([row.tolist() for row in row_ids], limits)
    return [
        _make_batch(
            row_ids[group.rows[0]][: group.prefix_length],
            [row_ids[row] for row in group.rows],
            [row_labels[row] for row in group.rows],
            [row_decision[row] for row in group.rows],
        ).to(input_ids.device)
        for group in groups
    ]


def _max_prefix_lengths(
    ids: Tensor, labels: Tensor, mask: Tensor, bidirectional_start_ids: Sequence[int]
) -> Tensor:
    """The longest prefix of each row that may be shared, [rows]."""
    positions = mask.cumsum(1) - 1
    labelled = mask & (labels != IGNORE_INDEX) & (positions > 0)
    last = positions.amax(1)
    limits = torch.where(labelled, positions - 1, last[:, None]).amin(1)
    starts = mask & torch.isin(ids, torch.tensor(list(bidirectional_start_ids), dtype=ids.dtype))
    start = torch.where(starts, positions, -1).amax(1)
    return torch.where(start < 0, limits, torch.minimum(limits, start))


def _make_batch(
    prefix: Tensor, rows: Sequence[Tensor], labels: Sequence[Tensor], decision: Sequence[Tensor]
) -> PrefixBatch:
    from torch.nn.utils.rnn import pad_sequence

    start = len(prefix)
    suffixes = pad_sequence([row[start:] for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) - start for row in rows], device=suffixes.device)
    mask = torch.arange(suffixes.shape[1], device=suffixes.device) < lengths[:, None]
    next_labels = [pad(row[start + 1 :], (0, 1), value=IGNORE_INDEX) for row in labels]
    targets = pad_sequence(next_labels, batch_first=True, padding_value=IGNORE_INDEX)
    next_decision = [pad(row[start + 1 :], (0, 1)) for row in decision]
    return PrefixBatch(
        prefix, suffixes, mask, targets, pad_sequence(next_decision, batch_first=True)
    )


def shared_loss(
    model: Any, batches: Sequence[PrefixBatch], loss_fn: LossFn, *, rows_at_once: int
) -> Tensor:
    """The sum of `loss_fn` over all labels of all batches, with gradients where they are enabled.

    Activations of at most `rows_at_once` rows and of one prefix are held at one time. Raises
    ValueError for a model whose cache is not just keys and values.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    rows = sum(len(batch.suffixes) for batch in batches)
    if rows > rows_at_once and trained and torch.is_grad_enabled():
        apply: Any = _ChunkedLoss.apply
        chunked: Tensor = apply(model, batches, loss_fn, rows_at_once, *trained)
        return chunked
    losses = []
    for batch in batches:
        cache = prefix_cache(model, batch.prefix) if len(batch.prefix) else None
        losses += [_chunk_loss(model, cache, part, loss_fn) for part in batch.chunks(rows_at_once)]
    return torch.stack(losses).sum()


def prefix_cache(model: Any, ids: Tensor) -> Any:
    """The KV cache of token ids [P], as a cache of one row.

    Raises ValueError for a model whose cache is not just keys and values.
    """
    cache = model(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids)[None],
        use_cache=True,
        logits_to_keep=1,
    ).past_key_values
    kinds = {type(layer) for layer in getattr(cache, "layers", ())}
    if not kinds:
        raise ValueError(f"{type(model).__name__} keeps no keys and values")
    if others := kinds - {DynamicLayer, DynamicSlidingWindowLayer}:
        names = ", ".join(sorted(kind.__name__ for kind in others))
        raise ValueError(f"{type(model).__name__} keeps {names}, not keys and values alone")
    return cache


def suffix_logits(model: Any, cache: Any, suffixes: Tensor, mask: Tensor, keep: Tensor) -> Tensor:
    """Next-token logits at the positions to keep, [kept, vocabulary], row by row.

    suffixes, mask, keep: [N, S], as in PrefixBatch; cache: one row of a prefix, not modified, or
    None.
    """
    rows = len(suffixes)
    past = cache.get_seq_length() if cache is not None else 0
    output = model(
        input_ids=suffixes,
        attention_mask=pad(mask, (past, 0), value=True).long(),
        past_key_values=expand_cache(cache, rows) if cache is not None else None,
        use_cache=cache is not None,
        logits_to_keep=keep,
    )
    logits: Tensor = output.logits
    return logits.reshape(-1, logits.shape[-1])


def expand_cache(cache: Any, rows: int) -> Any:
    """The cache of one row as a cache of `rows` equal rows; the original is not modified."""
    return _with_kv(cache, [part.expand(rows, *part.shape[1:]) for part in _kv(cache)])


def _kv(cache: Any) -> list[Tensor]:
    """The keys and values of a cache, layer by layer."""
    return [part for layer in initialized_layers(cache) for part in (layer.keys, layer.values)]


def initialized_layers(cache: Any) -> list[Any]:
    """The layers that hold keys and values; layers that reuse those of another hold none."""
    return [layer for layer in cache.layers if layer.is_initialized]


def _with_kv(cache: Any, parts: Sequence[Tensor]) -> Any:
    """A copy of the cache that holds these keys and values."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    rest = iter(parts)
    for layer in initialized_layers(copied):
        layer.keys, layer.values = next(rest), next(rest)
    return copied


def _chunk_loss(model: Any, cache: Any, chunk: PrefixBatch, loss_fn: LossFn) -> Tensor:
    keep = chunk.targets != IGNORE_INDEX
    logits = suffix_logits(model, cache, chunk.suffixes, chunk.mask, keep)
    return loss_fn(logits, chunk.targets[keep], chunk.decision[keep])


class _ChunkedLoss(torch.autograd.Function):
    """The loss of all rows; the forward pass already runs the backward pass of each chunk.

    Weights are inputs, so that autograd and its hooks (DDP's, say) receive their gradients as if
    one graph had been kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        model: Any,
        batches: Sequence[PrefixBatch],
        loss_fn: LossFn,
        rows_at_once: int,
        *trained: Tensor,
    ) -> Tensor:
        gradients = _GradientSums(trained)
        with torch.enable_grad():
            losses = [
                _accumulate(model, batch, loss_fn, rows_at_once, gradients) for batch in batches
            ]
        ctx.gradients = gradients
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> Any:
        # Released from ctx: there is only one copy of each gradient.
        sums, ctx.gradients = ctx.gradients.sums, None
        return None, None, None, None, *(s if s is None else s.mul_(outer) for s in sums)


class _GradientSums:
    """Accumulates gradients with respect to `sources`; None where there was none."""

    def __init__(self, sources: Sequence[Tensor]) -> None:
        self.sources = sources
        self.sums: list[Tensor | None] = [None] * len(sources)

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        for index, gradient in enumerate(gradients):
            so_far = self.sums[index]
            if gradient is not None:
                # autograd may return a view, or the same tensor twice: only a copy may be changed.
                self.sums[index] = gradient.clone() if so_far is None else so_far.add_(gradient)


def _accumulate(
    model: Any, batch: PrefixBatch, loss_fn: LossFn, rows_at_once: int, weights: _GradientSums
) -> Tensor:
    """The loss of one batch; its gradients are added to those of the weights."""
    cache = prefix_cache(model, batch.prefix) if len(batch.prefix) else None
    parts = _kv(cache) if cache is not None else []
    leaves = _GradientSums([part.detach().requires_grad_() for part in parts])
    detached = _with_kv(cache, leaves.sources) if cache is not None else None
    total = torch.zeros((), device=batch.suffixes.device)
    for chunk in batch.chunks(rows_at_once):
        loss = _chunk_loss(model, detached, chunk, loss_fn)
        gradients = _grad([loss], [*leaves.sources, *weights.sources])
        leaves.add(gradients[: len(parts)])
        weights.add(gradients[len(parts) :])
        total += loss.detach()
    through = [
        index
        for index, part in enumerate(parts)
        if part.requires_grad and leaves.sums[index] is not None
    ]
    if through:
        outer = [leaves.sums[index] for index in through]
        weights.add(_grad([parts[index] for index in through], weights.sources, outer))
    return total


def _grad(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    grad_outputs: Sequence[Tensor | None] | None = None,
) -> Sequence[Tensor | None]:
    # Autocast applies to forward passes; a backward pass uses the dtypes of its forward pass.
    with torch.autocast(outputs[0].device.type, enabled=False):
        return torch.autograd.grad(outputs, inputs, grad_outputs, allow_unused=True)
