"""A teacher that cannot route gold does not get to write; what it got wrong is said by rule."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.testing import server
from distill.testing.responses import Body, Response
from distill.testing.server import ChatServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ROUTES: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "two adults": (
        "opening",
        "call",
        [{"name": "visitor_info", "arguments": {"topic": "two adults"}}],
    ),
    "Monet": (
        "collection",
        "call",
        [{"name": "search_collection", "arguments": {"query": "big Monet"}}],
    ),
    "cheers": ("thanks", "answer", []),
}


def router(*wrong: str) -> Callable[[Body], Response]:
    """A model that writes as the kit does, and routes right but for the cases named."""

    def answer(body: Body) -> Response:
        if "action" not in body["response_format"]["json_schema"]["schema"]["properties"]:
            return server.good(body)
        asked = body["messages"][-1]["content"]
        rule, action, calls = next(r for words, r in ROUTES.items() if words in asked)
        if any(words in asked for words in wrong):
            action, calls = "refuse", []
        said = {"because": "so", "rule": rule, "action": action, "calls": calls, "reply": "ok"}
        return server.completion(json.dumps(said))

    return answer


def test_below_the_gate_nothing_is_written_and_the_way_on_is_free(
    desk: Path, distill: Run, tmp_path: Path
) -> None:
    with ChatServer(router("Monet", "two adults")) as chat:
        gen = (
            *("gen", "--rules", desk / "rules.md", "--out", "run", "--target", 12),
            *("--teacher", "openai", "--model", "kit", "--base-url", chat.url),
        )
        stopped = distill(*gen)
        assert stopped.returncode == 3, stopped.stderr
        assert "1 of 3 gold cases right" in stopped.stderr
        for words in ("rule opening: 1 of 1 wrong", "rule collection: 1 of 1 wrong", "--gate"):
            assert words in stopped.stderr
        assert chat.count == 3
        assert not (tmp_path / "run" / "1-plan").exists()

        # A lower gate needs no new answers; what the teacher then writes does.
        on = distill(*gen, "--gate", 0.3)
        assert on.returncode in (0, 3), on.stderr
        assert (tmp_path / "run" / "2-generate" / "candidates.jsonl").exists()
        routed = [b for b in chat.requests if "Monet" in b["messages"][-1]["content"]]
        assert len(routed) == 1


def test_after_a_gate_the_rules_may_be_reworded(desk: Path, distill: Run, tmp_path: Path) -> None:
    with ChatServer(router("Monet")) as chat:
        gen = (
            *("gen", "--rules", desk / "rules.md", "--out", "run", "--target", 12),
            *("--teacher", "openai", "--model", "kit", "--base-url", chat.url),
        )
        assert distill(*gen).returncode == 3
        rules = desk / "rules.md"
        rules.write_text(rules.read_text("utf-8").replace("an artist", "a painter, an artist"))
        chat.default = router()
        on = distill(*gen)
        assert on.returncode in (0, 3), on.stderr
        assert "share 1" in on.stderr
        assert (tmp_path / "run" / "2-generate" / "candidates.jsonl").exists()
