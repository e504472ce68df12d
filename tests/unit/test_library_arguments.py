"""What a program gives that is no path is refused by the argument's name; a run stays found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit.training import RULES

import distill
from distill.config import Config
from distill.errors import UsageError
from distill.run.folder import RunFolder
from distill.workflow import load_workflow

CALLS: dict[str, Callable[[Any], object]] = {
    "rules": distill.load_workflow,
    "tools": lambda given: distill.load_workflow(RULES, tools=given),
    "gold": lambda given: distill.load_workflow(RULES, gold=given),
    "workflow": distill.make_data,
    "out": lambda given: distill.make_data(RULES, given),
    "config": lambda given: distill.make_data(RULES, config=given),
    "path": distill.open_run,
    "folder": distill.write_starter,
}
WRONG = [7, 0, False, {}, b"rules.md", "", "a\0b", "x" * 300, "x" * 300 + "/y", "\ud800"]


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_path_is_refused_by_the_argument_s_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in WRONG:
        with pytest.raises(UsageError) as caught:
            CALLS[name](given)
        assert [problem.place for problem in caught.value.problems] == [name], given
    assert not [*tmp_path.iterdir()]


def test_progress_is_a_choice_or_a_watcher(tmp_path: Path) -> None:
    wrong: Any = "yes"
    with pytest.raises(UsageError, match="is True, False or a Watcher, not str"):
        distill.make_data(RULES, tmp_path / "run", progress=wrong)


def test_a_run_is_found_after_the_program_went_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RunFolder.create(Path("run"), load_workflow(RULES), Config())
    run = distill.open_run("run")
    monkeypatch.chdir("/")
    assert run.path == tmp_path / "run"
    assert {stage.state for stage in run.status()} == {"missing"}
