"""Reading what people and stages wrote, and writing so that a file appears whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from distill.errors import InputFileError, WriteError

Model = TypeVar("Model", bound=BaseModel)


def read_text(path: Path) -> str:
    """The file as text, with LF line ends and without a byte-order mark.

    Raises InputFileError when it is missing, a folder, unreadable, binary or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputFileError(
            "there is no such file",
            place=path,
            hint="check the path; it is relative to where you are",
        ) from None
    except OSError as error:
        raise InputFileError(
            f"cannot be read: {error.strerror}", place=path, hint="check its permissions and kind"
        ) from None
    if b"\0" in data:
        raise InputFileError("is a binary file", place=path, hint="give a UTF-8 text file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputFileError(
            f"byte 0x{data[error.start]:02x} is not UTF-8",
            place=f"{path}:{line}",
            hint="save the file as UTF-8, for example: iconv -f latin1 -t utf-8",
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


class _ConstantError(Exception):
    """NaN or an infinity, which Python reads and JSON has not."""


def _no_constant(name: str) -> NoReturn:
    raise _ConstantError(name)


def parse_json(text: str, place: object) -> Any:
    """The JSON value in `text`; InputFileError names `place` and the line and column."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except _ConstantError as error:
        raise InputFileError(
            f"holds {error}, which is not JSON", place=place, hint="write a number, or null"
        ) from None
    except json.JSONDecodeError as error:
        raise InputFileError(
            f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            place=place,
            hint="correct it there; a JSON linter shows the spot",
        ) from None
    except RecursionError:
        raise InputFileError(
            "is nested too deeply to be read", place=place, hint="flatten it"
        ) from None


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Each non-blank line's number and JSON value.

    Lines end at LF alone: U+2028 and its kin are ordinary characters inside JSON strings, and
    `str.splitlines` would cut records in two there.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, parse_json(line, f"{path}:{number}")


def read_records(path: Path, kind: type[Model]) -> list[Model]:
    """Every record of a JSON Lines file, in order; InputFileError names a line that is not one."""
    records = []
    for number, value in json_lines(path):
        try:
            records.append(kind.model_validate(value))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the row"
            raise InputFileError(
                f"is not a {kind.__name__}: {field}: {first['msg']}",
                place=f"{path}:{number}",
                hint="restore the file, or make it again with the stage that wrote it",
            ) from None
    return records


def record_line(record: BaseModel) -> str:
    """A record as one line of JSON Lines, byte-stable for equal records."""
    return json.dumps(record.model_dump(mode="json"), ensure_ascii=False) + "\n"


def write_records(path: Path, records: Iterable[BaseModel]) -> None:
    """Write JSON Lines, whole or not at all."""
    write_text(path, "".join(map(record_line, records)))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with LF line ends, whole or not at all: temporary file, fsync, rename.

    Raises WriteError when the disk is full or the folder cannot be written.
    """
    # Lone surrogates cannot be written as UTF-8; their JSON escapes can, and mean the same.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """`write_text` for bytes."""
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise WriteError.from_os(error, path) from None


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
