"""Files appear whole or not at all, and what people wrote is read as they meant it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import InputFileError, WriteError
from distill.files import json_lines, read_records, read_text, write_records, write_text
from distill.records import Message

anything = st.text(st.characters(exclude_categories=[]))


@given(texts=st.lists(anything))
def test_records_survive_the_file(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("files") / "messages.jsonl"
    messages = [Message(role="user", content=text) for text in texts]
    write_records(path, messages)
    assert read_records(path, Message) == messages


def test_line_separators_inside_strings_do_not_end_a_record(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"a{odd}b"} for odd in "\u2028\u2029\x85\x0b\x0c\x1c"]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    assert [value for _, value in json_lines(path)] == rows


def test_crlf_and_byte_order_mark_are_not_content(tmp_path: Path) -> None:
    path = tmp_path / "rules.md"
    path.write_bytes(b"\xef\xbb\xbf# Title\r\nText\r")
    assert read_text(path) == "# Title\nText\n"


@pytest.mark.parametrize(
    ("data", "cause"),
    [(b"a\0b", "binary"), (b"ok\ncaf\xe9", "not UTF-8"), (None, "no such file")],
)
def test_what_is_no_text_is_named(tmp_path: Path, data: bytes | None, cause: str) -> None:
    path = tmp_path / "file"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputFileError, match=cause) as caught:
        read_text(path)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be read"):
        read_text(tmp_path)


def test_bad_json_and_bad_rows_are_placed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"role": "user"}\n\n{"role": "usr"}\n')
    with pytest.raises(InputFileError) as caught:
        read_records(path, Message)
    assert f"{path}:3: is not a Message: role" in str(caught.value)
    path.write_text('{"role": \n')
    with pytest.raises(InputFileError, match="not valid JSON"):
        read_records(path, Message)


def test_json_without_bottom_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("[" * 100_000)
    with pytest.raises(InputFileError, match="nested too deeply"):
        list(json_lines(path))


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]
