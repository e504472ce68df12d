"""GGUF files: a family's weights, numbers and tokens come back; what they cannot say is refused.

Such files were also read by llama.cpp itself: tokens and greedy answers in f32 were the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import export_students as tiny
import pytest
import torch

from distill.errors import ExportError
from distill.export.gguf_model import family_of, write_gguf
from distill.export.gguf_tokenizer import (
    BYTE,
    CONTROL,
    UNUSED,
    USER_DEFINED,
    gguf_vocabulary,
)
from distill.export.parity import load_gguf
from distill.records import Message

TEXTS = (
    "Where is the meals policy of 2024?",
    "weather in Lisbon  tomorrow: it's\n\nfine",
    "“naïve” 3 × 4 Zürich 東京 🦄",
)
PROMPTS = [[Message(role="user", content=text)] for text in TEXTS]


def written(family: str, folder: Path, quantization: str = "f32", **changes: Any) -> Any:
    model = tiny.model(family, **changes)
    path = folder / "m.gguf"
    write_gguf(model, tiny.renderer(family), path, name="t", quantization=quantization)
    return model, path


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_weights_come_back_as_they_were(family: str, tmp_path: Path) -> None:
    model, path = written(family, tmp_path)
    found = load_gguf(path, model).state_dict()
    for name, weight in model.state_dict().items():
        # Gemma's norms are stored one larger.
        torch.testing.assert_close(found[name], weight, rtol=0, atol=2e-7, msg=name)


@pytest.mark.parametrize("family", [f for f in tiny.FAMILIES if f != "smollm"])
def test_tokens_come_back_as_they_were(family: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    _, path = written(family, tmp_path)
    renderer = tiny.renderer(family)
    found: Any = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for prompt in PROMPTS:
        text = renderer.prompt_text(prompt)
        assert found(text, add_special_tokens=False)["input_ids"] == renderer.prompt(prompt)


@pytest.mark.parametrize(
    ("quantization", "within"), [("f16", 1e-3), ("bf16", 8e-3), ("q8_0", 2e-2)]
)
def test_fewer_bits_are_nearly_the_same(quantization: str, within: float, tmp_path: Path) -> None:
    model, path = written("qwen3", tmp_path, quantization)
    found, exact = load_gguf(path, model).state_dict(), 0
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(found[name], weight, rtol=within, atol=within, msg=name)
        exact += bool(torch.equal(found[name], weight))
    # Vectors are kept whole: two norms a layer, two of its heads, and the last.
    assert exact == 2 * 4 + 1


def test_rows_that_do_not_divide_into_blocks_are_f16(tmp_path: Path) -> None:
    from gguf import GGUFReader

    _, path = written("llama", tmp_path, "q8_0", intermediate_size=72)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"


def fields(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def test_metadata_say_what_a_runtime_must_know(tmp_path: Path) -> None:
    _, path = written("gemma3", tmp_path)
    found, renderer = fields(path), tiny.renderer("gemma3")
    assert found["general.architecture"] == "gemma3"
    assert found["gemma3.attention.sliding_window"] == 16
    assert found["gemma3.attention.key_length"] == 32
    assert found["gemma3.attention.head_count_kv"] == 2
    assert found["gemma3.rope.freq_base"] == 1e6
    assert found["tokenizer.ggml.add_bos_token"] is True
    assert found["tokenizer.ggml.add_space_prefix"] is False
    ends = {found[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")}
    assert ends == set(renderer.stop_ids)
    assert "start_function_declaration" in found["tokenizer.chat_template"]


def test_a_runtime_shows_what_an_answer_holds_and_hides_its_end() -> None:
    renderer = tiny.renderer("gemma3")
    found = gguf_vocabulary(renderer.tokenizer, tiny.ROWS, ("<start_function_call>", "<escape>"))
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert kinds["<start_function_call>"] == kinds["<escape>"] == USER_DEFINED
    assert kinds["<end_of_turn>"] == CONTROL
    assert kinds["<0x0A>"] == BYTE
    assert kinds[f"[PAD{tiny.ROWS - 1}]"] == UNUSED
    assert len(found.tokens) == len(set(found.tokens)) == tiny.ROWS


@pytest.mark.parametrize(
    ("family", "changes", "pre"),
    [("qwen2", {}, "qwen2"), ("llama", {}, "llama-bpe"), ("smollm", {}, "smollm")],
)
def test_a_way_of_cutting_is_known_by_name(family: str, changes: Any, pre: str) -> None:
    assert gguf_vocabulary(tiny.tokenizer(family), tiny.ROWS).pre == pre


def test_a_head_of_its_own_is_kept(tmp_path: Path) -> None:
    _, tied = written("qwen2", tmp_path)
    assert "output.weight" not in names(tied)
    model, untied = written("qwen2", tmp_path, tie_word_embeddings=False)
    assert "output.weight" in names(untied)
    torch.testing.assert_close(load_gguf(untied, model).lm_head.weight, model.lm_head.weight)


def names(path: Path) -> set[str]:
    from gguf import GGUFReader

    return {tensor.name for tensor in GGUFReader(path).tensors}


def test_llama_s_stretched_positions_are_those_of_transformers(tmp_path: Path) -> None:
    from gguf import GGUFReader

    rope = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    model, path = written("llama", tmp_path, rope_parameters=rope)
    factors = next(t.data for t in GGUFReader(path).tensors if t.name == "rope_freqs.weight")
    plain = 1 / 10_000.0 ** (torch.arange(0, 16, 2) / 16)
    stretched = model.model.rotary_emb.inv_freq
    torch.testing.assert_close(plain / torch.from_numpy(factors.copy()), stretched)
    assert len(set(factors.tolist())) > 2


@pytest.mark.parametrize(
    ("family", "changes", "says"),
    [
        ("gemma3", {"query_pre_attn_scalar": 64}, "scales queries by 64"),
        ("gemma3", {"layer_types": ["full_attention"] * 6}, "windows are not those"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "caps logits"),
        ("gemma3", {"hidden_activation": "silu"}, "activation is silu"),
        ("llama", {"hidden_act": "gelu"}, "activation is gelu"),
        (
            "qwen3",
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}},
            "scaled by yarn",
        ),
        (
            "qwen2",
            {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 8},
            "attends to a window",
        ),
    ],
)
def test_what_a_runtime_takes_for_granted_is_refused(family: str, changes: Any, says: str) -> None:
    with pytest.raises(ExportError, match=says) as caught:
        family_of(tiny.model(family, **changes))
    assert "--format hf" in str(caught.value)


def test_an_unknown_architecture_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model: Any = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=8))
    with pytest.raises(ExportError, match="gpt2 is not one of gemma3_text, llama, qwen2, qwen3"):
        family_of(model)


def test_the_embedded_student_is_refused() -> None:
    from distill.students.embedded import verified_folder
    from distill.students.wordpiece import load_tokenizer

    tokenizer = load_tokenizer(verified_folder() / "vocab.txt", [])
    with pytest.raises(ExportError, match="its tokenizer is WordPiece, and only BPE is known"):
        gguf_vocabulary(tokenizer, 30522)


def altered(family: str, change: Any) -> Any:
    """The family's tokenizer with its description changed."""
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    described = json.loads(tiny.tokenizer(family).backend_tokenizer.to_str())
    change(described)
    made = Tokenizer.from_str(json.dumps(described))
    return PreTrainedTokenizerFast(tokenizer_object=made)


def other_words(described: Any) -> None:
    described["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\w+"}


def lower_case(described: Any) -> None:
    described["normalizer"] = {"type": "Lowercase"}


def greedy_marker(described: Any) -> None:
    described["added_tokens"][0]["rstrip"] = True


def one_merge_less(described: Any) -> None:
    merges = described["model"]["merges"]
    joined = ["".join(pair) for pair in merges]
    twice = next(at for at, text in enumerate(joined) if joined.count(text) > 1)
    del merges[twice]


def merges_apart(described: Any) -> None:
    merges = described["model"]["merges"]
    joined = ["".join(pair) for pair in merges]
    twice = next(at for at, text in enumerate(joined) if joined.count(text) > 1)
    merges.append(merges.pop(twice))


@pytest.mark.parametrize(
    ("family", "change", "says"),
    [
        ("qwen2", other_words, "a way that has no name in GGUF"),
        ("qwen2", lower_case, "changes text .Lowercase"),
        ("qwen2", greedy_marker, "takes the blanks beside it"),
        ("gemma3", one_merge_less, "would be joined"),
        ("gemma3", merges_apart, "do not stand together"),
        ("gemma3", lower_case, "neither byte-level BPE nor Gemma's"),
    ],
)
def test_a_tokenizer_that_a_runtime_would_read_otherwise_is_refused(
    family: str, change: Any, says: str
) -> None:
    with pytest.raises(ExportError, match=says):
        gguf_vocabulary(altered(family, change), tiny.ROWS)


def test_more_tokens_than_rows_are_refused() -> None:
    with pytest.raises(ExportError, match="tokens, and the model 99 rows"):
        gguf_vocabulary(tiny.tokenizer("qwen2"), 99)
