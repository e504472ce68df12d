"""What fuzzing (`make fuzz`) starts from, and what it once found, holds what it must."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.targets import FOUND, TARGETS

CASES = [(name, path) for name, target in TARGETS.items() for path in target.found()]


@pytest.mark.parametrize(("name", "path"), CASES, ids=[f"{n}-{p.name}" for n, p in CASES])
def test_an_input_that_once_broke_a_target(name: str, path: Path) -> None:
    TARGETS[name].check()(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_what_fuzzing_starts_from(name: str) -> None:
    seeds = list(TARGETS[name].seeds())
    assert len(seeds) > 3
    for seed in seeds[:: max(1, len(seeds) // 12)]:
        TARGETS[name].check()(seed)


def test_every_folder_of_findings_is_a_target_s() -> None:
    assert {path.name for path in FOUND.iterdir()} <= {*TARGETS}
