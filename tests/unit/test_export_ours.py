"""An export deletes only what an export's own valid note lists."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.errors import ExportError
from distill.export.place import (
    DRAFT_MARK,
    METADATA,
    _require_own_draft,
    clear,
    require_ours,
)
from distill.files import write_text

NOTE = {
    "key": {},
    "parity": {"same": 1, "of": 1, "difference": ""},
    "notes": [],
    "card": "0",
    "files": {"model.safetensors": "0", "sub/tokenizer.json": "0"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "hf"
    for name in ("model.safetensors", "sub/tokenizer.json", "README.md"):
        write_text(made / name, name)
    write_text(made / METADATA, json.dumps(NOTE))
    return made


def test_an_export_of_ours_may_be_replaced(folder: Path) -> None:
    require_ours(folder)
    _require_own_draft(folder)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: write_text(folder / "thesis.tex", "precious"),
        lambda folder: write_text(folder / "sub" / "thesis.tex", "precious"),
        lambda folder: (folder / "sub" / "link").symlink_to(folder),
        lambda folder: write_text(folder / METADATA, "{}"),
        lambda folder: write_text(folder / METADATA, "half a no"),
        lambda folder: write_text(folder / METADATA, json.dumps({**NOTE, "files": ["a"]})),
        lambda folder: write_text(folder / METADATA, json.dumps({**NOTE, "files": {"../a": "0"}})),
        lambda folder: write_text(folder / METADATA, json.dumps({**NOTE, "files": {"/a": "0"}})),
        lambda folder: write_text(folder / METADATA, json.dumps({**NOTE, "files": {"a": 1}})),
    ],
)
def test_a_folder_with_more_than_its_note_lists_is_refused(
    folder: Path, spoil: Callable[[Path], object]
) -> None:
    spoil(folder)
    before = sorted(folder.rglob("*"))
    for require in (require_ours, _require_own_draft):
        with pytest.raises(ExportError):
            require(folder)
    assert sorted(folder.rglob("*")) == before


def test_a_link_in_the_place_of_an_export_is_refused(folder: Path) -> None:
    link = folder.with_name("gguf")
    link.symlink_to(folder)
    for require in (require_ours, _require_own_draft):
        with pytest.raises(ExportError, match="not a folder of its own"):
            require(link)


def test_a_draft_that_was_killed_is_cleared_away_and_no_other(tmp_path: Path) -> None:
    draft = tmp_path / ".hf.part"
    write_text(draft / "model.safetensors", "half")
    with pytest.raises(ExportError):
        _require_own_draft(draft)
    write_text(draft / DRAFT_MARK, "")
    _require_own_draft(draft)


@pytest.mark.parametrize("deletions", range(6))
def test_a_deletion_killed_at_any_instant_leaves_what_is_known_as_ours(
    folder: Path, deletions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = deletions

    class Killed(BaseException):
        pass

    def unless_killed(real: Callable[..., None]) -> Callable[..., None]:
        def deletes(*where: object, **how: object) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            real(*where, **how)

        return deletes

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        for name in ("unlink", "rmdir"):
            patch.setattr(os, name, unless_killed(getattr(os, name)))
        clear(folder)
    assert left == 0
    assert folder.exists()
    _require_own_draft(folder)
    clear(folder)
    assert not folder.exists()
