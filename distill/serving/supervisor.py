"""A supervisor process that starts a server, and stops it when distill has ended.

    python -I -S supervisor.py PARENT_PID GRACE COMMAND [ARGUMENT...]

distill holds the write end of this script's stdin. When that closes, in whatever way distill ended,
the server's process group gets SIGTERM and, GRACE seconds later, all descendants of the server get
SIGKILL. When the server exits by itself, its descendants are killed in the same way. There are two
processes, outer and inner: if one of them is killed, the other one cleans up.

Run as a script, by path: it imports nothing of distill's, so that it starts within milliseconds.
stdin: the pipe from the parent. stdout: one line, `started PID` or `failed REASON`. stderr: the
server's log. Exit status: the server's, with 128 + N for signal N.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

# Seconds.
KILL_TIMEOUT = 15.0
POLL_INTERVAL = 0.1

LINUX = sys.platform.startswith("linux")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None) if LINUX else None


class Supervisor:
    """Watches one child until it exits, the parent pipe closes, or a SIGTERM arrives."""

    def __init__(self, parent_pipe: int, parent: int) -> None:
        self._parent_pipe = parent_pipe
        self._parent = parent
        self._terminated = False
        self._status: int | None = None
        self._child = 0
        signal.signal(signal.SIGTERM, self._on_term)
        # Handlers that do nothing: the server would inherit SIG_IGN.
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, lambda *_: None)
        _prctl(PR_SET_CHILD_SUBREAPER, 1)

    def run(self, start: Callable[[], int], *, whole_group: bool, grace: float) -> int:
        """The exit status of the child, once it and all its descendants have exited."""
        self._child = start()
        while not (self._has_exited() or self._should_stop()):
            pass
        self._terminate(whole_group)
        self._wait_for_exit(grace)
        self._kill_until_exit(whole_group)
        return 1 if self._status is None else self._status

    def _on_term(self, *_: object) -> None:
        self._terminated = True

    def _should_stop(self) -> bool:
        """Whether the parent has ended or wants this to end; waits for one poll interval."""
        ready, _, _ = select.select([self._parent_pipe], [], [], POLL_INTERVAL)
        closed = bool(ready) and not os.read(self._parent_pipe, 64)
        # A process that the parent forked may hold the pipe open: its pid is more reliable.
        return closed or self._terminated or os.getppid() != self._parent

    def _has_exited(self) -> bool:
        self._reap()
        return self._status is not None

    def _reap(self) -> None:
        """Reap every child that has exited; as a subreaper, this gets the server's orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child:
                code = os.waitstatus_to_exitcode(status)
                self._status = code if code >= 0 else 128 - code

    def _terminate(self, whole_group: bool) -> None:
        """SIGTERM to the child or its process group, and to descendants that left the group."""
        if whole_group:
            self._signal_group(signal.SIGTERM)
        elif self._status is None:
            os.kill(self._child, signal.SIGTERM)
            # The inner supervisor signals the server. Once it has exited, its orphans are here.
            return
        _signal_descendants(signal.SIGTERM)

    def _signal_group(self, number: signal.Signals) -> None:
        # The pid of a child that was reaped may be another process's by now.
        if self._status is None or not LINUX:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child, number)

    def _wait_for_exit(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._all_exited():
            time.sleep(POLL_INTERVAL / 2)

    def _kill_until_exit(self, whole_group: bool) -> None:
        """SIGKILL, repeated: processes may fork while they are being listed."""
        end = time.monotonic() + KILL_TIMEOUT
        while time.monotonic() < end and not self._all_exited():
            if whole_group:
                self._signal_group(signal.SIGKILL)
            _signal_descendants(signal.SIGKILL)
            time.sleep(POLL_INTERVAL / 2)

    def _all_exited(self) -> bool:
        """Whether no process is left. Listed twice: /proc is no snapshot, and parents exit."""
        self._reap()
        if self._status is None or self._group_exists():
            return False
        return not any(_descendants()) and not any(_descendants())

    def _group_exists(self) -> bool:
        """Whether the child's process group has members; used where there is no /proc."""
        if LINUX:
            return False
        try:
            os.killpg(self._child, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def main(arguments: list[str]) -> int:
    """Supervise the command with two processes: one is left if the other gets a SIGKILL."""
    parent, grace, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    outer = Supervisor(sys.stdin.fileno(), parent)
    parent_pipe, write_end = os.pipe()
    outer_pid = os.getpid()

    def inner() -> int:
        pid = os.fork()
        if pid:
            os.close(parent_pipe)
            os.close(1)
            return pid
        os.close(write_end)
        os.close(0)
        os._exit(_run_inner(parent_pipe, outer_pid, grace, command))

    # Longer than the inner supervisor takes to stop the server.
    return outer.run(inner, whole_group=False, grace=grace + 2)


def _run_inner(parent_pipe: int, outer: int, grace: float, command: list[str]) -> int:
    supervisor = Supervisor(parent_pipe, outer)
    try:
        return supervisor.run(lambda: _start_server(command), whole_group=True, grace=grace)
    except OSError as error:
        _report(f"failed {error.strerror or error}")
        return 127


def _start_server(command: list[str]) -> int:
    supervisor_pid = os.getpid()

    def before_exec() -> None:
        # The last resort, should both supervisors be killed at once.
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor_pid:
            os._exit(1)

    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        start_new_session=True,
        preexec_fn=before_exec,
    )
    _report(f"started {server.pid}")
    # Reaped with all its orphans, never through this object.
    server.returncode = 0
    return server.pid


def _report(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())
        os.close(1)


def _prctl(option: int, value: int) -> None:
    if _libc is not None:
        _libc.prctl(option, int(value), 0, 0, 0)


def _signal_descendants(number: signal.Signals) -> None:
    for pid in _descendants():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _descendants() -> list[int]:
    """The pids of this process's descendants, zombies aside; none where there is no /proc."""
    children: dict[int, list[tuple[int, bool]]] = {}
    for pid, parent, alive in _processes():
        children.setdefault(parent, []).append((pid, alive))
    found, waiting = [], [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        waiting += [pid for pid, _ in below]
        found += [pid for pid, alive in below if alive]
    return found


def _processes() -> Iterator[tuple[int, int, bool]]:
    """Every pid in /proc, its parent, and whether it is alive: zombies are not."""
    if not LINUX:
        return
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/stat", "rb") as file:
                # The command name, in brackets, may hold anything, brackets included.
                state, parent = file.read().rpartition(b")")[2].split()[:2]
            yield int(name), int(parent), state not in (b"Z", b"X")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
