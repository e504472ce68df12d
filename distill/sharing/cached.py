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
can be collected chunk by chunk: `_Chunks` runs forward and backward of some rows at a time, keeps
only the sums, and hands them to autograd. Then memory holds the prefix and one chunk, however many
rows there are, and each row is still computed once.

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
from torch.nn.functional import pad

from distill.sharing.groups import partition

IGNORED = -100
"""The label of a token that is not trained on."""

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The summed loss of logits [labels, vocabulary], given their targets [labels] and `first`."""


class Batch(NamedTuple):
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

    def chunks(self, rows: int) -> Iterator[Batch]:
        """The batch in parts of at most so many rows, each as wide as its longest one."""
        for start in range(0, len(self.suffixes), rows):
            own = slice(start, start + rows)
            width = int(self.real[own].sum(1).max())
            yield Batch(self.prefix, *(part[own, :width] for part in self[1:]))


def regroup(
    input_ids: Tensor, attention_mask: Tensor, labels: Tensor, opens: Sequence[int] = ()
) -> list[Batch]:
    """A padded batch, [rows, length] each, as batches of rows that begin alike.

    Every label keeps the token before it in its suffix, since that is what predicts it. Where a
    model reads part of a row in both directions, `opens` holds the ids of the tokens that open
    such a part: a prefix ends before the last one of them.
    """
    real = attention_mask.bool()
    ids = [row[own] for row, own in zip(input_ids, real, strict=True)]
    wanted = [row[own] for row, own in zip(labels, real, strict=True)]
    limits = [_limit(*row, opens) for row in zip(ids, wanted, strict=True)]
    groups = partition([row.tolist() for row in ids], limits)
    return [
        _batch(
            ids[group.rows[0]][: group.shared],
            [ids[at] for at in group.rows],
            [wanted[at] for at in group.rows],
        )
        for group in groups
    ]


def _limit(ids: Tensor, labels: Tensor, opens: Sequence[int]) -> int:
    """How long a prefix of the row may be."""
    labelled = (labels[1:] != IGNORED).nonzero()
    limit = int(labelled[0]) if len(labelled) else len(ids) - 1
    opened = torch.isin(ids, ids.new_tensor(list(opens))).nonzero()
    return min(limit, int(opened[-1])) if len(opened) else limit


def _batch(prefix: Tensor, rows: Sequence[Tensor], labels: Sequence[Tensor]) -> Batch:
    from torch.nn.utils.rnn import pad_sequence

    shared = len(prefix)
    suffixes = pad_sequence([row[shared:] for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) - shared for row in rows], device=suffixes.device)
    real = torch.arange(suffixes.shape[1], device=suffixes.device) < lengths[:, None]
    following = [pad(row[shared + 1 :], (0, 1), value=IGNORED) for row in labels]
    targets = pad_sequence(following, batch_first=True, padding_value=IGNORED)
    labelled = targets != IGNORED
    return Batch(prefix, suffixes, real, targets, labelled & (labelled.cumsum(1) == 1))


def shared_loss(model: Any, batches: Sequence[Batch], score: Score, *, rows_at_once: int) -> Tensor:
    """The sum of `score` over all labels of all batches, with gradients where they are on.

    At most `rows_at_once` rows are held at one time, beside one prefix for each batch.
    """
    losses = []
    for batch in batches:
        cache = prefix_cache(model, batch.prefix) if len(batch.prefix) else None
        chunks = list(batch.chunks(rows_at_once))
        if len(chunks) > 1 and torch.is_grad_enabled():
            losses.append(_in_chunks(model, cache, chunks, score))
        else:
            losses += [_chunk_loss(model, cache, chunk, score) for chunk in chunks]
    return torch.stack(losses).sum()


def prefix_cache(model: Any, ids: Tensor) -> Any:
    """The keys and values of token ids [P], as a cache of one row."""
    output = model(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids)[None],
        use_cache=True,
        logits_to_keep=1,
    )
    return output.past_key_values


def suffix_logits(model: Any, cache: Any, suffixes: Tensor, real: Tensor, keep: Tensor) -> Tensor:
    """Scores of what follows the kept positions, [kept, vocabulary], row by row.

    suffixes, real, keep: [N, S], as in Batch; cache: one row of a prefix, left as it is, or None.
    """
    rows = len(suffixes)
    past = cache.get_seq_length() if cache is not None else 0
    output = model(
        input_ids=suffixes,
        attention_mask=pad(real, (past, 0), value=True).long(),
        past_key_values=repeated(cache, rows) if cache is not None else None,
        use_cache=cache is not None,
        logits_to_keep=keep,
    )
    logits: Tensor = output.logits
    return logits.reshape(-1, logits.shape[-1])


def repeated(cache: Any, rows: int) -> Any:
    """The cache of one row as a cache of so many rows; the original is left as it is."""
    return _with(cache, [part.expand(rows, *part.shape[1:]) for part in _parts(cache)])


def _parts(cache: Any) -> list[Tensor]:
    """The keys and values of a cache, layer by layer."""
    return [part for layer in _filled(cache) for part in (layer.keys, layer.values)]


def _filled(cache: Any) -> list[Any]:
    # Layers that share the keys of another one hold none.
    return [layer for layer in cache.layers if layer.is_initialized]


def _with(cache: Any, parts: Sequence[Tensor]) -> Any:
    """A copy of the cache that holds these keys and values."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    rest = iter(parts)
    for layer in _filled(copied):
        layer.keys, layer.values = next(rest), next(rest)
    return copied


def _chunk_loss(model: Any, cache: Any, chunk: Batch, score: Score) -> Tensor:
    keep = chunk.targets != IGNORED
    logits = suffix_logits(model, cache, chunk.suffixes, chunk.real, keep)
    return score(logits, chunk.targets[keep], chunk.first[keep])


def _in_chunks(model: Any, cache: Any, chunks: Sequence[Batch], score: Score) -> Tensor:
    parts = _parts(cache) if cache is not None else []
    trained = [weight for weight in model.parameters() if weight.requires_grad]

    def loss_of(chunk: Batch, leaves: Sequence[Tensor]) -> Tensor:
        return _chunk_loss(model, cache and _with(cache, leaves), chunk, score)

    apply: Any = _Chunks.apply
    loss: Tensor = apply(loss_of, chunks, len(parts), *parts, *trained)
    return loss


class _Chunks(torch.autograd.Function):
    """The loss of all chunks; its gradients are collected while each chunk is at hand."""

    @staticmethod
    def forward(
        ctx: Any, loss_of: Any, chunks: Sequence[Batch], count: int, *inputs: Tensor
    ) -> Tensor:
        leaves = [part.detach().requires_grad_() for part in inputs[:count]]
        sources = [*leaves, *inputs[count:]]
        sums: list[Tensor | None] = [None] * len(sources)
        total = torch.zeros((), device=inputs[-1].device)
        for chunk in chunks:
            with torch.enable_grad():
                loss = loss_of(chunk, leaves)
            total += loss.detach()
            for at, found in enumerate(torch.autograd.grad(loss, sources, allow_unused=True)):
                if found is not None:
                    so_far = sums[at]
                    sums[at] = found if so_far is None else so_far + found
        ctx.sums = sums
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        return None, None, None, *(s if s is None else s * outer[0] for s in ctx.sums)
