"""Decoding in batches says what `generate` says to each prompt alone."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from typing import Any

import pytest

from distill.sharing.decode import batches_by_length, context_length, greedy_decode

VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    # With tied embeddings, random models only repeat what they read last.
    "tie_word_embeddings": False,
}


def tiny(kind: str) -> Any:
    """A random model whose choices are far apart, so that rounding changes none."""
    import torch
    import transformers as t

    torch.manual_seed(3)
    positions = {"max_position_embeddings": 64}
    if kind == "bert":
        config = t.BertConfig(**SIZES, **positions, is_decoder=True)
        model = t.BertLMHeadModel(config)
    elif kind == "minilm":
        from distill.students.decoder import MiniLMDecoder

        heads: Any = {"user_heads": [57], "model_heads": [58]}
        model = MiniLMDecoder(t.BertConfig(**SIZES, **positions, **heads, is_decoder=True))
    elif kind.startswith("gemma3"):
        # The window is shorter than the prompts, and layers of both kinds are there.
        layers = ["sliding_attention", "sliding_attention", "full_attention"]
        config = t.Gemma3TextConfig(
            **SIZES,
            **positions,
            num_key_value_heads=1,
            head_dim=8,
            sliding_window=6 if kind == "gemma3" else 40,
            layer_types=layers,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        model = t.Gemma3ForCausalLM(config)
    elif kind == "qwen3":
        config = t.Qwen3Config(**SIZES, **positions, num_key_value_heads=2, head_dim=8)
        model = t.Qwen3ForCausalLM(config)
    elif kind == "mistral":
        config = t.MistralConfig(**SIZES, **positions, num_key_value_heads=2, sliding_window=6)
        model = t.MistralForCausalLM(config)
    else:
        model = t.LlamaForCausalLM(t.LlamaConfig(**SIZES, **positions, num_key_value_heads=2))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.4)
    return model.eval()


def prompts() -> list[list[int]]:
    import torch

    random = torch.Generator().manual_seed(5)
    lengths = (3, 17, 9, 9, 24, 1, 12)
    return [torch.randint(3, VOCABULARY, (n,), generator=random).tolist() for n in lengths]


def alone(model: Any, prompt: list[int], stops: list[int], count: int) -> list[int]:
    import torch

    ids = torch.tensor([prompt])
    said = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=stops,
        pad_token_id=0,
    )
    return said[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", ["bert", "gemma3", "llama"])
def test_a_batch_says_what_generate_says_to_each_alone(kind: str) -> None:
    model = tiny(kind)
    stops = list(range(0, VOCABULARY, 9))
    expected = [alone(model, prompt, stops, 16) for prompt in prompts()]
    assert greedy_decode(model, prompts(), stops, 16) == expected
    # Some ended, at different times, and some did not.
    assert len({len(said) for said in expected}) > 2


@pytest.mark.parametrize("kind", ["bert", "gemma3", "llama"])
def test_the_models_own_generation_settings_do_not_matter(kind: str) -> None:
    from transformers import GenerationConfig

    model = tiny(kind)
    before = greedy_decode(model, prompts(), [2], 8)
    model.generation_config = GenerationConfig(
        do_sample=True, top_k=64, temperature=2.0, repetition_penalty=5.0, eos_token_id=7
    )
    assert greedy_decode(model, prompts(), [2], 8) == before


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_an_adapter_around_the_model_changes_nothing_but_the_weights() -> None:
    from peft import LoraConfig, get_peft_model

    expected = greedy_decode(tiny("bert"), prompts(), [2], 8)
    wrapped = get_peft_model(tiny("bert"), LoraConfig(target_modules=["query"], r=2))
    assert greedy_decode(wrapped.eval(), prompts(), [2], 8) == expected  # type: ignore[arg-type]


def test_batches_hold_every_prompt_once_and_long_ones_alone() -> None:
    lengths = [5, 1, 9, 3, 3, 8, 2]
    made = list(batches_by_length(lengths, 3, single_from=8))
    assert made == [[1, 6, 3], [4, 0], [5], [2]]
    assert list(batches_by_length([], 3, single_from=8)) == []
    assert list(batches_by_length([4, 4], 1, single_from=float("inf"))) == [[0], [1]]


def test_the_context_is_the_configurations() -> None:
    from types import SimpleNamespace

    from transformers import MambaConfig

    assert context_length(tiny("bert")) == 64
    assert context_length(SimpleNamespace(config=MambaConfig())) is None  # type: ignore[arg-type]
