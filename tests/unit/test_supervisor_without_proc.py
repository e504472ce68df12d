"""The supervisor where there is neither /proc nor prctl, as on macOS: the process group ends."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from kit.processes import alive, wait_for_exit

from distill.serving import supervisor

MACOS = "import runpy, sys; sys.platform = 'darwin'; sys.argv = sys.argv[1:]; " + (
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
# A worker that ignores SIGTERM, and a server that ends at it and leaves its worker behind.
SERVER = textwrap.dedent("""
    import os, signal, subprocess, sys, time
    worker = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", worker])
    time.sleep(0.5)
    with open(sys.argv[1], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(600)
""")


@pytest.mark.parametrize("how", ["pipe closes", "server ends"])
def test_a_worker_that_ignores_sigterm_is_killed(tmp_path: Path, how: str) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    pids_file = tmp_path / "pids"
    command = [sys.executable, "-I", "-S", "-c", MACOS, str(supervisor.__file__), str(os.getpid())]
    command += ["0.3", sys.executable, str(tmp_path / "server.py"), str(pids_file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"started")
    end = time.monotonic() + 60
    while not pids_file.exists() or len(pids_file.read_text().split()) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    pids = [int(pid) for pid in pids_file.read_text().split()]
    assert alive(pids) == pids
    if how == "pipe closes":
        process.stdin.close()
    else:
        os.kill(pids[0], 9)
    wait_for_exit(pids)
    process.wait(30)
    process.stdin.close()
    process.stdout.close()
