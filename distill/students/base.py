"""What a student is: a causal language model with its tokenizer, and how it is best tuned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill.errors import StudentError
from distill.students.quiet import ignore_peft_warnings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TrainDefaults:
    """How a student is tuned unless distill.toml says otherwise."""

    epochs: float
    learning_rate: float
    """Of an adapter."""
    batch_size: int
    max_length: int
    lora_r: int
    lora_alpha: int
    target_modules: str | tuple[str, ...] = "all-linear"
    modules_to_save: tuple[str, ...] = ()
    """Modules that are trained whole and saved with the adapter."""
    scheduler: str = "cosine"
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises."""
    first_token_weight: float = 1.0
    """How often the token counts in the loss that chooses between tools and words."""

    bf16_on_cpu: bool = False
    """Whether it is tuned in bf16 on a processor, too, that multiplies it."""

    def rate(self, tuning: str) -> float:
        """The peak learning rate: weights that were trained before take a tenth of an adapter's."""
        return self.learning_rate / 10 if tuning == "full" else self.learning_rate


@dataclass(frozen=True)
class Student:
    """A student that was found and checked; its weights are read by `load`."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    declarations: Literal["full", "names", "none"]
    """Whether its prompts carry the tool declarations, unless the settings say otherwise."""
    defaults: TrainDefaults
    fingerprint: str
    """The identity of its weights: a digest, or a hub revision."""
    context_length: int
    """Positions that it can attend to."""
    load_weights: Callable[..., PreTrainedModel] = field(repr=False)
    """Reads the weights anew; given the folder of a fully tuned copy, that copy's."""

    def load(self, adapter: Path | None = None) -> PreTrainedModel:
        """The model in eval mode, tuned as the folder `adapter` says, on the GPU if there is one.

        That folder holds a LoRA adapter, which is merged into the weights, or every weight.
        Raises StudentError when the weights or the adapter cannot be used.
        """
        model: Any
        if adapter is None:
            model = self.load_weights()
        elif (adapter / "adapter_config.json").is_file():
            model = _merged(self.load_weights(), adapter)
        elif (adapter / "config.json").is_file():
            model = self._fully_tuned(adapter)
        else:
            raise StudentError(
                "holds no adapter", place=adapter, hint="train one first: distill train RUN"
            )
        model.eval()
        return _placed(model)  # type: ignore[no-any-return]

    def _fully_tuned(self, folder: Path) -> Any:
        model: Any = self.load_weights(folder)
        if model.get_input_embeddings().num_embeddings < len(self.tokenizer):
            raise _misfit(folder, "it knows fewer tokens")
        return model


def gpu_supports_bf16() -> bool:
    """Whether there is a GPU that computes in bf16, and does not only emulate it."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def cpu_supports_bf16() -> bool:
    """Whether the processor multiplies bf16 itself: several times as fast as fp32."""
    import torch

    known: Any = torch.cpu
    return bool(known._is_avx512_bf16_supported() or known._is_amx_tile_supported())


def _placed(model: Any) -> Any:
    import torch

    return model.to("cuda") if torch.cuda.is_available() else model


def _misfit(adapter: Path, cause: str) -> StudentError:
    return StudentError(
        f"the adapter does not fit the student: {cause}",
        place=adapter,
        hint="use the student that it was trained from, or train again",
    )


def _merged(model: Any, adapter: Path) -> Any:
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with ignore_peft_warnings():
            merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, OSError, SafetensorError) as error:
        raise _misfit(adapter, str(error).splitlines()[0]) from None
    return merged
