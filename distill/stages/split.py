"""split: examples become train, dev and test, with a dataset card beside them."""

from __future__ import annotations

from distill.cards.dataset import dataset_card
from distill.data.split import split
from distill.files import write_text
from distill.records import Candidate, Example, Failure, Json, Rejection, StageCount
from distill.run import layout
from distill.stages.stage import DATA, Context, Stage


def work(context: Context) -> Json:
    run, examples = context.run, context.read(layout.EXAMPLES["balance"], Example)
    splits = split(examples, run.config.data)
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    for name, part in parts.items():
        context.write(layout.SPLITS[name], part)
    for note in splits.notes:
        context.watcher.notice(note)
    card = dataset_card(run.workflow, splits, run.config, _funnel(context))
    write_text(run.path / layout.DATASET_CARD, card)
    return {name: len(part) for name, part in parts.items()}


def _funnel(context: Context) -> list[StageCount]:
    """What went into each stage up to the split, and what came out."""
    candidates = context.read(layout.CANDIDATES, Candidate)
    failures = context.read(layout.FAILURES, Failure)
    own = sum(candidate.is_own for candidate in candidates)
    counts = [StageCount.of("generate", len(candidates) - own, failures)]
    counts += [StageCount.of("own rows", own, [])] * bool(own)
    for sieve in layout.SIEVES:
        kept = context.read(layout.EXAMPLES[sieve], Example)
        rejected = context.read(layout.REJECTED[sieve], Rejection)
        counts.append(StageCount.of(sieve, len(kept), rejected))
    return counts


STAGE = Stage(
    name="split",
    folder=layout.SPLIT,
    settings=DATA,
    reads=(layout.EXAMPLES["balance"],),
    writes=(*layout.SPLITS.values(), layout.DATASET_CARD),
    work=work,
)
