"""A process that starts a server and outlives distill by the seconds it takes to stop that server.

    python -I -S guardian.py PARENT GRACE COMMAND [ARGUMENT...]

distill holds the other end of this script's stdin. When that end closes, in whatever way distill
ended, the server's process group gets SIGTERM and, GRACE seconds later, every process that came of
the server gets SIGKILL. A server that exits by itself takes its own children with it in the same
way. It is two processes, outer and inner: if one of them is killed, the other one cleans up.

Run as a script, by path: it imports nothing of distill's, so that it starts within milliseconds.
stdin: the lifeline. stdout: one line, `started PID` or `failed REASON`. stderr: the server's log.
Exit status: the server's, with 128 + N for signal N.
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
PATIENCE = 15.0
TICK = 0.1

LINUX = sys.platform.startswith("linux")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None) if LINUX else None


class Guard:
    """Watches one child until it ends, its lifeline closes, or a SIGTERM comes."""

    def __init__(self, lifeline: int, parent: int) -> None:
        self._lifeline = lifeline
        self._parent = parent
        self._told_to_stop = False
        self._status: int | None = None
        self._child = 0
        signal.signal(signal.SIGTERM, self._on_term)
        # Handlers, where SIG_IGN would be inherited by the server.
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, lambda *_: None)
        _prctl(PR_SET_CHILD_SUBREAPER, 1)

    def run(self, start: Callable[[], int], *, group: bool, grace: float) -> int:
        """Start the child, see it out, and leave nothing of it behind; its exit status."""
        self._child = start()
        while not (self._ended() or self._abandoned()):
            pass
        self._signal(signal.SIGTERM, group)
        self._await_all(grace)
        self._kill_all(group)
        return 1 if self._status is None else self._status

    def _on_term(self, *_: object) -> None:
        self._told_to_stop = True

    def _abandoned(self) -> bool:
        """Whether nobody wants the server any more; waits one tick for the news."""
        ready, _, _ = select.select([self._lifeline], [], [], TICK)
        closed = bool(ready) and not os.read(self._lifeline, 64)
        # A process forked from the parent may hold the lifeline open: the parent's id is surer.
        return closed or self._told_to_stop or os.getppid() != self._parent

    def _ended(self) -> bool:
        self._reap()
        return self._status is not None

    def _reap(self) -> None:
        """Collect every child that has ended: orphans of the server come to this process."""
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

    def _signal(self, number: signal.Signals, group: bool) -> None:
        """To the child, or its process group, and to whoever of its offspring left that group."""
        if group:
            self._tell_group(number)
        elif self._status is None:
            os.kill(self._child, number)
            # The inner guardian tells the server itself. Where it is gone, its orphans are told.
            return
        _tell_all(number)

    def _tell_group(self, number: signal.Signals) -> None:
        # The id of a child that was collected may be somebody else's by now.
        if self._status is None or not LINUX:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child, number)

    def _await_all(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._alone():
            time.sleep(TICK / 2)

    def _kill_all(self, group: bool) -> None:
        """SIGKILL until nobody is left: processes may fork while they are being counted."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not self._alone():
            if group:
                self._tell_group(signal.SIGKILL)
            _tell_all(signal.SIGKILL)
            time.sleep(TICK / 2)

    def _alone(self) -> bool:
        """Whether nothing is left. Looked at twice: /proc is no snapshot, and parents vanish."""
        self._reap()
        if self._status is None or self._group_lives():
            return False
        return not any(_descendants()) and not any(_descendants())

    def _group_lives(self) -> bool:
        """Whether the child's process group has members; asked where there is no /proc."""
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
    """Guard the command; two processes, so that one SIGKILL leaves somebody to clean up."""
    parent, grace, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    outer = Guard(sys.stdin.fileno(), parent)
    lifeline, held = os.pipe()
    outside = os.getpid()

    def inner() -> int:
        pid = os.fork()
        if pid:
            os.close(lifeline)
            os.close(1)
            return pid
        os.close(held)
        os.close(0)
        os._exit(_inner(lifeline, outside, grace, command))

    # Longer than the inner one takes: it is to finish its work.
    return outer.run(inner, group=False, grace=grace + 2)


def _inner(lifeline: int, outer: int, grace: float, command: list[str]) -> int:
    guard = Guard(lifeline, outer)
    try:
        return guard.run(lambda: _start(command), group=True, grace=grace)
    except OSError as error:
        _say(f"failed {error.strerror or error}")
        return 127


def _start(command: list[str]) -> int:
    guardian = os.getpid()

    def before_exec() -> None:
        # The last resort, should both guardians be killed at once.
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != guardian:
            os._exit(1)

    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        start_new_session=True,
        preexec_fn=before_exec,
    )
    _say(f"started {server.pid}")
    # Waited for with all its orphans, never through this object.
    server.returncode = 0
    return server.pid


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())
        os.close(1)


def _prctl(option: int, value: int) -> None:
    if _libc is not None:
        _libc.prctl(option, int(value), 0, 0, 0)


def _tell_all(number: signal.Signals) -> None:
    for pid in _descendants():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _descendants() -> list[int]:
    """Living processes below this one, as /proc has them; none where there is no /proc."""
    children: dict[int, list[tuple[int, bool]]] = {}
    for pid, parent, living in _processes():
        children.setdefault(parent, []).append((pid, living))
    found, waiting = [], [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        waiting += [pid for pid, _ in below]
        found += [pid for pid, living in below if living]
    return found


def _processes() -> Iterator[tuple[int, int, bool]]:
    """Every process, its parent, and whether it lives: zombies are over, their children not."""
    if not LINUX:
        return
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/stat", "rb") as file:
                # The name, in brackets, may hold anything: what follows the last one is fixed.
                state, parent = file.read().rpartition(b")")[2].split()[:2]
            yield int(name), int(parent), state not in (b"Z", b"X")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
