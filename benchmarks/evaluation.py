"""Seconds to evaluate 200 prompts: distill beside `generate`, one prompt after the other.

    python benchmarks/evaluation.py                                # a student trained for it
    python benchmarks/evaluation.py --shape 270m --prefix 600      # decoding alone

The student is the embedded one with the tool declarations in its prompts, trained by distill on the
shipped workflow: minutes, once, as the folder of --student is kept. It is asked the first cases of
its test split. Both sides have the same weights, prompts and stop tokens, and what they say is
parsed and judged by the same code; a verdict is the same if its outcome and its calls are.

With --shape the model has that shape and random weights, prompts are random tokens behind a shared
prefix, and --new-tokens are said to each. The labels are what `generate` says, with one token
changed in all but a --share of them: distill reads the labels, and writes only where they are not
the answer.

distill's time is the median of --repeats; `generate`'s is taken once.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

# Read by libraries when they are imported.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
sys.path.insert(0, str(Path(__file__).parent))

import click
from results import Json, json_option, machine, read_rows, told, write_rows
from shapes import SHAPES, random_model, rows

if TYPE_CHECKING:
    from distill.records import Case, Prediction
    from distill.render import Renderer

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "schemas" / "knowledge_router" / "rules.md"
STUDENT = ROOT / "runs" / "benchmark_student"
MOST_SHOWN = 5
PATH = click.Path(path_type=Path)
T = TypeVar("T")


class Asked(NamedTuple):
    """A student and what it is asked."""

    model: Any
    renderer: Renderer
    cases: Sequence[Case]
    room: int
    """The most tokens of an answer."""
    batch_size: int

    def by_distill(self) -> list[Prediction]:
        """The verdicts of distill's own evaluation."""
        from distill.evaluate.predict import predict
        from distill.sharing import bidirectional_start_ids

        return predict(
            self.model,
            self.renderer,
            self.cases,
            arm="tuned",
            max_new_tokens=self.room,
            batch_size=self.batch_size,
            bidirectional_start_ids=bidirectional_start_ids(self.model),
        )

    def by_generate(self) -> list[Prediction]:
        """The verdicts on what `generate` says to each prompt alone."""
        from distill.evaluate.predict import judge_answer

        stops = sorted({*self.renderer.stop_ids, *self.renderer.invalid_marker_ids})
        verdicts = []
        for case, prompt in zip(self.cases, self.prompts(), strict=True):
            said = generated(self.model, prompt, self.room, stops)
            parsed, raw = self.renderer.parse(said), self.renderer.decode(said)
            verdicts.append(judge_answer(self.renderer, case, parsed, "tuned", raw))
        return verdicts

    def prompts(self) -> list[list[int]]:
        """The prompts as token ids."""
        return [self.renderer.prompt(case.messages, case.tools) for case in self.cases]


def generated(model: Any, prompt: Sequence[int], room: int, stops: Sequence[int]) -> list[int]:
    """What transformers' greedy `generate` says, the stop token included."""
    import torch

    ids = torch.tensor([prompt], device=model.device)
    # A model knows no more positions than these.
    limit = getattr(model.config, "max_position_embeddings", None) or math.inf
    whole = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        use_cache=True,
        max_new_tokens=int(min(room, limit - len(prompt))),
        eos_token_id=list(stops) or None,
        pad_token_id=0,
    )
    said: list[int] = whole[0, len(prompt) :].tolist()
    return said


def trained(folder: Path, cases: int, threads: int) -> Asked:
    """The student in the run folder, which is made where there is none."""
    from distill.evaluate.score import cases_of
    from distill.files import read_records
    from distill.records import Example
    from distill.run.folder import RunFolder
    from distill.students import load_student
    from distill.train.student import student_renderer

    adapter = folder / "7-train" / "adapter"
    if not adapter.is_dir():
        _distill("gen", "--rules", RULES, "--out", folder)
        # One pass is a few hundred steps: the calls are well formed, and most of them right.
        flags = ("--declarations", "full", "--epochs", 1, "--threads", threads)
        _distill("train", folder, *flags)
    run = RunFolder.open(folder)
    student = load_student(run.config.train.student, run.workflow.tools)
    examples = read_records(folder / "6-split" / "test.jsonl", Example)
    settings = run.config.evaluate
    return Asked(
        student.load(adapter),
        student_renderer(student, run),
        cases_of(examples)[:cases],
        settings.max_new_tokens,
        settings.batch_size,
    )


def _distill(*arguments: object) -> None:
    command = [sys.executable, "-m", "distill", *map(str, arguments)]
    click.echo(f"distill {' '.join(map(str, arguments))}", err=True)
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def by_verdicts(asked: Asked, repeats: int) -> Json:
    """A row: both sides of the evaluation of a student."""
    Asked.by_distill(asked._replace(cases=asked.cases[:4]))
    ours, own = timed(asked.by_distill, repeats)
    theirs, other = timed(asked.by_generate, 1)
    apart = [
        f"{a.prompt[:60]!r}: {a.raw!r}, generate {b.raw!r}"
        for a, b in zip(own, other, strict=True)
        if (a.outcome, a.calls) != (b.outcome, b.calls)
    ]
    lengths = [len(prompt) for prompt in asked.prompts()]
    return {
        "student": "embedded, declarations in full",
        "full_correct": sum(bool(one.full_correct) for one in own),
        "prompt_tokens": statistics.mean(lengths),
        **_compared(ours, theirs, len(own), apart),
    }


def by_decoding(
    shape: str, prefix: int, cases: int, room: int, shares: Sequence[float], repeats: int
) -> Iterator[Json]:
    """A row for each share of drafts that are what the model says."""
    from distill.sharing.decode import greedy_completions

    model = random_model(shape)
    prompts = [row.ids[: -row.labelled] for row in rows(cases, prefix, model.config.vocab_size)]
    # An id that is never said: the answers end when there is no more room.
    theirs, other = timed(lambda: [generated(model, p, room, [-1]) for p in prompts], 1)
    for share in shares:
        drafts = [_draft(said, at, share * cases) for at, said in enumerate(other)]

        def by_distill(drafts: Sequence[Sequence[int]] = drafts) -> list[list[int]]:
            max_new_tokens = [room] * cases
            found = dict(
                greedy_completions(model, prompts, (), max_new_tokens, drafts=drafts, batch_size=32)
            )
            return [found[at].ids for at in range(cases)]

        ours, own = timed(by_distill, repeats)
        apart = [f"{a}, generate {b}" for a, b in zip(own, other, strict=True) if a != b]
        yield {
            "student": f"{shape}, random weights, {room} tokens said, {share:.0%} as labelled",
            "full_correct": round(share * cases),
            "prompt_tokens": statistics.mean(map(len, prompts)),
            **_compared(ours, theirs, cases, apart),
        }


def _draft(said: Sequence[int], at: int, right: float) -> list[int]:
    """A label: what the model says for so many cases, else with one token changed."""
    if at < right:
        return list(said)
    wrong = at % len(said)
    return [*said[:wrong], (said[wrong] + 1) % 1000, *said[wrong + 1 :]]


def timed(work: Callable[[], T], repeats: int) -> tuple[list[float], T]:
    """The seconds that it took each time, and what it gave."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = work()
        taken.append(time.perf_counter() - began)
    return taken, found


def _compared(ours: Sequence[float], theirs: Sequence[float], cases: int, apart: list[str]) -> Json:
    import torch
    from transformers import __version__

    seconds = statistics.median(ours)
    return {
        "cases": cases,
        "seconds": seconds,
        "times": list(ours),
        "generate_seconds": theirs[0],
        "ratio": theirs[0] / seconds,
        "identical": cases - len(apart),
        "apart": apart,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "machine": machine("cpu"),
        "versions": f"torch {torch.__version__}, transformers {__version__}",
    }


def table(found: Sequence[Json]) -> str:
    """Markdown: a row for each student, then on what it was measured."""
    lines = [
        "| student | prompts | tokens of a prompt | distill s | generate s | times | identical |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found:
        spread = f" ({min(row['times']):.3g}–{max(row['times']):.3g})"
        lines.append(
            f"| {row['student']} | {row['cases']} | {row['prompt_tokens']:.0f} | "
            f"{row['seconds']:.3g}{spread if len(row['times']) > 1 else ''} | "
            f"{row['generate_seconds']:.3g} | {row['ratio']:.1f} | {row['identical']} |"
        )
    loads = [row["load"] for row in found]
    threads = ", ".join(sorted({str(row["threads"]) for row in found}))
    places = ", ".join(dict.fromkeys(f"{row['machine']}; {row['versions']}" for row in found))
    lines += ["", f"{places}; {threads} thread(s), load {min(loads):g} to {max(loads):g}"]
    for row in found:
        lines += [f"differs: {text}" for text in row["apart"][:MOST_SHOWN]]
    return "\n".join(lines)


@click.command()
@click.option("--student", type=PATH, default=STUDENT, help="A run folder; made if there is none.")
@click.option("--cases", default=200, show_default=True, type=click.IntRange(1))
@click.option("--shape", type=click.Choice(list(SHAPES)), help="Random weights of this shape.")
@click.option("--prefix", default=600, show_default=True, type=click.IntRange(0))
@click.option("--new-tokens", default=12, show_default=True, type=click.IntRange(1))
@click.option(
    "--share",
    "shares",
    multiple=True,
    type=click.FloatRange(0, 1),
    default=(0.0, 0.5, 0.9, 1.0),
    show_default=True,
    help="Of the labels, those that are what the model says.",
)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--append", type=click.Path(path_type=Path, dir_okay=False), help="Add the row here.")
@json_option
def main(
    student: Path,
    cases: int,
    shape: str | None,
    prefix: int,
    new_tokens: int,
    shares: Sequence[float],
    repeats: int,
    threads: int,
    append: Path | None,
    json_file: Path | None,
) -> None:
    """Measure the evaluation of a student."""
    import torch

    from distill.students.quiet import silence_transformers

    silence_transformers()
    torch.set_num_threads(threads)
    if shape:
        new = list(by_decoding(shape, prefix, cases, new_tokens, shares, repeats))
    else:
        new = [by_verdicts(trained(student, cases, threads), repeats)]
    found = [*read_rows(append), *new]
    write_rows(append, found)
    told(json_file, new, table(found))


if __name__ == "__main__":
    main()
