"""Several files as one input: each behind a line `==> name <==`."""

from __future__ import annotations

import re
from pathlib import Path

_HEAD = re.compile(rb"^==> ([\w.]+) <==\n", re.MULTILINE)


def split(data: bytes) -> dict[str, bytes]:
    """The files of a bundle by name; of a name that comes twice, the last."""
    _, *found = _HEAD.split(data)
    return {name.decode(): text for name, text in zip(found[::2], found[1::2], strict=True)}


def join(files: dict[str, bytes]) -> bytes:
    """The bundle of these files. A text without a line end gets one."""
    return b"".join(
        b"==> %b <==\n%b%b" % (name.encode(), text, b"" if text.endswith(b"\n") else b"\n")
        for name, text in files.items()
    )


def unpack(files: dict[str, bytes], folder: Path, allowed: tuple[str, ...]) -> None:
    """Write the files with these names into `folder`, and remove what it held."""
    for path in folder.iterdir():
        path.unlink()
    for name in allowed:
        if name in files:
            (folder / name).write_bytes(files[name])
