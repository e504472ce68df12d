"""Resuming an interrupted training from its latest complete checkpoint."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from distill import strict_json
from distill.files import write_text

_STATE = "trainer_state.json"


def latest_complete_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from, or None; removes incomplete ones that are newer."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        if _is_complete(checkpoint):
            _relocate_best(checkpoint, folder)
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def remove_checkpoints(folder: Path) -> None:
    """Delete them all, in one step: with only some of them, a training would go on wrongly."""
    gone = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def tokens_seen(checkpoint: Path) -> int:
    """How many tokens had been trained on, according to the log history."""
    history = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))["log_history"]
    return max((int(row["num_tokens"]) for row in history if "num_tokens" in row), default=0)


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _is_complete(checkpoint: Path) -> bool:
    """Whether every file is there and not truncated; the trainer writes its state last."""
    import zipfile

    from safetensors import SafetensorError

    try:
        state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        best = state.get("best_model_checkpoint")
        # It is what the training ends in: without it, the last weights would be kept.
        for folder in {checkpoint, checkpoint.with_name(Path(best or checkpoint).name)}:
            for weights in _weight_files(folder):
                _check_weights(weights)
        for archive in _torch_files(checkpoint):
            _check_archive(archive)
    except (OSError, ValueError, KeyError, SafetensorError, zipfile.BadZipFile):
        return False
    return True


def _weight_files(checkpoint: Path) -> list[Path]:
    """The safetensors files of an adapter, of a full model, or of a full model in shards."""
    adapter = checkpoint / "adapter_model.safetensors"
    index = checkpoint / "model.safetensors.index.json"
    if index.exists():
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [checkpoint / name for name in sorted(set(shards))]
    if adapter.exists() or not _fsdp_files(checkpoint):
        model = checkpoint / "model.safetensors"
        return [model if model.exists() else adapter]
    return []


def _torch_files(checkpoint: Path) -> list[Path]:
    """The archives of optimizer, scheduler and random states, one state for each process."""
    states = sorted(checkpoint.glob("rng_state*.pth"))
    if not states:
        raise FileNotFoundError("no random state")
    if not _fsdp_files(checkpoint):
        return [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *states]
    for path in _fsdp_files(checkpoint):
        # FSDP writes .metadata last.
        (path / ".metadata").stat() if path.is_dir() else _check_archive(path)
    return [checkpoint / "scheduler.pt", *states]


def _fsdp_files(checkpoint: Path) -> list[Path]:
    """Weights and optimizer as FSDP writes them, if it did: folders of shards, or files."""
    return sorted([*checkpoint.glob("pytorch_model_fsdp*"), *checkpoint.glob("optimizer[_.][0b]*")])


def _check_weights(path: Path) -> None:
    """Opening a safetensors file compares its length with its header."""
    from safetensors import safe_open

    with safe_open(path, framework="pt"):
        pass


def _check_archive(path: Path) -> None:
    """A zip has its directory at the end, and a checksum for each member."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile(path)


def _relocate_best(checkpoint: Path, folder: Path) -> None:
    """Correct the path of the best checkpoint, in case the run folder was moved."""
    path = checkpoint / _STATE
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    best = state.get("best_model_checkpoint")
    if best and Path(best).parent != folder:
        state["best_model_checkpoint"] = str(folder / Path(best).name)
        write_text(path, strict_json.encode(state, indent=2, sort_keys=True) + "\n")
