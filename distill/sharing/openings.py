"""How likely a model begins its answer in each of several ways, exactly, from prompts read once.

The probability of a path of tokens is the product of those of its tokens, each behind the prompt
and the path so far. Paths are a tree: what two of them share is read once. The prompt's pass has
told what follows the prompt itself, and the tokens of a draft. What else is needed is read in one
more pass, all nodes of all trees behind their prompts' keys and values, under a mask by which a
node sees its prompt and its own ancestors, at the position where it would stand.
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
    forward,
    supports_prefix_sharing,
)

NEVER = log(1e-6)
"""What is less likely than this is not followed further, and said to be impossible."""

_Known = dict[TokenPath, dict[int, float]]
"""By path, the log-probability of each token that may follow."""


def can_score(model: Any) -> bool:
    """Whether the model's past can be shared, and its attention takes a mask of ours."""
    config = model.config.get_text_config(decoder=True)
    return supports_prefix_sharing(model) and config._attn_implementation in {"eager", "sdpa"}


@torch.inference_mode()
def path_probabilities(model: Any, done: PrefillPass) -> list[list[float]]:
    """For each row of a pass the probability of each of its paths."""
    known = [_of_pass(row, logits) for row, logits in zip(done.rows, done.logits, strict=True)]
    wanted = [_unknown(row, own) for row, own in zip(done.rows, known, strict=True)]
    if any(wanted):
        _read_nodes(model, done, wanted, known)
    return [
        [_probability(path, own) for path in row.paths]
        for row, own in zip(done.rows, known, strict=True)
    ]


def _of_pass(row: PromptRow, logits: Tensor) -> _Known:
    """What the pass has told: of what follows the prompt, and the draft as far as a path goes."""
    nodes = {(), *row.inner}
    draft = tuple(row.draft)
    told = [draft[:at] for at in range(len(logits)) if draft[:at] in nodes]
    return dict(zip(told, _tables(row, logits[: len(told)]), strict=True))


def _tables(row: PromptRow, logits: Tensor) -> list[dict[int, float]]:
    """For each row of scores the log-probabilities of all tokens that stand in a path."""
    tokens = sorted({token for path in row.paths for token in path})
    scores = logits.float()
    found = scores[:, tokens] - scores.logsumexp(-1, keepdim=True)
    return [dict(zip(tokens, own, strict=True)) for own in found.tolist()]


def _unknown(row: PromptRow, known: _Known) -> list[TokenPath]:
    """The nodes that are still to be read, ancestors first."""
    needed: set[TokenPath] = set()
    for path in row.paths:
        told = next((at for at in range(len(path)) if path[:at] not in known), len(path))
        if sum(known[path[:at]][path[at]] for at in range(told)) >= NEVER:
            needed |= {path[:at] for at in range(told, len(path))}
    return sorted(needed, key=len)


def _probability(path: TokenPath, known: _Known) -> float:
    nodes = [path[:at] for at in range(len(path))]
    if any(node not in known for node in nodes):
        return 0.0
    return exp(sum(known[node][token] for node, token in zip(nodes, path, strict=True)))


def _read_nodes(
    model: Any, done: PrefillPass, wanted: Sequence[list[TokenPath]], known: Sequence[_Known]
) -> None:
    """Read the wanted nodes of every row in one pass, and add what follows them to `known`."""
    past = done.cache.get_seq_length()
    rows = list(zip(done.rows, wanted, strict=True))
    ids = _padded([[node[-1] for node in nodes] for _, nodes in rows])
    at = _padded([[len(row.prompt) + len(node) - 1 for node in nodes] for row, nodes in rows])
    real = torch.arange(ids.shape[1]) < torch.tensor([len(nodes) for nodes in wanted])[:, None]
    shown = _padded([[_shown(row, node) for node in nodes] for row, nodes in rows])
    slots = torch.arange(past).expand(len(rows), past)
    seen = torch.cat([slots[:, None] < shown[:, :, None], _ancestors(wanted)], 2)
    distance = at[:, :, None] - torch.cat([slots, at], 1)[:, None]
    device = model.device
    scores = forward(
        model,
        ids.to(device),
        attention_masks(model, seen.to(device), distance.to(device)),
        at.to(device),
        # A copy: the pass's own cache is left as it is.
        expand_cache(done.cache, len(rows)),
        real.to(device),
    )
    each = torch.split(scores, [len(nodes) for nodes in wanted])
    for (row, nodes), own, behind in zip(rows, known, each, strict=True):
        own.update(zip(nodes, _tables(row, behind), strict=True))


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """The rows padded on the right, [rows, longest]."""
    return pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True)


def _shown(row: PromptRow, node: TokenPath) -> int:
    """How many slots of the pass a node sees: the prompt, and the draft as far as it agrees."""
    return len(row.prompt) + common_prefix_length(node, row.draft[:-1])


def _ancestors(wanted: Sequence[list[TokenPath]]) -> Tensor:
    """Which nodes a node sees, itself among them, [rows, nodes, nodes]."""
    longest = max(map(len, wanted))
    # Padding sees itself: attention to nothing is no number.
    seen = torch.eye(longest, dtype=torch.bool).repeat(len(wanted), 1, 1)
    for row, nodes in enumerate(wanted):
        for at, node in enumerate(nodes):
            for before, other in enumerate(nodes[:at]):
                seen[row, at, before] = node[: len(other)] == other
    return seen
