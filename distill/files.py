"""Reading what people and stages wrote, and writing so that a file appears whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from distill import strict_json
from distill.errors import InputFileError, UsageError, WriteError
from distill.strict_json import JsonError

Model = TypeVar("Model", bound=BaseModel)

PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """The path of a shipped file or folder, as `resource("prompts", "write.md")`."""
    # A wheel carries the folders inside the package; a checkout has them at the top.
    installed = PACKAGE / "_shipped"
    return (installed if installed.is_dir() else PACKAGE.parent).joinpath(*parts)


def read_text(path: Path) -> str:
    """The file as text, with LF line ends and without a byte-order mark.

    Raises InputFileError when it is missing, a folder, unreadable, binary or not UTF-8.
    """
    return "".join(_text_lines(path))


def _text_lines(path: Path) -> Iterator[str]:
    """The file's lines with their LF, read one by one: a file may be larger than memory."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield _decoded(line, path, number)
    except FileNotFoundError:
        raise InputFileError(
            "there is no such file",
            place=path,
            hint="check the path; it is relative to where you are",
        ) from None
    except OSError as error:
        raise unreadable(error, path) from None


def unreadable(error: OSError, path: object) -> InputFileError:
    """The error for a read that the operating system refused."""
    cause = f"cannot be read: {error.strerror or error}"
    return InputFileError(cause, place=path, hint="check its permissions and kind")


_FILE_TYPES = (
    (b"\x1f\x8b", "compressed by gzip", "unpack it: gunzip FILE"),
    (b"\xff\xfe", "UTF-16", "save the file as UTF-8, for example: iconv -f utf-16 -t utf-8"),
    (b"\xfe\xff", "UTF-16", "save the file as UTF-8, for example: iconv -f utf-16 -t utf-8"),
    (b"PAR1", "a Parquet file", "write it as JSON Lines: Dataset.to_json of the package datasets"),
)
"""How files begin that are often given in place of text, what they are, and the way out."""


def _decoded(line: bytes, path: Path, number: int) -> str:
    for magic, kind, hint in _FILE_TYPES:
        if number == 1 and line.startswith(magic):
            raise InputFileError(f"is {kind}", place=f"{path}:1", hint=hint)
    if b"\0" in line:
        raise InputFileError(
            "is a binary file", place=f"{path}:{number}", hint="give a UTF-8 text file"
        )
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputFileError(
            f"byte 0x{line[error.start]:02x} is not UTF-8",
            place=f"{path}:{number}",
            hint="save the file as UTF-8, for example: iconv -f latin1 -t utf-8",
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str, place: object) -> Any:
    """The JSON value in `text`; InputFileError names `place` and the line and column."""
    try:
        return strict_json.decode(text)
    except JsonError as error:
        cause = error.cause
        if error.offset is not None:
            line = text.count("\n", 0, error.offset) + 1
            column = error.offset - text.rfind("\n", 0, error.offset)
            cause += f": {error} at line {line}, column {column}"
        raise InputFileError(cause, place=place, hint=error.hint) from None


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Each non-blank line's number and JSON value."""
    for number, line in numbered_lines(path):
        yield number, parse_json(line, f"{path}:{number}")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each non-blank line and its number, without the line end.

    Lines end at LF alone: U+2028 and its kin are ordinary characters inside JSON strings, and
    `str.splitlines` would cut records in two there.
    """
    number = 0
    for lines in _text_lines(path):
        # Within what was one line, a lone CR was made a line end.
        for line in lines.removesuffix("\n").split("\n"):
            number += 1
            if line.strip():
                yield number, line


def iter_records(path: Path, kind: type[Model]) -> Iterator[Model]:
    """Each record of a JSON Lines file, one by one; InputFileError names a line that is not one."""
    for number, value in json_lines(path):
        try:
            yield kind.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the row"
            raise InputFileError(
                f"is not a {kind.__name__}: {field}: {first['msg']}",
                place=f"{path}:{number}",
                hint="restore the file, or make it again with the stage that wrote it",
            ) from None


def read_records(path: Path, kind: type[Model]) -> list[Model]:
    """Every record of a JSON Lines file, in order, as `iter_records` reads them."""
    return list(iter_records(path, kind))


def record_line(record: BaseModel) -> str:
    """A record as one line of JSON Lines, byte-stable for equal records."""
    return strict_json.encode(record.model_dump(mode="json")) + "\n"


def write_records(path: Path, records: Iterable[BaseModel]) -> int:
    """Write JSON Lines, whole or not at all; how many records they were."""
    return write_lines(path, map(record_line, records))


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines that end in LF, one by one, as a whole or not at all; how many they were."""
    written = 0

    def parts() -> Iterator[bytes]:
        nonlocal written
        for line in lines:
            written += 1
            yield encoded(line)

    _write(path, parts())
    return written


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all. Raises WriteError for what is no strict JSON."""
    write_lines(path, (strict_json.encode(part, indent=2) + "\n" for part in [value]))


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A hard link to `source` at `target`, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with LF line ends, whole or not at all: temporary file, fsync, rename.

    Raises WriteError when the disk is full or the folder cannot be written.
    """
    write_bytes(path, encoded(text))


def encoded(text: str) -> bytes:
    """UTF-8. Lone surrogates have none; their JSON escapes do, and mean the same."""
    return text.encode("utf-8", "backslashreplace")


def write_bytes(path: Path, data: bytes) -> None:
    """`write_text` for bytes."""
    _write(path, [data])


def _write(path: Path, parts: Iterable[bytes]) -> None:
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not through a link that stands in its place.
        draft.unlink(missing_ok=True)
        with open(draft, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise WriteError.from_os(error, path) from None
    except JsonError as error:
        raise WriteError(
            error.cause,
            place=path,
            hint="the file stays as it was; this is a fault of distill: please report it",
        ) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hex. Raises InputFileError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(error, path) from None


def given_path(given: object, name: str) -> Path:
    """A path that a program gave as `name`."""
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else given
    if not isinstance(text, str):
        cause = f"is a path, not {type(given).__name__}"
        raise UsageError(cause, place=name, hint="give text or a pathlib.Path")
    try:
        size = max(len(os.fsencode(part)) for part in text.split("/"))
    except UnicodeEncodeError:
        size = -1
    faults = (
        (not text, "is empty"),
        ("\0" in text, "holds a null character, which no path can"),
        (size < 0, "holds half of a surrogate pair, which no path can"),
        (size > 255 or len(text) > 4095, "is longer than a path can be"),
    )
    for wrong, cause in faults:
        if wrong:
            raise UsageError(cause, place=name, hint="give the path of a file or folder")
    return Path(text)
