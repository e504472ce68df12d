"""Tiny students of every family that is exported: random weights, tokenizers cut as theirs are."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import render_tokenizers as kit
import torch

from distill.render import Renderer
from distill.students.base import Student, TrainDefaults

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_WORDS = QWEN_WORDS.replace(r"\p{N}|", r"\p{N}{1,3}|")
TEMPLATES = {
    "gemma3": kit.FUNCTION_GEMMA_TEMPLATE,
    "qwen2": kit.HERMES_TEMPLATE,
    "qwen3": kit.HERMES_TEMPLATE,
    "llama": kit.LLAMA_TEMPLATE,
    "smollm": kit.PLAIN_TEMPLATE,
}
FAMILIES = tuple(TEMPLATES)
DEFAULTS = TrainDefaults(
    epochs=1, learning_rate=1e-2, batch_size=4, max_length=1024, lora_r=4, lora_alpha=8
)
ROWS = 576
"""Rows of the embeddings: more than a tokenizer has tokens, as in published models."""
_SHAPE: dict[str, Any] = {
    "vocab_size": ROWS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    # None of them is to be taken for the end of a turn.
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def model(family: str, **changes: Any) -> Any:
    """A model of two layers whose answers differ from prompt to prompt."""
    import transformers as hf

    shape = _SHAPE | changes
    kinds = {
        "qwen2": (hf.Qwen2Config, hf.Qwen2ForCausalLM, {"tie_word_embeddings": True}),
        "qwen3": (hf.Qwen3Config, hf.Qwen3ForCausalLM, {"head_dim": 32}),
        "llama": (hf.LlamaConfig, hf.LlamaForCausalLM, {}),
        "smollm": (hf.LlamaConfig, hf.LlamaForCausalLM, {"tie_word_embeddings": True}),
        "gemma3": (
            hf.Gemma3TextConfig,
            hf.Gemma3ForCausalLM,
            {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}
            | {"num_hidden_layers": 6},
        ),
    }
    config, kind, own = kinds[family]
    torch.manual_seed(0)
    made = kind(config(**shape | own | changes))
    # Norms that are all one, or biases that are none, would hide what a format does to them.
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "norm" in name or name.endswith("bias"):
                weight.add_(torch.randn_like(weight) * 0.2)
    return made.eval()


@cache
def tokenizer(family: str) -> Any:
    """A tokenizer that cuts text as the family's does."""
    from transformers import PreTrainedTokenizerFast

    bpe = _gemma() if family == "gemma3" else _byte_level(family)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    made.chat_template = TEMPLATES[family]
    return made


def student(family: str, **changes: Any) -> Student:
    return Student(
        name=f"tiny-{family}",
        tokenizer=tokenizer(family),
        declarations="full",
        defaults=DEFAULTS,
        fingerprint=family,
        context_length=1024,
        load_weights=partial(model, family, **changes),
    )


def renderer(family: str) -> Renderer:
    return Renderer(tokenizer(family), kit.TOOLS)


def _byte_level(family: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(ignore_merges=family == "llama"))
    if family.startswith("qwen"):
        bpe.normalizer = normalizers.NFC()
    if family == "smollm":
        cut = pre_tokenizers.Digits(individual_digits=True)
    else:
        words = Regex(LLAMA_WORDS if family == "llama" else QWEN_WORDS)
        cut = pre_tokenizers.Split(words, "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=family == "smollm")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([cut, to_bytes])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=540,
        special_tokens=list(kit.SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(kit.CORPUS, trainer)
    return bpe


def _gemma() -> Any:
    """Sentencepiece's BPE: ▁ for a blank, bytes for what is unknown, tokens in order of rank."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from transformers.tokenization_utils_base import generate_merges

    text = " ".join(kit.CORPUS).replace(" ", "▁")
    learned = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=160, show_progress=False, max_token_length=6)
    learned.train_from_iterator([text], trainer)
    ranked = [piece for piece, _ in sorted(learned.get_vocab().items(), key=lambda item: item[1])]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    order = dict.fromkeys([*kit.SPECIAL[:3], "<unk>", *kit.SPECIAL[3:], *bytes_, *ranked])
    vocabulary = {piece: at for at, piece in enumerate(order)}
    scores = {piece: -at for piece, at in vocabulary.items()}
    bpe = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=generate_merges(vocabulary, scores),
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    bpe.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in (*kit.SPECIAL, "<unk>")]
    )
    return bpe
