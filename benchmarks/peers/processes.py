"""Runs a contender as a subprocess, and measures its time and memory."""

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
# Seconds from SIGINT to SIGKILL.
STOP_GRACE = 10.0
# Seconds between polls; the memory of all processes is sampled every so many of them.
POLL_INTERVAL = 0.05
POLLS_PER_SAMPLE = 10
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
    # Wide enough that log lines are not wrapped.
    "COLUMNS": "200",
}


class ResourceUsage(NamedTuple):
    """The resources that a process and its children used, and how it ended."""

    wall: float
    cpu: float
    peak: float
    stopped: bool
    status: int


def environment_variables(envs: Path, folder: Path, url: str) -> dict[str, str]:
    """The environment variables of a contender: its own home, no telemetry, no keys."""
    inherited = {
        name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ
    }
    own = {"HOME": str(folder), "PYTHONPATH": str(ROOT), "OPENAI_BASE_URL": url}
    # tiktoken would download its tables; litellm, which some contender installs, has a copy.
    tables = next(envs.glob("*/lib/python*/site-packages/litellm/**/tokenizers"), None)
    if tables:
        own["TIKTOKEN_CACHE_DIR"] = str(tables)
    return {**inherited, **QUIET, **own}


def run_measured(
    command: Sequence[str], folder: Path, environment: dict[str, str], timeout: float
) -> ResourceUsage:
    """Run a command in a session of its own, and measure the whole session."""
    started_at, peak, stopped = time.monotonic(), 0.0, False
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=err, start_new_session=True
        )
    try:
        for turn in count():
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            lasted = time.monotonic() - started_at
            if lasted > timeout:
                signal_session(process.pid, signal.SIGKILL if stopped else signal.SIGINT)
                stopped, timeout = True, lasted + STOP_GRACE
            peak = max(peak, peak_rss(process.pid))
            if turn % POLLS_PER_SAMPLE == 0:
                peak = max(peak, session_pss(process.pid))
            time.sleep(POLL_INTERVAL)
    finally:
        # Children that outlive the contender; on an error here, the contender itself.
        signal_session(process.pid, signal.SIGKILL)
    process.returncode = os.waitstatus_to_exitcode(status)
    return ResourceUsage(
        wall=time.monotonic() - started_at,
        cpu=usage.ru_utime + usage.ru_stime,
        # Without /proc: ru_maxrss also counts the memory of this process before exec.
        peak=peak or usage.ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0),
        stopped=stopped,
        status=process.returncode,
    )


def signal_session(session: int, number: int) -> None:
    try:
        os.killpg(session, number)
    except (ProcessLookupError, PermissionError):
        return


def peak_rss(pid: int) -> float:
    """The peak resident set of a process in bytes; 0 where there is no /proc."""
    return proc_field(Path(f"/proc/{pid}/status"), "VmHWM:")


def session_pss(session: int) -> float:
    """The proportional set size of a session's processes in bytes; 0 for a single process."""
    members = [entry for entry in Path("/proc").glob("[0-9]*") if session_id(entry) == session]
    if len(members) < 2:
        return 0.0  # of a single one, `peak_rss` is exact
    return sum(proc_field(process / "smaps_rollup", "Pss:") for process in members)


def session_id(process: Path) -> int:
    try:
        return int((process / "stat").read_text("ascii", "replace").rpartition(")")[2].split()[3])
    except (OSError, ValueError, IndexError):
        return -1  # it has exited


def proc_field(path: Path, name: str) -> float:
    """The bytes of a field in a file of /proc; 0 where there is none."""
    try:
        lines = path.read_text("utf-8", "replace").split("\n")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024.0 for line in lines if line.startswith(name)), 0.0)


def last_line(text: str, having: str = "") -> str:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    selected = [line for line in lines if having in line] or lines or ["no reason given"]
    return selected[-1][:300]
