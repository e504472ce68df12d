"""The task of every contender, and the report at its end. Standard library only.

A contender is one script, run by the interpreter of its own environment with one argument: the
path of a task. It sends one chat completion for each prompt and ends by printing how many texts it
delivered, and how many of those are valid.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

MODEL = "mock"


class Task(NamedTuple):
    """The task, the same for every contender."""

    url: str
    """The base URL of the server, with /v1."""
    requests: int
    concurrency: int
    """Requests in flight."""
    rules: str
    """The workflow of the prompts, for distill, which renders them itself."""
    rule: str
    """The rule of that workflow that all prompts are about."""
    variant: str
    """The configuration, for a contender that takes part with several."""
    folder: Path
    """An empty folder to work in."""

    def prompts(self) -> list[dict[str, str]]:
        """Rows with a `system` text, always the same, and a `user` text: one request each."""
        prompts = json.loads((self.folder / "prompts.json").read_text("utf-8"))
        return [{"system": prompts["system"], "user": user} for user in prompts["users"]]


def read_task() -> Task:
    """The task whose file is this process's argument."""
    path = Path(sys.argv[1])
    return Task(**json.loads(path.read_text("utf-8")), folder=path.parent)


def is_valid(text: Any) -> bool:
    """Whether a text is the JSON object that every prompt asks for."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return False
    if not isinstance(value, dict) or not isinstance(value.get("user"), str):
        return False
    calls = value.get("calls")
    return isinstance(calls, list) and bool(calls) and all("arguments" in call for call in calls)


def deliver(texts: Iterable[Any]) -> None:
    """Print the numbers of rows and of valid rows as the last line of stdout."""
    rows = list(texts)
    report(valid=sum(is_valid(text) for text in rows), rows=len(rows))


def report(*, valid: int, rows: int) -> None:
    print(f"\n{json.dumps({'valid': valid, 'rows': rows})}", flush=True)
