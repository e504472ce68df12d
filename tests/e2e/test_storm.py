"""A teacher's server at its worst: every scenario is accounted for, and nothing is paid for twice.

The small sizes run with every test, the sizes of the bars with `make test-storm`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from distill.asking.writing import write_request
from distill.config import TeacherConfig
from distill.files import file_digest, read_records
from distill.records import Candidate, Failure, Scenario, digest
from distill.run.folder import RunFolder
from distill.testing import server
from distill.testing.faults import RandomFaults
from distill.testing.responses import Body, Response
from distill.testing.server import ChatServer

KEY = "sk-never-to-be-written-0123456789"
slow = pytest.mark.storm


class Desk:
    """The workflow of the desk, with a teacher at `url`."""

    def __init__(self, folder: Path, url: str, scenarios: int, **teacher: object) -> None:
        self.folder = folder
        self.run = folder / "run"
        # The first round asks for a quarter more than the target, and is the only one.
        target = scenarios * 4 // 5
        settings = {"concurrency": 64, "timeout": 2.0, "gate": 0.0, **teacher}
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        toml = f"[data]\nmax_rounds = 1\ntarget = {target}\n[teacher]\n" + "\n".join(lines)
        (folder / "distill.toml").write_text(toml)
        self.command = [
            *(sys.executable, "-m", "distill", "gen", "--rules", str(folder / "rules.md")),
            *("--out", str(self.run), "--teacher", "openai", "--model", "kit", "--base-url", url),
        ]
        self.environment = {**os.environ, "OPENAI_API_KEY": KEY, "NO_COLOR": "1"}

    def begin(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def gen(self, *more: str) -> tuple[int, str]:
        """The exit code, and all that was said."""
        done = subprocess.run(
            [*self.command, *more],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    def counts(self, stage: str) -> dict[str, Any]:
        stages = json.loads((self.run / "manifest.json").read_text())["stages"]
        return dict(stages[stage]["counts"])

    def read(self, name: str, kind: type[Any]) -> list[Any]:
        return read_records(self.run / name, kind)

    def kept(self) -> set[str]:
        """The keys of the replies that are committed."""
        path = self.run / "2-generate" / "replies.sqlite"
        if not path.exists():
            return set()
        with closing(sqlite3.connect(path)) as store:
            tables = store.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            return {key for (key,) in store.execute("SELECT key FROM replies")} if tables else set()


def key_of(body: Body) -> str:
    """The key under which distill keeps the reply to what was sent."""
    said = [[message["role"], digest(message["content"])] for message in body["messages"]]
    schema = body["response_format"]["json_schema"]["schema"]
    asked = digest([said, schema, body["temperature"], body["max_tokens"], body["seed"]])
    return digest(["openai/kit", asked])


def faithful(*odd: Callable[[Body], Response]) -> Callable[[Body], Response]:
    """A model that answers one request always the same, and one in twenty badly."""

    def answer(body: Body) -> Response:
        luck = random.Random(f"model {body.digest}")
        return luck.choice(odd)(body) if odd and luck.random() < 0.05 else server.good(body)

    return answer


def storm(seed: int = 1) -> RandomFaults:
    return RandomFaults(
        seed,
        default=faithful(server.truncated, server.wrong_shape, server.raw_newline),
        retry_after=0.2,
        rate_limited=0.20,
        broken=0.03,
        unavailable=0.02,
        stalled=0.03,
        reset=0.01,
        reset_halfway=0.01,
    )


@pytest.mark.parametrize("scenarios", [250, pytest.param(5000, marks=slow)])
def test_all_are_accounted_for_and_only_the_failed_are_owed(desk: Path, scenarios: int) -> None:
    with ChatServer(storm(), latency=0.02) as chat:
        run = Desk(desk, chat.url, scenarios, attempts=2, timeout=1.0)
        code, said = run.gen()
        assert code in (0, 3), said
        made = run.counts("generate")
        candidates = run.read("2-generate/candidates.jsonl", Candidate)
        failures = run.read("2-generate/failures.jsonl", Failure)
        planned = run.read("1-plan/scenarios.jsonl", Scenario)
        assert made["in"] == len(planned) >= scenarios
        assert made["candidates"] == len(candidates)
        assert sum(made["failures"].values()) == len(failures) > 0
        ended = [item.scenario.id for item in [*candidates, *failures]]
        assert sorted(ended) == sorted(scenario.id for scenario in planned)
        for stage in ("validate", "dedup", "balance"):
            counts = run.counts(stage)
            assert counts["in"] == counts["kept"] + sum(counts["rejected"].values())

        before = chat.count
        chat.default = faithful()
        code, said = run.gen("--redo")
        assert code in (0, 3), said
        assert run.counts("generate")["failures"] == {}
        opened = RunFolder.open(run.run)
        prompts = {
            write_request(each.scenario, opened.workflow, TeacherConfig()).messages[1].content
            for each in failures
        }
        assert {body["messages"][1]["content"] for body in chat.requests[before:]} == prompts
        sifted = [run.counts(stage) for stage in ("validate", "dedup", "balance")]
        rejected = sum(sum(counts["rejected"].values()) for counts in sifted)
        print(
            f"\n  {made['in']} asked with {before} requests, {made['failures']} failed at first; "
            f"then {chat.count - before} requests: {sifted[-1]['kept']} accepted, {rejected} "
            f"rejected, 0 failed"
        )
        assert sifted[-1]["kept"] + rejected == made["in"]


@pytest.mark.parametrize(("scenarios", "kills"), [(250, 3), pytest.param(5000, 20, marks=slow)])
def test_killed_at_random_it_ends_in_the_same_bytes_and_pays_once(
    desk: Path, tmp_path: Path, scenarios: int, kills: int
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    for file in desk.iterdir():
        (whole / file.name).write_bytes(file.read_bytes())
    with ChatServer(storm(2), latency=0.02) as chat:
        expected = Desk(whole, chat.url, scenarios)
        code, said = expected.gen()
        assert code in (0, 3), said
        sent = chat.count

    luck = random.Random(scenarios)
    snapshots: list[tuple[int, set[str]]] = []
    with ChatServer(storm(3), latency=0.02) as chat:
        run = Desk(desk, chat.url, scenarios)
        for number in range(kills):
            # Evenly spread on average, with enough left for the last one.
            instant = chat.count + luck.randint(1, 2 * sent // (kills + 2))
            child = run.begin()
            while chat.count < instant and child.poll() is None:
                time.sleep(0.002)
            assert child.poll() is None, f"it was done before kill {number + 1}"
            child.send_signal(signal.SIGKILL)
            child.communicate()
            while chat.in_flight:
                time.sleep(0.01)
            snapshots.append((chat.count, run.kept()))
        code, said = run.gen()
        assert code in (0, 3), said
        sent_keys = [key_of(body) for body in chat.requests]
    kills_at = [count for count, _ in snapshots]
    print(f"\n  killed after requests {kills_at}: {len(sent_keys)} in all, {sent} without a kill")
    for count, committed in snapshots:
        assert [key for key in sent_keys[count:] if key in committed] == []
    assert len(snapshots[-1][1]) > len(snapshots[0][1]) > 0
    for name in ("1-plan/scenarios", "2-generate/candidates", "2-generate/failures"):
        one, other = (file_digest(each.run / f"{name}.jsonl") for each in (expected, run))
        assert one == other, name
    for name in ("train", "dev", "test"):
        one, other = (file_digest(each.run / f"6-split/{name}.jsonl") for each in (expected, run))
        assert one == other, name


def test_the_key_is_never_written(desk: Path) -> None:
    """Neither by a server that repeats it in errors and replies, nor by anything of ours."""
    said = ""
    with ChatServer(latency=0.0) as chat:
        run = Desk(desk, chat.url, 40)
        loud = [
            server.echoing_key(500),
            server.echoing_key(429),
            server.replying_with(f"key {KEY}"),
        ]
        chat.script(*loud * 5, server.echoing_key(401))
        for _ in range(2):
            said += run.gen()[1]
            chat.default = server.good
    assert chat.headers[0]["authorization"] == f"Bearer {KEY}"
    files = [path for path in run.run.rglob("*") if path.is_file()]
    assert len(files) > 10
    leaks = [str(path) for path in files if KEY.encode() in path.read_bytes()]
    assert leaks == []
    assert KEY not in said


@pytest.mark.parametrize(
    ("behaviour", "cause", "way_out"),
    [
        (server.unauthorised, "refuses the key", "OPENAI_API_KEY"),
        (server.unknown_model, 'no model "kit"', "--model"),
        (server.out_of_credit, "credit", "goes on"),
    ],
)
def test_a_bad_key_or_model_stops_within_the_first_requests(
    desk: Path, behaviour: Callable[[Body], Response], cause: str, way_out: str
) -> None:
    with ChatServer(behaviour, latency=0.1) as chat:
        code, said = Desk(desk, chat.url, 2000).gen()
        assert code == 1
        assert cause in said
        assert way_out in said
        # Those that were under way when the first answer came, and none of them twice.
        assert chat.count <= 64
        assert len({body.digest for body in chat.requests}) == chat.count


def test_a_budget_stops_cleanly_and_a_larger_one_goes_on(desk: Path) -> None:
    with ChatServer() as chat:
        run = Desk(desk, chat.url, 100, concurrency=8)
        code, said = run.gen("--budget-tokens", "3000")
        assert code == 3, said
        assert "--budget-tokens" in said
        bought = run.kept()
        assert 0 < len(bought) < 100
        paid = chat.count
        assert len(bought) == paid
        code, said = run.gen("--budget-tokens", "10000000")
        assert code in (0, 3), said
        assert not {key_of(body) for body in chat.requests[paid:]} & bought
        assert bought < run.kept()
