"""How many threads torch computes with: as many as there are CPUs that no other process uses.

OpenMP's threads wait for each other actively. Where another process takes one of their CPUs, all
of them spin until the one that has lost its CPU is scheduled again: on two CPUs beside one busy
process, training with two threads was 3 times slower than with one (`benchmarks/busy_neighbor.py`).
So the load of the machine is looked at while computing, and threads are given up and taken back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from distill.train import processes

Progress = Callable[[int, int, str], None]

PERIOD = 5.0
"""Seconds between two looks at the machine's load."""
FIRST = 1.0
"""Seconds until the first one."""


class CpuTimes(NamedTuple):
    """CPU seconds since some moment in the past, at a time of `time.monotonic`."""

    at: float
    machine: float
    """On the CPUs that this process may use, by whatever process."""
    own: float
    cpus: int


def set_threads(threads: int) -> None:
    """Let torch compute with so many threads; 0: one for each CPU that this process may use.

    Processes that train together on one machine divide its CPUs.
    """
    import torch

    torch.set_num_threads(threads or usable_cpus())


def adapt_threads(threads: int, progress: Progress, notice: Callable[[str], None]) -> Progress:
    """`set_threads`, and a `progress` that follows the machine's load as often as it is called.

    It has to be called by the thread that computes. A fixed number of threads stays as it is, and
    so it does in one of several processes: each would take the others for a load. The first time
    that threads are given up is a `notice`: sums in another order are rounded otherwise.
    """
    set_threads(threads)
    if threads or processes.process_rank().world_size > 1:
        return progress
    last, due, told = cpu_times(), time.monotonic() + FIRST, False

    def adapting(done: int, total: int, note: str) -> None:
        nonlocal last, due, told
        if time.monotonic() >= due:
            now, most = cpu_times(), usable_cpus()
            free = free_threads(last, now, most)
            set_threads(free)
            if free < most and not told:
                told = True
                notice(
                    f"other processes are busy: {free} of {most} threads compute for now; "
                    f"for the same bits each time: --threads {most}"
                )
            last, due = now, time.monotonic() + PERIOD
        progress(done, total, note)

    return adapting


def usable_cpus() -> int:
    """CPUs by affinity and by the quota of a container, for each process of this training."""
    from joblib import cpu_count  # type: ignore[import-untyped]

    return max(1, int(cpu_count()) // processes.process_rank().local_world_size)


def free_threads(before: CpuTimes, after: CpuTimes, most: int) -> int:
    """CPUs that other processes left free between two samples: at least 1, at most `most`."""
    used = (after.machine - before.machine) - (after.own - before.own)
    others = max(0.0, used) / (after.at - before.at)
    return max(1, min(most, math.floor(after.cpus - others + 0.5)))


def cpu_times() -> CpuTimes:
    """A sample of now."""
    import psutil  # type: ignore[import-untyped]

    process, per_cpu = psutil.Process(), psutil.cpu_times(percpu=True)
    if hasattr(process, "cpu_affinity"):  # not on macOS
        per_cpu = [per_cpu[cpu] for cpu in process.cpu_affinity() if cpu < len(per_cpu)]
    machine = sum(times.user + times.nice + times.system for times in per_cpu)
    own = process.cpu_times()
    return CpuTimes(time.monotonic(), machine, own.user + own.system, len(per_cpu))
