"""The exact probability that an answer begins with each of several token paths, after one prefill.

The probability of a path is the product of those of its tokens, each after the prompt and the path
so far. Paths form a tree: a common prefix of two of them is computed once. The prefill has given
the distribution after the prompt, and after the tokens of the draft. All other nodes of all trees
are computed in one more pass (tree attention): a node attends to its prompt and its own ancestors,
at the position where it would stand in a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distill.sharing import expand_cache
from distill.sharing.flat import attention_masks
from distill.sharing.reading import (
    PrefillPass,
    PromptRow,
    TokenPath,
    common_prefix_length,
    forward_logits,
    supports_prefix_sharing,
)

MIN_LOG_PROBABILITY = log(1e-6)
"""A path whose beginning is less likely is not computed further; its probability is given as 0."""

_LogProbs = dict[TokenPath, dict[int, float]]
"""For each node, a path from the root, the log-probability of each token that may follow."""


def supports_path_scoring(model: Any) -> bool:
    """Whether the model supports prefix sharing, and its attention takes a custom mask."""
    config = model.config.get_text_config(decoder=True)
    return supports_prefix_sharing(model) and config._attn_implementation in {"eager", "sdpa"}


@torch.inference_mode()
def path_probabilities(model: Any, prefilled: PrefillPass) -> list[list[float]]:
    """For each row of a prefill, the probability of each of its paths."""
    known = [
        _prefilled_nodes(row, logits)
        for row, logits in zip(prefilled.rows, prefilled.logits, strict=True)
    ]
    missing = [_missing_nodes(row, own) for row, own in zip(prefilled.rows, known, strict=True)]
    if any(missing):
        _compute_nodes(model, prefilled, missing, known)
    return [
        [_probability(path, own) for path in row.paths]
        for row, own in zip(prefilled.rows, known, strict=True)
    ]


@torch.inference_mode()
def plain_path_probabilities(
    model: Any, prompt: Sequence[int], paths: Sequence[TokenPath]
) -> list[float]:
    """The probability of each path after one prompt, for models that do not support path scoring.

    Every path is read whole with its prompt, one at a time: no cache, no padding, no mask.
    """
    found = []
    for path in paths:
        ids = torch.tensor([[*prompt, *path]], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])
        found.append(exp(float(chosen.sum())))
    return found


def _prefilled_nodes(row: PromptRow, logits: Tensor) -> _LogProbs:
    """The nodes that the prefill has computed: the root, and the draft as far as a path goes."""
    nodes = {(), *row.inner_nodes}
    draft = tuple(row.draft)
    found = [draft[:end] for end in range(len(logits)) if draft[:end] in nodes]
    return dict(zip(found, _log_probs(row, logits[: len(found)]), strict=True))


def _log_probs(row: PromptRow, logits: Tensor) -> list[dict[int, float]]:
    """For each row of logits, the log-probabilities of all tokens that occur in a path."""
    tokens = sorted({token for path in row.paths for token in path})
    logits = logits.float()
    found = logits[:, tokens] - logits.logsumexp(-1, keepdim=True)
    return [dict(zip(tokens, own, strict=True)) for own in found.tolist()]


def _missing_nodes(row: PromptRow, known: _LogProbs) -> list[TokenPath]:
    """The nodes that are still to be computed, ancestors first."""
    missing: set[TokenPath] = set()
    for path in row.paths:
        depth = next((end for end in range(len(path)) if path[:end] not in known), len(path))
        if sum(known[path[:end]][path[end]] for end in range(depth)) >= MIN_LOG_PROBABILITY:
            missing |= {path[:end] for end in range(depth, len(path))}
    return sorted(missing, key=len)


def _probability(path: TokenPath, known: _LogProbs) -> float:
    nodes = [path[:end] for end in range(len(path))]
    if any(node not in known for node in nodes):
        return 0.0
    return exp(sum(known[node][token] for node, token in zip(nodes, path, strict=True)))


def _compute_nodes(
    model: Any,
    prefilled: PrefillPass,
    missing: Sequence[list[TokenPath]],
    known: Sequence[_LogProbs],
) -> None:
    """Compute the missing nodes of all rows in one pass, and add them to `known`."""
    past = prefilled.cache.get_seq_length()
    rows = list(zip(prefilled.rows, missing, strict=True))
    counts = [len(nodes) for nodes in missing]
    ids = _padded([[node[-1] for node in nodes] for _, nodes in rows])
    positions = _padded(
        [[len(row.prompt) + len(node) - 1 for node in nodes] for row, nodes in rows]
    )
    keep = torch.arange(ids.shape[1]) < torch.tensor(counts)[:, None]
    # Slots of the cache that a node attends to: the prompt, and the draft while it is the path.
    attended = _padded(
        [
            [len(row.prompt) + common_prefix_length(node, row.draft[:-1]) for node in nodes]
            for row, nodes in rows
        ]
    )
    slots = torch.arange(past).expand(len(rows), past)
    visible = torch.cat([slots[:, None] < attended[:, :, None], _ancestor_mask(missing)], 2)
    distance = positions[:, :, None] - torch.cat([slots, positions], 1)[:, None]
    device = model.device
    logits = forward_logits(
        model,
        ids.to(device),
        attention_masks(model, visible.to(device), distance.to(device)),
        positions.to(device),
        # A copy: the cache of the prefill must not grow.
        expand_cache(prefilled.cache, len(rows)),
        keep.to(device),
    )
    for (row, nodes), own, own_logits in zip(rows, known, torch.split(logits, counts), strict=True):
        own.update(zip(nodes, _log_probs(row, own_logits), strict=True))


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """The rows padded on the right, [rows, longest]."""
    return pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True)


def _ancestor_mask(nodes_of_rows: Sequence[list[TokenPath]]) -> Tensor:
    """Which nodes a node attends to, itself among them, [rows, nodes, nodes], bool."""
    longest = max(map(len, nodes_of_rows))
    # Padding attends to itself: a softmax over nothing is NaN.
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(nodes_of_rows), 1, 1)
    for row, nodes in enumerate(nodes_of_rows):
        for query, node in enumerate(nodes):
            for key, other in enumerate(nodes[:query]):
                mask[row, query, key] = node[: len(other)] == other
    return mask
