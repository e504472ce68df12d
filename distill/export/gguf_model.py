"""A student's weights as GGUF, the format of llama.cpp and Ollama, or the reason why not.

What a runtime takes for granted about an architecture, a file cannot change: where a student
differs from that, it is refused here instead of answering wrongly there.

Source: llama.cpp, convert_hf_to_gguf.py and src/models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.errors import ExportError, MissingExtraError
from distill.export.gguf_tokenizer import vocabulary, write_vocabulary
from distill.export.template import chat_template
from distill.render import Renderer, functiongemma

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from torch import Tensor
    from transformers import PreTrainedModel

QUANTIZATIONS = ("f32", "f16", "bf16", "q8_0")
_FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7}
"""As llama.cpp numbers them in general.file_type."""


class Family(NamedTuple):
    """What GGUF calls an architecture, what it cannot say of it, and how weights are changed."""

    architecture: str
    refuse: Callable[[Any], Iterator[str]]
    change: Callable[[str, Tensor, Any], Tensor]


def write_gguf(
    model: PreTrainedModel, renderer: Renderer, path: Path, *, name: str, quantization: str
) -> None:
    """Write the model and its tokenizer as one GGUF file.

    Matrices are stored as `quantization` says, and where a row does not divide into its blocks as
    f16; vectors are f32. Raises ExportError for what GGUF cannot express, OSError.
    """
    try:
        import gguf
    except ModuleNotFoundError:
        raise MissingExtraError.needing("gguf", "export", "an export to GGUF") from None
    family = family_of(model)
    config: Any = model.config.get_text_config(decoder=True)
    words = vocabulary(renderer.tokenizer, config.vocab_size, _said(renderer))
    writer = gguf.GGUFWriter(path, family.architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[quantization])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_shape(writer, config)
    write_vocabulary(
        writer, words, renderer.tokenizer, ends=renderer.stop_ids, add_bos=begins_with_bos(renderer)
    )
    writer.add_chat_template(chat_template(renderer))
    for tensor, values in tensors(model, family):
        data, kind = _stored(values, quantization)
        writer.add_tensor(tensor, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def family_of(model: PreTrainedModel) -> Family:
    """The family of a model. Raises ExportError for one that is unknown, or that it refuses."""
    kind = str(model.config.model_type)
    family = _FAMILIES.get(kind)
    if family is None:
        raise _refused(f"{kind} is not one of {', '.join(_FAMILIES)}")
    reasons = list(family.refuse(model.config))
    if reasons:
        raise _refused("; ".join(reasons))
    return family


def tensors(model: PreTrainedModel, family: Family) -> Iterator[tuple[str, np.ndarray]]:
    """Each tensor's name in GGUF and its values in f32, in the model's order.

    A head that is the embeddings is left out, as runtimes use the embeddings then.
    """
    import gguf

    any_model: Any = model
    config: Any = model.config
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == family.architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    tied = any_model.get_input_embeddings().weight.data_ptr()
    for name, tensor in any_model.state_dict().items():
        if name == "lm_head.weight" and tensor.data_ptr() == tied:
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise _refused(f"there is no place for its weights {name}")
        yield found, family.change(found, tensor.detach().float().cpu(), config).numpy()
    if (factors := _rope_factors(config)) is not None:
        yield "rope_freqs.weight", factors.numpy()


def begins_with_bos(renderer: Renderer) -> bool:
    """Whether the student's prompts begin with the token that opens a text."""
    from distill.records import Message

    bos = renderer.tokenizer.bos_token_id
    prompt = renderer.prompt([Message(role="user", content="x")])
    return bos is not None and prompt[:1] == [bos]


def _said(renderer: Renderer) -> tuple[str, ...]:
    """The markers inside an answer; the others end it."""
    own = renderer.format.name == "functiongemma"
    return (*functiongemma.CALL, functiongemma.ESCAPE) if own else ()


def _write_shape(writer: GGUFWriter, config: Any) -> None:
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)
        if _rope(config).get("rope_type") == "linear":
            writer.add_rope_scaling_type(_linear())
            writer.add_rope_scaling_factor(float(_rope(config)["factor"]))


def _linear() -> Any:
    from gguf import RopeScalingType

    return RopeScalingType.LINEAR


def _stored(values: np.ndarray, quantization: str) -> tuple[np.ndarray, Any]:
    """The bytes of a tensor and their kind."""
    import gguf
    import numpy as np

    kinds = {
        "f32": gguf.GGMLQuantizationType.F32,
        "f16": gguf.GGMLQuantizationType.F16,
        "bf16": gguf.GGMLQuantizationType.BF16,
        "q8_0": gguf.GGMLQuantizationType.Q8_0,
    }
    kind = kinds["f32" if values.ndim == 1 else quantization]
    if kind is kinds["q8_0"] and values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = kinds["f16"]
    return gguf.quants.quantize(np.ascontiguousarray(values), kind), kind


def _rope(config: Any) -> dict[str, Any]:
    """The rotary settings of full attention; Gemma has others for its windows."""
    found: dict[str, Any] = config.rope_parameters
    own: dict[str, Any] = found.get("full_attention", found)
    return own


def _rope_factors(config: Any) -> Tensor | None:
    """Llama 3's stretched frequencies: what each is divided by, shape [head size / 2]."""
    import torch

    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return None
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    waves = 2 * math.pi * rope["rope_theta"] ** exponents
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    trained = rope["original_max_position_embeddings"]
    smooth = ((trained / waves - low) / (high - low)).clamp(0, 1)
    factors: Tensor = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return factors


def _as_they_are(name: str, values: Tensor, config: Any) -> Tensor:
    return values


def _plus_one(name: str, values: Tensor, config: Any) -> Tensor:
    """Gemma multiplies by one more than a norm's weight; runtimes multiply by what is stored."""
    return values + 1 if name.endswith("norm.weight") else values


def _interleaved(name: str, values: Tensor, config: Any) -> Tensor:
    """Llama's runtimes rotate neighbours where transformers rotates halves."""
    if ".attn_q." in name:
        heads = config.num_attention_heads
    elif ".attn_k." in name:
        heads = config.num_key_value_heads
    else:
        return values
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _odd_rope(config: Any, *known: str) -> Iterator[str]:
    kind = _rope(config).get("rope_type", "default")
    if kind not in ("default", *known):
        yield f"its positions are scaled by {kind}"


def _odd_activation(config: Any, expected: str) -> Iterator[str]:
    found = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    if found != expected:
        yield f"its activation is {found}, and runtimes compute {expected}"


def _refuse_llama(config: Any) -> Iterator[str]:
    yield from _odd_activation(config, "silu")
    yield from _odd_rope(config, "llama3")


def _refuse_qwen(config: Any) -> Iterator[str]:
    yield from _odd_activation(config, "silu")
    yield from _odd_rope(config)
    if "sliding_attention" in (config.layer_types or ()):
        yield "it attends to a window, which runtimes leave out"


def _refuse_gemma3(config: Any) -> Iterator[str]:
    yield from _odd_activation(config, "gelu_pytorch_tanh")
    yield from _odd_rope(config, "linear")
    expected = ["full_attention" if (at + 1) % 6 == 0 else "sliding_attention" for at in range(999)]
    if list(config.layer_types) != expected[: config.num_hidden_layers]:
        yield "its windows are not those of five layers in six"
    local = config.rope_parameters.get("sliding_attention", {}).get("rope_theta", 10_000)
    if local != 10_000:
        yield f"the rotary base of its windows is {local:g}, and runtimes take 10000"
    if config.query_pre_attn_scalar != config.head_dim:
        yield f"it scales queries by {config.query_pre_attn_scalar}, not by its head size"
    if config.attn_logit_softcapping or config.final_logit_softcapping:
        yield "it caps logits"
    if getattr(config, "use_bidirectional_attention", False):
        yield "it reads in both directions"


_FAMILIES: dict[str, Family] = {
    "gemma3_text": Family("gemma3", _refuse_gemma3, _plus_one),
    "llama": Family("llama", _refuse_llama, _interleaved),
    "qwen2": Family("qwen2", _refuse_qwen, _as_they_are),
    "qwen3": Family("qwen3", _refuse_qwen, _as_they_are),
}


def _refused(cause: str) -> ExportError:
    return ExportError(
        f"cannot be written as GGUF: {cause}",
        hint="export it with --format hf, which takes every student",
    )
