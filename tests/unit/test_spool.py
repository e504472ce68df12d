"""What is put in any order comes out by number, lane by lane, and nothing is left on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import WriteError
from distill.files import record_line
from distill.records import Message
from distill.run.spool import Spool

anything = st.text(st.characters(exclude_categories=[]))


@given(texts=st.lists(anything), data=st.data())
def test_lanes_come_back_in_order(
    texts: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("spool") / "made" / "spool"
    numbered = data.draw(st.permutations(list(enumerate(texts))))
    with Spool(path) as spool:
        for number, text in numbered:
            spool.put("odd" if number % 2 else "even", number, Message(role="user", content=text))
        for lane, start in (("even", 0), ("odd", 1)):
            expected = [record_line(Message(role="user", content=t)) for t in texts[start::2]]
            written = [line.encode("utf-8", "backslashreplace").decode() for line in expected]
            assert list(spool.lines(lane)) == written
            assert spool.counts[lane] == len(expected)
    assert list(path.parent.iterdir()) == []


def test_what_a_killed_process_left_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"half a page")
    with Spool(path) as spool:
        assert list(spool.lines("a")) == []


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool") as spool:
        spool._db.execute("PRAGMA max_page_count = 20")
        with pytest.raises(WriteError, match="full"):
            spool.put("a", 0, Message(role="user", content="x" * 1_000_000))
