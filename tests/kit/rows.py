"""Rows of token ids that begin alike, and models of two layers to compute them."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch
from torch import Tensor

VOCABULARY = 96
OPENS, HEADS = 2, 3
"""The tokens that open a request and an answer."""

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    # Weights so large that it is seen in the loss what attends to what.
    "initializer_range": 0.15,
}


class Row(NamedTuple):
    """Token ids, and the labels that TRL's collator takes."""

    ids: list[int]
    labels: list[int]


def mixed_rows(seed: int = 0, *, many: int = 6) -> list[Row]:
    """Rows of two prefixes, and one each: lone, of two turns, without a label, all label."""
    draw = random.Random(seed)

    def words(count: int) -> list[int]:
        return [draw.randrange(4, VOCABULARY) for _ in range(count)]

    one, other = words(70), words(30)
    rows = [_answered(prefix, words, draw) for prefix in [one] * many + [other] * 3 + [words(20)]]
    turn = _answered(one, words, draw)
    more = _answered(turn.ids, words, draw)
    rows.append(Row(more.ids, turn.labels + more.labels[len(turn.ids) :]))
    silent = _answered(one, words, draw).ids
    said = words(9)
    rows += [Row(silent, [-100] * len(silent)), Row(said, said)]
    draw.shuffle(rows)
    return rows


def _answered(prefix: list[int], words: Any, draw: random.Random) -> Row:
    """A request behind a prefix, in four to nine tokens, and its answer."""
    prompt = [*prefix, OPENS, *words(draw.randint(2, 7)), HEADS]
    answer = words(draw.randint(1, 8))
    return Row(prompt + answer, [-100] * len(prompt) + answer)


def decision(labels: Tensor) -> Tensor:
    """Some of the labels, as those at which answers part."""
    return (labels >= 0) & (labels % 3 == 0)


def padded_rows(rows: list[Row], *, left: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, mask, labels and `decision`, [rows, length] each."""
    shape = len(rows), max(len(row.ids) for row in rows)
    ids, mask = (torch.zeros(shape, dtype=torch.long) for _ in range(2))
    labels = torch.full(shape, -100)
    for at, row in enumerate(rows):
        own = slice(-len(row.ids), None) if left else slice(0, len(row.ids))
        ids[at, own], mask[at, own] = torch.tensor(row.ids), 1
        labels[at, own] = torch.tensor(row.labels)
    return ids, mask, labels, decision(labels)


def tiny(name: str) -> Any:
    """A model of random weights, the same each time: gemma3-N has a window of N tokens."""
    import transformers as t

    torch.manual_seed(0)
    if name.startswith("gemma3"):
        layers = ["sliding_attention", "full_attention"]
        own = {"num_key_value_heads": 1, "head_dim": 8, "layer_types": layers}
        window = int(name.partition("-")[2])
        return t.Gemma3ForCausalLM(t.Gemma3TextConfig(**_SHAPE, **own, sliding_window=window))
    if name == "minilm":
        return _minilm()
    own = {"num_key_value_heads": 2}
    if name == "qwen3":
        return t.Qwen3ForCausalLM(t.Qwen3Config(**_SHAPE, **own, head_dim=8))
    if name == "mistral":
        return t.MistralForCausalLM(t.MistralConfig(**_SHAPE, **own, sliding_window=16))
    return t.LlamaForCausalLM(t.LlamaConfig(**_SHAPE, **own))


def _minilm() -> Any:
    from distill.students.decoder import MiniLMConfig, MiniLMDecoder

    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    heads = {"user_heads": [OPENS], "model_heads": [HEADS], "is_decoder": True}
    return MiniLMDecoder(MiniLMConfig(**_SHAPE, **quiet, **heads))


def with_lora(model: Any) -> Any:
    """LoRA whose matrices are not zero, so that every one of them has a gradient."""
    from peft import LoraConfig, get_peft_model

    from distill.students.quiet import ignore_peft_warnings

    torch.manual_seed(1)
    settings = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    with ignore_peft_warnings():
        return get_peft_model(model, settings)
