"""Requests per second of distill's client, and of what others use for the same job.

    python benchmarks/teacher_throughput.py            # 2,000 requests, 128 in flight, 500 ms each
    python benchmarks/teacher_throughput.py --storm    # the same from a server that misbehaves
    python benchmarks/teacher_throughput.py --quick    # 400 requests, distill and openai only

The teacher is the tests' own server, anew for each contender, in a process of its own. Everybody
gets distill's prompts, some 13,000 characters each (with --light one line, distill excepted), and
wants one reply for each. Contenders run one at a time, in an order that
is shuffled per repeat, each in the environment it wants; those of peers are made on first use.
Active time, from the first request to the last reply, is read off the server, the same for all.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from distill import plan
from distill.config import Config
from distill.workflow.load import load_workflow
from distill.writing import request

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RULES = ROOT / "schemas" / "knowledge_router" / "rules.md"
RULE = "policies-and-benefits"
CALL = {"name": "search_knowledge_base", "arguments": {"query": "vacation days carry over"}}
REPLY = json.dumps({"user": "how many vacation days can i carry over", "calls": [CALL]})
STORM = {"rate-limited": 0.2, "retry-after": 1, "broken": 0.05, "truncated": 0.05}
# Seconds that a contender has to put its affairs in order once it is told to stop.
GRACE = 10.0
# Seconds between looks at a contender; its memory is looked at every so many of them.
GLANCE = 0.05
SAMPLED = 10
MEBIBYTE = 2**20
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "TELEMETRY_ENABLED": "false",
    "NEMO_TELEMETRY_ENABLED": "false",
    "DEEPFABRIC_NO_UPDATE_CHECK": "1",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_API_KEY": "none",
    # Wide enough that nobody wraps what is logged.
    "COLUMNS": "200",
}


class Contender(NamedTuple):
    """Somebody who does the job. Without a `package`, in the environment of this script."""

    name: str
    script: str
    package: str = ""
    version: str = ""
    extras: tuple[str, ...] = ()
    """Further requirements, that it needs and does not name."""
    parts: tuple[str, ...] = ()
    """Distributions of the same project and version, in case it has to be taken apart."""
    loose: tuple[str, ...] = ()
    """Requirements whose pin is let go where no index has it."""
    variant: str = ""
    calm: bool = True
    """Whether it takes part without a storm, too."""
    reply: str = REPLY

    @property
    def environment(self) -> str:
        return self.package.partition("[")[0]

    @property
    def requirements(self) -> list[str]:
        return [f"{self.package}=={self.version}", *self.extras] if self.package else []


def conversation(user: str, assistant: str) -> str:
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return json.dumps({"messages": turns})


DATA_DESIGNER = Contender(
    "datadesigner",
    "run_datadesigner.py",
    "data-designer",
    "0.9.7",
    parts=("data-designer", "data-designer-config", "data-designer-engine"),
    loose=("certifi",),
)
CONTENDERS = (
    Contender("distill", "run_distill.py"),
    Contender("openai", "run_openai.py"),
    Contender("curator", "run_curator.py", "bespokelabs-curator", "0.1.31"),
    DATA_DESIGNER,
    DATA_DESIGNER._replace(name="datadesigner-tuned", variant="tuned", calm=False),
    Contender(
        "distilabel", "run_distilabel.py", "distilabel[openai]", "1.5.3", extras=("requests",)
    ),
    Contender(
        "deepfabric",
        "run_deepfabric.py",
        "deepfabric",
        "4.13.0",
        reply=conversation("how many vacation days can i carry over", REPLY),
    ),
)


class Job(NamedTuple):
    """What everybody has to do."""

    requests: int
    concurrency: int
    latency: float
    storm: bool
    light: bool
    timeout: float
    seed: int

    @property
    def ideal(self) -> float:
        """Requests per second with every slot always taken."""
        return self.concurrency / self.latency if self.latency else math.inf

    @property
    def warm_up(self) -> Job:
        """A few requests, so that nobody is charged for cold files and missing byte code."""
        return self._replace(requests=8, latency=0.0, storm=False)

    @property
    def in_waves(self) -> float:
        """The same when the last wave is not full."""
        seconds = math.ceil(self.requests / self.concurrency) * self.latency
        return self.requests / seconds if seconds else math.inf


class Used(NamedTuple):
    """What a process and its children took, and how it ended."""

    wall: float
    cpu: float
    peak: float
    stopped: bool
    status: int


class NotRun(Exception):  # noqa: N818 - it is no error of this script
    """Why a contender takes no part."""


# --- environments ---


def interpreter(contender: Contender, envs: Path) -> Path:
    """The Python that runs a contender, in an environment that is made when it is missing."""
    if not contender.package:
        return Path(sys.executable)
    folder = envs.resolve() / contender.environment
    python, done = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join(contender.requirements)
    if not done.exists() or done.read_text("utf-8") != wanted:
        say(f"installing {wanted.replace(chr(10), ', ')} into {folder}")
        run_pip([sys.executable, "-m", "venv", "--clear", str(folder)])
        install(python, contender)
        done.write_text(wanted, "utf-8")
    return python


def install(python: Path, contender: Contender) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        run_pip([*pip, *contender.requirements])
    except NotRun:
        if not contender.loose:
            raise
        own = [f"{part}=={contender.version}" for part in contender.parts]
        run_pip([*pip, "--no-deps", *own])
        run_pip([*pip, *loosened(python, contender), *contender.extras])


def loosened(python: Path, contender: Contender) -> list[str]:
    """What the parts of a contender require, without the pins that are let go."""
    code = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]: print(*m.requires(name) or (), sep='\\n')"
    )
    command = [str(python), "-c", code, *contender.parts]
    named = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    found = set()
    for line in filter(None, named):
        name = re.split(r"[^\w.-]", line)[0]
        if name in contender.loose:
            found.add(name)
        elif name not in contender.parts and "extra ==" not in line:
            found.add(line)
    return sorted(found)


def run_pip(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotRun(f"cannot be installed: {last_line(done.stderr, having='ERROR')}")


def versions(python: Path, contender: Contender) -> str:
    """The contender's version, as its environment says."""
    package = contender.environment or contender.name
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    done = subprocess.run([str(python), "-c", code, package], capture_output=True, text=True)
    return done.stdout.strip()


# --- the teacher ---


@contextmanager
def teacher(job: Job, reply: str) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """A server in a process of its own: its address, and what it says about itself."""
    storm = STORM if job.storm else {}
    flags = {"latency": job.latency, "reply": reply, "seed": job.seed, **storm}
    command = [sys.executable, "-m", "kit.server"]
    command += [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    server = subprocess.Popen(
        command, cwd=ROOT / "tests", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin
    assert server.stdout
    try:
        said = json.loads(server.stdout.readline())
        yield said["url"], lambda: stats(said["stats"])
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


def stats(url: str) -> dict[str, Any]:
    # Whatever proxy there is has no business on loopback.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=10) as reply:
        said: dict[str, Any] = json.load(reply)
    return said


# --- one run ---


def measured(contender: Contender, python: Path, job: Job, envs: Path) -> dict[str, Any]:
    """One contender's figures for one job."""
    with tempfile.TemporaryDirectory() as name, teacher(job, contender.reply) as (url, said):
        folder = Path(name)
        write_job(job, contender.variant, url, folder)
        command = [str(python), str(HERE / "peers" / contender.script), str(folder / "task.json")]
        used = watched(command, folder, surroundings(envs, folder, url), job.timeout)
        return figures(job, used, said(), folder)


def write_job(job: Job, variant: str, url: str, folder: Path) -> None:
    """task.json, and prompts.json with what distill itself asks for such a job."""
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
        asked = [request(each, workflow, config.teacher).messages for each in scenarios]
        # The system part holds the rules, and is the same for all.
        system, users = asked[0][0].content, [user.content for _, user in asked]
    return {"system": system, "users": users}


def surroundings(envs: Path, folder: Path, url: str) -> dict[str, str]:
    """The environment variables of a contender: a home of its own, nothing told to anybody."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    own = {"HOME": str(folder), "PYTHONPATH": str(ROOT), "OPENAI_BASE_URL": url}
    # Those who count tokens with tiktoken would download its tables; litellm, which some peer has,
    # brings them along.
    tables = next(envs.glob("*/lib/python*/site-packages/litellm/**/tokenizers"), None)
    if tables:
        own["TIKTOKEN_CACHE_DIR"] = str(tables)
    return {**kept, **QUIET, **own}


def watched(
    command: Sequence[str], folder: Path, environment: dict[str, str], timeout: float
) -> Used:
    """Run a command in a session of its own, and count what the whole session takes."""
    began, peak, stopped = time.monotonic(), 0.0, False
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=err, start_new_session=True
        )
    try:
        for turn in count():
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            lasted = time.monotonic() - began
            if lasted > timeout:
                signalled(process.pid, signal.SIGKILL if stopped else signal.SIGINT)
                stopped, timeout = True, lasted + GRACE
            peak = max(peak, high_water(process.pid))
            if turn % SAMPLED == 0:
                peak = max(peak, memory_of_session(process.pid))
            time.sleep(GLANCE)
    finally:
        # Children that outlived it, and on a way out of here the contender itself.
        signalled(process.pid, signal.SIGKILL)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Used(
        wall=time.monotonic() - began,
        cpu=usage.ru_utime + usage.ru_stime,
        # Of a child the kernel counts what its parent had before exec, too: for want of better.
        peak=peak or usage.ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0),
        stopped=stopped,
        status=process.returncode,
    )


def signalled(session: int, number: int) -> None:
    try:
        os.killpg(session, number)
    except (ProcessLookupError, PermissionError):
        return


def high_water(pid: int) -> float:
    """The most bytes that a process has had so far; 0 where that cannot be told."""
    return field(Path(f"/proc/{pid}/status"), "VmHWM:")


def memory_of_session(session: int) -> float:
    """Bytes that the processes of a session take together, what they share counted once."""
    members = [entry for entry in Path("/proc").glob("[0-9]*") if session_of(entry) == session]
    if len(members) < 2:
        return 0.0  # of a single one the high-water mark says more
    return sum(field(process / "smaps_rollup", "Pss:") for process in members)


def session_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text("ascii", "replace").rpartition(")")[2].split()[3])
    except (OSError, ValueError, IndexError):
        return -1  # it is gone


def field(path: Path, name: str) -> float:
    """Bytes in a line of a file of /proc; 0 where there is none."""
    try:
        lines = path.read_text("utf-8", "replace").split("\n")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024.0 for line in lines if line.startswith(name)), 0.0)


def figures(job: Job, used: Used, server: dict[str, Any], folder: Path) -> dict[str, Any]:
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
        "wall_seconds": round(used.wall, 1),
        "cpu_ms_per_row": round(1000 * used.cpu / job.requests, 2),
        "peak_mb": round(used.peak / MEBIBYTE),
        "note": note(job, used, server, delivered, folder),
    }


def delivery(path: Path) -> tuple[int, int] | None:
    """Valid rows and all rows, from the last line that a contender printed."""
    last = path.read_text("utf-8", "replace").rstrip().rpartition("\n")[2]
    try:
        said = json.loads(last)
        return said["valid"], said["rows"]
    except (ValueError, TypeError, KeyError):
        return None


def note(
    job: Job,
    used: Used,
    server: dict[str, Any],
    delivered: tuple[int, int] | None,
    folder: Path,
) -> str:
    """What there is to say about a run, in a line; "" when all went well."""
    good = server["by_status"].get("200", 0)
    if used.stopped:
        return f"stopped after {job.timeout:g} s; the server had sent {good} whole replies"
    if delivered is None:
        said = last_line((folder / "stderr").read_text("utf-8", "replace"), having="Error")
        return f"exit {used.status}: {said}"
    if delivered[1] > delivered[0]:
        return f"{delivered[1] - delivered[0]} rows passed as good are not"
    return f"exit {used.status}" if used.status else ""


def last_line(text: str, having: str = "") -> str:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    chosen = [line for line in lines if having in line] or lines or ["no reason given"]
    return chosen[-1][:300]


# --- all of them ---


def compete(
    contenders: Sequence[Contender], job: Job, repeat: int, envs: Path
) -> dict[str, dict[str, Any]]:
    """The figures of each, by name; for those that take no part, why."""
    found: dict[str, list[dict[str, Any]]] = {one.name: [] for one in contenders}
    missing: dict[str, str] = {}
    pythons: dict[str, Path] = {}
    for one in contenders:
        try:
            pythons[one.name] = interpreter(one, envs)
        except NotRun as reason:
            missing[one.name] = str(reason)
    order = [one for one in contenders if one.name in pythons]
    for turn in range(repeat):
        random.Random(job.seed + turn).shuffle(order)
        for one in order:
            say(f"{one.name}, {turn + 1} of {repeat}")
            measured(one, pythons[one.name], job.warm_up, envs)
            found[one.name].append(measured(one, pythons[one.name], job, envs))
    return {
        one.name: {"not_run": missing[one.name]}
        if one.name in missing
        else {"version": versions(pythons[one.name], one), **middle(found[one.name])}
        for one in contenders
    }


def middle(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
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
    caption = f"ideal {job.ideal:g} requests/s, {job.in_waves:g} in whole waves"
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


def say(text: str) -> None:
    click.echo(text, err=True)


def chosen(only: str, quick: bool, storm: bool) -> list[Contender]:
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
    return [one for one in CONTENDERS if storm or one.calm]


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
    type=click.Path(path_type=Path),
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
    results = compete(chosen(only, quick, storm), job, repeat, envs)
    if as_json:
        click.echo(json.dumps(results, indent=2))
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(table(results, job))


if __name__ == "__main__":
    main()
