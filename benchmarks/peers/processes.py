"""A contender's processes: what surrounds them, what they take together, how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
# Seconds that a contender has to put its affairs in order once it is told to stop.
GRACE = 10.0
# Seconds between looks at a contender; its memory is looked at every so many of them.
GLANCE = 0.05
SAMPLED = 10
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "TELEMETRY_ENABLED": "false",
    "NEMO_TELEMETRY_ENABLED": "false",
    "DEEPFABRIC_NO_UPDATE_CHECK": "1",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_API_KEY": "none",
    # Wide enough that nobody wraps what is logged.
    "COLUMNS": "200",
}


class Used(NamedTuple):
    """What a process and its children took, and how it ended."""

    wall: float
    cpu: float
    peak: float
    stopped: bool
    status: int


def surroundings(envs: Path, folder: Path, url: str) -> dict[str, str]:
    """The environment variables of a contender: a home of its own, nothing told to anybody."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    own = {"HOME": str(folder), "PYTHONPATH": str(ROOT), "OPENAI_BASE_URL": url}
    # Those who count tokens with tiktoken would download its tables; litellm, which some peer has,
    # brings them along.
    tables = next(envs.glob("*/lib/python*/site-packages/litellm/**/tokenizers"), None)
    if tables:
        own["TIKTOKEN_CACHE_DIR"] = str(tables)
    return {**kept, **QUIET, **own}


def watched(
    command: Sequence[str], folder: Path, environment: dict[str, str], timeout: float
) -> Used:
    """Run a command in a session of its own, and count what the whole session takes."""
    began, peak, stopped = time.monotonic(), 0.0, False
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=err, start_new_session=True
        )
    try:
        for turn in count():
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            lasted = time.monotonic() - began
            if lasted > timeout:
                signalled(process.pid, signal.SIGKILL if stopped else signal.SIGINT)
                stopped, timeout = True, lasted + GRACE
            peak = max(peak, high_water(process.pid))
            if turn % SAMPLED == 0:
                peak = max(peak, memory_of_session(process.pid))
            time.sleep(GLANCE)
    finally:
        # Children that outlived it, and on a way out of here the contender itself.
        signalled(process.pid, signal.SIGKILL)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Used(
        wall=time.monotonic() - began,
        cpu=usage.ru_utime + usage.ru_stime,
        # Of a child the kernel counts what its parent had before exec, too: for want of better.
        peak=peak or usage.ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0),
        stopped=stopped,
        status=process.returncode,
    )


def signalled(session: int, number: int) -> None:
    try:
        os.killpg(session, number)
    except (ProcessLookupError, PermissionError):
        return


def high_water(pid: int) -> float:
    """The most bytes that a process has had so far; 0 where that cannot be told."""
    return field(Path(f"/proc/{pid}/status"), "VmHWM:")


def memory_of_session(session: int) -> float:
    """Bytes that the processes of a session take together, what they share counted once."""
    members = [entry for entry in Path("/proc").glob("[0-9]*") if session_of(entry) == session]
    if len(members) < 2:
        return 0.0  # of a single one the high-water mark says more
    return sum(field(process / "smaps_rollup", "Pss:") for process in members)


def session_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text("ascii", "replace").rpartition(")")[2].split()[3])
    except (OSError, ValueError, IndexError):
        return -1  # it is gone


def field(path: Path, name: str) -> float:
    """Bytes in a line of a file of /proc; 0 where there is none."""
    try:
        lines = path.read_text("utf-8", "replace").split("\n")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024.0 for line in lines if line.startswith(name)), 0.0)


def last_line(text: str, having: str = "") -> str:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    chosen = [line for line in lines if having in line] or lines or ["no reason given"]
    return chosen[-1][:300]
