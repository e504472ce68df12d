"""Going on after a kill: the newest checkpoint that is whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

_STATE = "trainer_state.json"


def latest_complete_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from, or None to begin; torn ones newer than it are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=_step, reverse=True)
    for checkpoint in found:
        if _is_whole(checkpoint):
            _relocate(checkpoint, folder)
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def tokens_seen(checkpoint: Path) -> int:
    """How many tokens the training had computed by then, as it logged them."""
    history = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))["log_history"]
    return max((int(row["num_tokens"]) for row in history if "num_tokens" in row), default=0)


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _is_whole(checkpoint: Path) -> bool:
    """Whether every part can be read to its end; the trainer writes its state last."""
    import zipfile

    from safetensors import SafetensorError

    torn = (OSError, ValueError, KeyError, SafetensorError, zipfile.BadZipFile)
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        for weights in _weights(checkpoint):
            _read_weights(weights)
        for archive in _archives(checkpoint):
            _read_archive(archive)
    except torn:
        return False
    return True


def _weights(checkpoint: Path) -> list[Path]:
    """The files of an adapter, of a full model, or of a full model in shards."""
    adapter = checkpoint / "adapter_model.safetensors"
    index = checkpoint / "model.safetensors.index.json"
    if index.exists():
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [checkpoint / name for name in sorted(set(shards))]
    if adapter.exists() or not sharded(checkpoint):
        whole = checkpoint / "model.safetensors"
        return [whole if whole.exists() else adapter]
    return []


def _archives(checkpoint: Path) -> list[Path]:
    """What torch wrote: the optimizer, the schedule, and random states, one for each process."""
    states = sorted(checkpoint.glob("rng_state*.pth"))
    if not states:
        raise FileNotFoundError("no random state")
    if not sharded(checkpoint):
        return [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *states]
    for folder in sharded(checkpoint):
        # Of the parts of a folder, this one is written last.
        (folder / ".metadata").stat() if folder.is_dir() else _read_archive(folder)
    return [checkpoint / "scheduler.pt", *states]


def sharded(checkpoint: Path) -> list[Path]:
    """The weights and the optimizer that FSDP wrote, if it did: folders of shards, or files."""
    return sorted([*checkpoint.glob("pytorch_model_fsdp*"), *checkpoint.glob("optimizer[_.][0b]*")])


def _read_weights(path: Path) -> None:
    """Opening them compares the length of the file with what its head announces."""
    from safetensors import safe_open

    with safe_open(path, framework="pt"):
        pass


def _read_archive(path: Path) -> None:
    """A zip's directory stands at its end, and each of its files has a checksum."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile(path)


def _relocate(checkpoint: Path, folder: Path) -> None:
    """Point the state at the best checkpoint where it is now; a run folder may have been moved."""
    path = checkpoint / _STATE
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    best = state.get("best_model_checkpoint")
    if best and Path(best).parent != folder:
        state["best_model_checkpoint"] = str(folder / Path(best).name)
        path.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")
