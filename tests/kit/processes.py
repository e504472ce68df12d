"""Processes in /proc; zombies do not count as running."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path


def alive(pids: Iterable[int]) -> list[int]:
    """Those of `pids` that are running."""
    return [pid for pid in pids if _state(pid) not in ("", "Z", "X")]


def wait_for_exit(pids: Iterable[int], seconds: float = 60.0) -> float:
    """Seconds until none of `pids` is running. AssertionError after `seconds`."""
    begun = time.monotonic()
    asked = list(pids)
    while left := alive(asked):
        assert time.monotonic() - begun < seconds, f"still running: {left}"
        time.sleep(0.02)
    return time.monotonic() - begun


def descendants(parent: int) -> list[int]:
    """The pids of all descendants of `parent`."""
    parents = {
        int(path.parent.name): int(fields[1])
        for path in Path("/proc").glob("[0-9]*/stat")
        if (fields := _fields(path)) and fields[0] not in ("Z", "X")
    }
    found = [parent]
    for pid in found:
        found += [child for child, above in parents.items() if above == pid]
    return found[1:]


def in_session(leader: int) -> list[int]:
    """The pids of a session: orphans stay in it."""
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if (fields := _fields(path)) and fields[0] not in ("Z", "X") and int(fields[3]) == leader
    ]


def _state(pid: int) -> str:
    fields = _fields(Path(f"/proc/{pid}/stat"))
    return fields[0] if fields else ""


def _fields(path: Path) -> list[str]:
    """State, parent, group, session and so on; nothing for a process that is gone."""
    try:
        return path.read_text("latin-1").rpartition(")")[2].split()
    except OSError:
        return []
