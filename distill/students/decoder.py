"""MiniLM as a language model that reads a request in both directions and answers left to right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertLMHeadModel


class MiniLMConfig(BertConfig):  # type: ignore[no-untyped-call]
    """BERT's settings under a name of their own: BERT's own class would read left to right only."""

    model_type = "minilm-decoder"


class MiniLMDecoder(BertLMHeadModel):  # type: ignore[no-untyped-call]
    """BertLMHeadModel whose last user turn, up to the head of the answer, sees itself whole.

    MiniLM was trained to read in both directions; a request read so is understood and copied
    better after a short training. All before that turn, and the answer, are causal, so that
    a prefix can be cached. `config.user_heads` and `config.model_heads` hold the ids of the tokens
    that open the two turns. Positions are counted without padding.
    """

    config_class = MiniLMConfig
    has_bidirectional_spans = True
    """What a ready mask, made for causal models, would not know."""

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
        **rest: Any,
    ) -> Any:
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        length = input_ids.shape[1]
        if attention_mask is None:
            attention_mask = input_ids.new_ones(len(input_ids), past + length)
        if position_ids is None and attention_mask.dim() == 2:
            position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, -length:]
        if length > 1 and attention_mask.dim() == 2:
            attention_mask = self._seen(input_ids, past) & _real(attention_mask, past)
            if self.config._attn_implementation == "eager":
                attention_mask = _added(attention_mask, self.dtype)
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            logits_to_keep=logits_to_keep,
            **rest,
        )

    def _seen(self, ids: Tensor, past: int) -> Tensor:
        """Which position may look where, padding aside, shape [rows, 1, ids, past + ids]."""
        at = torch.arange(ids.shape[1], device=ids.device)
        answer = _last(ids, self.model_heads, at, at[-1])
        request = _last(ids, self.user_heads, at, answer).clamp(min=0)
        within = (request <= at) & (at <= answer)
        causal = at <= at[:, None]
        seen = causal | (within[:, :, None] & within[:, None, :])
        return torch.nn.functional.pad(seen, (past, 0), value=True)[:, None]


def _last(ids: Tensor, heads: tuple[int, ...], at: Tensor, before: Tensor) -> Tensor:
    """Where the last of `heads` stands at or before `before`, -1 without one; shape [rows, 1]."""
    found = torch.isin(ids, torch.tensor(heads, device=ids.device)) & (at <= before)
    return torch.where(found, at, -1).amax(1, keepdim=True)


def _real(mask: Tensor, past: int) -> Tensor:
    """Where there is no padding; padding sees itself, as attention to nothing is no number."""
    length = mask.shape[1] - past
    own = torch.eye(length, dtype=torch.bool, device=mask.device)
    own = torch.nn.functional.pad(own, (past, 0), value=False)
    return (mask.bool()[:, None, :] | own)[:, None]


def _added(seen: Tensor, kind: torch.dtype) -> Tensor:
    """The mask as eager attention takes it: what is added to the scores."""
    return torch.zeros_like(seen, dtype=kind).masked_fill(~seen, torch.finfo(kind).min)
