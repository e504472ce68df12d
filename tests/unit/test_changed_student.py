"""A student whose files, data or settings changed after its training is used by nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import export_students as tiny
import pytest
from export_run import adapt, make_run, student_folder, trained

import distill
from distill.cli.main import cli
from distill.config import Config
from distill.errors import AlteredRunError, RunError, StaleRunError
from distill.export.export import export
from distill.export.push import push
from distill.run.folder import RunFolder
from distill.run.manifest import StageEntry
from distill.students import load_student

Use = Callable[[Path], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("changed")
    student = student_folder("qwen3", folder / "student")
    run = make_run(folder / "run", str(student), lambda path: adapt(tiny.model("qwen3"), path))
    (folder / "rows.jsonl").write_text('{"user_content": "hi", "target": "answer"}\n', "utf-8")
    return run.path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    shutil.copy(made.parent / "rows.jsonl", tmp_path)
    return tmp_path / "run"


def command(*words: str) -> Use:
    def use(run: Path) -> None:
        given = [word.replace("ROWS", str(run.parent / "rows.jsonl")) for word in words]
        cli([given[0], str(run), *given[1:]], standalone_mode=False)

    return use


USES: dict[str, Use] = {
    "route": command("route", "hi"),
    "eval --data": command("eval", "--data", "ROWS"),
    "export": command("export"),
    "push": command("push", "me/router", "--dry-run"),
    "push adapter": command("push", "me/router", "--dry-run", "--format", "adapter"),
    "report": command("report"),
    "Run.route": lambda run: distill.open_run(run).route("hi"),
    "Run.evaluate": lambda run: distill.open_run(run).evaluate(
        run.parent / "rows.jsonl", progress=None
    ),
    "Run.report": lambda run: distill.open_run(run).report(),
    "export()": lambda run: export(RunFolder.open(run)),
    "push()": lambda run: push(RunFolder.open(run), "me/router", dry_run=True),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def other_settings(run: Path) -> None:
    opened = RunFolder.open(run)
    train = opened.config.train.model_copy(update={"epochs": 9.0})
    opened.with_config(opened.config.model_copy(update={"train": train})).record()


def other_data(run: Path) -> None:
    path = run / "6-split" / "train.jsonl"
    path.write_text(path.read_text("utf-8") * 2, "utf-8")


ADAPTER = Path("7-train") / "adapter"
CHANGES = [
    (lambda run: flip(run / ADAPTER / "adapter_model.safetensors"), "is not what the stage train"),
    (lambda run: flip(run / ADAPTER / "adapter_config.json"), "is not what the stage train"),
    (lambda run: (run / ADAPTER / "adapter_model.safetensors").unlink(), "is not what the stage"),
    (lambda run: shutil.rmtree(run / ADAPTER), "is not what the stage train wrote"),
    (other_settings, "train.epochs: None -> 9.0"),
    (other_data, "6-split/train.jsonl changed"),
]


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(("change", "says"), CHANGES)
def test_it_is_refused_with_a_way_out(
    change: Callable[[Path], None], says: str, use: Use, run: Path
) -> None:
    change(run)
    before = sorted(run.rglob("*"))
    with pytest.raises((AlteredRunError, StaleRunError)) as caught:
        use(run)
    assert says in str(caught.value)
    assert f"distill train {run} --redo" in str(caught.value)
    added = {*run.rglob("*")} - {*before}
    assert {path.name for path in added} <= {".lock"}


@pytest.mark.parametrize("use", [USES["route"], USES["eval --data"], USES["Run.route"]])
def test_without_a_training_there_is_no_student(use: Use, run: Path) -> None:
    RunFolder.open(run).forget(["train"])
    with pytest.raises(RunError, match="no student was trained here yet"):
        use(run)


@pytest.mark.parametrize("use", [USES["route"], USES["eval --data"], USES["export"]])
def test_other_weights_under_the_adapter_are_refused(
    use: Use, run: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A base model that was replaced in its folder: the adapter is of the one before."""
    student = shutil.copytree(made.parent / "student", tmp_path / "student")
    opened = RunFolder.open(run)
    train = opened.config.train.model_copy(update={"student": str(student)})
    opened = opened.with_config(Config.model_validate({**dict(opened.config), "train": train}))
    opened.record()
    trained(opened)
    entry = opened.manifest.stages["train"].model_dump()
    fingerprint = load_student(str(student), opened.workflow.tools).fingerprint
    counts = {"student": str(student), "fingerprint": fingerprint}
    opened.remember("train", StageEntry.model_validate({**entry, "counts": counts}))
    use(run)
    tiny.model("qwen3", initializer_range=0.4).save_pretrained(student)
    with pytest.raises(StaleRunError, match="not those that it was trained from"):
        use(run)
