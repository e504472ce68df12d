"""What a benchmark found: rows of JSON, and the tables made of them."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

Json = dict[str, Any]


def concluded(row: Json) -> Json:
    """The row with what follows from its variants."""
    taken = {name: median(entry["times"]) for name, entry in row["variants"].items()}
    cpu = {name: median(entry["cpu_times"]) for name, entry in row["variants"].items()}
    peaks = {name: max(e["peaks"], default=None) for name, e in row["variants"].items()}
    losses = {name: next(iter(e["losses"]), None) for name, e in row["variants"].items()}
    peer, yardstick = (_run_as(row, name) for name in ("trl", "gathered"))
    shared, trl, gathered = (taken.get(name) for name in ("shared", peer, yardstick))
    return {
        **row,
        "seconds": shared,
        "trl_seconds": trl,
        "gathered_seconds": gathered,
        "ratio": quotient(trl, shared),
        "cpu_ratio": quotient(cpu.get(peer), cpu.get("shared")),
        "trl_in_parts": peer != "trl",
        "gathered_in_parts": yardstick != "gathered",
        "gathered_ratio": quotient(gathered, shared),
        "loss_difference": _relative(losses.get("shared"), losses.get(peer)),
        "gathered_loss_difference": _relative(losses.get("shared"), losses.get(yardstick)),
        "peak_mb": peaks.get("shared"),
        "trl_peak_mb": peaks.get(peer),
        "gathered_peak_mb": peaks.get(yardstick),
        "tokens_per_second": quotient(row["tokens"], shared),
        "matmul_share": _matmul_share(row, shared),
    }


def _run_as(row: Json, name: str) -> str:
    """The variant of that name, or the same in parts where the whole batch was not run."""
    whole, parts = (row["variants"].get(own, {}).get("times") for own in (name, f"{name}-parts"))
    return f"{name}-parts" if parts and not whole else name


def median(times: Sequence[float]) -> float | None:
    """None of none."""
    return statistics.median(times) if times else None


def quotient(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


def _relative(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else (one - other) / abs(other)


def _matmul_share(row: Json, seconds: float | None) -> float | None:
    flops = row["variants"].get("shared", {}).get("flops")
    peak = row.get("matmul_peak")
    return flops / seconds / peak if flops and seconds and peak else None


def merged(old: Sequence[Json], new: Json) -> list[Json]:
    """`old` with the new row in it; of a case that is there already, the variants are joined."""
    keys = ("shape", "prefix", "batch", "threads", "precision", "machine", "rows_at_once")
    rest = []
    for row in old:
        if all(row[key] == new[key] for key in keys):
            new = concluded({**row, **new, "variants": {**row["variants"], **new["variants"]}})
        else:
            rest.append(row)
    return sorted([*rest, new], key=lambda row: (row["shape"], row["prefix"], row["batch"]))


HEAD = (
    "shape",
    "prefix",
    "batch",
    "distill s",
    "TRL s",
    "times",
    "TRL packing s",
    "TRL padding-free s",
    "gathered s",
    "distill MB",
    "TRL MB",
    "gathered MB",
    "loss differs by",
)


def table(found: Sequence[Json]) -> str:
    """Markdown: a row for each case, then what else was measured, and on what."""
    lines = [_cells(HEAD), _cells(["---", *["--:"] * (len(HEAD) - 1)])]
    lines += [_cells(_main_cells(row)) for row in found]
    if others := [line for row in found for line in _other_cells(row)]:
        head = ("shape", "prefix", "batch", "way", "s", "MB")
        lines += ["", _cells(head), _cells(["---", "--:", "--:", "---", "--:", "--:"]), *others]
    return "\n".join([*lines, "", *_footer(found)])


def _main_cells(row: Json) -> list[str]:
    variants = row["variants"]
    return [
        *(str(row[key]) for key in ("shape", "prefix", "batch")),
        _taken(variants.get("shared")),
        _taken_as(row, "trl"),
        _times(row["ratio"]),
        *(_taken(variants.get(name)) for name in ("trl-packing", "trl-padding-free")),
        _taken_as(row, "gathered"),
        *(_peak(variants.get(_run_as(row, name))) for name in ("shared", "trl", "gathered")),
        _difference(row["loss_difference"]),
    ]


def _other_cells(row: Json) -> Iterator[str]:
    case = [str(row[key]) for key in ("shape", "prefix", "batch")]
    for name in ("shared-whole", "flat", "gathered-parts", "trl-parts"):
        if entry := row["variants"].get(name):
            yield _cells([*case, name, _taken(entry), _peak(entry)])


def _taken_as(row: Json, name: str) -> str:
    ran = _run_as(row, name)
    return _taken(row["variants"].get(ran)) + (", in parts" if ran != name else "")


def _taken(entry: Json | None) -> str:
    """The median and the range, or why there is none."""
    if entry is None:
        return "–"
    times = entry["times"]
    if not times:
        # A run that was broken off leaves neither.
        why = entry.get("note", "broken off")
        return f"{why} (projected {entry['projected_seconds']:.0f} s)"
    spread = f" ({min(times):.3g}–{max(times):.3g})" if len(times) > 1 else ""
    return f"{median(times):.3g}{spread}"


def _peak(entry: Json | None) -> str:
    return f"{max(entry['peaks']):,.0f}" if entry and entry["peaks"] else "–"


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.1f}"


def _difference(relative: float | None) -> str:
    if relative is None:
        return "–"
    return f"{relative:.0e}" if relative else "0"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _footer(found: Sequence[Json]) -> Iterator[str]:
    for machine in dict.fromkeys(row["machine"] for row in found):
        own = [row for row in found if row["machine"] == machine]
        loads = [row["load"] for row in own]
        threads = ", ".join(map(str, sorted({row["threads"] for row in own})))
        kinds = ", ".join(sorted({row["precision"] for row in own}))
        yield (
            f"{machine}; {threads} thread(s), {kinds}, load {min(loads):g} to {max(loads):g}; "
            f"{own[-1]['versions']}"
        )
        if shares := [row for row in own if row["matmul_share"]]:
            best = max(shares, key=lambda row: float(row["matmul_share"]))
            yield f"up to {best['matmul_share']:.0%} of the rate of one large matrix product"


def machine(device: str) -> str:
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").split("\n") if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    is_flag=False,
    flag_value="-",
    help="Write the rows of this run to a file, or alone to stdout where none is named.",
)


def told(json_file: Path | None, found: Sequence[Json], shown: str) -> None:
    """Say what was found: the rows to `json_file`, the table to stdout or, beside rows, stderr."""
    alone = str(json_file) == "-"
    if alone:
        click.echo(json.dumps(found, indent=2))
    else:
        write_rows(json_file, found)
    click.echo(shown, err=alone)


def write_rows(file: Path | None, found: Sequence[Json]) -> None:
    if file is not None:
        draft = file.with_name(f".{file.name}.part")
        draft.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
        draft.replace(file)


def read_rows(file: Path | None) -> list[Json]:
    if file is None or not file.exists():
        return []
    found: list[Json] = json.loads(file.read_text("utf-8"))
    return found
