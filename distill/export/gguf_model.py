"""A student as a GGUF file, the format of llama.cpp and Ollama, or the reason why not.

A runtime hard-codes parts of an architecture that the file cannot change. A student that differs
there is refused, because it would answer wrongly without an error.

Source: llama.cpp, convert_hf_to_gguf.py and src/models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.errors import MissingExtraError
from distill.export.gguf_tokenizer import gguf_error, gguf_vocabulary, write_vocabulary
from distill.export.template import chat_template
from distill.render import PROBE_MESSAGE, Renderer, functiongemma
from distill.render.formats import FUNCTION_GEMMA

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from torch import Tensor
    from transformers import PreTrainedModel

_FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7}
"""The values of general.file_type in llama.cpp."""


class Family(NamedTuple):
    """An architecture that can be exported."""

    architecture: str
    """Its name in GGUF."""
    unsupported: Callable[[Any], Iterator[str]]
    """What in a config differs from what runtimes hard-code."""
    convert: Callable[[str, Tensor, Any], Tensor]
    """A weight as runtimes expect it, from its GGUF name, its values and the config."""


def write_gguf(
    model: PreTrainedModel, renderer: Renderer, path: Path, *, name: str, quantization: str
) -> None:
    """Write the model and its tokenizer as one GGUF file.

    Matrices are stored as `quantization` says, or as f16 where their rows do not divide into its
    blocks; vectors are stored as f32. Raises ExportError for what GGUF cannot express, OSError.
    """
    try:
        import gguf
    except ModuleNotFoundError:
        raise MissingExtraError.needing("gguf", "export", "an export to GGUF") from None
    family = family_of(model)
    config: Any = model.config.get_text_config(decoder=True)
    answer_markers: tuple[str, ...] = ()
    if renderer.format is FUNCTION_GEMMA:
        answer_markers = (*functiongemma.CALL, functiongemma.ESCAPE)
    vocabulary = gguf_vocabulary(renderer.tokenizer, config.vocab_size, answer_markers)
    writer = gguf.GGUFWriter(path, family.architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[quantization])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_hyperparameters(writer, config)
    write_vocabulary(
        writer,
        vocabulary,
        renderer.tokenizer,
        stop_ids=renderer.stop_ids,
        add_bos=begins_with_bos(renderer),
    )
    writer.add_chat_template(chat_template(renderer))
    for tensor, values in gguf_tensors(model, family):
        data, dtype = _quantize(values, quantization)
        writer.add_tensor(tensor, data, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def family_of(model: PreTrainedModel) -> Family:
    """The family of a model. Raises ExportError if it is unknown, or the model unsupported."""
    kind = str(model.config.model_type)
    family = _FAMILIES.get(kind)
    if family is None:
        raise gguf_error(f"{kind} is not one of {', '.join(_FAMILIES)}")
    if reasons := list(family.unsupported(model.config)):
        raise gguf_error("; ".join(reasons))
    return family


def gguf_tensors(model: PreTrainedModel, family: Family) -> Iterator[tuple[str, np.ndarray]]:
    """Each tensor's name in GGUF and its values in f32, in the model's order.

    A tied output head is left out: runtimes then use the embeddings.
    """
    import gguf

    untyped_model: Any = model
    config: Any = model.config
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == family.architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    embeddings = untyped_model.get_input_embeddings().weight.data_ptr()
    for name, tensor in untyped_model.state_dict().items():
        if name == "lm_head.weight" and tensor.data_ptr() == embeddings:
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise gguf_error(f"there is no place for its weights {name}")
        yield found, family.convert(found, tensor.detach().float().cpu(), config).numpy()
    if (factors := _llama3_rope_factors(config)) is not None:
        yield "rope_freqs.weight", factors.numpy()


def begins_with_bos(renderer: Renderer) -> bool:
    """Whether the student's prompts begin with BOS."""
    bos = renderer.tokenizer.bos_token_id
    prompt = renderer.prompt([PROBE_MESSAGE])
    return bos is not None and prompt[:1] == [bos]


def _write_hyperparameters(writer: GGUFWriter, config: Any) -> None:
    rope, head_size = _rope_parameters(config), _head_size(config)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)
        if rope.get("rope_type") == "linear":
            from gguf import RopeScalingType

            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(rope["factor"]))


def _quantize(values: np.ndarray, quantization: str) -> tuple[np.ndarray, Any]:
    """A tensor's stored values and their GGMLQuantizationType."""
    import gguf
    import numpy as np

    dtypes = {
        "f32": gguf.GGMLQuantizationType.F32,
        "f16": gguf.GGMLQuantizationType.F16,
        "bf16": gguf.GGMLQuantizationType.BF16,
        "q8_0": gguf.GGMLQuantizationType.Q8_0,
    }
    dtype = dtypes["f32" if values.ndim == 1 else quantization]
    if dtype is dtypes["q8_0"] and values.shape[-1] % gguf.GGML_QUANT_SIZES[dtype][0]:
        dtype = dtypes["f16"]
    return gguf.quants.quantize(np.ascontiguousarray(values), dtype), dtype


def _head_size(config: Any) -> int:
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(size)


def _rope_parameters(config: Any) -> dict[str, Any]:
    """The RoPE parameters of full attention; Gemma's sliding-window layers have others."""
    parameters: dict[str, Any] = config.rope_parameters
    return parameters.get("full_attention", parameters)  # type: ignore[no-any-return]


def _llama3_rope_factors(config: Any) -> Tensor | None:
    """The divisors of Llama 3's scaled RoPE frequencies, [head size / 2]; None for other RoPE."""
    import torch

    rope, size = _rope_parameters(config), _head_size(config)
    if rope.get("rope_type") != "llama3":
        return None
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    wavelengths = 2 * math.pi * rope["rope_theta"] ** exponents
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    trained = rope["original_max_position_embeddings"]
    smooth = ((trained / wavelengths - low) / (high - low)).clamp(0, 1)
    factors: Tensor = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return factors


def _unchanged(name: str, values: Tensor, config: Any) -> Tensor:
    return values


def _gemma_norms(name: str, values: Tensor, config: Any) -> Tensor:
    """Gemma multiplies by 1 + a norm's weight, runtimes by the stored weight."""
    return values + 1 if name.endswith("norm.weight") else values


def _interleaved_rope(name: str, values: Tensor, config: Any) -> Tensor:
    """For Llama, runtimes rotate neighbouring dimensions where transformers rotates halves."""
    if ".attn_q." in name:
        heads = config.num_attention_heads
    elif ".attn_k." in name:
        heads = config.num_key_value_heads
    else:
        return values
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _unsupported_rope(config: Any, *supported: str) -> Iterator[str]:
    kind = _rope_parameters(config).get("rope_type", "default")
    if kind not in ("default", *supported):
        yield f"its positions are scaled by {kind}"


def _unsupported_activation(config: Any, expected: str) -> Iterator[str]:
    found = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    if found != expected:
        yield f"its activation is {found}, and runtimes compute {expected}"


def _unsupported_llama(config: Any) -> Iterator[str]:
    yield from _unsupported_activation(config, "silu")
    yield from _unsupported_rope(config, "llama3")


def _unsupported_qwen(config: Any) -> Iterator[str]:
    yield from _unsupported_activation(config, "silu")
    yield from _unsupported_rope(config)
    if "sliding_attention" in (config.layer_types or ()):
        yield "it attends to a window, which runtimes leave out"


def _unsupported_gemma3(config: Any) -> Iterator[str]:
    yield from _unsupported_activation(config, "gelu_pytorch_tanh")
    yield from _unsupported_rope(config, "linear")
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
    "gemma3_text": Family("gemma3", _unsupported_gemma3, _gemma_norms),
    "llama": Family("llama", _unsupported_llama, _interleaved_rope),
    "qwen2": Family("qwen2", _unsupported_qwen, _unchanged),
    "qwen3": Family("qwen3", _unsupported_qwen, _unchanged),
}
