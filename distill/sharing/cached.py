"""Supervised fine-tuning of rows that begin alike, their beginning computed once, with gradients.

A row is a prefix p, the same in N rows, and a suffix s_n of its own that holds every label. In a
decoder, what position t computes depends on positions up to t alone, and of those before it a
layer sees only their keys and values. So the keys and values of the prefix, KV(p), are the same in
all rows, and

    L = sum_n l(s_n, KV(p))

is the loss of the plain padded batch, term for term: positions and masks are those of the whole
row. It costs P + N S tokens instead of N (P + S). The gradient is that of the plain batch as well,
by the chain rule, since KV(p) is a node of the graph that N suffixes read:

    dL/dw = sum_n dl(s_n, KV)/dw + (sum_n dl(s_n, KV)/dKV) dKV/dw

The second term is one backward pass through the prefix. Its first factor is a sum over rows, and
can be collected chunk by chunk: `_InChunks` runs forward and backward of some rows at a time and
keeps only the sums, then runs the backward pass of the prefix, and hands all to autograd. Memory
holds one prefix and one chunk, however many rows there are, and each row is still computed once.

This needs causal attention and a cache that is only its keys and values. A sliding window is no
hindrance: the mask is made from positions. Dropout would differ in one point, as the prefix is
drawn once for all rows.
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

IGNORED = -100
"""The label of a token that is not trained on."""

LossFn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The summed loss of logits [labels, vocabulary], given their targets [labels] and `first`."""


class PrefixBatch(NamedTuple):
    """Rows that share a prefix: P tokens, N rows, suffixes of up to S tokens."""

    prefix: Tensor
    """Token ids, [P]; P may be 0."""
    suffixes: Tensor
    """Token ids, [N, S], padded on the right."""
    real: Tensor
    """Where `suffixes` is no padding, [N, S], bool."""
    targets: Tensor
    """The token that should follow each position, or -100, [N, S]."""
    first: Tensor
    """The first target of each row, [N, S], bool."""

    def chunks(self, rows: int) -> Iterator[PrefixBatch]:
        """The batch in parts of at most so many rows, each as wide as its longest one."""
        for start in range(0, len(self.suffixes), rows):
            own = slice(start, start + rows)
            yield self.only(own)

    def to(self, device: torch.device) -> PrefixBatch:
        return PrefixBatch(*(part.to(device, non_blocking=True) for part in self))

    def only(self, rows: slice | Tensor) -> PrefixBatch:
        """Some of the rows, as wide as the longest one of them."""
        width = int(self.real[rows].sum(1).max())
        return PrefixBatch(self.prefix, *(part[rows, :width] for part in self[1:]))


def group_by_prefix(
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    bidirectional_start_ids: Sequence[int] = (),
) -> list[PrefixBatch]:
    """A padded batch, [rows, length] each, as batches of rows that begin alike.

    Every label keeps the token before it in its suffix, since that is what predicts it. Where a
    model reads part of a row in both directions, `bidirectional_start_ids` are the ids of the
    tokens that open such a part: a prefix ends before the last one of them.
    """
    # On the processor: a GPU would have to be waited for at each row.
    table, labels, real = input_ids.cpu(), labels.cpu(), attention_mask.cpu().bool()
    limits = _limits(table, labels, real, bidirectional_start_ids).tolist()
    ids = [row[own] for row, own in zip(table, real, strict=True)]
    wanted = [row[own] for row, own in zip(labels, real, strict=True)]
    groups = partition([row.tolist() for row in ids], limits)
    return [
        _batch(
            ids[group.rows[0]][: group.shared],
            [ids[at] for at in group.rows],
            [wanted[at] for at in group.rows],
        ).to(input_ids.device)
        for group in groups
    ]


def _limits(
    ids: Tensor, labels: Tensor, real: Tensor, bidirectional_start_ids: Sequence[int]
) -> Tensor:
    """How long a prefix of each row may be, [rows]."""
    place = real.cumsum(1) - 1
    labelled = real & (labels != IGNORED) & (place > 0)
    last = place.amax(1)
    limits = torch.where(labelled, place - 1, last[:, None]).amin(1)
    opened = real & torch.isin(ids, torch.tensor(list(bidirectional_start_ids), dtype=ids.dtype))
    start = torch.where(opened, place, -1).amax(1)
    return torch.where(start < 0, limits, torch.minimum(limits, start))


def _batch(prefix: Tensor, rows: Sequence[Tensor], labels: Sequence[Tensor]) -> PrefixBatch:
    from torch.nn.utils.rnn import pad_sequence

    shared = len(prefix)
    suffixes = pad_sequence([row[shared:] for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) - shared for row in rows], device=suffixes.device)
    real = torch.arange(suffixes.shape[1], device=suffixes.device) < lengths[:, None]
    following = [pad(row[shared + 1 :], (0, 1), value=IGNORED) for row in labels]
    targets = pad_sequence(following, batch_first=True, padding_value=IGNORED)
    labelled = targets != IGNORED
    return PrefixBatch(prefix, suffixes, real, targets, labelled & (labelled.cumsum(1) == 1))


def shared_loss(
    model: Any, batches: Sequence[PrefixBatch], score: LossFn, *, rows_at_once: int
) -> Tensor:
    """The sum of `score` over all labels of all batches, with gradients where they are on.

    At most `rows_at_once` rows are held at one time, beside one prefix. Raises ValueError for a
    model whose cache is more than keys and values.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    rows = sum(len(batch.suffixes) for batch in batches)
    if rows > rows_at_once and trained and torch.is_grad_enabled():
        apply: Any = _InChunks.apply
        in_chunks: Tensor = apply(model, batches, score, rows_at_once, *trained)
        return in_chunks
    losses = []
    for batch in batches:
        cache = prefix_cache(model, batch.prefix) if len(batch.prefix) else None
        losses += [_chunk_loss(model, cache, part, score) for part in batch.chunks(rows_at_once)]
    return torch.stack(losses).sum()


def prefix_cache(model: Any, ids: Tensor) -> Any:
    """The keys and values of token ids [P], as a cache of one row."""
    output = model(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids)[None],
        use_cache=True,
        logits_to_keep=1,
    )
    return _checked(model, output.past_key_values)


def _checked(model: Any, cache: Any) -> Any:
    """The cache, if it is all that the model remembers: keys and values, layer by layer."""
    kinds = {type(layer) for layer in getattr(cache, "layers", ())}
    if not kinds:
        raise ValueError(f"{type(model).__name__} keeps no keys and values")
    if others := kinds - {DynamicLayer, DynamicSlidingWindowLayer}:
        names = ", ".join(sorted(kind.__name__ for kind in others))
        raise ValueError(f"{type(model).__name__} keeps {names}, not keys and values alone")
    return cache


def suffix_logits(model: Any, cache: Any, suffixes: Tensor, real: Tensor, keep: Tensor) -> Tensor:
    """Scores of what follows the kept positions, [kept, vocabulary], row by row.

    suffixes, real, keep: [N, S], as in PrefixBatch; cache: one row of a prefix, left as it is, or
    None.
    """
    rows = len(suffixes)
    past = cache.get_seq_length() if cache is not None else 0
    output = model(
        input_ids=suffixes,
        attention_mask=pad(real, (past, 0), value=True).long(),
        past_key_values=expand_cache(cache, rows) if cache is not None else None,
        use_cache=cache is not None,
        logits_to_keep=keep,
    )
    logits: Tensor = output.logits
    return logits.reshape(-1, logits.shape[-1])


def expand_cache(cache: Any, rows: int) -> Any:
    """The cache of one row as a cache of so many rows; the original is left as it is."""
    return _with(cache, [part.expand(rows, *part.shape[1:]) for part in _parts(cache)])


def _parts(cache: Any) -> list[Tensor]:
    """The keys and values of a cache, layer by layer."""
    return [part for layer in initialized_layers(cache) for part in (layer.keys, layer.values)]


def initialized_layers(cache: Any) -> list[Any]:
    """The layers that hold keys and values: those that use another one's hold none."""
    return [layer for layer in cache.layers if layer.is_initialized]


def _with(cache: Any, parts: Sequence[Tensor]) -> Any:
    """A copy of the cache that holds these keys and values."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    rest = iter(parts)
    for layer in initialized_layers(copied):
        layer.keys, layer.values = next(rest), next(rest)
    return copied


def _chunk_loss(model: Any, cache: Any, chunk: PrefixBatch, score: LossFn) -> Tensor:
    keep = chunk.targets != IGNORED
    logits = suffix_logits(model, cache, chunk.suffixes, chunk.real, keep)
    return score(logits, chunk.targets[keep], chunk.first[keep])


class _InChunks(torch.autograd.Function):
    """The loss of all rows, whose gradients are collected while each chunk is at hand.

    Weights are inputs, so that autograd, and whatever listens to it, is given their gradients as
    if one graph had been kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        model: Any,
        batches: Sequence[PrefixBatch],
        score: LossFn,
        rows_at_once: int,
        *trained: Tensor,
    ) -> Tensor:
        sums = _Sums(trained)
        with torch.enable_grad():
            losses = [_collect(model, batch, score, rows_at_once, sums) for batch in batches]
        ctx.sums = sums
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> Any:
        # Handed over, not kept: there is one copy of each gradient.
        found, ctx.sums = ctx.sums.found, None
        return None, None, None, None, *(s if s is None else s.mul_(outer) for s in found)


class _Sums:
    """Gradients with respect to `sources`, added up."""

    def __init__(self, sources: Sequence[Tensor]) -> None:
        self.sources = sources
        self.found: list[Tensor | None] = [None] * len(sources)

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        for at, gradient in enumerate(gradients):
            so_far = self.found[at]
            if gradient is not None:
                # What autograd returns may be a view, or the same tensor twice: a copy is ours.
                self.found[at] = gradient.clone() if so_far is None else so_far.add_(gradient)


def _collect(
    model: Any, batch: PrefixBatch, score: LossFn, rows_at_once: int, weights: _Sums
) -> Tensor:
    """The loss of one batch; its gradients are added to those of the weights."""
    cache = prefix_cache(model, batch.prefix) if len(batch.prefix) else None
    parts = _parts(cache) if cache is not None else []
    ends = _Sums([part.detach().requires_grad_() for part in parts])
    own = _with(cache, ends.sources) if cache is not None else None
    total = torch.zeros((), device=batch.suffixes.device)
    for chunk in batch.chunks(rows_at_once):
        loss = _chunk_loss(model, own, chunk, score)
        found = _gradients([loss], [*ends.sources, *weights.sources])
        ends.add(found[: len(parts)])
        weights.add(found[len(parts) :])
        total += loss.detach()
    through = [
        at for at, part in enumerate(parts) if part.requires_grad and ends.found[at] is not None
    ]
    if through:
        outer = [ends.found[at] for at in through]
        weights.add(_gradients([parts[at] for at in through], weights.sources, outer))
    return total


def _gradients(
    values: Sequence[Tensor],
    sources: Sequence[Tensor],
    outer: Sequence[Tensor | None] | None = None,
) -> Sequence[Tensor | None]:
    # A backward pass has the number types of its forward pass, and no others.
    with torch.autocast(values[0].device.type, enabled=False):
        return torch.autograd.grad(values, sources, outer, allow_unused=True)
