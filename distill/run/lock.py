"""Which folders are a run's, and one process at a time in each.

A folder is looked at before anything is written into it: what is not a run's is refused as it is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from distill.errors import AlteredRunError, InputFileError, RunError, RunLockedError, WriteError
from distill.files import parse_json, read_text
from distill.records import Json
from distill.run import layout

# What stands in a run folder, at its top.
_FILES = (layout.CONFIG, layout.MANIFEST, layout.REPORT, layout.REPORT_PAGE, layout.LOCK)
_FOLDERS = (layout.INPUTS, layout.GATE, layout.PLAN, layout.GENERATE, *layout.SIEVES.values())
_FOLDERS += (layout.SPLIT, layout.TRAIN, layout.EVALUATE, layout.EXPORT, layout.ABLATE)
_DRAFTS = tuple(f".{name}.part" for name in (*_FILES, *_FOLDERS))
OLD_INPUTS = f".{layout.INPUTS}.old"
NEW_INPUTS = f".{layout.INPUTS}.part"
# What a run that was killed while it began has left.
_BEGINNING = {layout.LOCK, layout.INPUTS, f".{layout.CONFIG}.part", OLD_INPUTS, NEW_INPUTS}
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
# Seconds in which the process that holds a lock writes its number.
_OWNER_TIMEOUT = 1.0


@contextmanager
def locked(path: Path, *, create: bool = False, reading: bool = False) -> Iterator[None]:
    """Hold the run folder at `path`; the lock goes with the process.

    create: make the folder where there is none, for its owner only, as replies may hold customers'
        words; one that exists keeps its permissions
    reading: nothing has to be written there: a folder that cannot be is held all the same
    Raises RunLockedError when another process holds it, RunError when there is no such folder and
    it is not to be created, and for a folder or a file that is not the run's, before it is written.
    """
    if not create:
        require_folder(path)
    require_ours(path)
    with _lock_file(path, reading) as lock:
        if lock is not None:
            _acquire(lock, path)
        yield


def _acquire(lock: IO[str], path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunLockedError(
            f"another process is working here{_owner(lock)}",
            place=path,
            hint="wait until it is done, or choose another folder with --out",
        ) from None
    if lock.writable():
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()


def _owner(lock: IO[str]) -> str:
    """The process that holds the lock, which writes its number right after it took it."""
    end = time.monotonic() + _OWNER_TIMEOUT
    while time.monotonic() < end:
        lock.seek(0)
        if owner := lock.read(20).strip():
            return f" (process {owner})"
        time.sleep(0.02)
    return ""


@contextmanager
def _lock_file(path: Path, reading: bool) -> Iterator[IO[str] | None]:
    name, safe = path / layout.LOCK, os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        number, mode = os.open(name, os.O_RDWR | os.O_CREAT | safe, 0o600), "r+"
    except OSError as error:
        if not (reading and error.errno in _READ_ONLY):
            raise WriteError.from_os(error, path) from None
        if not os.access(name, os.R_OK):
            yield None
            return
        number, mode = os.open(name, os.O_RDONLY | safe), "r"
    with open(number, mode) as lock:
        yield lock


def require_folder(path: Path) -> None:
    """Raise RunError where there is no folder."""
    if path.is_dir():
        return
    if path.exists():
        raise RunError("is a file, not a run folder", place=path, hint="name the folder of a run")
    raise RunError(
        "there is no such run folder",
        place=path,
        hint=f"make one with: distill gen --rules rules.md --out {shlex.quote(str(path))}",
    )


def require_ours(path: Path) -> None:
    """Raise RunError for a folder that holds something else than a run, or a link in its place.

    What is new or empty is ours. The folder itself may be given as a symbolic link.
    """
    if not path.exists() and not path.is_symlink():
        return
    require_folder(path)
    names = _names(path)
    for name in sorted(names & {*_FILES, *_FOLDERS, *_DRAFTS, OLD_INPUTS}):
        _require_plain(path / name)
    if layout.CONFIG in names:
        recorded = read_json(path / layout.CONFIG)
        if not isinstance(recorded.get("distill"), str) or "workflow_digest" not in recorded:
            raise _foreign(path, "its config.json is not distill's")
    elif names and not _has_begun(path, names):
        raise _foreign(path, "it is not empty, and has no config.json of distill's")


def _names(path: Path) -> set[str]:
    try:
        return {*os.listdir(path)}
    except OSError as error:
        raise RunError(
            f"cannot be read: {error.strerror}", place=path, hint="change its permissions"
        ) from None


def _foreign(path: Path, why: str) -> RunError:
    hint = "choose a new folder with --out; nothing was written here"
    return RunError(f"is not a run folder: {why}", place=path, hint=hint)


def _has_begun(path: Path, names: set[str]) -> bool:
    """Whether a folder without config.json is what a run left that was killed while it began."""
    if layout.LOCK not in names or names - _BEGINNING:
        return False
    if layout.INPUTS in names and not (path / layout.WORKFLOW).is_file():
        return False
    with open(path / layout.LOCK, "rb") as lock:
        owner = lock.read(21)
    return len(owner) < 21 and (not owner or owner.isdigit())


def _require_plain(path: Path) -> None:
    """Raise RunError where a link, or what is neither file nor folder, stands in a run's place."""
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        for name in sorted(_names(path)):
            _require_plain(path / name)
    elif not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
        raise RunError(
            f"is {kind}: in a run folder distill writes and deletes through none",
            place=path,
            hint="put the file or folder itself there; the run folder as a whole may be a link",
        )


def read_json(path: Path) -> Json:
    """The JSON object in a file of a run. Raises AlteredRunError when there is none."""
    try:
        value = parse_json(read_text(path), path)
    except InputFileError as error:
        raise damaged(path, error.problems[0].cause) from None
    if not isinstance(value, dict):
        raise damaged(path, "is not a JSON object")
    return value


def damaged(path: Path, cause: str) -> AlteredRunError:
    return AlteredRunError(cause, place=path, hint="restore it, or start a new run with --out")
