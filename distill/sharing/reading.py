"""Prefill of many prompts at once: a common prefix is computed once, and drafts are verified.

Prompts with a common prefix are grouped; the prefix becomes a KV cache of one row, which every row
of the group attends to. After its prompt a row may carry a draft of the answer. One forward pass
then gives, for each token of the draft, what the model itself would choose there and how likely it
finds the draft.

The whole KV cache is kept, also beyond a sliding window: masks decide what is visible, and they
count slots of the cache. So a row must have no gaps in it: rows are padded on the right, and what
is decoded further gets a new cache (see `decode`).
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

MAX_LOGITS = 2**26
"""Logits held at one time, a number: 256 MB in float32."""

_MAX_PARTITIONED = 512
"""Prompts that are grouped at one time: `partition` is quadratic in them."""

LayerKV = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer that has some, each [heads, tokens, dimensions]."""

TokenPath = tuple[int, ...]
"""Token ids with which an answer may begin."""


class PromptRow(NamedTuple):
    """A prompt to prefill."""

    prompt_index: int
    """Among all prompts."""
    prompt: Sequence[int]
    draft: Sequence[int] = ()
    """A guess of the answer; empty where there is none."""
    paths: Sequence[TokenPath] = ()
    """Beginnings of an answer to score (see `distill.sharing.openings`)."""

    @property
    def inner_nodes(self) -> list[TokenPath]:
        """The proper prefixes of the paths, without the empty one, the shortest first."""
        found = {path[:end] for path in self.paths for end in range(1, len(path))}
        return sorted(found, key=lambda path: (len(path), path))

    @property
    def input_ids(self) -> list[int]:
        """Prompt and draft; what follows the last token of the draft is not needed."""
        return [*self.prompt, *self.draft[:-1]]


class PrefillPass(NamedTuple):
    """The result of one forward pass for some rows."""

    rows: Sequence[PromptRow]
    greedy_ids: list[list[int]]
    """Per row, the likeliest token after the prompt and after each draft token but the last."""
    draft_nll: list[float | None]
    """Per row, the mean negative log-likelihood of a draft token, None without a draft."""
    logits: list[Tensor]
    """Per row, the logits of `greedy_ids`, [tokens, vocabulary]."""
    prefix: LayerKV
    """The KV cache of the common prefix, which all rows share."""
    cache: Any

    def suffix_kv(self, row: int, end: int) -> LayerKV:
        """A copy of the row's keys and values from the end of the prefix to token `end`."""
        start = token_count(self.prefix)
        return [
            (layer.keys[row, :, start:end].clone(), layer.values[row, :, start:end].clone())
            for layer in initialized_layers(self.cache)
        ]


def common_prefix_length(one: Sequence[int], other: Sequence[int]) -> int:
    equal = (a == b for a, b in zip(one, other, strict=False))
    return next((at for at, same in enumerate(equal) if not same), min(len(one), len(other)))


def forward_parameters(model: Any) -> Mapping[str, Any]:
    """The parameters of the model's forward, which an adapter around it hides."""
    return inspect.signature(_base_model(model).forward).parameters


def supports_prefix_sharing(model: Any) -> bool:
    """Whether the model's state is a KV cache alone, and it takes position ids."""
    model = _base_model(model)
    config = model.config.get_text_config(decoder=True)
    layer_types = set(getattr(config, "layer_types", None) or ())
    return (
        {"past_key_values", "position_ids"} <= forward_parameters(model).keys()
        and not getattr(model, "_is_stateful", False)
        and layer_types <= {"full_attention", "sliding_attention"}
    )


def prefill(
    model: Any,
    rows: Sequence[PromptRow],
    rows_at_once: int,
    bidirectional_start_ids: Sequence[int] = (),
) -> Iterator[PrefillPass]:
    """Forward passes that cover every row once, at most `rows_at_once` rows in each.

    bidirectional_start_ids: ids of the tokens from which on the model attends in both directions; a
    shared prefix ends before the last of them.
    """
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    order = sorted(rows, key=lambda row: list(row.prompt))
    for start in range(0, len(order), _MAX_PARTITIONED):
        part = order[start : start + _MAX_PARTITIONED]
        limits = [_max_prefix_length(row.prompt, bidirectional_start_ids) for row in part]
        for group in partition([row.input_ids for row in part], limits):
            members = [part[index] for index in group.rows]
            prefix = _prefill_prefix(model, members[0].prompt[: group.prefix_length])
            for chunk in _chunks(members, rows_at_once, vocabulary):
                yield _prefill_rows(model, prefix, chunk)


def _max_prefix_length(prompt: Sequence[int], bidirectional_start_ids: Sequence[int]) -> int:
    """The last token of a prompt is never shared: it predicts the first token of the answer."""
    starts = [at for at, token in enumerate(prompt) if token in bidirectional_start_ids]
    return min([len(prompt) - 1, *starts[-1:]])


def _chunks(
    rows: Sequence[PromptRow], rows_at_once: int, vocabulary: int
) -> Iterator[list[PromptRow]]:
    """The rows in order, in chunks of at most `rows_at_once` rows and MAX_LOGITS logits."""
    chunk: list[PromptRow] = []
    logits = 0
    for row in rows:
        more = vocabulary * max(1, len(row.draft), len(row.inner_nodes))
        if chunk and (len(chunk) == rows_at_once or logits + more > MAX_LOGITS):
            yield chunk
            chunk, logits = [], 0
        chunk.append(row)
        logits += more
    if chunk:
        yield chunk


@torch.inference_mode()
def _prefill_prefix(model: Any, ids: Sequence[int]) -> Any:
    """The KV cache of token ids as one row; None for no ids."""
    if not ids:
        return None
    cache = DynamicCache()
    row = torch.tensor([ids], device=model.device)
    positions = torch.arange(len(ids), device=model.device)[None]
    forward_logits(model, row, torch.ones_like(row), positions, cache, keep=1)
    return cache


@torch.inference_mode()
def _prefill_rows(model: Any, prefix: Any, rows: Sequence[PromptRow]) -> PrefillPass:
    past = prefix.get_seq_length() if prefix is not None else 0
    cache = expand_cache(prefix, len(rows)) if prefix is not None else DynamicCache()
    suffixes = [torch.tensor(row.input_ids[past:]) for row in rows]
    ids = pad_sequence(suffixes, batch_first=True).to(model.device)
    lengths = torch.tensor([len(suffix) for suffix in suffixes], device=model.device)
    column = torch.arange(ids.shape[1], device=model.device)
    mask = column < lengths[:, None]
    counts = [max(1, len(row.draft)) for row in rows]
    keep = mask & (column >= (lengths - lengths.new_tensor(counts))[:, None])
    kept = forward_logits(
        model,
        ids,
        pad(mask, (past, 0), value=True).long(),
        (past + column).expand_as(ids),
        cache,
        keep,
    )
    logits = torch.split(kept, counts)
    return PrefillPass(
        rows,
        [own.argmax(-1).tolist() for own in logits],
        [_mean_nll(own, row.draft) for own, row in zip(logits, rows, strict=True)],
        list(logits),
        [] if prefix is None else [(kv.keys[0], kv.values[0]) for kv in initialized_layers(prefix)],
        cache,
    )


def forward_logits(
    model: Any, ids: Tensor, mask: Any, positions: Tensor, cache: Any, keep: Tensor | int
) -> Tensor:
    """The logits at the positions to keep, [kept, vocabulary]; `cache` grows by the ids.

    keep: bool of the shape of `ids`, or how many of the last positions.
    """
    parameters = forward_parameters(model)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    if "logits_to_keep" in parameters:
        inputs["logits_to_keep"] = keep
    logits: Tensor = model(**inputs, past_key_values=cache, use_cache=True).logits
    if "logits_to_keep" not in parameters:
        logits = logits[keep] if isinstance(keep, Tensor) else logits[:, -keep:]
    return logits.reshape(-1, logits.shape[-1])


def _mean_nll(logits: Tensor, draft: Sequence[int]) -> float | None:
    if not draft:
        return None
    return float(cross_entropy(logits.float(), torch.tensor(draft, device=logits.device)))


def token_count(layers: LayerKV) -> int:
    return layers[0][0].shape[-2] if layers else 0


def _base_model(model: Any) -> Any:
    return getattr(model, "get_base_model", lambda: model)()
