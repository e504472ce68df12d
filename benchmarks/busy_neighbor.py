"""The main job beside a busy process: wall seconds of `distill run`, idle and not, in turn.

    python benchmarks/busy_neighbor.py                 # what `make train` runs, twice: 12 minutes
    python benchmarks/busy_neighbor.py --epochs 0.2    # a shorter training

The neighbor is one process that computes without end, on a machine of two CPUs half of it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from joblib import cpu_count

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "schemas" / "knowledge_router" / "rules.md"
SPIN = "while True: pass"
STAGES = ("train", "evaluate")


@contextmanager
def neighbors(count: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    processes = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_once(flags: list[str]) -> dict[str, float]:
    """Wall seconds of one run in all, and of its stages."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "distill", "run", "--rules", str(RULES), "--out", str(run)]
        began = time.monotonic()
        subprocess.run([*command, *flags], cwd=ROOT, check=True, capture_output=True)
        seconds = {"all": time.monotonic() - began}
        stages = json.loads((run / "manifest.json").read_text("utf-8"))["stages"]
        return seconds | {name: stages[name]["seconds"] for name in STAGES}


@click.command()
@click.option("--repeat", default=1, show_default=True, help="Pairs of runs.")
@click.option("--neighbors", "count", default=1, show_default=True, help="Busy processes.")
@click.option("--epochs", type=float, help="Of the training. [default: the example's]")
@click.option("--threads", type=int, default=0, show_default=True, help="As for distill run.")
def main(repeat: int, count: int, epochs: float | None, threads: int) -> None:
    """Measure the main job beside busy processes."""
    flags = ["--threads", str(threads)]
    flags += ["--epochs", str(epochs)] if epochs is not None else []
    idle, busy = [], []
    for _ in range(repeat):
        idle.append(run_once(flags))
        with neighbors(count):
            busy.append(run_once(flags))
    click.echo(f"{cpu_count()} CPUs, {count} busy processes, --threads {threads}\n")
    click.echo("| | idle s | busy s | times |\n|---|--:|--:|--:|")
    for name in ("all", *STAGES):
        alone, beside = (statistics.median(row[name] for row in rows) for rows in (idle, busy))
        click.echo(f"| {name} | {alone:.1f} | {beside:.1f} | {beside / alone:.2f} |")


if __name__ == "__main__":
    main()
