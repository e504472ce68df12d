"""A starter workflow for `distill init`."""

from __future__ import annotations

from pathlib import Path

from distill.errors import InputFileError
from distill.files import read_text, resource, write_text

FILES = ("rules.md", "tools.json", "words.md", "gold.jsonl", "distill.toml")


def scaffold(folder: Path) -> list[Path]:
    """Write FILES into `folder`, which is made when missing; the paths written.

    Raises InputFileError, with nothing written, where one of them or `folder` itself is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputFileError("is a file", place=folder, hint="name a folder to write into")
    taken = [name for name in FILES if (folder / name).exists()]
    if taken:
        raise InputFileError(
            f"holds {', '.join(taken)} already, and nothing is overwritten",
            place=folder,
            hint="name another folder, or move these away",
        )
    for name in FILES:
        write_text(folder / name, read_text(resource("schemas", "starter", name)))
    return [folder / name for name in FILES]
