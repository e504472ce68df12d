"""Fuzzes targets one after another: `python -m fuzz [TARGET…] --seconds N`; see `make fuzz`."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from fuzz import seeds
from fuzz.targets import FOUND, TARGETS, Target
from fuzz.worker import keep, read_journal

STUCK = 60.0
"""Seconds without another input after which a process is ended, and its input kept."""
WORK = seeds.ROOT / ".fuzz"
"""What reached new code in earlier runs, by target, and their logs."""


class Result(NamedTuple):
    target: str
    inputs: int
    edges: str
    """Branches of distill's code that were reached, as libFuzzer counts them."""
    found: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=300, help="for each target")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(
            f"unknown targets: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}"
        )
    for folder in seeds.missing():
        print(f"not there, and not started from: {folder}")
    print(f"{'target':14}{'inputs':>10}{'edges':>8}{'found':>7}{'seconds':>9}", flush=True)
    results = []
    for name in options.targets or TARGETS:
        results.append(fuzz(TARGETS[name], options.seconds))
        print("{:14}{:>10,}{:>8}{:>7}{:>9.0f}".format(*results[-1]), flush=True)
    if any(result.found for result in results):
        sys.exit(f"inputs that broke a target are in {FOUND}; the tracebacks, in {WORK}")


def fuzz(target: Target, seconds: int) -> Result:
    """Fuzz one target. A process that an input ends is started again for the time that is left."""
    folder = WORK / target.name
    folder.mkdir(parents=True, exist_ok=True)
    before, inputs, edges, start = set(target.found()), 0, "", time.monotonic()
    with open(folder / "log", "w") as log:
        while time.monotonic() < start + seconds:
            (folder / "input").unlink(missing_ok=True)
            command = [sys.executable, "-X", "faulthandler", "-m", "fuzz.worker"]
            worker = subprocess.Popen([*command, target.name, str(folder)], stdout=log, stderr=log)
            try:
                in_time = _watch(worker, folder / "input", start + seconds)
            finally:
                worker.kill()
                worker.wait()
            tried, last = read_journal(folder / "input")
            inputs += tried
            if not in_time:
                if not tried:
                    sys.exit(f"the worker did not start; see {folder / 'log'}")
                print(
                    f"ENDED {worker.returncode} by {keep(target.name, last)}", file=log, flush=True
                )
    covered = re.findall(r"cov: (\d+)", (folder / "log").read_text("utf-8", "replace"))
    edges = max(covered, key=int, default="")
    found = len(set(target.found()) - before)
    return Result(target.name, inputs, edges, found, time.monotonic() - start)


def _watch(worker: subprocess.Popen[bytes], journal: Path, end: float) -> bool:
    """Whether the worker was still at it at the end. One that is stuck is made to say where."""
    tried, since = 0, time.monotonic()
    while time.monotonic() < end:
        if worker.poll() is not None:
            return False
        time.sleep(0.5)
        now, _ = read_journal(journal)
        if now != tried:
            tried, since = now, time.monotonic()
        elif time.monotonic() - since > STUCK:
            os.kill(worker.pid, signal.SIGABRT)
            worker.wait(10)
    return True


if __name__ == "__main__":
    main()
