"""Batched greedy decoding that verifies drafts; each result is that of the prompt alone.

The greedy completion of a prompt equals a draft if and only if the model, given prompt and draft,
finds each token of the draft the likeliest after those before it. One forward pass shows that for
all tokens (as in speculative decoding). If the whole draft is accepted, nothing is generated. If
not, greedy decoding agrees with the draft up to its first token that is not the likeliest, where it
takes the likeliest: decoding continues from there with the KV cache of that pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from distill.sharing.openings import path_probabilities, supports_path_scoring
from distill.sharing.reading import (
    LayerKV,
    PrefillPass,
    PromptRow,
    TokenPath,
    forward_parameters,
    prefill,
    supports_prefix_sharing,
    token_count,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MAX_PENDING_KV_BYTES = 2**29
"""Bytes of keys and values from which on unfinished rows are decoded without waiting for more.

A decoding step reads every weight, for one row as for a hundred, and the longest completion decides
how many steps a batch takes: so rows of several prefills are decoded together.
"""

_COMPACTION_SHARE = 0.75
"""Share of unfinished rows at which finished ones are removed, which copies the others' cache."""


TokenFilter = Callable[[Sequence[int]], Tensor]
"""From the ids of a completion so far, which tokens may follow: bool, [vocabulary]."""


class Completion(NamedTuple):
    """The greedy completion of a prompt."""

    ids: list[int]
    """With the stop token, if it ended in one."""
    draft_nll: float | None = None
    """The mean negative log-likelihood of the draft's tokens; None without a draft."""
    path_probabilities: list[float] | None = None
    """The probability that an answer begins with each of the paths; None without paths."""


class _Unfinished(NamedTuple):
    """A prompt after its prefill, whose completion has not ended."""

    prompt_index: int
    completion: Completion
    max_new_tokens: int
    prefix: LayerKV
    suffix: LayerKV
    """Keys and values of all tokens after the prefix but the last one chosen."""

    @property
    def cached_tokens(self) -> int:
        return token_count(self.prefix) + token_count(self.suffix)


def context_length(model: PreTrainedModel) -> int | None:
    """The number of positions of a model; None where its config states no limit."""
    config = model.config.get_text_config(decoder=True)
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def batches_by_length(lengths: Sequence[int], size: int, single_from: float) -> Iterator[list[int]]:
    """Indices of prompts in batches of similar length; from `single_from` tokens on, one each."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    short = [index for index in order if lengths[index] < single_from]
    for start in range(0, len(short), size):
        yield short[start : start + size]
    for index in order[len(short) :]:
        yield [index]


def greedy_decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stop_ids: Collection[int],
    max_new_tokens: int,
    *,
    bidirectional_start_ids: Sequence[int] = (),
) -> list[list[int]]:
    """The greedy completion of each prompt, with the stop token if it ended in one.

    All prompts are decoded together; see `greedy_completions`.
    """
    completions = greedy_completions(
        model,
        prompts,
        stop_ids,
        [max_new_tokens] * len(prompts),
        bidirectional_start_ids=bidirectional_start_ids,
        batch_size=max(1, len(prompts)),
    )
    found = dict(completions)
    return [found[index].ids for index in range(len(prompts))]


def greedy_completions(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stop_ids: Collection[int],
    max_new_tokens: Sequence[int],
    *,
    drafts: Sequence[Sequence[int]] | None = None,
    paths: Sequence[Sequence[TokenPath]] | None = None,
    filters: Sequence[TokenFilter] = (),
    bidirectional_start_ids: Sequence[int] = (),
    batch_size: int,
) -> Iterator[tuple[int, Completion]]:
    """The index of each prompt with its completion, in the order in which they are finished.

    max_new_tokens: per prompt, the stop token included.
    drafts: per prompt, a guess of the completion, empty where there is none. They change no
        completion, but right ones need not be generated. Prompt and draft must fit the context.
    paths: per prompt, ways in which an answer may begin, to be scored.
    filters: none, or one per prompt, which then has no draft: the likeliest of the tokens that it
        allows is chosen.
    bidirectional_start_ids: see `reading.prefill`.

    The model's generation config is ignored: no sampling, no penalties. Finished rows leave the
    batch. Positions count from a prompt's first token, so that its completion does not depend on
    the other prompts, floating-point rounding aside. With a model that does not support prefix
    sharing, each prompt is read whole, and drafts and paths are ignored.
    """
    if not supports_prefix_sharing(model):
        yield from _decode_unshared(model, prompts, stop_ids, max_new_tokens, filters, batch_size)
        return
    scored = paths if supports_path_scoring(model) else None
    rows = list(_prompt_rows(model, prompts, drafts, scored, bidirectional_start_ids))
    pending: list[_Unfinished] = []
    for prefilled in prefill(model, rows, batch_size, bidirectional_start_ids):
        probabilities = (
            path_probabilities(model, prefilled) if scored else [None] * len(prefilled.rows)
        )
        for state in _verify_drafts(prefilled, probabilities, stop_ids, max_new_tokens, filters):
            if isinstance(state, _Unfinished):
                pending.append(state)
            else:
                yield state
        if len(pending) >= batch_size and _kv_bytes(pending) > _MAX_PENDING_KV_BYTES:
            yield from _finish(model, pending, stop_ids, filters)
            pending = []
    if pending:
        yield from _finish(model, pending, stop_ids, filters)


def _prompt_rows(
    model: Any,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]] | None,
    paths: Sequence[Sequence[TokenPath]] | None,
    bidirectional_start_ids: Sequence[int],
) -> Iterator[PromptRow]:
    # The start of a turn within a draft would change how such a model attends within the prompt.
    turn_starts = {*bidirectional_start_ids, *getattr(model.config, "model_heads", ())}
    for index, prompt in enumerate(prompts):
        draft = drafts[index] if drafts else ()
        draft = () if turn_starts & {*draft} else draft
        yield PromptRow(index, prompt, draft, paths[index] if paths else ())


def _verify_drafts(
    prefilled: PrefillPass,
    probabilities: Sequence[list[float] | None],
    stop_ids: Collection[int],
    max_new_tokens: Sequence[int],
    filters: Sequence[TokenFilter],
) -> Iterator[tuple[int, Completion] | _Unfinished]:
    """For each row, what of its completion the prefill has shown."""
    for at, row in enumerate(prefilled.rows):
        limit = max_new_tokens[row.prompt_index]
        greedy_ids = prefilled.greedy_ids[at][:limit]
        if filters:
            greedy_ids = [_likeliest(prefilled.logits[at][0], filters[row.prompt_index]([]))]
        ids = _accepted_ids(greedy_ids, row.draft, stop_ids)
        completion = Completion(ids, prefilled.draft_nll[at], probabilities[at])
        if _is_finished(ids, limit, stop_ids):
            yield row.prompt_index, completion
        else:
            suffix = prefilled.suffix_kv(at, len(row.prompt) + len(ids) - 1)
            yield _Unfinished(row.prompt_index, completion, limit, prefilled.prefix, suffix)


def _accepted_ids(
    greedy_ids: Sequence[int], draft: Sequence[int], stop_ids: Collection[int]
) -> list[int]:
    """Greedy tokens up to and including the first that differs from the draft, or that stops."""
    accepted: list[int] = []
    for at, token in enumerate(greedy_ids):
        accepted.append(token)
        if token in stop_ids or list(draft[at : at + 1]) != [token]:
            break
    return accepted


@torch.inference_mode()
def _finish(
    model: Any,
    rows: Sequence[_Unfinished],
    stop_ids: Collection[int],
    filters: Sequence[TokenFilter],
) -> list[tuple[int, Completion]]:
    """Decode all rows together to their end."""
    lengths = [row.cached_tokens for row in rows]
    longest = max(lengths)
    completions = [row.completion.ids for row in rows]
    spare = max(row.max_new_tokens - len(row.completion.ids) for row in rows)
    cache = DynamicCache()
    cache.layers = [
        _PreallocatedLayer([_stack_kv(rows, layer, kv, longest, spare) for kv in (0, 1)], longest)
        for layer in range(len(rows[0].suffix))
    ]
    last = torch.tensor([[ids[-1]] for ids in completions], device=model.device)
    slots = torch.arange(longest + 1, device=model.device)
    mask = (slots >= longest - last.new_tensor(lengths)[:, None]).long()
    limits = [row.max_new_tokens for row in rows]
    chosen = [filters[row.prompt_index] for row in rows] if filters else ()
    _decode(model, cache, last, mask, completions, limits, stop_ids, chosen)
    return [(row.prompt_index, row.completion) for row in rows]


def _kv_bytes(rows: Sequence[_Unfinished]) -> int:
    """Bytes of the padded KV cache of these rows, with all tokens that they may still get."""
    layers = rows[0].suffix
    key, value = layers[0]
    token = len(layers) * (key[:, 0].numel() + value[:, 0].numel()) * key.element_size()
    return token * max(row.cached_tokens + row.max_new_tokens for row in rows) * len(rows)


def _stack_kv(rows: Sequence[_Unfinished], layer: int, kv: int, longest: int, spare: int) -> Tensor:
    """Keys (kv=0) or values (1) of a layer, [rows, heads, longest + spare, dimensions].

    Padded on the left, with `spare` unused slots on the right, and without gaps in between, as
    masks of sliding windows count slots.
    """
    first = rows[0].suffix[layer][kv]
    stacked = first.new_zeros(len(rows), first.shape[0], longest + spare, first.shape[2])
    for target, row in zip(stacked, rows, strict=True):
        suffix = row.suffix[layer][kv]
        start = longest - suffix.shape[1]
        target[:, start:longest] = suffix
        if row.prefix:
            prefix = row.prefix[layer][kv]
            target[:, start - prefix.shape[1] : start] = prefix
    return stacked


class _PreallocatedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values with slots for the tokens to come: appending one copies no others."""

    def __init__(self, buffers: list[Tensor], used: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(*buffers)
        self._buffers = buffers
        self._resize(used)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        start, end = self._used, self._used + key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        return self._resize(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        self._buffers = [buffer[indices] for buffer in self._buffers]
        self._resize(self._used)

    def _resize(self, used: int) -> tuple[Tensor, Tensor]:
        self._used = used
        keys, values = (buffer[:, :, :used] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def _decode(
    model: Any,
    cache: Any,
    ids: Tensor,
    mask: Tensor,
    completions: Sequence[list[int]],
    max_new_tokens: Sequence[int],
    stop_ids: Collection[int],
    filters: Sequence[TokenFilter],
) -> None:
    """Append to `completions` until every row is finished.

    ids: the tokens that are not in the cache yet, [rows, tokens]; mask: of cache and ids.
    """
    parameters, limit = forward_parameters(model), context_length(model)
    rows = list(range(len(completions)))
    while rows:
        output = model(**_model_inputs(parameters, ids, mask, cache, limit))
        cache = output.past_key_values
        logits = output.logits[:, -1]
        tokens = logits.argmax(-1)
        if filters:
            for at, row in enumerate(rows):
                if not _is_finished(completions[row], max_new_tokens[row], stop_ids):
                    tokens[at] = _likeliest(logits[at], filters[row](completions[row]))
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not _is_finished(completions[row], max_new_tokens[row], stop_ids):
                completions[row].append(token)
        unfinished = [
            at
            for at, row in enumerate(rows)
            if not _is_finished(completions[row], max_new_tokens[row], stop_ids)
        ]
        if len(unfinished) <= _COMPACTION_SHARE * len(rows):
            kept = torch.tensor(unfinished, device=ids.device, dtype=torch.long)
            tokens, mask = tokens[kept], mask[kept]
            rows = [rows[at] for at in unfinished]
            if rows:
                cache.batch_select_indices(kept)
        ids = tokens.unsqueeze(-1)
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)


def _likeliest(logits: Tensor, allowed: Tensor) -> int:
    """The likeliest token that is allowed, of one row of logits; `allowed` may be shorter."""
    allowed = allowed[: len(logits)].to(logits.device)
    return int(logits[: len(allowed)].masked_fill(~allowed, -torch.inf).argmax())


def _is_finished(ids: Sequence[int], max_new_tokens: int, stop_ids: Collection[int]) -> bool:
    return len(ids) >= max_new_tokens or bool(ids and ids[-1] in stop_ids)


def _model_inputs(
    parameters: Collection[str], ids: Tensor, mask: Tensor, cache: Any, limit: int | None
) -> dict[str, Any]:
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": True}
    if cache is not None:
        inputs["past_key_values"] = cache
    if "position_ids" in parameters:
        # Finished rows stay in the batch and may pass the last position; their tokens are dropped.
        positions = (mask.cumsum(-1) - 1).clamp(min=0, max=limit and limit - 1)
        inputs["position_ids"] = positions[:, -ids.shape[1] :]
    if "logits_to_keep" in parameters:
        inputs["logits_to_keep"] = 1
    return inputs


def _decode_unshared(
    model: Any,
    prompts: Sequence[Sequence[int]],
    stop_ids: Collection[int],
    max_new_tokens: Sequence[int],
    filters: Sequence[TokenFilter],
    batch_size: int,
) -> Iterator[tuple[int, Completion]]:
    """The same for a model without prefix sharing: whole prompts, padded on the left."""
    lengths = [len(prompt) for prompt in prompts]
    most = max(max_new_tokens, default=0)
    # A prompt that the context leaves fewer new tokens is decoded alone: a padded batch of longer
    # completions would pass the end of the context.
    near_end = [n for n, limit in zip(lengths, max_new_tokens, strict=True) if limit < most]
    single_from = min(near_end, default=float("inf"))
    for batch in batches_by_length(lengths, batch_size, single_from):
        longest = max(lengths[index] for index in batch)
        completions: list[list[int]] = [[] for _ in batch]
        # Padding is masked: any id will do.
        padding = [[0] * (longest - lengths[index]) for index in batch]
        padded = [[*pad, *prompts[index]] for pad, index in zip(padding, batch, strict=True)]
        mask = [pad + [1] * (longest - len(pad)) for pad in padding]
        limits = [max_new_tokens[index] for index in batch]
        with torch.inference_mode():
            ids, attended = (torch.tensor(part, device=model.device) for part in (padded, mask))
            chosen = [filters[index] for index in batch] if filters else ()
            _decode(model, None, ids, attended, completions, limits, stop_ids, chosen)
        yield from ((i, Completion(found)) for i, found in zip(batch, completions, strict=True))
