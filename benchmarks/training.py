"""Seconds, peak memory and loss of one optimizer step: distill beside TRL's SFTTrainer.

    python benchmarks/training.py --quick                   # a small replica, under a minute
    python benchmarks/training.py --shape 270m --prefix 600 --batch 16
    python benchmarks/training.py --append rows.json ...    # adds to what other runs measured
    python benchmarks/training.py --show rows.json          # the table of all that

Models have the shapes of FunctionGemma-270M and Qwen3-0.6B and random weights, with LoRA of rank
16 on all linear layers. The rows of a batch share a prefix; some 40 tokens differ, 15 of them
labelled. All variants compute the same loss from the same weights, by TRL's own loop, in one
process and in turn; a step is forward, backward, clipping and update. A variant that takes more
than a minute is measured once, others `--repeats` times.

First each variant takes a step on one row and on two. What that says of the whole batch decides,
with `--limit` and the memory that is free, whether it is run; what was not run says so, with the
projection apart. Where the whole batch does not fit, `trl-parts` and `gathered-parts` stand in: the
same loss, with gradients accumulated over parts of two rows.
Peak memory is the resident memory of the process (on a GPU, what torch has allocated) at its
highest within the step, the weights included. Load is the machine's when a row begins.
"""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Read by libraries when they are imported.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
sys.path.insert(0, str(Path(__file__).parent))

import click
from results import (
    Json,
    concluded,
    json_option,
    machine,
    merged,
    read_rows,
    table,
    told,
    write_rows,
)
from shapes import SHAPES, Row, random_model, rows

if TYPE_CHECKING:
    from steps import Contender, Setting

NAMES = (
    "shared",
    "shared-whole",
    "flat",
    "gathered",
    "gathered-parts",
    "trl",
    "trl-parts",
    "trl-packing",
    "trl-padding-free",
)
USUAL = ("shared", "gathered", "trl", "trl-packing", "trl-padding-free")
LONG = 60.0
"""Seconds from which on a variant is measured once."""
ROOM = 0.9
"""The share of the free memory that a step may be projected to take."""


class Case(NamedTuple):
    """One row of the table."""

    shape: str
    prefix: int
    batch: int

    def name(self) -> str:
        return f"{self.shape}, prefix {self.prefix}, batch {self.batch}"


class Plan(NamedTuple):
    """What is measured in each case."""

    variants: Sequence[str]
    repeats: int
    limit: float | None
    """Seconds that a step may take; None: nothing is projected, and everything is run."""
    setting: Setting
    save: Callable[[Json], None]


def measured(case: Case, model: Any, plan: Plan) -> Json:
    """One row: every variant in turn, as often as the plan says."""
    batch = rows(case.batch, case.prefix, model.config.vocab_size)
    row = _heading(case, batch, plan.setting)
    contenders = dict(_admitted(batch, model, plan, row))
    for turn in range(plan.repeats):
        for name, contender in contenders.items():
            entry = row["variants"][name]
            if turn and min(entry["times"]) > LONG:
                continue
            _note(entry, contender)
            _tell(f"{case.name()}: {name} {entry['times'][-1]:.2f} s")
            plan.save(concluded(row))
    for name, contender in contenders.items():
        if plan.setting.device == "cuda":
            row["variants"][name]["flops"] = contender.flops()
        contender.close()
    return concluded(row)


def _heading(case: Case, batch: Sequence[Row], setting: Setting) -> Json:
    import torch
    from transformers import __version__ as transformers_version
    from trl import __version__ as trl_version

    return {
        **case._asdict(),
        "tokens": sum(len(row.ids) for row in batch),
        "labels": sum(row.labelled for row in batch),
        "rows_at_once": setting.rows_at_once,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "precision": setting.precision,
        "machine": machine(setting.device),
        "versions": f"torch {torch.__version__}, transformers {transformers_version}, "
        f"TRL {trl_version}",
        "variants": {},
    }


def _admitted(
    batch: Sequence[Row], model: Any, plan: Plan, row: Json
) -> Iterator[tuple[str, Contender]]:
    """The variants that are run; of the others `row` says why not."""
    from steps import Contender

    for name in plan.variants:
        entry: Json = {"times": [], "cpu_times": [], "peaks": [], "losses": []}
        row["variants"][name] = entry
        if plan.limit is not None:
            seconds, needed = _projected(name, model, batch, plan.setting)
            entry |= {"projected_seconds": seconds, "note": _against(seconds, needed, plan)}
            _tell(f"{name}: about {seconds:.1f} s, {needed / 1e9:.1f} GB {entry['note']}")
            if entry["note"]:
                plan.save(concluded(row))
                continue
        yield name, Contender(name, model, batch, plan.setting)


def _projected(
    name: str, model: Any, batch: Sequence[Row], setting: Setting
) -> tuple[float, float]:
    """Seconds, and bytes beside what is there, that a step should take; from a row or two."""
    from steps import VARIANTS, Contender

    variant, found = VARIANTS[name], []
    for count in (1, 2):
        contender = Contender(name, model, batch[:count], setting)
        found.append(contender.step())
        contender.close()
    one, two = found
    seconds = variant.grows(one.seconds, two.seconds, len(batch))
    return seconds, variant.grows(one.more, two.more, variant.held(setting, len(batch)))


def _against(seconds: float, needed: float, plan: Plan) -> str:
    """Why a variant is not run."""
    from steps import free_memory

    if plan.limit is not None and seconds > plan.limit:
        return f"over {plan.limit:g} s"
    free = free_memory(plan.setting.device)
    if needed > ROOM * free:
        return f"needs about {needed / 1e9:.0f} GB, {free / 1e9:.0f} are free"
    return ""


def _note(entry: Json, contender: Contender) -> None:
    step = contender.step()
    entry["times"].append(step.seconds)
    entry["cpu_times"].append(step.cpu_seconds)
    if not math.isnan(step.peak):
        entry["peaks"].append(step.peak / 1e6)
    entry["losses"].append(step.loss)


def _tell(text: str) -> None:
    click.echo(text, err=True)


def run(cases: Sequence[Case], plan: Plan, append: Path | None) -> list[Json]:
    """The rows of this run; those of `append` take them in as they come."""
    import torch

    peak = None
    if plan.setting.device == "cuda":
        from steps import matmul_peak

        peak = matmul_peak("cuda", plan.setting.precision)
    found = []
    # What is there now is there to stay: each step collects garbage, and need not look at it.
    gc.collect()
    gc.freeze()
    for shape in dict.fromkeys(case.shape for case in cases):
        model = random_model(shape)
        if plan.setting.precision == "bf16":
            model = model.to(torch.bfloat16)
        model = model.to(plan.setting.device)
        for case in (case for case in cases if case.shape == shape):
            row = measured(case, model, plan)
            found.append(concluded({**row, "matmul_peak": peak}))
            plan.save(found[-1])
    gc.unfreeze()
    return found


PATH = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--shape", "shapes", multiple=True, type=click.Choice(list(SHAPES)))
@click.option("--prefix", "prefixes", multiple=True, type=click.IntRange(0))
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1))
@click.option("--variants", default=",".join(USUAL), show_default=True, help=f"Of {NAMES}.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--rows-at-once", default=16, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--limit", default=3600.0, show_default=True, help="Seconds that a step may take.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="The GPU if there is one.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="bf16 on a GPU, else fp32.")
@click.option("--quick", is_flag=True, help="A small replica, every variant.")
@click.option("--append", type=PATH, help="Add the rows to this file.")
@json_option
@click.option("--show", type=PATH, help="Measure nothing: the table of this file.")
def main(
    shapes: Sequence[str],
    prefixes: Sequence[int],
    batches: Sequence[int],
    variants: str,
    repeats: int,
    rows_at_once: int,
    threads: int,
    limit: float,
    device: str | None,
    precision: str | None,
    quick: bool,
    append: Path | None,
    json_file: Path | None,
    show: Path | None,
) -> None:
    """Measure optimizer steps of distill and of TRL."""
    if show:
        click.echo(table(read_rows(show)))
        return
    import torch

    torch.set_num_threads(threads)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    precision = precision or ("bf16" if device == "cuda" else "fp32")
    cases = [
        Case(shape, prefix, batch)
        for shape in shapes or (("replica",) if quick else ("270m",))
        for prefix in prefixes or (200,)
        for batch in batches or ((4,) if quick else (16,))
    ]
    from steps import Setting

    chosen = NAMES if quick else _chosen(variants)
    setting = Setting(device, precision, 2 if quick else rows_at_once)

    def save(row: Json) -> None:
        write_rows(append, merged(read_rows(append), row)) if append else None

    plan = Plan(chosen, repeats, None if quick else limit, setting, save)
    found = run(cases, plan, append)
    told(json_file, found, table(read_rows(append) if append else found))


def _chosen(variants: str) -> list[str]:
    chosen = variants.split(",")
    if unknown := [name for name in chosen if name not in NAMES]:
        raise click.BadParameter(f"{', '.join(unknown)}: choose of {', '.join(NAMES)}")
    return chosen


if __name__ == "__main__":
    main()
