"""The student as an ordinary Hugging Face folder: one model, its tokenizer, its template."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.export.template import chat_template
from distill.files import write_json
from distill.render import Renderer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REMOTE = "decoder.py"
"""The embedded student's code, which travels with its weights."""


def write_merged(
    model: PreTrainedModel, renderer: Renderer, folder: Path, *, max_new_tokens: int
) -> None:
    """Write safetensors, config, generation settings, tokenizer and chat template into `folder`.

    Whoever loads it and calls `generate` decodes as distill does: greedily, and until the tokens
    that end a turn. Raises OSError.
    """
    any_model: Any = model
    any_model.generation_config = generation(renderer, max_new_tokens)
    any_model.save_pretrained(str(folder))
    if is_embedded(model):
        _carry_code(model, folder)
    write_tokenizer(renderer, folder)


def write_tokenizer(renderer: Renderer, folder: Path) -> None:
    """The tokenizer with the template of `chat_template`; the renderer's own stays as it is."""
    import copy

    tokenizer: Any = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template = chat_template(renderer)
    tokenizer.save_pretrained(str(folder))


def generation(renderer: Renderer, max_new_tokens: int) -> Any:
    """Greedy decoding up to the tokens that end a turn."""
    from transformers import GenerationConfig

    tokenizer = renderer.tokenizer
    settings: Any = GenerationConfig
    return settings(
        do_sample=False,
        eos_token_id=list(renderer.stop_ids),
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=max_new_tokens,
    )


def is_embedded(model: PreTrainedModel) -> bool:
    """Whether the model is of distill's own class, which nobody else has."""
    return type(model).__module__ == "distill.students.decoder"


def _carry_code(model: PreTrainedModel, folder: Path) -> None:
    """Put the model's code beside its weights, and say in the config where it is."""
    import json

    from distill.students import decoder

    shutil.copyfile(str(decoder.__file__), folder / REMOTE)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    module = REMOTE.removesuffix(".py")
    config["auto_map"] = {
        "AutoConfig": f"{module}.{type(model.config).__name__}",
        "AutoModelForCausalLM": f"{module}.{type(model).__name__}",
    }
    write_json(path, config)
