"""The folder of an export: written beside its place, renamed, and nobody else's touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distill.cards.model import CARD
from distill.errors import AlteredRunError, ExportError, WriteError
from distill.export.parity import Parity
from distill.files import file_digest
from distill.records import Json
from distill.run import layout
from distill.run.folder import RunFolder, read_json

METADATA = "export.json"
"""The export's record of itself; a folder without it was not written by distill."""
DRAFT_MARK = ".distill-draft"
"""In a folder that an export is being written to: one that was killed is cleared away."""
_METADATA_KEYS = {"key", "parity", "notes", "card", "files"}


@contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError.from_os(error, folder) from None


def digests(folder: Path) -> Json:
    """Each file's digest by its name, without the card, which may be renewed."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = ((path.relative_to(folder).as_posix(), path) for path in paths)
    return {name: file_digest(path) for name, path in names if name not in (CARD, DRAFT_MARK)}


def replace(folder: Path) -> None:
    """Rename the draft to `folder`; a previous export stays until then."""
    draft, old = beside(folder)
    (draft / DRAFT_MARK).unlink()
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    clear(old)


def beside(folder: Path) -> tuple[Path, Path]:
    """Where the export is written, and where the one before it waits meanwhile."""
    return folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")


def sweep(run: RunFolder, folder: Path) -> None:
    """Undo what a killed or refused export left; what is another's stays, or cannot be written."""
    draft, old = beside(folder)
    for left in (draft, old):
        with suppress(ExportError, OSError):
            require_left_over(run, left)
            if left == old and not folder.exists() and (old / METADATA).is_file():
                old.rename(folder)
            clear(left)


def clear(folder: Path) -> None:
    """Delete it, marked until the end: killed halfway, it is known as an export's the next time."""
    if not folder.is_dir():
        return
    with suppress(OSError):
        (folder / DRAFT_MARK).touch()
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != DRAFT_MARK:
            path.unlink()
    (folder / DRAFT_MARK).unlink(missing_ok=True)
    folder.rmdir()


def read_metadata(folder: Path, notice: Callable[[str], None]) -> Json | None:
    """The export's export.json; None, with a notice if it exists, if it is missing or invalid."""
    path = folder / METADATA
    if not path.is_file():
        return None
    with suppress(AlteredRunError):
        metadata = read_json(path)
        parity: Any = metadata.get("parity")
        valid = isinstance(parity, dict) and parity.keys() == {*Parity._fields}
        valid = valid and _are_plain_names(metadata.get("files"))
        if valid and metadata.keys() >= _METADATA_KEYS:
            return metadata
    notice(f"{path} is not what the export wrote: it is made anew")
    return None


def _are_plain_names(files: Any) -> bool:
    """Whether a note lists files inside of its folder alone, each with a digest."""
    return isinstance(files, dict) and all(
        isinstance(value, str) and name and not name.startswith("/") and ".." not in name.split("/")
        for name, value in files.items()
    )


def require_outside(run: Path, root: Path) -> None:
    """Raise ExportError for a folder inside the run, which its stages may overwrite or delete."""
    place, run_folder = root.resolve(), run.resolve()
    inside = place.is_relative_to(run_folder)
    if inside and not place.is_relative_to(run_folder / layout.EXPORT):
        raise ExportError(
            "is inside the run, whose stages replace what they find there",
            place=root,
            hint=f"leave --out out, for {run / 'export'}, or choose a folder outside the run",
        )


def require_ours(folder: Path) -> None:
    """Raise ExportError for a folder with anything that its own valid note does not list.

    Only what an export wrote is ever deleted. An empty folder is removed.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise _not_ours(folder, "is not a folder of its own")
    if not any(folder.iterdir()):
        folder.rmdir()
        return
    metadata = read_metadata(folder, lambda _: None)
    if metadata is None:
        raise _not_ours(folder, "is not an export of distill's, and not empty")
    files: Any = metadata["files"]
    listed = {METADATA, CARD, *files}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or (not path.is_dir() and name not in listed):
            raise _not_ours(path, "was not written by the export that is to be replaced")


def require_left_over(run: RunFolder, folder: Path) -> None:
    """Raise ExportError for what no export left; what is within the run is the run's own."""
    if not folder.is_relative_to(run.path):
        _require_own_draft(folder)


def _require_own_draft(draft: Path) -> None:
    if draft.is_symlink() or not (draft / DRAFT_MARK).is_file():
        require_ours(draft)


def _not_ours(place: Path, cause: str) -> ExportError:
    hint = "move it away, or choose another folder with --out"
    return ExportError(cause, place=place, hint=hint)
