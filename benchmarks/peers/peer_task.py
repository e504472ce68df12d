"""What every contender is given, and what it has to say at the end. Standard library only.

A contender is one script, run by the interpreter of its own environment with one argument: the
path of a task. It sends one chat completion for each prompt and ends by printing how many texts it
delivered, and how many of those hold what was asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

MODEL = "mock"


class Task(NamedTuple):
    """One job, the same for everybody."""

    url: str
    """The base URL of the server, with /v1."""
    requests: int
    concurrency: int
    """Requests under way at one time."""
    rules: str
    """The workflow that the prompts are about, for distill, which makes its prompts itself."""
    rule: str
    """The rule of it that they are all about."""
    variant: str
    """How to go about it, for a contender that has several ways."""
    folder: Path
    """An empty folder to work in."""

    def prompts(self) -> list[dict[str, str]]:
        """Rows with a `system` text, always the same, and a `user` text: one request each."""
        said = json.loads((self.folder / "prompts.json").read_text("utf-8"))
        return [{"system": said["system"], "user": user} for user in said["users"]]


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
    """Say how many rows there are and how many of them are valid, as the last line of stdout."""
    rows = list(texts)
    report(valid=sum(is_valid(text) for text in rows), rows=len(rows))


def report(*, valid: int, rows: int) -> None:
    print(f"\n{json.dumps({'valid': valid, 'rows': rows})}", flush=True)
