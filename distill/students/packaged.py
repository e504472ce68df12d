"""Weights that come inside of a Python package: its data files are read, none of its code."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from distill.errors import StudentError
from distill.files import file_digest


def package_folder(package: str) -> Path | None:
    """Where an installed package's files are, without importing it; None if it is not installed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def verify_files(folder: Path, digests: Mapping[str, str], *, hint: str) -> None:
    """Raise StudentError unless each file has its SHA-256. `hint`: how to get the right files."""
    for name, expected in digests.items():
        path = folder / name
        if not path.is_file():
            raise StudentError("is missing", place=path, hint=hint)
        if file_digest(path) != expected:
            cause = f"is not the file as published: its SHA-256 is not {expected[:16]}..."
            raise StudentError(cause, place=path, hint=hint)
