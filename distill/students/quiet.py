"""Turning off the telemetry, log messages and warnings of libraries."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def disable_telemetry() -> None:
    """Disable the telemetry of huggingface_hub and TRL; to be called before they are used."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if "huggingface_hub.constants" in sys.modules:
        # The environment is read on import.
        sys.modules["huggingface_hub.constants"].HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]


def silence_transformers() -> None:
    """Log errors only, and show no progress bars: distill has its own."""
    from transformers.utils import logging

    untyped: Any = logging
    untyped.set_verbosity_error()
    untyped.disable_progress_bar()


@contextmanager
def ignore_peft_warnings() -> Iterator[None]:
    """PEFT uses a property that transformers has deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        yield
