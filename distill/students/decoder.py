"""MiniLM as a causal language model with bidirectional attention within the user's request."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertLMHeadModel


class MiniLMConfig(BertConfig):  # type: ignore[no-untyped-call]
    """BERT's config under its own model type: BERT's own class would attend left to right only."""

    model_type = "minilm-decoder"


class MiniLMDecoder(BertLMHeadModel):  # type: ignore[no-untyped-call]
    """BertLMHeadModel with bidirectional attention within the last user turn.

    MiniLM was pretrained with bidirectional attention; after a short training it understands and
    copies a request better with it. The turn ends with the token that starts the answer.
    Everything before it, and the answer, is causal, so that a prefix can be cached.
    `config.user_heads` and `config.model_heads` are the ids of the tokens that start the two turns.
    Positions do not count padding.
    """

    config_class = MiniLMConfig
    has_bidirectional_spans = True
    """A custom attention mask made for causal models would be wrong."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.user_heads = tuple(config.user_heads)
        self.model_heads = tuple(config.model_heads)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        length = input_ids.shape[1]
        if attention_mask is None:
            attention_mask = input_ids.new_ones(len(input_ids), past + length)
        if position_ids is None and attention_mask.dim() == 2:
            position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, -length:]
        if length > 1 and attention_mask.dim() == 2:
            attention_mask = self._visible(input_ids, past) & _not_padding(attention_mask, past)
            if self.config._attn_implementation == "eager":
                attention_mask = _additive(attention_mask, self.dtype)
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def _visible(self, ids: Tensor, past: int) -> Tensor:
        """Which position attends to which, padding aside, [rows, 1, ids, past + ids], bool."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        answer = _last_start(ids, self.model_heads, positions, positions[-1])
        request = _last_start(ids, self.user_heads, positions, answer).clamp(min=0)
        in_request = (request <= positions) & (positions <= answer)
        causal = positions <= positions[:, None]
        visible = causal | (in_request[:, :, None] & in_request[:, None, :])
        return torch.nn.functional.pad(visible, (past, 0), value=True)[:, None]


def _last_start(ids: Tensor, start_ids: tuple[int, ...], positions: Tensor, end: Tensor) -> Tensor:
    """The last position up to `end` with one of `start_ids`, or -1, [rows, 1]."""
    found = torch.isin(ids, torch.tensor(start_ids, device=ids.device)) & (positions <= end)
    return torch.where(found, positions, -1).amax(1, keepdim=True)


def _not_padding(mask: Tensor, past: int) -> Tensor:
    """The mask of keys, [rows, 1, ids, past + ids]; padding attends to itself, lest it be NaN."""
    length = mask.shape[1] - past
    diagonal = torch.eye(length, dtype=torch.bool, device=mask.device)
    diagonal = torch.nn.functional.pad(diagonal, (past, 0), value=False)
    return (mask.bool()[:, None, :] | diagonal)[:, None]


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as eager attention takes it: added to the attention scores."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
