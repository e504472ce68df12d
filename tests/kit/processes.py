"""Processes by psutil, on Linux and macOS; zombies do not count as running."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import psutil


def alive(pids: Iterable[int]) -> list[int]:
    """Those of `pids` that are running."""
    return [pid for pid in pids if _is_running(pid)]


def wait_for_exit(pids: Iterable[int], seconds: float = 60.0) -> float:
    """Seconds until none of `pids` is running. AssertionError after `seconds`."""
    begun = time.monotonic()
    asked = list(pids)
    while left := alive(asked):
        assert time.monotonic() - begun < seconds, f"still running: {left}"
        time.sleep(0.02)
    return time.monotonic() - begun


def descendants(parent: int) -> list[int]:
    """The pids of all running descendants of `parent`."""
    try:
        found = psutil.Process(parent).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return alive(process.pid for process in found)


def in_session(leader: int) -> list[int]:
    """The pids of a session: orphans stay in it."""

    def session(pid: int) -> int:
        try:
            return os.getsid(pid)
        except (ProcessLookupError, PermissionError):
            return -1

    return alive(pid for pid in psutil.pids() if session(pid) == leader)


def _is_running(pid: int) -> bool:
    try:
        status = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return False
    return status not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
