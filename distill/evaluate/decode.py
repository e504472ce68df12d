"""Greedy decoding of many prompts at once, each as if it stood alone."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def context_of(model: PreTrainedModel) -> int | None:
    """Positions that a model has; None where it names no limit."""
    config = model.config.get_text_config(decoder=True)
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def batches(lengths: Sequence[int], size: int, alone_from: float) -> Iterator[list[int]]:
    """Indices of prompts in batches of similar length; those from `alone_from` on stand alone."""
    order = sorted(range(len(lengths)), key=lambda at: (lengths[at], at))
    short = [at for at in order if lengths[at] < alone_from]
    for start in range(0, len(short), size):
        yield short[start : start + size]
    for at in order[len(short) :]:
        yield [at]


def greedy(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stop_ids: Collection[int],
    max_new_tokens: int,
) -> list[list[int]]:
    """The likeliest continuation of each prompt, its stop token included where it came to one.

    Of the model's own generation settings none applies: no sampling, no penalties. A row that has
    ended leaves the batch. Prompts are padded on the left and positions are counted from a
    prompt's first token, so that a prompt's continuation does not depend on its neighbours beyond
    the rounding of floats.
    """
    import torch

    said: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    ids, mask = _padded(prompts, model.device)
    cache: Any = None
    stops = torch.tensor(sorted(stop_ids), device=model.device)
    with torch.inference_mode():
        for _ in range(max_new_tokens):
            output = model(**_inputs(model, ids, mask, cache))
            cache = output.past_key_values
            token = output.logits[:, -1].argmax(-1)
            for row, chosen in zip(rows, token.tolist(), strict=True):
                said[row].append(chosen)
            going = (~torch.isin(token, stops)).nonzero().squeeze(-1)
            if not len(going):
                break
            if len(going) < len(rows):
                rows = [rows[at] for at in going.tolist()]
                token, mask = token[going], mask[going]
                cache.batch_select_indices(going)
            ids = token.unsqueeze(-1)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=-1)
    return said


def _padded(
    prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, both [len(prompts), longest], padded on the left."""
    import torch

    longest = max(map(len, prompts))
    # Padding is masked and read by nothing: any id serves.
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def _inputs(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, cache: Any
) -> dict[str, Any]:
    """What the model is called with; only the last position's scores where it can leave others."""
    # An adapter around the model hides what the model takes.
    unwrap: Any = getattr(model, "get_base_model", lambda: model)
    accepted = inspect.signature(unwrap().forward).parameters
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": True}
    if cache is not None:
        inputs["past_key_values"] = cache
    if "position_ids" in accepted:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        inputs["position_ids"] = positions[:, -ids.shape[1] :]
    if "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = 1
    return inputs
