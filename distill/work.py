"""What each stage does: read files of the run, have a room of the house work, write files."""

from __future__ import annotations

from collections import Counter

from distill import balance, checks, dedup, plan, split
from distill.files import write_lines, write_text
from distill.generate import generate
from distill.records import Candidate, Example, Failure, Json, Rejection, Scenario, Sifted
from distill.run.spool import Spool
from distill.run.stage import Context
from distill.split import StageCount

SIEVES = ("3-validate", "4-dedup", "5-balance")


def run_gate(context: Context) -> Json:
    from distill.evaluate.teacher import run_gate

    run, asking = context.run, context.asking
    assert asking is not None
    return asking.wait(
        run_gate(run, asking.teacher("gate"), asking.replies, context.watcher.progress)
    )


def run_plan(context: Context) -> Json:
    run = context.run
    planned = plan.scenarios(run.workflow, run.config.data, context.asked)
    return {"scenarios": context.write("1-plan/scenarios.jsonl", planned)}


def run_generate(context: Context) -> Json:
    run, asking = context.run, context.asking
    assert asking is not None
    total = run.manifest.stages["plan"].counts["scenarios"]
    assert isinstance(total, int)
    reasons = Counter[str]()
    with Spool(run.path / "2-generate" / ".outcomes.part") as outcomes:

        def settle(number: int, outcome: Candidate | Failure) -> None:
            if isinstance(outcome, Failure):
                reasons[outcome.reason.value] += 1
            outcomes.put(type(outcome).__name__, number, outcome)
            context.watcher.progress(outcomes.counts.total(), total, asking.note())

        asking.wait(
            generate(
                context.each("1-plan/scenarios.jsonl", Scenario),
                run.workflow,
                asking.teacher("generate"),
                asking.replies,
                run.config.teacher,
                settle,
            )
        )
        for kind, name in ((Candidate, "candidates"), (Failure, "failures")):
            write_lines(run.path / f"2-generate/{name}.jsonl", outcomes.lines(kind.__name__))
        written = outcomes.counts[Candidate.__name__]
    return {"in": total, "candidates": written, "failures": dict(sorted(reasons.items()))}


def run_validate(context: Context) -> Json:
    candidates = context.read("2-generate/candidates.jsonl", Candidate)
    sifted = checks.validate(candidates, context.run.workflow, context.run.config.data)
    return _sieved(context, "3-validate", sifted)


def run_dedup(context: Context) -> Json:
    run, examples = context.run, context.read("3-validate/examples.jsonl", Example)
    return _sieved(context, "4-dedup", dedup.dedup(examples, run.workflow.gold, run.config.data))


def run_balance(context: Context) -> Json:
    run, examples = context.run, context.read("4-dedup/examples.jsonl", Example)
    quotas = plan.quotas(run.workflow, run.config.data.target)
    return _sieved(context, "5-balance", balance.balance(examples, quotas, run.config.data.seed))


def run_split(context: Context) -> Json:
    run, examples = context.run, context.read("5-balance/examples.jsonl", Example)
    splits = split.split(examples, run.config.data)
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    for name, part in parts.items():
        context.write(f"6-split/{name}.jsonl", part)
    for note in splits.notes:
        context.watcher.notice(note)
    card = split.dataset_card(run.workflow, splits, run.config, _funnel(context))
    write_text(run.path / "6-split" / "README.md", card)
    return {name: len(part) for name, part in parts.items()}


def _funnel(context: Context) -> list[StageCount]:
    """What went into each stage up to the split, and what came out."""
    candidates = context.read("2-generate/candidates.jsonl", Candidate)
    failures = context.read("2-generate/failures.jsonl", Failure)
    counts = [StageCount.of("generate", len(candidates), failures)]
    for folder in SIEVES:
        kept = context.read(f"{folder}/examples.jsonl", Example)
        rejected = context.read(f"{folder}/rejected.jsonl", Rejection)
        counts.append(StageCount.of(folder.partition("-")[2], len(kept), rejected))
    return counts


def _sieved(context: Context, folder: str, sifted: Sifted[Example]) -> Json:
    """Write what a sieve kept and rejected, and count it."""
    context.write(f"{folder}/examples.jsonl", sifted.kept)
    context.write(f"{folder}/rejected.jsonl", sifted.rejected)
    reasons = Counter(rejection.reason.value for rejection in sifted.rejected)
    return {
        "in": len(sifted.kept) + len(sifted.rejected),
        "kept": len(sifted.kept),
        "rejected": dict(sorted(reasons.items())),
    }


def run_train(context: Context) -> Json:
    from distill.export.card import write_card
    from distill.train.stage import run_training

    run = context.run
    counts = run_training(run, context.watcher.progress, context.watcher.notice)
    write_card(run, run.path / "7-train" / "adapter")
    return counts


def run_evaluate(context: Context) -> Json:
    from distill.evaluate.stage import run_evaluation

    return run_evaluation(context.run, context.watcher.progress, context.watcher.notice)


def run_report(context: Context) -> Json:
    from distill.report import write_report

    return write_report(context.run.path)
