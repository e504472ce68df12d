"""The README's numbers: the main job on embedded defaults, with several training seeds.

    make train && python benchmarks/main_job.py

Seed 0 is the run that `make train` left; each other seed trains and evaluates on a copy of it, two
at a time with a share of the cores each. The tutorial's 20 held-out prompts (the rows of --tutorial
with `"split": "test"`) are scored where the file is present. Wall seconds by stage are those of
`make train`, on whatever machine that was; say which when quoting them.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
from joblib import cpu_count

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT.parent / "shared" / "data" / "simple_tool_calling.jsonl"
ARMS = ("base", "tuned", "majority", "tfidf", "minilm")
SHARES = ("tool_accuracy", "full_call_accuracy", "malformed_rate", "argument_f1", "grounding_f1")
PATH = click.Path(path_type=Path)


def distill(*arguments: object) -> str:
    """The stdout of one command."""
    command = [sys.executable, "-m", "distill", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    ).stdout


def held_out(tutorial: Path, folder: Path) -> Path:
    """The tutorial's held-out rows as a file of their own."""
    rows = [json.loads(line) for line in tutorial.read_text("utf-8").split("\n") if line]
    path = folder / "tutorial.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows if row["split"] == "test"), "utf-8")
    return path


def scored(run: Path, threads: int, tutorial: Path | None) -> dict[str, Any]:
    """Scores of a trained run, by data set and arm."""
    found = json.loads(distill("eval", run, "--json", "--threads", threads))
    scores = {one["data"]: one["arms"] for one in found}
    if tutorial:
        said = distill("eval", run, "--data", tutorial, "--json", "--threads", threads)
        scores["tutorial"] = json.loads(said)["arms"]
    return scores


def one_seed(
    seed: int, *, made: Path, folder: Path, threads: int, tutorial: Path | None
) -> dict[str, Any]:
    """Train and score one seed on a copy of the run; seed 0 is trained already."""
    run = folder / f"seed{seed}"
    shutil.copytree(made, run)
    if seed:
        distill("train", run, "--seed", seed, "--threads", threads, "--redo")
    return scored(run, threads, tutorial)


def table(seeds: Sequence[dict[str, Any]]) -> str:
    """Markdown: per data set and arm, the median over seeds of each score, and its range."""
    lines = ["| data | arm | n | right tool | full call | malformed | argument F1 | grounding F1 |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|--:|")
    for dataset in seeds[0]:
        for arm in ARMS:
            rows = [scores[dataset][arm] for scores in seeds]
            cells = [median([row[name] for row in rows]) for name in SHARES]
            lines.append(f"| {dataset} | {arm} | {rows[0]['n']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    spread = f" ({min(known):.3f}–{max(known):.3f})" if max(known) > min(known) else ""
    return f"{statistics.median(known):.3f}{spread}"


def stage_seconds(run: Path) -> str:
    stages = json.loads((run / "manifest.json").read_text("utf-8"))["stages"]
    return ", ".join(f"{name} {entry['seconds']:.0f}" for name, entry in stages.items())


@click.command()
@click.option("--run", "made", type=PATH, default=ROOT / "runs" / "knowledge_router")
@click.option("--seeds", default=3, show_default=True, help="Training seeds, from 0 on.")
@click.option("--jobs", default=2, show_default=True, help="Seeds that train at one time.")
@click.option("--tutorial", type=PATH, default=TUTORIAL)
@click.option("--json", "json_file", type=PATH, help="Write every score here.")
def main(made: Path, seeds: int, jobs: int, tutorial: Path, json_file: Path | None) -> None:
    """Measure the main job."""
    cores = cpu_count()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = held_out(tutorial, folder) if tutorial.exists() else None
        if rows is None:
            click.echo(f"no {tutorial}: the tutorial's prompts are not scored", err=True)
        threads = max(1, cores // jobs)
        work = partial(one_seed, made=made, folder=folder, threads=threads, tutorial=rows)
        with ThreadPoolExecutor(jobs) as pool:
            # The trained one last: it is the shortest.
            found = list(pool.map(work, reversed(range(seeds))))[::-1]
    click.echo(f"{cores} cores; seconds of seed 0 by stage: {stage_seconds(made)}\n")
    click.echo(table(found))
    if json_file:
        json_file.write_text(json.dumps(found, indent=2), "utf-8")


if __name__ == "__main__":
    main()
