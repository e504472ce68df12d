"""What a student is: a causal language model with its tokenizer, and how it is best tuned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill.errors import StudentError
from distill.students.quiet import peft_warnings_ignored

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TrainDefaults:
    """How a student is tuned unless distill.toml says otherwise."""

    epochs: float
    learning_rate: float
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


@dataclass(frozen=True)
class Student:
    """A student that was found and checked; its weights are read by `load`."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    declarations: Literal["full", "none"]
    """Whether its prompts carry the tool declarations, unless the settings say otherwise."""
    defaults: TrainDefaults
    fingerprint: str
    """The identity of its weights: a digest, or a hub revision."""
    context: int
    """Positions that it can attend to."""
    read: Callable[[], PreTrainedModel] = field(repr=False)
    """Reads the weights anew."""

    def load(self, adapter: Path | None = None) -> PreTrainedModel:
        """The model in eval mode, with `adapter` merged into its weights.

        Raises StudentError when the weights or the adapter cannot be used.
        """
        model: Any = self.read()
        if adapter is not None:
            model = _merged(model, adapter)
        model.eval()
        return model  # type: ignore[no-any-return]


def _merged(model: Any, adapter: Path) -> Any:
    from peft import PeftModel
    from safetensors import SafetensorError

    if not (adapter / "adapter_config.json").is_file():
        raise StudentError(
            "holds no adapter", place=adapter, hint="train one first: distill train RUN"
        )
    try:
        with peft_warnings_ignored():
            merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, OSError, SafetensorError) as error:
        raise StudentError(
            f"the adapter does not fit the student: {str(error).splitlines()[0]}",
            place=adapter,
            hint="use the student that it was trained from, or train again",
        ) from None
    return merged
