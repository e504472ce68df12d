"""What travels with data runs nothing and sends nothing: each setting, from each source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import pytest
from click.testing import CliRunner

from distill import sources
from distill.api import Run, open_run, planned_run, reopened_run
from distill.cli.main import cli
from distill.config import Config, Section, Setting
from distill.errors import UsageError
from distill.evaluate.arms import score_arms
from distill.run import layout
from distill.run.folder import RunFolder
from distill.stages.session import TeacherSession
from distill.workflow import load_workflow, scaffold
from distill.workflow.model import Workflow

# Words that are written by people, and what they can do. A new one has to be put into one of these.
HARMLESS = {
    ("data", "rows"),  # a file of rows, read as gold is
    ("data", "styles"),  # said to the teacher
    ("teacher", "model"),  # said to the server, or a model's id or folder: weights, never code
    ("teacher", "prices"),  # numbers by name
    ("train", "student"),  # a model's id or folder: safetensors, never code
}
PERSONAL: dict[Setting, Any] = {
    ("teacher", "base_url"): "http://127.0.0.1:9/v1",
    ("teacher", "api_key_env"): "AWS_SECRET_ACCESS_KEY",
    ("teacher", "vllm_command"): "touch /tmp/owned",
    ("teacher", "vllm_args"): ("--trust-remote-code", "--middleware=a b"),
}
FLAGS = ("--base-url", "--api-key-env", "--vllm-command", "--vllm-arg")
each_personal = pytest.mark.parametrize("setting", PERSONAL, ids=".".join)


def settings() -> Iterator[tuple[Setting, Any]]:
    for section, model in Config():
        assert isinstance(model, Section)
        for name, field in type(model).model_fields.items():
            yield (section, name), field.annotation


def only_numbers_and_choices(annotation: Any) -> bool:
    if get_origin(annotation) is Literal or annotation in (int, float, type(None)):
        return True
    parts = get_args(annotation)
    return bool(parts) and all(only_numbers_and_choices(part) for part in parts)


def test_every_setting_of_free_text_is_classified() -> None:
    free = {setting for setting, kind in settings() if not only_numbers_and_choices(kind)}
    assert free == HARMLESS | PERSONAL.keys()
    assert Config.personal_settings().keys() == PERSONAL.keys()


def toml(path: Path, setting: Setting, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = json.dumps(list(value) if isinstance(value, tuple) else value)
    path.write_text(f"# {setting[1]}\n[{setting[0]}]\nconcurrency = 3\n{setting[1]} = {shown}\n")
    return path


def effective(path: Path | None, found: Path | None, flags: Any, setting: Setting) -> Any:
    return sources.load_settings(path, found, flags).value(setting)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return sources.user_file()


@each_personal
def test_flags_an_explicit_file_and_the_users_own_file_may_set_it(
    own: Path, tmp_path: Path, setting: Setting
) -> None:
    value = PERSONAL[setting]
    table = {setting[0]: {setting[1]: value}}
    assert effective(None, None, table, setting) == value
    file = toml(tmp_path / "given.toml", setting, value)
    assert effective(file, None, {}, setting) == value
    # A file that was found is not read beside one that was named.
    other = toml(tmp_path / "distill.toml", setting, "x" if isinstance(value, str) else ["x"])
    assert effective(file, other, {}, setting) == value
    toml(own, setting, value)
    assert effective(None, None, {}, setting) == value
    assert sources.load_settings(None, None, {}).teacher.concurrency == 3


@each_personal
def test_a_file_that_was_found_is_refused_by_line_and_value(
    own: Path, tmp_path: Path, setting: Setting
) -> None:
    value = PERSONAL[setting]
    found = toml(tmp_path / "distill.toml", setting, value)
    with pytest.raises(UsageError) as caught:
        sources.load_settings(None, found, {})
    (problem,) = caught.value.problems
    assert problem.place == f"{found}:4"
    assert json.dumps(value) in problem.cause
    assert f"--config {found}" in problem.hint
    assert any(f"{flag}" in problem.hint for flag in FLAGS)
    assert str(own) in problem.hint
    # The flag that the hint names gives it, and then nothing is asked.
    given = {setting[0]: {setting[1]: value}}
    assert effective(None, found, given, setting) == value
    # So does the same value from the user's own file; another one there does not.
    toml(own, setting, value)
    assert effective(None, found, {}, setting) == value
    toml(own, setting, "y" if isinstance(value, str) else ["y"])
    with pytest.raises(UsageError, match=re.escape(".".join(setting))):
        sources.load_settings(None, found, {})


@each_personal
def test_a_found_file_may_say_the_default_unless_the_user_says_otherwise(
    own: Path, tmp_path: Path, setting: Setting
) -> None:
    default = Config().value(setting)
    found = toml(tmp_path / "distill.toml", setting, default)
    assert effective(None, found, {}, setting) == default
    # A default is an address too: the user's key is not sent to another than the user's server.
    toml(own, setting, PERSONAL[setting])
    with pytest.raises(UsageError):
        sources.load_settings(None, found, {})


def test_the_environment_is_the_users(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = toml(tmp_path / "distill.toml", ("teacher", "base_url"), "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert sources.load_settings(None, found, {}).teacher.base_url == "http://127.0.0.1:9/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:10/v1")
    with pytest.raises(UsageError):
        sources.load_settings(None, found, {})


def test_several_are_said_together(own: Path, tmp_path: Path) -> None:
    found = tmp_path / "distill.toml"
    found.write_text('teacher = {base_url = "http://u:secret@h/v1?k=secret", "vllm_args" = ["a"]}')
    with pytest.raises(UsageError) as caught:
        sources.load_settings(None, found, {})
    assert [problem.place for problem in caught.value.problems] == [f"{found}:1"] * 2
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[data]\ntarget = 5\n", "data.target decides what is made"),
        ('[teacher]\nkind = "openai"\n', "teacher.kind decides what is made"),
        ("[teacher]\nconcurency = 5\n", "unknown setting teacher.concurency"),
        ("[teacher\n", "not valid TOML"),
    ],
)
def test_the_users_own_file_decides_nothing_that_is_made(own: Path, text: str, cause: str) -> None:
    own.parent.mkdir(parents=True)
    own.write_text(text)
    with pytest.raises(UsageError, match=cause) as caught:
        sources.load_settings(None, None, {})
    assert caught.value.problems[0].place == str(own)


@pytest.fixture
def shop(tmp_path: Path) -> Workflow:
    scaffold(tmp_path / "shop")
    return load_workflow(tmp_path / "shop" / "rules.md")


@pytest.mark.parametrize("where", ["shop", "."])
@each_personal
def test_no_command_uses_a_found_file(
    shop: Workflow,
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: Setting,
    where: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop" / "distill.toml").unlink()
    found = toml(Path(where) / "distill.toml", setting, PERSONAL[setting])
    for command in ("gen", "plan", "run"):
        done = CliRunner().invoke(cli, [command, "--rules", "shop/rules.md"])
        assert isinstance(done.exception, UsageError), command
        assert f"{found}:4" in str(done.exception)
    assert not Path("runs").exists()
    with pytest.raises(UsageError):
        planned_run(shop, None, None, {})
    assert planned_run(shop, None, found, {}).config.value(setting) == PERSONAL[setting]


def recorded(path: Path, shop: Workflow, setting: Setting) -> Path:
    config = Config.load(None, {setting[0]: {setting[1]: PERSONAL[setting]}})
    RunFolder.create(path, shop, config)
    return path


@each_personal
def test_what_a_run_records_is_kept_for_people_and_not_used(
    shop: Workflow, own: Path, tmp_path: Path, setting: Setting
) -> None:
    path, value = recorded(tmp_path / "run", shop, setting), PERSONAL[setting]
    for run in (RunFolder.open(path), reopened_run(path, None, {}), open_run(path).folder):
        assert run.config.value(setting) == Config().value(setting)
        assert run.settings.config.value(setting) == value
        with pytest.raises(UsageError) as caught:
            run.require_confirmed(setting[1])
        (problem,) = caught.value.problems
        assert problem.place == str(path / "config.json")
        assert json.dumps(value) in problem.cause
        with pytest.raises(UsageError), TeacherSession(run, print) as session:
            session.teacher  # noqa: B018
        run.record()
    assert RunFolder.open(path).settings.config.value(setting) == value


@each_personal
def test_a_run_goes_on_with_what_the_user_says_again(
    shop: Workflow, own: Path, tmp_path: Path, setting: Setting
) -> None:
    path, value = recorded(tmp_path / "run", shop, setting), PERSONAL[setting]
    default = Config().value(setting)
    table = {setting[0]: {setting[1]: value}}
    back = {setting[0]: {setting[1]: default}}
    given = toml(tmp_path / "given.toml", setting, value)
    for run, used in (
        (reopened_run(path, None, table), value),
        (reopened_run(path, given, {}), value),
        (reopened_run(path, given, back), default),
        (reopened_run(path, None, back), default),
    ):
        run.require_confirmed(setting[1])
        assert run.config.value(setting) == used
    toml(own, setting, value)
    run = reopened_run(path, None, {})
    run.require_confirmed(setting[1])
    assert run.config.value(setting) == value


@pytest.mark.parametrize("name", ["vllm_command", "vllm_args"])
def test_an_evaluation_on_vllm_starts_nothing_that_a_run_names(
    shop: Workflow, own: Path, tmp_path: Path, name: str
) -> None:
    path = recorded(tmp_path / "run", shop, ("teacher", name))
    run = reopened_run(path, None, {"evaluate": {"backend": "vllm"}})
    (path / layout.ADAPTER).mkdir(parents=True)
    with pytest.raises(UsageError, match=f"teacher.{name} = "):
        score_arms(run, {"gold": shop.gold}, lambda *_: None, print)


def test_a_program_need_not_say_again_what_it_gave(shop: Workflow, tmp_path: Path) -> None:
    setting = ("teacher", "vllm_command")
    made = RunFolder.of(tmp_path, shop, Config.load(None, {"teacher": {"vllm_command": "mine"}}))
    assert Run(made)._own == {"teacher": {"vllm_command": "mine"}}
    assert Run(RunFolder.open(recorded(tmp_path / "run", shop, setting)))._own == {}


def test_every_personal_setting_has_a_flag() -> None:
    flags = {p.name: p.opts for p in cli.commands["gen"].params if isinstance(p, click.Option)}
    assert {flags["__".join(setting)][0] for setting in PERSONAL} == {*FLAGS}
