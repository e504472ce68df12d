"""Going on after a kill: the newest checkpoint that is whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

_STATE = "trainer_state.json"


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint to go on from, or None to begin; torn ones newer than it are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=_step, reverse=True)
    for checkpoint in found:
        if _is_whole(checkpoint):
            _relocate(checkpoint, folder)
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _is_whole(checkpoint: Path) -> bool:
    """Whether every part can be read to its end; the trainer writes its state last."""
    import pickle
    import zipfile

    from safetensors import SafetensorError

    torn = (OSError, ValueError, RuntimeError, EOFError, KeyError)
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        _read_parts(checkpoint)
    except (*torn, SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile):
        return False
    return True


def _read_parts(checkpoint: Path) -> None:
    import torch
    from safetensors.torch import load_file

    load_file(checkpoint / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.load(checkpoint / name, map_location="cpu", weights_only=True)
    if not (checkpoint / "rng_state.pth").stat().st_size:
        raise EOFError


def _relocate(checkpoint: Path, folder: Path) -> None:
    """Point the state at the best checkpoint where it is now; a run folder may have been moved."""
    path = checkpoint / _STATE
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    best = state.get("best_model_checkpoint")
    if best and Path(best).parent != folder:
        state["best_model_checkpoint"] = str(folder / Path(best).name)
        path.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")
