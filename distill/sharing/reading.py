"""Prompts read many at once: the beginning that they share once, and a draft of each answer.

A prompt is read once, whatever is asked of it. Prompts that begin alike are grouped; their shared
prefix becomes keys and values of one row, which every row of the group attends to. Behind its
prompt a row may carry a draft of the answer. One pass then says for each of the draft's tokens
what the model itself would have said there, and how likely it found the draft.

All keys and values are kept, those beyond a sliding window too: masks decide what is seen, and
they count slots of the cache. So each row must stand in it without gaps: behind a shared prefix
rows are padded on the right, and what is decoded further is laid out anew (see `decode`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from distill.sharing import expand_cache, initialized_layers, partition

MOST_LOGITS = 2**26
"""Scores held at one time, as numbers: 256 MB in float32."""

_AT_ONCE = 512
"""Prompts that are grouped together: the time that takes is the square of it."""

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer that has some, each [heads, tokens, dimensions]."""


TokenPath = tuple[int, ...]
"""Token ids with which an answer may begin."""


class PromptRow(NamedTuple):
    """A prompt to be read."""

    prompt_index: int
    """Its index among all prompts."""
    prompt: Sequence[int]
    draft: Sequence[int] = ()
    """What the answer may be; empty where nothing is known of it."""
    paths: Sequence[TokenPath] = ()
    """Beginnings of an answer whose probability is asked (see `distill.sharing.openings`)."""

    @property
    def inner(self) -> list[TokenPath]:
        """What the paths have before each of their tokens but the first, the shortest first."""
        found = {path[:at] for path in self.paths for at in range(1, len(path))}
        return sorted(found, key=lambda path: (len(path), path))

    @property
    def ids(self) -> list[int]:
        """What is read: nothing is asked of what follows the draft."""
        return [*self.prompt, *self.draft[:-1]]


class PrefillPass(NamedTuple):
    """What one pass through the model says to some rows."""

    rows: Sequence[PromptRow]
    chosen: list[list[int]]
    """For each row the likeliest token behind the prompt, and behind each draft token but one."""
    draft_nll: list[float | None]
    """For each row its draft's mean negative log-likelihood per token, None without a draft."""
    logits: list[Tensor]
    """For each row the scores behind its prompt and its draft's tokens, [chosen, vocabulary]."""
    prefix: Layers
    """What all rows share."""
    cache: Any

    def own(self, at: int, tokens: int) -> Layers:
        """What the row at `at` has of its own, up to so many of its tokens; a copy."""
        shared = length(self.prefix)
        return [
            (layer.keys[at, :, shared:tokens].clone(), layer.values[at, :, shared:tokens].clone())
            for layer in initialized_layers(self.cache)
        ]


def common_prefix_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences share at their beginning."""
    same = (a == b for a, b in zip(one, other, strict=False))
    return next((at for at, equal in enumerate(same) if not equal), min(len(one), len(other)))


def accepted(model: Any) -> Mapping[str, Any]:
    """What the model's forward takes; an adapter around the model hides it."""
    return inspect.signature(_unwrapped(model).forward).parameters


def supports_prefix_sharing(model: Any) -> bool:
    """Whether the model's past is keys and values alone, whose positions can be named."""
    model = _unwrapped(model)
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ())
    return (
        {"past_key_values", "position_ids"} <= accepted(model).keys()
        and not getattr(model, "_is_stateful", False)
        and kinds <= {"full_attention", "sliding_attention"}
    )


def prefill(
    model: Any,
    rows: Sequence[PromptRow],
    rows_at_once: int,
    bidirectional_start_ids: Sequence[int] = (),
) -> Iterator[PrefillPass]:
    """Every row in one pass or another, at most `rows_at_once` in each.

    bidirectional_start_ids: ids of the tokens from which on the model attends in both directions; a
    shared prefix ends before the last of them.
    """
    order = sorted(rows, key=lambda row: list(row.prompt))
    for start in range(0, len(order), _AT_ONCE):
        part = order[start : start + _AT_ONCE]
        limits = [_limit(row.prompt, bidirectional_start_ids) for row in part]
        for group in partition([row.ids for row in part], limits):
            members = [part[at] for at in group.rows]
            prefix = _prefix(model, members[0].prompt[: group.shared])
            for some in _chunks(members, rows_at_once, _vocabulary(model)):
                yield _read(model, prefix, some)


def _limit(prompt: Sequence[int], bidirectional_start_ids: Sequence[int]) -> int:
    """How long a prefix of the prompt may be: its last token is asked for the first answer."""
    starts = [at for at, token in enumerate(prompt) if token in bidirectional_start_ids]
    return min([len(prompt) - 1, *starts[-1:]])


def _chunks(rows: Sequence[PromptRow], at_once: int, vocabulary: int) -> Iterator[list[PromptRow]]:
    """The rows in order, few enough at a time for their scores to be held."""
    chunk: list[PromptRow] = []
    scores = 0
    for row in rows:
        own = vocabulary * max(1, len(row.draft), len(row.inner))
        if chunk and (len(chunk) == at_once or scores + own > MOST_LOGITS):
            yield chunk
            chunk, scores = [], 0
        chunk.append(row)
        scores += own
    if chunk:
        yield chunk


@torch.inference_mode()
def _prefix(model: Any, ids: Sequence[int]) -> Any:
    """The cache of one row of token ids; None for no ids."""
    if not ids:
        return None
    cache = DynamicCache()
    row = torch.tensor([ids], device=model.device)
    positions = torch.arange(len(ids), device=model.device)[None]
    forward(model, row, torch.ones_like(row), positions, cache, keep=1)
    return cache


@torch.inference_mode()
def _read(model: Any, prefix: Any, rows: Sequence[PromptRow]) -> PrefillPass:
    past = prefix.get_seq_length() if prefix is not None else 0
    cache = expand_cache(prefix, len(rows)) if prefix is not None else DynamicCache()
    suffixes = [torch.tensor(row.ids[past:]) for row in rows]
    ids = pad_sequence(suffixes, batch_first=True).to(model.device)
    lengths = torch.tensor([len(suffix) for suffix in suffixes], device=model.device)
    at = torch.arange(ids.shape[1], device=model.device)
    real = at < lengths[:, None]
    counts = [max(1, len(row.draft)) for row in rows]
    keep = real & (at >= (lengths - lengths.new_tensor(counts))[:, None])
    mask = pad(real, (past, 0), value=True).long()
    scores = forward(model, ids, mask, (past + at).expand_as(ids), cache, keep)
    logits = torch.split(scores, counts)
    chosen = [own.argmax(-1).tolist() for own in logits]
    losses = [_loss(own, row.draft) for own, row in zip(logits, rows, strict=True)]
    return PrefillPass(rows, chosen, losses, list(logits), _layers(prefix), cache)


def forward(
    model: Any, ids: Tensor, mask: Any, positions: Tensor, cache: Any, keep: Tensor | int
) -> Tensor:
    """Scores at the positions to keep, [kept, vocabulary]; the cache grows by what was read."""
    takes = accepted(model)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    if "logits_to_keep" in takes:
        inputs["logits_to_keep"] = keep
    logits: Tensor = model(**inputs, past_key_values=cache, use_cache=True).logits
    if "logits_to_keep" not in takes:
        logits = logits[keep] if isinstance(keep, Tensor) else logits[:, -keep:]
    return logits.reshape(-1, logits.shape[-1])


def _loss(logits: Tensor, draft: Sequence[int]) -> float | None:
    """The mean loss of a draft; nothing is computed where there is none."""
    if not draft:
        return None
    wanted = torch.tensor(draft, device=logits.device)
    return float(cross_entropy(logits.float(), wanted))


def _layers(cache: Any) -> Layers:
    return (
        [(layer.keys[0], layer.values[0]) for layer in initialized_layers(cache)]
        if cache is not None
        else []
    )


def length(layers: Layers) -> int:
    """How many tokens they hold."""
    return layers[0][0].shape[-2] if layers else 0


def _vocabulary(model: Any) -> int:
    return int(model.config.get_text_config(decoder=True).vocab_size)


def _unwrapped(model: Any) -> Any:
    return getattr(model, "get_base_model", lambda: model)()
