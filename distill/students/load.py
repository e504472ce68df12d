"""Find a student by its name, folder or hub id."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.errors import MissingExtraError, StudentError
from distill.files import file_digest
from distill.records import digest
from distill.students.base import Student, TrainDefaults, gpu_supports_bf16
from distill.students.quiet import disable_telemetry, silence_transformers
from distill.students.untrusted import (
    NO_CODE,
    NO_PICKLE,
    own_code_error,
    pickled_error,
    require_safetensors,
)
from distill.workflow.model import Tool

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "embedded"
SMOLLM2 = "smollm2"
IDS = {
    EMBEDDED: "sentence-transformers/all-MiniLM-L6-v2",
    SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct",
}
"""The students that need no hub, and what their weights are called there."""
SUGGESTED = (
    EMBEDDED,
    SMOLLM2,
    "google/functiongemma-270m-it",
    "google/gemma-3-270m-it",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-1.7B",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "HuggingFaceTB/SmolLM2-360M-Instruct",
)
"""Names to suggest when one is mistyped; any other causal language model works as well."""

DEFAULTS = TrainDefaults(
    epochs=3,
    learning_rate=2e-4,
    batch_size=16,
    max_length=2048,
    lora_r=16,
    lora_alpha=32,
    # One token of twenty-five chooses the tool. SmolLM2-135M sends .93 of 100 prompts to the right
    # tool after 62 steps of 16 rows of the example, and .82 with a weight of one.
    decision_weight=10.0,
)


class LoadOptions(NamedTuple):
    """How transformers loads weights."""

    attention: str | None
    """attn_implementation; None: the default of transformers."""
    fp32: bool


def load_student(
    spec: str, tools: Sequence[Tool], *, attention: str = "auto", fp32: bool = False
) -> Student:
    """The student called `spec`: "embedded", "smollm2", a folder, or a hub id.

    attention: as the setting [train] attention; fp32: load the weights in fp32 also on a GPU, as
    full tuning needs. Raises StudentError when there is no such student or it cannot be used,
    MissingExtraError when packages for it are not installed.
    """
    disable_telemetry()
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError.needing(error.name or "torch", "train", "a student") from None
    silence_transformers()
    _require_attention(attention, spec)
    implementation = None if attention == "auto" else attention
    if spec == EMBEDDED:
        from distill.students.embedded import embedded_student

        return embedded_student(tools, attention=implementation)
    options = LoadOptions(implementation, fp32)
    if spec == SMOLLM2:
        from distill.students import smollm2

        weights = str(smollm2.weights_folder())
        found = _pretrained_student(spec, weights, smollm2.FINGERPRINT, options)
        return replace(found, defaults=smollm2.DEFAULTS, declarations="none")
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return _pretrained_student(spec, str(folder), _folder_fingerprint(folder), options)
    if folder.is_absolute() or spec.startswith((".", "~")) or spec.count("/") != 1:
        raise StudentError("there is no such student", place=spec, hint=_suggestion(spec))
    return _pretrained_student(spec, spec, None, options)


def weights_source(spec: str) -> str:
    """What a server or transformers is told to load: a folder's path, or a hub id."""
    if spec == SMOLLM2:
        from distill.students.smollm2 import weights_folder

        return str(weights_folder())
    return spec


def _require_attention(attention: str, spec: str) -> None:
    from transformers.utils.import_utils import is_flash_attn_2_available

    if attention != "flash_attention_2":
        return
    if spec == EMBEDDED:
        raise StudentError(
            "reads a request in both directions, which flash attention does not",
            place=spec,
            hint="leave it to transformers: --attention auto",
        )
    if not is_flash_attn_2_available():
        raise StudentError(
            "flash_attention_2 cannot be used here: it needs a GPU and the package flash-attn",
            place="attention",
            hint="pip install flash-attn where there is a GPU, or leave it to transformers: "
            "--attention auto",
        )


def _pretrained_student(
    name: str, source: str, fingerprint: str | None, options: LoadOptions
) -> Student:
    """A student from a folder, whose fingerprint is given, or from the hub."""
    from transformers import AutoConfig, AutoTokenizer

    if fingerprint:
        require_safetensors(Path(source))
    config = _call(partial(AutoConfig.from_pretrained, source, **NO_CODE), name)
    _require_causal(config, name)
    tokenizer: PreTrainedTokenizerBase = _call(
        partial(AutoTokenizer.from_pretrained, source, **NO_CODE), name
    )
    for here_alone in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(here_alone, None)
    _set_padding(tokenizer, name)
    context = int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2048)
    revision = getattr(config, "_commit_hash", None)
    return Student(
        name=name,
        tokenizer=tokenizer,
        declarations="full",
        defaults=DEFAULTS,
        fingerprint=fingerprint or f"{source}@{revision}",
        context_length=context,
        load_weights=partial(
            _load_weights, source, name, None if fingerprint else revision, options
        ),
    )


def _set_padding(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Give a tokenizer without a padding token another one: padding is masked in any case."""
    if tokenizer.pad_token is not None:
        return
    # Only a token that is added already: any other would be cut out of texts from now on.
    added = (str(token) for _, token in sorted(tokenizer.added_tokens_decoder.items()))
    found = next((t for t in (tokenizer.eos_token, tokenizer.unk_token, *added) if t), None)
    if found is None:
        raise StudentError(
            "its tokenizer has no padding token, no end token and no other special token",
            place=name,
            hint='name one in its tokenizer_config.json: "pad_token"',
        )
    tokenizer.pad_token = found


def _load_weights(
    source: str, name: str, revision: str | None, options: LoadOptions, tuned: Path | None = None
) -> PreTrainedModel:
    """The model with the weights of `source`, or of the folder `tuned`, on the CPU.

    Frozen weights are bf16 where the GPU supports it; the adapter is fp32. Weights that are trained
    themselves have to be fp32, and are cast in each step: bf16 has eight bits of mantissa, and most
    updates of a late step would be rounded away.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if tuned is not None:
        require_safetensors(tuned)
    bf16 = gpu_supports_bf16() and not options.fp32
    load = partial(
        AutoModelForCausalLM.from_pretrained,
        source if tuned is None else str(tuned),
        dtype=torch.bfloat16 if bf16 else torch.float32,
        revision=None if tuned else revision,
        attn_implementation=options.attention,
        **NO_PICKLE,
    )
    return _call(load, name if tuned is None else str(tuned))  # type: ignore[no-any-return]


def _require_causal(config: PreTrainedConfig, name: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    encoder = config.model_type in ("bert", "roberta", "electra", "xlm-roberta")
    if config.model_type not in CAUSAL or (encoder and not config.is_decoder):
        raise StudentError(
            f"is a {config.model_type} model, which cannot write text",
            place=name,
            hint="choose a causal language model, such as google/functiongemma-270m-it",
        )


def _call(load: Any, name: str) -> Any:
    """The result of `load`; errors of transformers are raised as StudentError."""
    from safetensors import SafetensorError

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return load()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise _student_error(error, name) from None
    finally:
        logger.setLevel(level)


def _student_error(error: BaseException, name: str) -> StudentError:
    # By name, as the classes are of huggingface_hub and of its HTTP library.
    kinds = {type(cause).__name__ for cause in _causes(error)}
    if "GatedRepoError" in kinds:
        return StudentError(
            "is gated: its owner asks you to accept a licence first",
            place=name,
            hint=f"accept it at https://huggingface.co/{name}, then: hf auth login; "
            "or use --student embedded",
        )
    if kinds & {"RepositoryNotFoundError", "HFValidationError"}:
        return StudentError("there is no such model", place=name, hint=_suggestion(name))
    if kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError"}:
        return StudentError(
            "the model hub cannot be reached, and no copy is on this machine",
            place=name,
            hint=_suggestion(name, "connect and try again, give a folder"),
        )
    if "trust_remote_code" in str(error):
        return own_code_error(name)
    if "model.safetensors" in str(error) and "does not appear to have a file" in str(error):
        return pickled_error(name)
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return StudentError(
        f"cannot be loaded: {text or type(error).__name__}", place=name, hint=_suggestion(name)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _suggestion(name: str, otherwise: str = "give a hub id such as owner/name, or a folder") -> str:
    near = difflib.get_close_matches(name, SUGGESTED, n=1, cutoff=0.75)
    if near and near[0] != name:
        return f'did you mean "{near[0]}"?'
    return f"{otherwise}, or use --student {EMBEDDED}"


def _folder_fingerprint(folder: Path) -> str:
    """The digest of weights, config and tokenizer."""
    patterns = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "*.txt")
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return digest([[path.name, file_digest(path)] for path in files])
