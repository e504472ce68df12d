"""A run folder refuses what it was not made for, and says every difference."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.synchronize
from pathlib import Path

import pytest

import distill.run.folder
from distill.config import Config
from distill.errors import AlteredRunError, RunError, RunLockedError, StaleRunError
from distill.run import layout
from distill.run.folder import RunFolder, locked
from distill.run.manifest import StageEntry, changes, flatten
from distill.workflow.model import CallSpec, Rule, Then, Tool, Workflow


def workflow(when: str = "always", name: str = "shop") -> Workflow:
    then = Then(kind="call", calls=(CallSpec(tool="find"),), text="call `find`")
    rule = Rule(id="all", title="All", when=when, then=then, text="## all")
    tool = Tool(name="find", description="Find.", parameters={"type": "object", "properties": {}})
    return Workflow(name=name, title="Shop", prose="", rules=(rule,), tools=(tool,))


def test_a_run_is_explained_by_its_own_folder(tmp_path: Path) -> None:
    made = RunFolder.create(tmp_path / "run", workflow(), Config())
    opened = RunFolder.open(tmp_path / "run")
    assert opened.workflow == made.workflow
    assert opened.settings == made.settings


def test_the_same_command_continues(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, workflow(), Config())
    run.remember("plan", StageEntry(settings={}, inputs={}, outputs={}, counts={}, seconds=0))
    again = RunFolder.create(tmp_path, workflow(), Config())
    assert list(again.manifest.stages) == ["plan"]


def test_a_run_that_goes_on_keeps_what_its_student_was_trained_with(tmp_path: Path) -> None:
    entry = StageEntry(settings={}, inputs={}, outputs={}, counts={}, seconds=0)
    run = RunFolder.create(tmp_path, workflow(), Config())
    run.remember("plan", entry)
    own = {"train": {"epochs": 2, "seed": 7}, "evaluate": {"max_new_tokens": 9}}
    run.with_config(Config.load(None, own)).record()
    for said, epochs in (({}, 2), ({"train": {"seed": 7}}, 2), ({"train": {"epochs": 3}}, 3)):
        config = RunFolder.create(tmp_path, workflow(), Config.load(None, said)).config
        assert (config.train.epochs, config.train.seed) == (epochs, 7)
        assert config.evaluate.max_new_tokens == 9
        assert RunFolder.open(tmp_path).config == config
    assert RunFolder.create(tmp_path, workflow(), Config(), anew=True).config == Config()


@pytest.mark.parametrize(
    ("other", "settings", "names"),
    [
        (workflow(when="never"), {}, 'rule "all" changed'),
        (workflow(), {"data": {"seed": 7}}, "data.seed: 0 -> 7"),
        (workflow(), {"data": {"target": 7}}, "data.target: 2000 -> 7"),
        (workflow(), {"teacher": {"kind": "openai"}}, "teacher.kind: grammar -> openai"),
    ],
)
def test_another_workflow_seed_or_teacher_is_refused_by_name(
    tmp_path: Path, other: Workflow, settings: dict[str, dict[str, object]], names: str
) -> None:
    run = RunFolder.create(tmp_path, workflow(), Config())
    entry = StageEntry(settings={}, inputs={}, outputs={}, counts={}, seconds=0)
    run.remember("gate", entry)
    # Nothing was made yet: a probe or a gate is there to change one's mind after it.
    RunFolder.create(tmp_path, other, Config.load(None, settings))
    run = RunFolder.create(tmp_path, workflow(), Config())
    run.remember("plan", entry)
    with pytest.raises(StaleRunError) as caught:
        RunFolder.create(tmp_path, other, Config.load(None, settings))
    assert names in str(caught.value)
    assert "--out" in str(caught.value)


def test_operational_settings_may_change(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, workflow(), Config())
    RunFolder.create(tmp_path, workflow(), Config.load(None, {"teacher": {"concurrency": 2}}))


def test_anew_takes_the_folder_over(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, workflow(), Config())
    run.remember("plan", StageEntry(settings={}, inputs={}, outputs={}, counts={}, seconds=0))
    other = RunFolder.create(tmp_path, workflow(when="never"), Config(), anew=True)
    assert other.manifest.stages == {}
    assert RunFolder.open(tmp_path).workflow == workflow(when="never")


def test_a_run_of_another_version_of_distill_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill.run.folder, "__version__", "0.0.1")
    RunFolder.create(tmp_path, workflow(), Config())
    monkeypatch.undo()
    assert RunFolder.open(tmp_path).settings.distill == "0.0.1"


@pytest.mark.parametrize("number", [None, 0, layout.FORMAT + 1, "1"])
def test_a_run_of_another_format_is_refused(tmp_path: Path, number: object) -> None:
    RunFolder.create(tmp_path, workflow(), Config())
    path = tmp_path / layout.CONFIG
    recorded = {**json.loads(path.read_text()), "distill": "0.0.1", "format": number}
    if number is None:
        del recorded["format"]
    path.write_text(json.dumps(recorded))
    with pytest.raises(StaleRunError, match=r"run format .* of distill 0\.0\.1"):
        RunFolder.open(tmp_path)


def test_an_edited_workflow_is_noticed(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, workflow(), Config())
    copy = tmp_path / "inputs" / "workflow.json"
    copy.write_text(copy.read_text().replace("always", "often"))
    with pytest.raises(AlteredRunError, match="edited"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "inputs/workflow.json"])
def test_a_damaged_file_is_an_error_with_a_way_out(tmp_path: Path, name: str) -> None:
    RunFolder.create(tmp_path, workflow(), Config()).forget([])
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text[: len(text) // 2])
    with pytest.raises((RunError, distill.errors.InputFileError)) as caught:
        _ = RunFolder.open(tmp_path).manifest
    assert name in str(caught.value)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder.create(tmp_path, workflow(), Config())
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder.open(tmp_path)
    with pytest.raises(RunError, match="no such run folder"), locked(tmp_path / "none"):
        pass


def _hold(path: Path, held: multiprocessing.synchronize.Event) -> None:
    with locked(path):
        held.set()
        multiprocessing.Event().wait(30)


def test_one_writer_at_a_time_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("spawn")
    held = fork.Event()
    other = fork.Process(target=_hold, args=(tmp_path, held))
    other.start()
    assert held.wait(30)
    with pytest.raises(RunLockedError, match=f"process {other.pid}"), locked(tmp_path):
        pass
    other.kill()
    other.join()
    with locked(tmp_path):
        pass


def test_changes_name_every_difference() -> None:
    then = flatten({"data": {"seed": 0, "target": 5}, "workflow": {'rule "a"': "x", 'rule "b"': 1}})
    now = flatten({"data": {"seed": 1, "target": 5}, "workflow": {'rule "a"': "y", 'rule "c"': 1}})
    assert changes(then, now) == [
        "data.seed: 0 -> 1",
        'rule "a" changed',
        'rule "b" is gone',
        'rule "c" is new',
    ]
    assert changes(then, then) == []
