"""Keeping libraries from talking: to their makers, and to the user about each other."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def disable_telemetry() -> None:
    """Turn off what huggingface_hub and TRL report home. Call it before they are used."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if "huggingface_hub.constants" in sys.modules:
        # It reads the environment once, when it is imported.
        sys.modules["huggingface_hub.constants"].HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]


def silence_transformers() -> None:
    """Errors alone; progress is shown by distill itself."""
    from transformers.utils import logging

    quieten: Any = logging
    quieten.set_verbosity_error()
    quieten.disable_progress_bar()


@contextmanager
def ignore_peft_warnings() -> Iterator[None]:
    """PEFT asks transformers for a property that transformers has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        yield
