"""Tests that need a GPU, and what they run on.

`pytest -m gpu tests/gpu` runs them where there is one. DISTILL_GPU_TESTS_ON=cpu runs the same
bodies on processors, where what only a GPU can show (speed, its memory, sharded weights) is not
asked.
"""

from __future__ import annotations

import os

import pytest
import torch

DEVICE = os.environ.get("DISTILL_GPU_TESTS_ON", "cuda")


@pytest.fixture(scope="session", autouse=True)
def device() -> str:
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here; DISTILL_GPU_TESTS_ON=cpu runs these tests without one")
    return DEVICE


@pytest.fixture(scope="session")
def processes(device: str) -> int:
    """As many as there are GPUs; two where there is none."""
    return torch.cuda.device_count() if device == "cuda" else 2
