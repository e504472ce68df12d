"""Where a stage stands follows from what it was made with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_data import WORKFLOW

from distill.config import Config
from distill.records import Cell
from distill.run.folder import RunFolder
from distill.stages import FLOW, plan
from distill.stages.pipeline import GIVEN_UP_AFTER, RESERVE, ask_more
from distill.stages.stage import Context, run_stage, settings_of, stage_status
from distill.stages.watcher import LogWatcher


def planned(folder: Path, **tables: Any) -> RunFolder:
    run = RunFolder.create(folder, WORKFLOW, Config.load(None, tables))
    run_stage(plan.STAGE, Context(run, LogWatcher()))
    return run


def edited(run: RunFolder, **settings: Any) -> None:
    """Record the stage as if it had been made with these settings; None: without them."""
    entry = run.manifest.stages["plan"]
    kept = {**entry.settings, **settings}
    kept = {name: value for name, value in kept.items() if value is not None}
    run.remember("plan", entry.model_copy(update={"settings": kept}))


def test_a_stage_is_done_until_something_changes(tmp_path: Path) -> None:
    run = planned(tmp_path)
    assert stage_status(plan.STAGE, run).state == "done"
    edited(run, **{"data.seed": 5})
    status = stage_status(plan.STAGE, run)
    assert (status.state, status.detail) == ("stale", "data.seed: 5 -> 0")


def test_a_setting_that_came_later_has_its_default_in_older_runs(tmp_path: Path) -> None:
    run = planned(tmp_path)
    edited(run, **{"data.seed": None})
    assert stage_status(plan.STAGE, run).state == "done"
    other = planned(tmp_path / "other", data={"seed": 3})
    edited(other, **{"data.seed": None})
    status = stage_status(plan.STAGE, other)
    assert (status.state, status.detail) == ("stale", "data.seed: 0 -> 3")


def test_a_setting_that_is_gone_is_named(tmp_path: Path) -> None:
    run = planned(tmp_path)
    edited(run, **{"data.moonphase": "full"})
    assert "data.moonphase" in stage_status(plan.STAGE, run).detail


@pytest.mark.parametrize("stage", FLOW, ids=lambda stage: stage.name)
def test_every_stage_says_what_it_follows_from(stage: Any, tmp_path: Path) -> None:
    run = RunFolder.of(tmp_path, WORKFLOW, Config())
    assert settings_of(stage, run)["version"] == stage.version
    written = {name for one in FLOW for name in one.writes}
    for name in stage.reads:
        assert any(made == name or made.startswith(f"{name}/") for made in written), name


def test_each_file_is_written_by_one_stage() -> None:
    written = [name for stage in FLOW for name in stage.writes]
    assert len(written) == len({*written})
    names = [stage.name for stage in FLOW]
    assert len(names) == len({*names})


@given(
    quota=st.integers(1, 200),
    share=st.floats(0, 1),
    rounds=st.integers(1, 8),
)
def test_a_cell_without_an_example_is_given_up_and_no_other(
    quota: int, share: float, rounds: int
) -> None:
    dead, other = Cell("dead", "call"), Cell("other", "call")
    wanted = {dead: quota, other: quota}
    asked = first = {cell: math.ceil(n * (1 + RESERVE)) for cell, n in wanted.items()}
    for _ in range(rounds):
        got = min(quota, int(asked[other] * share))
        short = {dead: quota} | ({other: quota - got} if got < quota else {})
        before, asked = asked, ask_more(asked, wanted, short)
        if got and other in short:
            assert asked[other] > before[other]
    assert asked[dead] <= max(first[dead], 2 * GIVEN_UP_AFTER)
    assert asked[dead] >= min(GIVEN_UP_AFTER, first[dead] + 1)
