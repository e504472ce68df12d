"""Requests per second of distill's client, and of other clients for the same task.

    python benchmarks/teacher_throughput.py            # 2,000 requests, 128 in flight, 500 ms each
    python benchmarks/teacher_throughput.py --storm    # the same from a server that misbehaves
    python benchmarks/teacher_throughput.py --quick    # 400 requests, distill and openai only

The teacher is the tests' own server, restarted for each contender, in a process of its own. Every
contender sends distill's prompts, some 13,000 characters each (with --light one line, except for
distill), one request each. Contenders run one at a time, in an order that is shuffled per repeat,
each in its own virtual environment, created on first use. The active time, from the first request
to the last reply, is measured by the server.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
from peers.contenders import CONTENDERS, Contender
from peers.environments import UnavailableError, interpreter, version
from peers.processes import ResourceUsage, environment_variables, last_line, run_measured
from rich.console import Console
from rich.table import Table

from distill.asking.writing import write_request
from distill.config import Config
from distill.data import plan
from distill.workflow.load import load_workflow

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RULES = ROOT / "schemas" / "knowledge_router" / "rules.md"
RULE = "policies-and-benefits"
STORM = {"rate-limited": 0.2, "retry-after": 1, "broken": 0.05, "truncated": 0.05}
MEBIBYTE = 2**20


class Job(NamedTuple):
    """The settings of one measurement."""

    requests: int
    concurrency: int
    latency: float
    storm: bool
    light: bool
    timeout: float
    seed: int

    @property
    def ideal(self) -> float:
        """Requests per second when every slot is always in use."""
        return self.concurrency / self.latency if self.latency else math.inf

    @property
    def warm_up(self) -> Job:
        """A few requests, to warm the file cache and compile byte code."""
        return self._replace(requests=8, latency=0.0, storm=False)

    @property
    def full_waves(self) -> float:
        """`ideal` for requests in waves of `concurrency`, of which the last may not be full."""
        seconds = math.ceil(self.requests / self.concurrency) * self.latency
        return self.requests / seconds if seconds else math.inf


# --- the teacher ---


@contextmanager
def teacher(job: Job, reply: str) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """A server in a process of its own: its URL, and a function that reads its statistics."""
    storm = STORM if job.storm else {}
    flags = {"latency": job.latency, "reply": reply, "seed": job.seed, **storm}
    command = [sys.executable, "-m", "distill.testing.server"]
    command += [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    server = subprocess.Popen(
        command, cwd=ROOT / "tests", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin
    assert server.stdout
    try:
        urls = json.loads(server.stdout.readline())
        yield urls["url"], lambda: stats(urls["stats"])
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


def stats(url: str) -> dict[str, Any]:
    # No proxy for loopback.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=10) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


# --- one run ---


def measure(contender: Contender, python: Path, job: Job, envs: Path) -> dict[str, Any]:
    """One contender's figures for one job."""
    with tempfile.TemporaryDirectory() as name, teacher(job, contender.reply) as (url, read_stats):
        folder = Path(name)
        write_job(job, contender.variant, url, folder)
        command = [str(python), str(HERE / "peers" / contender.script), str(folder / "task.json")]
        usage = run_measured(command, folder, environment_variables(envs, folder, url), job.timeout)
        return figures(job, usage, read_stats(), folder)


def write_job(job: Job, variant: str, url: str, folder: Path) -> None:
    """Write task.json, and prompts.json with distill's own prompts."""
    task = {
        "url": url,
        "requests": job.requests,
        "concurrency": job.concurrency,
        "rules": str(RULES),
        "rule": RULE,
        "variant": variant,
    }
    (folder / "task.json").write_text(json.dumps(task), "utf-8")
    (folder / "prompts.json").write_text(json.dumps(prompts(job)), "utf-8")


def prompts(job: Job) -> dict[str, Any]:
    workflow, config = load_workflow(RULES), Config()
    scenarios = list(
        plan.scenarios(workflow, config.data, {workflow.by_id[RULE].cell: job.requests})
    )
    if job.light:
        system = "You write training data for an assistant that routes requests. Reply in JSON."
        users = [f"Message {each.seed} about: {each.topic}" for each in scenarios]
    else:
        messages = [write_request(each, workflow, config.teacher).messages for each in scenarios]
        # The system prompt holds the rules, and is the same for all.
        system, users = messages[0][0].content, [user.content for _, user in messages]
    return {"system": system, "users": users}


def figures(job: Job, usage: ResourceUsage, server: dict[str, Any], folder: Path) -> dict[str, Any]:
    delivered = delivery(folder / "stdout")
    valid, rows = delivered or (0, 0)
    active = server["active_seconds"]
    rate = valid / active if active else 0.0
    return {
        "requests_per_second": round(rate, 1),
        "of_ideal": round(rate / job.ideal, 3),
        "valid": valid,
        "rows": rows,
        "asked": job.requests,
        "sent": server["requests"],
        "max_in_flight": server["max_in_flight"],
        "active_seconds": round(active, 2),
        "wall_seconds": round(usage.wall, 1),
        "cpu_ms_per_row": round(1000 * usage.cpu / job.requests, 2),
        "peak_mb": round(usage.peak / MEBIBYTE),
        "note": note(job, usage, server, delivered, folder),
    }


def delivery(path: Path) -> tuple[int, int] | None:
    """Valid rows and all rows, from the last line of a contender's output."""
    last = path.read_text("utf-8", "replace").rstrip().rpartition("\n")[2]
    try:
        counts = json.loads(last)
        return counts["valid"], counts["rows"]
    except (ValueError, TypeError, KeyError):
        return None


def note(
    job: Job,
    usage: ResourceUsage,
    server: dict[str, Any],
    delivered: tuple[int, int] | None,
    folder: Path,
) -> str:
    """One line about a run that did not go well; "" for one that did."""
    good = server["by_status"].get("200", 0)
    if usage.stopped:
        return f"stopped after {job.timeout:g} s; the server had sent {good} whole replies"
    if delivered is None:
        error = last_line((folder / "stderr").read_text("utf-8", "replace"), having="Error")
        return f"exit {usage.status}: {error}"
    if delivered[1] > delivered[0]:
        return f"{delivered[1] - delivered[0]} rows passed as good are not"
    return f"exit {usage.status}" if usage.status else ""


# --- all of them ---


def measure_all(
    contenders: Sequence[Contender], job: Job, repeat: int, envs: Path
) -> dict[str, dict[str, Any]]:
    """The figures of each contender by name; the reason for those that cannot be installed."""
    found: dict[str, list[dict[str, Any]]] = {one.name: [] for one in contenders}
    missing: dict[str, str] = {}
    pythons: dict[str, Path] = {}
    for one in contenders:
        try:
            pythons[one.name] = interpreter(one, envs)
        except (UnavailableError, OSError) as reason:
            missing[one.name] = str(reason)
    order = [one for one in contenders if one.name in pythons]
    for turn in range(repeat):
        random.Random(job.seed + turn).shuffle(order)
        for one in order:
            click.echo(f"{one.name}, {turn + 1} of {repeat}", err=True)
            measure(one, pythons[one.name], job.warm_up, envs)
            found[one.name].append(measure(one, pythons[one.name], job, envs))
    return {
        one.name: {"not_run": missing[one.name]}
        if one.name in missing
        else {"version": version(pythons[one.name], one), **median_run(found[one.name])}
        for one in contenders
    }


def median_run(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the repeats, and the range of the rate."""
    rates = [run["requests_per_second"] for run in runs]
    first = next((run for run in runs if run["note"]), runs[0])
    numbers = {name: value for name, value in runs[0].items() if name != "note"}
    return {
        **{name: statistics.median([run[name] for run in runs]) for name in numbers},
        "range": [min(rates), max(rates)],
        "repeats": len(runs),
        "note": first["note"],
    }


def table(results: dict[str, dict[str, Any]], job: Job) -> Table:
    weather = "; 20% 429 with Retry-After 1, 5% 500, 5% truncated JSON" if job.storm else ""
    title = f"{job.requests} requests, {job.concurrency} in flight, {job.latency:g} s each{weather}"
    title += "; one-line prompts for all but distill" if job.light else ""
    caption = f"ideal {job.ideal:g} requests/s, {job.full_waves:g} in whole waves"
    drawn = Table(title=title, caption=caption)
    drawn.add_column("")
    for name in ("valid/s", "of ideal", "valid", "sent", "wall s", "CPU ms/row", "peak MB"):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("", overflow="fold")
    ranked = sorted(results.items(), key=lambda item: -item[1].get("requests_per_second", -1))
    for name, result in ranked:
        drawn.add_row(name, *cells(result))
    return drawn


def cells(result: dict[str, Any]) -> list[str]:
    if "not_run" in result:
        return ["–"] * 7 + [result["not_run"]]
    low, high = result["range"]
    spread = f" ({low:.0f}–{high:.0f})" if result["repeats"] > 1 else ""
    return [
        f"{result['requests_per_second']:.0f}{spread}",
        f"{result['of_ideal']:.0%}",
        f"{result['valid']:g}",
        f"{result['sent']:g}",
        f"{result['wall_seconds']:.1f}",
        f"{result['cpu_ms_per_row']:.1f}",
        f"{result['peak_mb']:g}",
        "; ".join(filter(None, [result["version"], result["note"]])),
    ]


def selected(only: str, quick: bool, storm: bool) -> list[Contender]:
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = [one.name for one in CONTENDERS]
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(
            f"no such contender: {', '.join(unknown)}; known: {', '.join(known)}",
            param_hint="--only",
        )
    if names:
        return [one for one in CONTENDERS if one.name in names]
    if quick:
        return [one for one in CONTENDERS if not one.package]
    return [one for one in CONTENDERS if storm or one.without_faults]


@click.command()
@click.option("--only", default="", help="Names of contenders, with commas between.")
@click.option("--quick", is_flag=True, help="400 requests; distill and openai unless --only.")
@click.option("--storm", is_flag=True, help="20% 429, 5% 500, 5% truncated JSON.")
@click.option("--light", is_flag=True, help="One-line prompts for all but distill.")
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON instead of a table.")
@click.option("--requests", type=click.IntRange(1), help="2000, or 400 with --quick.")
@click.option("--concurrency", default=128, show_default=True, type=click.IntRange(1))
@click.option("--latency", default=0.5, show_default=True, help="Seconds before each answer.")
@click.option("--repeat", default=1, show_default=True, type=click.IntRange(1))
@click.option("--timeout", default=240.0, show_default=True, help="Seconds for one contender.")
@click.option("--seed", default=1, show_default=True, help="Of the storm, and of the order.")
@click.option(
    "--envs",
    type=click.Path(path_type=Path, resolve_path=True),
    default=HERE / ".peers",
    help="Folder of the peers' environments.",
)
def main(
    only: str,
    quick: bool,
    storm: bool,
    light: bool,
    as_json: bool,
    requests: int | None,
    concurrency: int,
    latency: float,
    repeat: int,
    timeout: float,
    seed: int,
    envs: Path,
) -> None:
    """Measure the throughput of teachers' clients."""
    asked = requests or (400 if quick else 2000)
    job = Job(asked, concurrency, latency, storm, light, timeout, seed)
    results = measure_all(selected(only, quick, storm), job, repeat, envs)
    if as_json:
        click.echo(json.dumps(results, indent=2))
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(table(results, job))


if __name__ == "__main__":
    main()
