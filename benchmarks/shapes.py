"""Models of well-known shapes with random weights, and rows that begin alike.

What a step costs depends on shapes alone, so that no weights are downloaded. FunctionGemma-270M
and Qwen3-0.6B are built from their published configurations.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FIRST_TOKEN = 4
"""Ids below it have a meaning of their own: padding, end, beginning, unknown."""


class Row(NamedTuple):
    """A row of training data: token ids, and how many of the last ones are labelled."""

    ids: list[int]
    labelled: int

    @property
    def labels(self) -> list[int]:
        """The ids where there is a label, else -100."""
        start = len(self.ids) - self.labelled
        return [-100] * start + self.ids[start:]


def rows(count: int, prefix: int, vocabulary: int, seed: int = 0) -> list[Row]:
    """Rows that share `prefix` tokens; some 40 follow, the last 15 or so of them labelled."""
    chance = random.Random(seed)
    tokens = range(FIRST_TOKEN, vocabulary)
    shared = chance.choices(tokens, k=prefix)
    return [
        Row(shared + chance.choices(tokens, k=chance.randint(34, 46)), chance.randint(12, 18))
        for _ in range(count)
    ]


def random_model(shape: str, seed: int = 0) -> Any:
    """A model of that shape, in fp32, in eval mode."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    make: Any = AutoModelForCausalLM.from_config
    return make(SHAPES[shape](), dtype=torch.float32).eval()


def plain_tokenizer() -> Any:
    """A tokenizer without words: trainers ask it for the id of padding and little else."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    names = ("<pad>", "<eos>", "<bos>", "<unk>")
    vocabulary = {name: number for number, name in enumerate(names)}
    pad, eos, bos, unk = names
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token=unk)),
        pad_token=pad,
        eos_token=eos,
        bos_token=bos,
        unk_token=unk,
    )


def _gemma(layers: int, hidden: int, vocabulary: int, **more: Any) -> PreTrainedConfig:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        vocab_size=vocabulary,
        num_key_value_heads=1,
        layer_types=_every_sixth_full(layers),
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        max_position_embeddings=32768,
        **more,
    )


def _every_sixth_full(layers: int) -> list[str]:
    return ["full_attention" if at % 6 == 5 else "sliding_attention" for at in range(layers)]


def _functiongemma() -> PreTrainedConfig:
    return _gemma(
        18,
        640,
        262_144,
        intermediate_size=2048,
        num_attention_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=512,
    )


def _qwen3() -> PreTrainedConfig:
    from transformers import Qwen3Config

    return Qwen3Config(
        num_hidden_layers=28,
        hidden_size=1024,
        intermediate_size=3072,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151_936,
        tie_word_embeddings=True,
        max_position_embeddings=40_960,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )


def _small(
    layers: int, hidden: int, vocabulary: int, window: int
) -> Callable[[], PreTrainedConfig]:
    return lambda: _gemma(
        layers,
        hidden,
        vocabulary,
        intermediate_size=3 * hidden,
        num_attention_heads=2,
        head_dim=hidden // 4,
        query_pre_attn_scalar=hidden // 4,
        sliding_window=window,
    )


SHAPES: dict[str, Callable[[], PreTrainedConfig]] = {
    "270m": _functiongemma,
    "qwen3-0.6b": _qwen3,
    "replica": _small(6, 256, 16_384, 128),
    "tiny": _small(2, 32, 256, 16),
}
"""FunctionGemma-270M, Qwen3-0.6B, and two replicas of the first one for a quick look."""
