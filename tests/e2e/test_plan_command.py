"""What a run will cost is said before it is spent, and what was spent and is owed after."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.stages.pipeline import GIVEN_UP_AFTER
from distill.testing import server
from distill.testing.responses import Body, Response
from distill.testing.server import ChatServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]
EMPTY = {"name": "search_collection", "arguments": {"query": "x"}}
MODEL = ("--teacher", "openai", "--model", "gpt-5-mini")


def forecast(distill: Run, desk: Path, *more: object) -> dict[str, Any]:
    done = distill("plan", "--rules", desk / "rules.md", "--out", "run", "--json", *more)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_forecast_sends_and_writes_nothing(desk: Path, distill: Run, tmp_path: Path) -> None:
    with ChatServer() as chat:
        url = ("--base-url", chat.url)
        found = forecast(distill, desk, *MODEL, *url, "--target", 90, "--gate", 0.9)
        assert chat.count == 0
    assert not (tmp_path / "run").exists()
    assert (found["planned"], found["kept"], found["gate"]) == (114, 0, 3)
    assert found["low"] == found["high"]
    assert found["low"]["requests"] == 117
    # The rules are in each prompt: some hundred tokens, not ten and not ten thousand.
    assert 300 < found["low"]["prompt_tokens"] / 117 < 3000
    assert 10 < found["low"]["completion_tokens"] / 117 < 100
    assert found["low"]["usd"] == 0.0  # a server of one's own


def test_a_batch_needs_fewer_requests_and_says_the_rules_less_often(
    desk: Path, distill: Run
) -> None:
    one, five = (forecast(distill, desk, "--target", 90, "--batch", size) for size in (1, 5))
    assert one["low"]["requests"] == 114
    assert five["low"]["requests"] == 23
    assert five["low"]["prompt_tokens"] < one["low"]["prompt_tokens"] * 0.6
    assert five["low"]["completion_tokens"] == pytest.approx(
        one["low"]["completion_tokens"], rel=0.1
    )


def test_a_hosted_model_has_its_price_and_an_unknown_one_says_how_to_give_it(
    desk: Path, distill: Run
) -> None:
    known = forecast(distill, desk, *MODEL, "--target", 1000)
    assert 0.01 < known["low"]["usd"] < 10
    done = distill("plan", "--rules", desk / "rules.md", *MODEL[:2], "--model", "newest")
    assert done.returncode == 0, done.stderr
    assert '[teacher.prices."newest"]' in done.stdout
    refused = distill(
        "gen", "--rules", desk / "rules.md", *MODEL[:2], "--model", "newest", "--budget-usd", 1
    )
    assert refused.returncode == 1 or refused.returncode == 2
    assert "Traceback" not in refused.stderr


def test_a_probe_measures_and_its_replies_are_the_runs(
    desk: Path, distill: Run, tmp_path: Path
) -> None:
    with ChatServer(latency=0.05) as chat:
        given = (*MODEL, "--base-url", chat.url, "--target", 40, "--gate", 0)
        found = forecast(distill, desk, *given, "--probe", 12)
        assert chat.count == 12
        probe = found["probe"]
        assert (probe["asked"], probe["failed"], found["kept"]) == (12, 0, 12)
        # The kit's server says 11 and 7 tokens whatever it is asked.
        assert (probe["each"]["prompt_tokens"], probe["each"]["completion_tokens"]) == (11, 7)
        assert probe["each"]["seconds"] >= 0.05
        assert found["low"]["prompt_tokens"] == 11 * found["low"]["requests"]
        assert found["low"]["requests"] <= found["high"]["requests"]
        # Nothing was made of the probe's settings yet: others are no contradiction.
        more = ("--target", 50, "--concurrency", 4)
        done = distill("gen", "--rules", desk / "rules.md", "--out", "run", *given, *more)
        assert done.returncode in (0, 3), done.stderr
        bodies = [body.digest for body in chat.requests]
        assert len(bodies) == len(set(bodies))

    said = json.loads(distill("status", "run", "--json").stdout)
    spent = {entry["stage"]: entry["requests"] for entry in said["spent"]}
    assert spent["probe"] == 12
    assert sum(spent.values()) == len(bodies)
    shown = distill("status", "run").stdout
    assert "probe" in shown
    assert "completion" in shown


def test_status_says_how_much_is_owed(desk: Path, distill: Run) -> None:
    with ChatServer() as chat:
        chat.script(*[server.good] * 20, *[server.unauthorised] * 500)
        given = (*MODEL, "--base-url", chat.url, "--target", 80, "--gate", 0)
        stopped = distill(
            "gen", "--rules", desk / "rules.md", "--out", "run", "--concurrency", 2, *given
        )
        assert stopped.returncode == 1
    shown = distill("status", "run")
    assert "20 of 101 scenarios answered" in " ".join(shown.stdout.split())


def test_the_worst_case_is_not_exceeded_where_a_rule_never_passes(desk: Path, distill: Run) -> None:
    """A teacher that cannot write one rule is where the money goes."""

    def answer(body: Body) -> Response:
        if "Rule: collection" in body["messages"][-1]["content"]:
            return server.completion(json.dumps({"user": " ", "calls": [EMPTY]}))
        return server.good(body)

    with ChatServer(answer) as chat:
        given = (*MODEL, "--base-url", chat.url, "--target", 9, "--gate", 0)
        found = forecast(distill, desk, *given, "--probe", 12)
        probed = chat.count
        done = distill("gen", "--rules", desk / "rules.md", "--out", "run", *given)
        assert done.returncode == 3, done.stderr
        assert found["low"]["requests"] > GIVEN_UP_AFTER
        assert chat.count - probed <= found["high"]["requests"]


def test_what_failed_is_said_to_be_owed(desk: Path, distill: Run) -> None:
    with ChatServer(server.RandomFaults(1, refused=0.2)) as chat:
        given = (*MODEL, "--base-url", chat.url, "--target", 40, "--gate", 0)
        distill("gen", "--rules", desk / "rules.md", "--out", "run", *given)
    assert "refused" in distill("status", "run").stdout


def test_no_secret_of_an_address_is_written(desk: Path, distill: Run, tmp_path: Path) -> None:
    with ChatServer() as chat:
        url = chat.url.replace("//", "//me:hunter2secret@") + "?key=sk-in-the-query"
        given = (*MODEL, "--base-url", url, "--target", 12, "--gate", 0)
        done = distill("gen", "--rules", desk / "rules.md", "--out", "run", *given)
        assert done.returncode in (0, 3), done.stderr
        assert chat.count > 10
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            assert b"hunter2secret" not in path.read_bytes()
            assert b"sk-in-the-query" not in path.read_bytes()


def test_what_cannot_be_paid_leaves_a_finished_run_as_it_is(
    desk: Path, distill: Run, tmp_path: Path
) -> None:
    gen = ("gen", "--rules", desk / "rules.md", "--out", "run", "--target", 12)
    assert distill(*gen).returncode == 0
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    more = ("--teacher", "openai", "--model", "newest", "--budget-usd", 1, "--redo")
    environment = {"OPENAI_API_KEY": "sk-0123456789"}
    refused = distill(*gen, *more, environment=environment)
    assert refused.returncode == 2, refused.stderr
    assert "newest" in refused.stderr
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before
