"""distill.toml and flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.config import Config, DataConfig, EvaluateConfig, Section, TeacherConfig, TrainConfig
from distill.errors import DistillError, UsageError

SECTIONS = [DataConfig, TeacherConfig, TrainConfig, EvaluateConfig]


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "distill.toml"
    path.write_text(text)
    return path


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = toml(tmp_path, "[data]\ntarget = 50\nseed = 3\n")
    config = Config.load(path, {"data": {"seed": 9, "target": None}})
    assert (config.data.target, config.data.seed) == (50, 9)
    assert config.data.dev_share == DataConfig().dev_share


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_identity_or_operational_with_a_reason(section: type[Section]) -> None:
    for name, field in section.model_fields.items():
        extra = field.json_schema_extra
        reason = extra.get("operational") if isinstance(extra, dict) else field.description
        assert reason, f"{section.__name__}.{name} needs a description or a reason"
    kept = section().identity()
    assert set(kept) == {name for name, is_identity in section.classified() if is_identity}


@pytest.mark.parametrize(
    ("text", "cause", "hint"),
    [
        ("[data]\ntarget = -1\n", "data.target", "-1"),
        ("[data]\ntagret = 5\n", "unknown setting data.tagret", 'did you mean "target"?'),
        ("[dta]\ntarget = 5\n", "unknown setting dta", 'did you mean "data"?'),
        ("target = 5\n", "outside of a table", "[data]"),
        ("[data\n", "not valid TOML", "toml.io"),
        ("[train]\nzzz = 1\n", "unknown setting train.zzz", "known here: student"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, cause: str, hint: str) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        Config.load(path)
    assert str(path) in str(caught.value)
    assert cause in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("tables", "place", "cause"),
    [
        ({"data": {"target": -1}}, "data.target", "must be greater than or equal to 0"),
        ({"data": {1: 2}}, "data.1", "Keys should be strings"),
        ({"data": {"styles": "question"}}, "data.styles", "must be a valid tuple"),
        ({"data": {"seed": 99999999999}}, "data.seed", "must be less than or equal to 4294967295"),
        ({"train": {"seed": 2**32}}, "train.seed", "must be less than or equal to 4294967295"),
        ({"data": {"seed": True}}, "data.seed", "no setting is true or false"),
        ({"data": {"tagret": 1}}, "", "unknown setting data.tagret"),
        ({"dta": {"target": 1}}, "", "unknown setting dta"),
        ({"data": 5}, "data", "is a table of settings, not int"),
    ],
)
def test_a_wrong_setting_of_a_program_is_named_and_no_file_is_blamed(
    tables: Any, place: str, cause: str
) -> None:
    with pytest.raises(UsageError) as caught:
        Config.load(None, tables)
    (problem,) = caught.value.problems
    assert (problem.place, problem.cause) == (place, cause)


def test_a_wrong_flag_is_blamed_even_where_a_file_has_the_setting(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Config.load(toml(tmp_path, "[data]\ntarget = 5\n"), {"data": {"target": -1}})
    assert caught.value.problems[0].place == "data.target"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="no such file"):
        Config.load(tmp_path / "none.toml")
