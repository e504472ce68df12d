"""distill.toml and flags."""

from __future__ import annotations

from pathlib import Path

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
        ("[data]\ntarget = 0\n", "data.target", "0"),
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


def test_a_wrong_flag_is_named_as_a_flag() -> None:
    with pytest.raises(UsageError, match=r"data\.target") as caught:
        Config.load(None, {"data": {"target": -1}})
    assert str(caught.value).startswith("--target: ")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="no such file"):
        Config.load(tmp_path / "none.toml")
