"""What is loaded runs nothing: no code of a model's own, no pickled weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.errors import StudentError
from distill.files import parse_json, read_text

NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""For each `from_pretrained`: without it, transformers asks on stdout, and takes a y from stdin."""
NO_PICKLE: dict[str, Any] = {**NO_CODE, "use_safetensors": True}
"""For weights: unpickling a file may run what it holds."""
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def pickled_error(place: object, names: str = "") -> StudentError:
    return StudentError(
        f"its weights are pickled{names and f' ({names})'}, and loading them may run code",
        place=place,
        hint="use a model with safetensors, or convert it: https://hf.co/docs/safetensors",
    )


def own_code_error(place: object) -> StudentError:
    return StudentError(
        "needs code of its own (auto_map), which distill never runs",
        place=place,
        hint="choose a student of an architecture that transformers itself has",
    )


def require_safetensors(folder: Path) -> None:
    """Raise StudentError for a model or an adapter whose weights are pickled alone, by name."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    weights = [name for name in names if name != "training_args.bin"]
    if weights and not any(folder.glob("*.safetensors")):
        raise pickled_error(folder, ", ".join(weights[:3]))


def load_adapter(model: Any, adapter: Path) -> Any:
    """`model` with the adapter in a folder. Raises StudentError for one that would run code."""
    from peft import PeftModel

    require_safetensors(adapter)
    path = adapter / "adapter_config.json"
    config: Any = parse_json(read_text(path), path)
    # PEFT imports the module that such a setting names.
    if isinstance(config, dict) and config.get("megatron_config"):
        raise own_code_error(path)
    return PeftModel.from_pretrained(model, str(adapter))
