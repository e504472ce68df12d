"""Only what is a run's is touched: foreign folders, links and sources named like our own files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from distill.config import Config
from distill.errors import DistillError, RunError
from distill.files import write_text
from distill.ledger.replies import ReplyStore
from distill.run import layout
from distill.run.folder import RunFolder, locked
from distill.run.manifest import StageEntry
from distill.workflow import load_workflow, scaffold
from distill.workflow.model import Workflow

DONE = StageEntry(settings={}, inputs={}, outputs={}, counts={}, seconds=0)


@pytest.fixture
def shop(tmp_path: Path) -> Workflow:
    scaffold(tmp_path / "shop")
    return load_workflow(tmp_path / "shop" / "rules.md")


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize(
    "files",
    [
        {".lock": "precious\n"},
        {".lock": "12345678901234567890123"},
        {".git/config": "[core]"},
        {"inputs/mine.txt": "mine", ".lock": ""},
        {"inputs/workflow.json": "{}"},
        {"config.json": '{"model_type": "llama"}', "manifest.json": '{"name": "app"}'},
        {"config.json": '{"distill": "0.1.0"}'},
        {"config.json": "not JSON"},
        {"thesis.tex": "precious"},
        {"replies.txt": "", ".config.json.part": "{"},
    ],
)
def test_a_foreign_folder_is_refused_and_stays_as_it_is(
    tmp_path: Path, shop: Workflow, files: dict[str, str]
) -> None:
    folder = tmp_path / "theirs"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = contents(folder)
    for create in (False, True):
        with pytest.raises(RunError), locked(folder, create=create):
            pass
    for anew in (False, True):
        with pytest.raises(RunError):
            RunFolder.create(folder, shop, Config(), anew=anew)
    assert contents(folder) == before


OURS = (layout.LOCK, layout.CONFIG, layout.MANIFEST, layout.INPUTS, ".config.json.part")
OURS += (layout.GENERATE, layout.REPLIES, layout.TRAIN, f"{layout.ADAPTER}/x", layout.REPORT_PAGE)


@pytest.mark.parametrize("kind", ["file", "folder", "nothing", "pipe"])
@pytest.mark.parametrize("name", OURS)
def test_a_link_in_a_run_is_refused_by_path_and_nothing_is_written_through_it(
    tmp_path: Path, shop: Workflow, name: str, kind: str
) -> None:
    run = RunFolder.create(tmp_path / "run", shop, Config())
    place, target = run.path / name, tmp_path / "precious"
    if place.is_dir():
        place.rename(tmp_path / "moved")
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        target.write_text("precious")
    elif kind == "folder":
        write_text(target / "file", "precious")
    os.mkfifo(place) if kind == "pipe" else place.symlink_to(target)
    before = contents(target) if kind == "folder" else target.exists() and target.read_bytes()
    for create in (False, True):
        with (
            pytest.raises(RunError, match="writes and deletes through none") as caught,
            locked(run.path, create=create),
        ):
            pass
        assert caught.value.problems[0].place == str(place)
    after = contents(target) if kind == "folder" else target.exists() and target.read_bytes()
    assert after == before


def test_the_folder_itself_may_be_a_link_and_so_may_what_is_not_ours(
    tmp_path: Path, shop: Workflow
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with locked(tmp_path / "run", create=True):
        run = RunFolder.create(tmp_path / "run", shop, Config())
    (run.path / "notes").symlink_to(tmp_path / "shop")
    with locked(run.path):
        assert (tmp_path / "disk" / layout.CONFIG).is_file()


def test_a_draft_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".a.json.part").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "a.json", "ours")
    assert (tmp_path / "a.json").read_text() == "ours"
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_new_run_is_its_owners_alone_and_an_old_folder_keeps_its_mode(tmp_path: Path) -> None:
    with locked(tmp_path / "runs" / "new", create=True):
        assert (tmp_path / "runs" / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "old").mkdir(mode=0o750)
    mode = (tmp_path / "old").stat().st_mode
    with locked(tmp_path / "old", create=True):
        assert (tmp_path / "old").stat().st_mode == mode


@pytest.mark.parametrize("left", [(), (".inputs.part/x",), (".inputs.old/x", ".config.json.part")])
def test_a_run_that_was_killed_while_it_began_is_begun_again(
    tmp_path: Path, shop: Workflow, left: tuple[str, ...]
) -> None:
    path = tmp_path / "run"
    with locked(path, create=True):
        for name in left:
            write_text(path / name, "half")
    with locked(path, create=True):
        made = RunFolder.create(path, shop, Config())
    # The settings are of other rules than the inputs: killed between the two.
    (path / layout.WORKFLOW).write_text("{}")
    with locked(path, create=True):
        RunFolder.create(path, shop, Config())
    assert RunFolder.open(path).workflow.fingerprint == made.workflow.fingerprint
    assert {p.name for p in path.iterdir()} == {".lock", "config.json", "inputs"}


def test_sources_named_like_our_own_files_or_alike_destroy_nothing(
    tmp_path: Path, shop: Workflow
) -> None:
    names = ("workflow.json", "a/tools.json", "b/Tools.JSON", "manifest.json")
    for number, name in enumerate(names):
        write_text(tmp_path / "sources" / name, str(number))
    sources = tuple(tmp_path / "sources" / name for name in names)
    other = shop.model_copy(update={"sources": sources})
    run = RunFolder.create(tmp_path / "run", other, Config())
    assert RunFolder.open(run.path).workflow.fingerprint == shop.fingerprint
    inputs = {p.name: p.read_text() for p in (run.path / layout.INPUTS).iterdir()}
    assert json.loads(inputs.pop("workflow.json"))["name"] == "shop"
    assert inputs == {
        "2-workflow.json": "0",
        "tools.json": "1",
        "2-Tools.JSON": "2",
        "manifest.json": "3",
    }


def test_a_run_may_be_made_from_its_own_inputs(tmp_path: Path, shop: Workflow) -> None:
    run = RunFolder.create(tmp_path / "run", shop, Config())
    before = contents(run.path / layout.INPUTS)
    again = load_workflow(run.path / layout.INPUTS / "rules.md")
    for data in (False, True):
        if data:
            run.remember("plan", DONE)
        try:
            RunFolder.create(run.path, again, Config(), anew=not data)
        except DistillError:
            assert data  # another name of the workflow: refused, with nothing written
        assert contents(run.path / layout.INPUTS).keys() == before.keys()
        RunFolder.open(run.path)


def test_a_source_that_is_gone_leaves_the_run_as_it_was(tmp_path: Path, shop: Workflow) -> None:
    run = RunFolder.create(tmp_path / "run", shop, Config())
    before = contents(run.path)
    gone = shop.model_copy(update={"sources": (*shop.sources, tmp_path / "gone.json")})
    with pytest.raises(DistillError):
        RunFolder.create(run.path, gone, Config())
    assert contents(run.path) == before


def test_a_run_that_cannot_be_written_is_read(
    tmp_path: Path, shop: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tmp_path / "run", shop, Config())
    ReplyStore(run.path / layout.REPLIES).close()
    before = contents(run.path)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and Path(path).exists())
    with ReplyStore(run.path / layout.REPLIES) as replies:
        assert replies.entries() == []
    opened = os.open

    def read_only(path: object, flags: int, *more: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "open", read_only)
    with locked(run.path, reading=True):
        assert contents(run.path) == before
    with pytest.raises(DistillError, match="cannot be written"), locked(run.path):
        pass


def test_a_folder_that_cannot_be_read_is_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(RunError, match="cannot be read: Permission denied"), locked(tmp_path):
        pass
