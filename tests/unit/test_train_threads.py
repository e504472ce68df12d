"""Threads follow the CPUs that other processes leave free."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.train import threads
from distill.train.threads import CpuTimes, adapt_threads, cpu_times, free_threads


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


SECONDS = st.floats(0, 1e6)


@given(
    cpus=st.integers(1, 256),
    own=SECONDS,
    others=st.floats(0, 256),
    seconds=st.floats(0.1, 100),
    most=st.integers(1, 256),
)
def test_free_threads_are_within_bounds_and_leave_others_their_cpus(
    cpus: int, own: float, others: float, seconds: float, most: int
) -> None:
    before = CpuTimes(0.0, 0.0, 0.0, cpus)
    after = CpuTimes(seconds, own + others * seconds, own, cpus)
    found = free_threads(before, after, most)
    assert 1 <= found <= most
    assert found == 1 or found <= cpus - others + 0.501
    busier = after._replace(machine=after.machine + seconds)
    assert free_threads(before, busier, most) <= found


@pytest.mark.parametrize(
    ("machine", "own", "cpus", "most", "expected"),
    [
        (2.0, 2.0, 2, 2, 2),  # alone
        (2.0, 1.3, 2, 2, 1),  # one busy neighbour got two thirds of a CPU
        (2.0, 1.8, 2, 2, 2),  # a browser
        (2.0, 0.1, 2, 2, 1),
        (40.0, 8.0, 64, 8, 8),  # a quota of 8 CPUs on a machine with room
        (64.0, 2.0, 64, 8, 2),  # and on a full one
        (1.0, 1.1, 2, 2, 2),  # clocks that disagree
    ],
)
def test_free_threads(machine: float, own: float, cpus: int, most: int, expected: int) -> None:
    after = CpuTimes(1.0, machine, own, cpus)
    assert free_threads(CpuTimes(0.0, 0.0, 0.0, cpus), after, most) == expected


def test_samples_see_a_busy_neighbour_and_not_ourselves() -> None:
    spin = "while True: pass"
    neighbour = subprocess.Popen([sys.executable, "-c", spin])
    try:
        time.sleep(0.5)
        before = cpu_times()
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            pass
        after = cpu_times()
    finally:
        neighbour.kill()
        neighbour.wait()
    others = (after.machine - before.machine) - (after.own - before.own)
    assert others / (after.at - before.at) > 0.3
    assert after.own - before.own > 0.3


def test_threads_are_given_up_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, load = [0.0], [0.0]

    def sample() -> CpuTimes:
        return CpuTimes(clock[0], load[0], 0.0, 4)

    def later(seconds: float, others: float) -> None:
        clock[0] += seconds
        load[0] += seconds * others

    monkeypatch.setattr(threads, "cpu_times", sample)
    monkeypatch.setattr(threads, "usable_cpus", lambda: 4)
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock[0])
    seen: list[tuple[int, int, str]] = []
    notices: list[str] = []
    progress = adapt_threads(0, lambda *row: seen.append(row), notices.append)
    counts = []
    for others in (0.0, 3.0, 3.0, 1.0, 0.0):
        later(threads.PERIOD, others)
        progress(1, 2, "")
        counts.append(torch.get_num_threads())
    assert counts == [4, 1, 1, 3, 4]
    later(threads.PERIOD / 2, 4.0)
    progress(2, 2, "end")
    assert torch.get_num_threads() == 4, "it does not look at every call"
    assert seen[-1] == (2, 2, "end")
    assert len(notices) == 1
    assert "1 of 4 threads" in notices[0]
    assert "--threads 4" in notices[0]


def test_a_fixed_number_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cpu_times", lambda: pytest.fail("nothing is measured"))

    def progress(done: int, total: int, note: str) -> None: ...

    assert adapt_threads(3, progress, pytest.fail) is progress
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("processes", "expected"), [(1, 8), (4, 2), (16, 1)])
def test_processes_of_one_training_divide_the_cpus(
    monkeypatch: pytest.MonkeyPatch, processes: int, expected: int
) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    for name, value in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", processes)):
        if processes > 1:
            monkeypatch.setenv(name, str(value))

    def progress(done: int, total: int, note: str) -> None: ...

    assert (adapt_threads(0, progress, pytest.fail) is progress) == (processes > 1)
    assert torch.get_num_threads() == expected


def test_no_affinity_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has none."""
    import psutil

    monkeypatch.delattr(psutil.Process, "cpu_affinity")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert cpu_times().cpus == len(psutil.cpu_times(percpu=True))
    threads.set_threads(0)
    assert torch.get_num_threads() >= 1
