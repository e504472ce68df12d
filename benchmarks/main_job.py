"""The README's numbers: the main job on embedded defaults, with several training seeds.

    python benchmarks/main_job.py [--seeds 3] [--tutorial FILE] [--json FILE]

Data is made once; each seed trains and evaluates on a copy of that run. The tutorial's 20 held-out
prompts (the rows with `"split": "test"` of FILE) are scored where FILE is present. Wall seconds are
of this machine, with nothing else running; say what it was when quoting them.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "schemas" / "knowledge_router" / "rules.md"
TUTORIAL = ROOT.parent / "shared" / "data" / "simple_tool_calling.jsonl"
ARMS = ("base", "tuned", "majority", "tfidf", "minilm")


def distill(*arguments: object) -> tuple[float, str]:
    """Run one command; its wall seconds and its stdout."""
    began = time.monotonic()
    command = [sys.executable, "-m", "distill.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return time.monotonic() - began, done.stdout


def held_out(tutorial: Path, folder: Path) -> Path:
    """The tutorial's held-out rows as a file of their own."""
    rows = [json.loads(line) for line in tutorial.read_text("utf-8").split("\n") if line]
    kept = [json.dumps(row) for row in rows if row["split"] == "test"]
    path = folder / "tutorial.jsonl"
    path.write_text("\n".join(kept), "utf-8")
    return path


def evaluations(run: Path, tutorial: Path | None) -> dict[str, Any]:
    """Scores by dataset and arm."""
    found = json.loads(distill("eval", run, "--json")[1])
    scores = {one["data"]: one["arms"] for one in found}
    if tutorial:
        one = json.loads(distill("eval", run, "--data", tutorial, "--json")[1])
        scores["tutorial"] = one["arms"]
    return scores


def one_seed(data: Path, folder: Path, seed: int, tutorial: Path | None) -> dict[str, Any]:
    run = folder / f"seed{seed}"
    shutil.copytree(data, run)
    train_seconds, _ = distill("train", run, "--seed", seed)
    began = time.monotonic()
    scores = evaluations(run, tutorial)
    seconds = {"train": train_seconds, "eval": time.monotonic() - began}
    return {"seed": seed, "seconds": seconds, "scores": scores}


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Markdown: per dataset and arm, the median over seeds of each score."""
    lines = ["| data | arm | n | tool | full call | malformed | argument F1 | grounding F1 |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for dataset in runs[0]["scores"]:
        for arm in ARMS:
            rows = [run["scores"][dataset][arm] for run in runs]
            names = ("tool_accuracy", "full_call_accuracy", "malformed_rate")
            cells = [median([row[name] for row in rows]) for name in names]
            cells += [
                median([row[name] for row in rows]) for name in ("argument_f1", "grounding_f1")
            ]
            lines.append(f"| {dataset} | {arm} | {rows[0]['n']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    shown = f"{statistics.median(known):.3f}"
    spread = f" ({min(known):.3f} to {max(known):.3f})" if max(known) > min(known) else ""
    return shown + spread


@click.command()
@click.option("--seeds", default=3, show_default=True, help="Training seeds, from 0 on.")
@click.option("--tutorial", type=click.Path(path_type=Path), default=TUTORIAL)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write everything here.")
def main(seeds: int, tutorial: Path, json_file: Path | None) -> None:
    """Measure the main job."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        gen_seconds, _ = distill("gen", "--rules", RULES, "--out", data)
        rows = held_out(tutorial, folder) if tutorial.exists() else None
        if rows is None:
            click.echo(f"no {tutorial}: the tutorial's prompts are not scored", err=True)
        runs = [one_seed(data, folder, seed, rows) for seed in range(seeds)]
    click.echo(f"{os.cpu_count()} cores; gen {gen_seconds:.0f} s; by seed, train and eval seconds:")
    for run in runs:
        click.echo(
            f"  seed {run['seed']}: {run['seconds']['train']:.0f}, {run['seconds']['eval']:.0f}"
        )
    click.echo(table(runs))
    if json_file:
        json_file.write_text(json.dumps({"gen_seconds": gen_seconds, "runs": runs}, indent=2))


if __name__ == "__main__":
    main()
