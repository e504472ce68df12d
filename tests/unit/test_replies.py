"""The store of replies: what is put is kept through anything; what is no store is refused."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import office

from distill.errors import RunError, RunLockedError, WriteError
from distill.ledger.ledger import LedgerEntry, UsageTotals
from distill.ledger.replies import ReplyStore
from distill.records import FailureReason
from distill.teachers.base import ChatReply, Usage
from distill.testing import server
from distill.testing.server import ChatServer

ANY_TEXT = st.text(st.characters(exclude_categories=[]))
NAMES = st.text(st.characters(exclude_categories=["Cs"]))
TOKENS = st.integers(0, 2**40)
USAGES = st.builds(
    Usage,
    prompt_tokens=TOKENS,
    cached_tokens=TOKENS,
    completion_tokens=TOKENS,
    estimated=st.booleans(),
)
REPLIES = st.builds(ChatReply, text=ANY_TEXT, model=NAMES, usage=USAGES)


def reply(text: str) -> ChatReply:
    return ChatReply(text=text, model="m", usage=Usage(prompt_tokens=1, completion_tokens=2))


@given(replies=st.dictionaries(st.text("abcdef", min_size=1), REPLIES))
def test_what_was_put_comes_back(replies: dict[str, ChatReply]) -> None:
    with ReplyStore(Path(":memory:")) as store:
        for key, value in replies.items():
            assert store.get(key) is None
            assert store.put(key, value) == value
        assert {key: store.get(key) for key in replies} == replies
        assert store.count() == len(replies)
        assert store.keys() == set(replies)


@given(
    first=st.dictionaries(st.text("abc", min_size=1, max_size=2), REPLIES),
    then=st.lists(st.tuples(st.text("abc", min_size=1, max_size=2), REPLIES)),
)
def test_of_several_for_one_key_the_first_stands(
    first: dict[str, ChatReply], then: list[tuple[str, ChatReply]]
) -> None:
    with ReplyStore(Path(":memory:")) as store:
        store.put_all(first.items())
        store.put_all(iter(then))
        expected = dict(reversed(then)) | first
        assert {key: store.get(key) for key in store.keys()} == expected  # noqa: SIM118


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


def test_several_are_put_all_or_none(tmp_path: Path) -> None:
    def pairs() -> Iterator[tuple[str, ChatReply]]:
        yield "a", reply("a")
        raise KeyError("the caller's own mistake")

    with ReplyStore(tmp_path / "r") as store:
        with pytest.raises(KeyError):
            store.put_all(pairs())
        store._db.execute("PRAGMA max_page_count = 6")
        with pytest.raises(WriteError, match="full"):
            store.put_all([("a", reply("a")), ("b", reply("x" * 100_000))])
        assert store.keys() == set()
        store.put_all([("a", reply("a"))])
    with ReplyStore(tmp_path / "r") as store:
        assert store.keys() == {"a"}


@given(
    charges=st.lists(
        st.tuples(
            st.sampled_from(["gate", "generate"]),
            st.sampled_from(["one", "two"]),
            st.sampled_from(["reply", FailureReason.REFUSED]),
            USAGES,
        )
    )
)
def test_any_charges_add_up(charges: list[tuple[str, str, str, Usage]]) -> None:
    with ReplyStore(Path(":memory:")) as store:
        for charge in charges:
            store.charge(*charge)
        entries = store.entries()
        for entry in entries:
            place = (entry.stage, entry.model, entry.outcome)
            assert added(
                usage for *where, usage in charges if tuple(where) == place
            ) == UsageTotals(**entry.model_dump(include=set(UsageTotals.model_fields)))
        assert len({(e.stage, e.model, e.outcome) for e in entries}) == len(entries)
        assert store.spent() == added(usage for *_, usage in charges)


def added(usages: Iterable[Usage]) -> UsageTotals:
    tally = UsageTotals()
    for usage in usages:
        tally = tally.plus(usage)
    return tally


def test_what_is_dropped_was_paid_for_all_the_same(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "r") as store:
        store.put("a", reply("a"))
        store.charge("generate", "m", "reply", reply("a").usage)
        store.drop(["a"])
    with ReplyStore(tmp_path / "r") as store:
        assert store.spent() == UsageTotals(requests=1, prompt_tokens=1, completion_tokens=2)


CREATE = """
import os, sqlite3, sys
from pathlib import Path
from distill.ledger.database import Database

class Dies(sqlite3.Connection):
    left = 0

    def execute(self, *statement):
        Dies.left -= 1
        if not Dies.left:
            os.kill(os.getpid(), 9)
        return super().execute(*statement)

connect = sqlite3.connect
sqlite3.connect = lambda *given, **more: connect(*given, **more, factory=Dies)
for number, path in enumerate(sys.argv[1:], start=1):
    child = os.fork()
    if not child:
        Dies.left = number
        Database(Path(path)).close()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_store_whose_creation_was_killed_at_any_statement_is_created(tmp_path: Path) -> None:
    paths = [tmp_path / f"{statement:02}" for statement in range(1, 25)]
    command = [sys.executable, "-c", CREATE, *map(str, paths)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    statuses = [int(status) for status in done.stdout.split()]
    assert set(statuses[:12]) == {-signal.SIGKILL}
    assert statuses[-1] == 0
    for path in paths:
        with ReplyStore(path) as store:
            assert store.put("a", reply("a")) == reply("a")
            assert not store.entries()


PUT_AND_CHARGE = """
import sys
from pathlib import Path
from distill.ledger.replies import ReplyStore
from distill.teachers.base import ChatReply, Usage

usage = Usage(prompt_tokens=3, cached_tokens=1, completion_tokens=2, estimated=True)
with ReplyStore(Path(sys.argv[1])) as store:
    for number in range(10**9):
        store.charge("generate", "m", "reply", usage)
        store.put(f"a{number}", ChatReply(text="x" * 300, model="m", usage=usage))
        replies = [(f"{kind}{number}", ChatReply(text="", model="m")) for kind in "bc"]
        store.put_all(replies)
        print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(5))
def test_what_returned_before_a_kill_is_there(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "r"
    command = [sys.executable, "-c", PUT_AND_CHARGE, str(path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout
        for _ in range(random.Random(seed).randint(1, 1500)):
            line = process.stdout.readline()
        process.kill()
        returned = 1 + int((line + process.stdout.read()).split()[-1])
    with ReplyStore(path) as store:
        kept = store.keys()
        assert {f"{kind}{number}" for kind in "abc" for number in range(returned)} <= kept
        # Several of one transaction, all or none; a charge at most ahead of its reply.
        assert [key[1:] for key in sorted(kept) if key[0] == "b"] == [
            key[1:] for key in sorted(kept) if key[0] == "c"
        ]
        spent, replies = store.spent(), sum(key[0] == "a" for key in kept)
        assert spent.requests - replies in (0, 1)
        assert spent.tokens == 5 * spent.requests
        assert spent.cached_tokens == spent.estimated == spent.requests


def a_text(path: Path) -> None:
    path.write_text("not a database, but long enough to look like one " * 50)


def a_foreign_database(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE other (x)")
    db.close()


def an_earlier_version(path: Path) -> None:
    ReplyStore(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 1")
    db.close()


def a_later_version(path: Path) -> None:
    ReplyStore(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 4")
    db.close()


def a_damaged_store(path: Path) -> None:
    with ReplyStore(path) as store:
        for number in range(500):
            store.put(f"{number:05}", reply("x" * 500))
    data = bytearray(path.read_bytes())
    data[4096:] = random.Random(0).randbytes(len(data) - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [a_text, a_foreign_database, an_earlier_version, a_later_version, a_damaged_store],
)
def test_what_is_no_store_is_refused_with_a_way_out(tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "replies.sqlite"
    spoil(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(RunError, match="move it away") as caught, ReplyStore(path) as store:
        store.get("00250")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


FILLED = {f"key-{number}": reply(f"text {number} " * 9) for number in range(5)}


def filled(path: Path) -> None:
    """A store of small pages with replies and charges, all of it in one file."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA page_size = 512")
    db.execute("VACUUM")
    db.close()
    with ReplyStore(path) as store:
        store.put_all(FILLED.items())
        for outcome in ("reply", "timeout"):
            store.charge("generate", "m", outcome, Usage(prompt_tokens=3, completion_tokens=5))


def read(path: Path) -> tuple[dict[str, ChatReply | None], list[LedgerEntry]]:
    with ReplyStore(path) as store:
        return {key: store.get(key) for key in FILLED}, store.entries()


def test_of_a_store_with_any_byte_flipped_nothing_else_is_read(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    filled(path)
    whole, (_, entries) = path.read_bytes(), read(path)
    assert path.stat().st_size == len(whole)
    refused = missing = 0
    # Zeros are mostly of no use: of those a few.
    flipped = [at for at, byte in enumerate(whole) if byte or at % 61 == 0]
    for number, at in enumerate(flipped):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << number % 8
        path.write_bytes(damaged)
        try:
            found, ledger = read(path)
        except (RunError, WriteError):
            refused += 1
            continue
        assert ledger == entries
        # What is not found is asked again.
        assert all(value in (None, FILLED[key]) for key, value in found.items())
        missing += None in found.values()
    assert refused > len(flipped) / 2 > missing > 0


def without_checksums(path: Path) -> None:
    """The store as the version before wrote it."""
    filled(path)
    db = sqlite3.connect(path)
    for table in ("replies", "ledger"):
        db.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
    db.execute("PRAGMA user_version = 2")
    db.commit()
    db.close()


def test_a_store_without_checksums_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "r"
    filled(tmp_path / "other")
    without_checksums(path)
    expected = read(tmp_path / "other")
    assert read(path) == expected == read(path)
    with ReplyStore(path) as store:
        store.put("new", reply("new"))
        store._db.execute("UPDATE replies SET text = 'other' WHERE key = 'key-0'")
        assert store.get("key-1") == FILLED["key-1"]
        with pytest.raises(RunError, match="not what was stored"):
            store.get("key-0")


def test_a_store_without_checksums_is_read_where_it_cannot_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    filled(tmp_path / "other")
    without_checksums(path)
    before = path.read_bytes()
    # A test may run as root, who can write everywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert read(path) == read(tmp_path / "other")
    assert path.read_bytes() == before


def test_a_ledger_that_was_changed_is_not_added_to(tmp_path: Path) -> None:
    filled(tmp_path / "r")
    with ReplyStore(tmp_path / "r") as store:
        store._db.execute("UPDATE ledger SET prompt_tokens = 0")
        for use in (store.spent, lambda: store.charge("generate", "m", "reply", Usage())):
            with pytest.raises(RunError, match="not what was stored"):
                use()


def test_a_full_disk_is_a_write_error_and_loses_nothing(tmp_path: Path) -> None:
    with ReplyStore(tmp_path / "r") as store:
        store.put("a", reply("kept"))
        # SQLite meets a limit of pages exactly as it meets a full disk: with SQLITE_FULL.
        store._db.execute("PRAGMA max_page_count = 6")
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


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}


GENERATE = """
import asyncio, sys
from pathlib import Path
from kit import office
from distill.config import TeacherConfig
from distill.files import write_records
from distill.records import Failure
from distill.data.generate import generate
from distill.ledger.replies import ReplyStore
from distill.teachers.make import make_teacher

url, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
settings = TeacherConfig(kind="openai", model="kit", base_url=url, concurrency=5)

async def main(replies):
    settled = {}
    teacher = make_teacher(settings)
    try:
        await generate(
            office.scenarios(count), office.OFFICE, teacher, replies, settings, settled.__setitem__
        )
    finally:
        await teacher.close()
    return [settled[number] for number in sorted(settled)]

with ReplyStore(folder / "replies.sqlite") as replies:
    made = asyncio.run(main(replies))
for kind, wanted in {"candidates": False, "failures": True}.items():
    chosen = [outcome for outcome in made if isinstance(outcome, Failure) == wanted]
    write_records(folder / f"{kind}.jsonl", chosen)
"""
COUNT = 120


def start(url: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", GENERATE, url, str(folder), str(COUNT)]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)


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
    chat_server.default = server.slow(2)
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
