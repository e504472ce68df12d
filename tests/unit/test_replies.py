"""The store of replies: what is put is kept through anything; what is no store is refused."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import office, server
from kit.server import ChatServer

from distill.errors import RunError, RunLockedError, WriteError
from distill.run.replies import ReplyStore
from distill.teachers.base import ChatReply

ANY_TEXT = st.text(st.characters(exclude_categories=[]))
REPLIES = st.builds(
    ChatReply,
    text=ANY_TEXT,
    model=st.text(st.characters(exclude_categories=["Cs"])),
    prompt_tokens=st.integers(0, 2**40),
    completion_tokens=st.integers(0, 2**40),
)


def reply(text: str) -> ChatReply:
    return ChatReply(text=text, model="m", prompt_tokens=1, completion_tokens=2)


@given(replies=st.dictionaries(st.text("abcdef", min_size=1), REPLIES))
def test_what_was_put_comes_back(replies: dict[str, ChatReply]) -> None:
    with ReplyStore(Path(":memory:")) as store:
        for key, value in replies.items():
            assert store.get(key) is None
            assert store.put(key, value) == value
        assert {key: store.get(key) for key in replies} == replies
        assert store.count() == len(replies)


def test_it_is_there_when_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "made" / "replies.sqlite"
    with ReplyStore(path) as store:
        store.put("a", reply("one\u2028\0 half \ud800"))
    with ReplyStore(path) as store:
        assert store.get("a") == reply("one\u2028\0 half \ud800")
    assert [file.name for file in path.parent.iterdir()] == ["replies.sqlite"]


def test_the_first_reply_stands(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "r") as one, ReplyStore(tmp_path / "r") as two:
        assert one.put("a", reply("first")) == reply("first")
        assert two.put("a", reply("second")) == reply("first")
        assert two.get("a") == reply("first")


def test_what_is_dropped_is_gone_and_the_rest_stays(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "r") as store:
        for key in "abc":
            store.put(key, reply(key))
        store.drop(["a", "c", "never there"])
        assert [store.get(key) for key in "abc"] == [None, reply("b"), None]


def a_text(path: Path) -> None:
    path.write_text("not a database, but long enough to look like one " * 50)


def a_foreign_database(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE other (x)")
    db.close()


def a_later_version(path: Path) -> None:
    ReplyStore(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 2")
    db.close()


def a_damaged_store(path: Path) -> None:
    with ReplyStore(path) as store:
        for number in range(500):
            store.put(f"{number:05}", reply("x" * 500))
    data = bytearray(path.read_bytes())
    data[4096:] = random.Random(0).randbytes(len(data) - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [a_text, a_foreign_database, a_later_version, a_damaged_store])
def test_what_is_no_store_is_refused_with_a_way_out(tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "replies.sqlite"
    spoil(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(RunError, match="move it away") as caught, ReplyStore(path) as store:
        store.get("00250")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_a_full_disk_is_a_write_error_and_loses_nothing(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "r") as store:
        store.put("a", reply("kept"))
        # SQLite meets a limit of pages exactly as it meets a full disk: with SQLITE_FULL.
        store._db.execute("PRAGMA max_page_count = 3")
        with pytest.raises(WriteError, match="full"):
            store.put("b", reply("x" * 100_000))
        assert store.get("a") == reply("kept")
        assert store.get("b") is None


def test_a_folder_that_cannot_be_made_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError):
        ReplyStore(tmp_path / "file" / "replies.sqlite")
    with pytest.raises(WriteError):
        ReplyStore(tmp_path)


def test_another_writer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with ReplyStore(path) as store:
        store._db.execute("PRAGMA busy_timeout = 10")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunLockedError):
            store.put("a", reply("a"))
        other.execute("ROLLBACK")
        other.close()


GENERATE = """
import asyncio, sys
from pathlib import Path
from kit import office
from distill.config import TeacherConfig
from distill.files import write_records
from distill.generate import generate
from distill.run.replies import ReplyStore
from distill.teachers.make import make_teacher

url, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
settings = TeacherConfig(kind="openai", model="kit", base_url=url, concurrency=5)

async def main(replies):
    teacher = make_teacher(settings)
    try:
        return await generate(office.scenarios(count), office.OFFICE, teacher, replies, settings)
    finally:
        await teacher.close()

with ReplyStore(folder / "replies.sqlite") as replies:
    made = asyncio.run(main(replies))
write_records(folder / "candidates.jsonl", made.candidates)
write_records(folder / "failures.jsonl", made.failures)
"""
COUNT = 120


def start(url: str, folder: Path) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}
    command = [sys.executable, "-c", GENERATE, url, str(folder), str(COUNT)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def made(folder: Path) -> list[bytes]:
    return [(folder / f"{kind}.jsonl").read_bytes() for kind in ("candidates", "failures")]


def wait_for(chat_server: ChatServer, requests: int) -> None:
    deadline = time.monotonic() + 60
    while chat_server.count < requests:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.001)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(
    chat_server: ChatServer, tmp_path: Path, how: signal.Signals
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(chat_server.url, whole).wait() == 0
    assert chat_server.count == COUNT

    # Quick answers for as long as it may go on, then ones that leave time to kill it.
    chat_server.script(*[server.slow(0.005)] * (COUNT - 20))
    chat_server.default = server.slow(5)
    process = start(chat_server.url, killed)
    wait_for(chat_server, COUNT + random.randint(1, COUNT - 20))
    process.send_signal(how)
    assert process.wait() != 0
    with ReplyStore(killed / "replies.sqlite") as store:
        committed = store.count()
    time.sleep(0.1)  # for requests that were on their way to the server
    asked = chat_server.count
    chat_server.default = server.good

    assert start(chat_server.url, killed).wait() == 0
    assert made(killed) == made(whole)
    assert chat_server.count - asked == COUNT - committed
    assert len(made(whole)[0].splitlines()) == COUNT == len(office.scenarios(COUNT))
