"""The student as a Hugging Face folder: merged weights, tokenizer and chat template."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.export.template import chat_template
from distill.files import file_digest, write_json
from distill.render import Renderer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BY_ID = "added_tokens_decoder"
CODE_FILE = "decoder.py"
"""The embedded student's model code, loaded with trust_remote_code."""


def has_own_code(folder: Path) -> bool:
    """Whether an export's model code is distill's, byte for byte: no other is ever run."""
    from distill.students import decoder

    path = folder / CODE_FILE
    return path.is_file() and file_digest(path) == file_digest(Path(str(decoder.__file__)))


def write_merged(
    model: PreTrainedModel, renderer: Renderer, folder: Path, *, max_new_tokens: int
) -> None:
    """Write safetensors, config, generation config, tokenizer and chat template into `folder`.

    By the generation config, `generate` decodes as distill does: greedily, up to the renderer's
    stop tokens. Raises OSError.
    """
    from transformers import GenerationConfig

    # Untyped in transformers.
    tokenizer: Any = renderer.tokenizer
    untyped_model: Any = model
    config: Any = GenerationConfig
    untyped_model.generation_config = config(
        do_sample=False,
        eos_token_id=list(renderer.stop_ids),
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=max_new_tokens,
    )
    untyped_model.save_pretrained(str(folder))
    if type(model).__module__ == "distill.students.decoder":
        _write_code(model, folder)
    write_tokenizer(renderer, folder)


def write_tokenizer(renderer: Renderer, folder: Path) -> None:
    """Write the tokenizer with the chat template of the student's prompts. Raises OSError.

    A tokenizer may normalize a text before it looks for added tokens, so that full-width letters
    become a marker, which the template cannot quote: in the copy a marker is its own text alone.
    """
    tokenizer: Any = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template = chat_template(renderer)
    tokenizer.save_pretrained(str(folder))
    for name, key in (("tokenizer.json", "added_tokens"), ("tokenizer_config.json", _BY_ID)):
        path = folder / name
        settings = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        added = settings.get(key, ())
        for token in added.values() if isinstance(added, dict) else added:
            token["normalized"] = False
        if added:
            write_json(path, settings)


def _write_code(model: PreTrainedModel, folder: Path) -> None:
    """Copy the embedded student's model code, and name it in the config's `auto_map`."""
    from distill.students import decoder

    shutil.copyfile(str(decoder.__file__), folder / CODE_FILE)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    module = CODE_FILE.removesuffix(".py")
    config["auto_map"] = {
        "AutoConfig": f"{module}.{type(model.config).__name__}",
        "AutoModelForCausalLM": f"{module}.{type(model).__name__}",
    }
    write_json(path, config)
