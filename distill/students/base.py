"""A student: a causal language model with its tokenizer and its default hyperparameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill.errors import StudentError
from distill.students.quiet import ignore_peft_warnings
from distill.students.untrusted import load_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TrainDefaults:
    """A student's hyperparameters where distill.toml sets none."""

    epochs: float
    learning_rate: float
    """Peak rate for LoRA."""
    batch_size: int
    max_length: int
    lora_r: int
    lora_alpha: int
    target_modules: str | tuple[str, ...] = "all-linear"
    modules_to_save: tuple[str, ...] = ()
    """Modules trained in full and saved with the adapter, as in PEFT."""
    scheduler: str = "cosine"
    warmup: float = 0.1
    """The fraction of steps in which the learning rate rises."""
    decision_weight: float = 1.0
    """The weight in the loss of tokens at which the allowed answers part, as tools' names do."""
    bf16_on_cpu: bool = False
    """Whether to train in bf16 also on a CPU with bf16 instructions."""

    def peak_learning_rate(self, tuning: str) -> float:
        """A tenth of LoRA's for full tuning, which starts from pretrained weights."""
        return self.learning_rate / 10 if tuning == "full" else self.learning_rate


@dataclass(frozen=True)
class Student:
    """A student whose config and tokenizer are loaded; `load` reads the weights."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    declarations: Literal["full", "names", "none"]
    """What its prompts contain of the tool declarations, unless the settings say otherwise."""
    defaults: TrainDefaults
    fingerprint: str
    """Identifies the weights: a digest, or the name and revision at a hub."""
    context_length: int
    """In tokens."""
    load_weights: Callable[..., PreTrainedModel] = field(repr=False)
    """Returns the base model; given the folder of a fully tuned model, that one."""

    @property
    def from_hub(self) -> bool:
        """Whether the fingerprint is a revision, which may change while the weights do not."""
        return self.fingerprint.startswith(f"{self.name}@")

    def load(self, adapter: Path | None = None) -> PreTrainedModel:
        """The model in eval mode, on the GPU if there is one.

        adapter: a folder with a LoRA adapter, which is merged into the weights, or with a fully
        tuned model; None: the base model. Raises StudentError when weights or adapter do not fit.
        """
        import torch

        model: Any
        if adapter is None:
            model = self.load_weights()
        elif (adapter / "adapter_config.json").is_file():
            model = _merged(self.load_weights(), adapter)
        elif (adapter / "config.json").is_file():
            model = self.load_weights(adapter)
            if model.get_input_embeddings().num_embeddings < len(self.tokenizer):
                raise adapter_mismatch(adapter, "it knows fewer tokens")
        else:
            raise StudentError(
                "holds no adapter", place=adapter, hint="train one first: distill train RUN"
            )
        if adapter is not None and not all(bool(w.isfinite().all()) for w in model.parameters()):
            raise adapter_mismatch(adapter, "its weights are not finite, as of a diverged training")
        model.eval()
        return model.to("cuda") if torch.cuda.is_available() else model  # type: ignore[no-any-return]


def gpu_supports_bf16() -> bool:
    """Whether there is a GPU that supports bf16 without emulating it."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def cpu_supports_bf16() -> bool:
    """Whether the CPU has bf16 instructions: several times as fast as fp32."""
    import torch

    cpu: Any = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def adapter_mismatch(adapter: Path, cause: str) -> StudentError:
    return StudentError(
        f"the adapter does not fit the student: {cause}",
        place=adapter,
        hint="use the student that it was trained from, or train again",
    )


def _merged(model: Any, adapter: Path) -> Any:
    from safetensors import SafetensorError

    try:
        with ignore_peft_warnings():
            merged = load_adapter(model, adapter).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, OSError, SafetensorError) as error:
        raise adapter_mismatch(adapter, str(error).splitlines()[0]) from None
    return merged
