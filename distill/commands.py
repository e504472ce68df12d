"""What the commands have in common: opening a run, going on with it, showing what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import terminal
from distill.config import Config
from distill.run.asking import REPLIES
from distill.run.folder import RunFolder, locked
from distill.run.ledger import LedgerEntry
from distill.run.replies import ReplyStore
from distill.teachers.make import make_teacher, named_teacher
from distill.teachers.metered import Budget
from distill.teachers.prices import money, spending_line
from distill.workflow.model import Workflow

if TYPE_CHECKING:
    from distill.forecast import Forecast


def generate(
    workflow: Workflow,
    rules: Path,
    out: Path | None,
    config: Path | None,
    redo: bool,
    flags: dict[str, Any],
) -> RunFolder:
    """The run folder, with its data made."""
    from distill.pipeline import make_data

    run = planned(workflow, rules, out, config, flags)
    _require_teacher(run)
    with locked(run.path, create=True), terminal.TerminalWatcher() as watcher:
        begun = RunFolder.create(run.path, workflow, run.config, anew=redo)
        make_data(begun, watcher)
    if entries := [entry for entry in spending(begun) if entry.tokens]:
        said = spending_line(entries, run.config.teacher)
        terminal.err.print(f"spent so far: {said}", markup=False)
    return begun


def planned(
    workflow: Workflow, rules: Path, out: Path | None, config: Path | None, flags: dict[str, Any]
) -> RunFolder:
    """The run that the settings name, with nothing of it written."""
    settings = Config.load(_settings_file(config, rules.parent), _sections(flags))
    if settings.teacher.kind == "grammar" and flags.get("teacher__kind") is None:
        from distill.teachers.grammar import LIMITS

        terminal.err.print(f"note: no teacher was named. {LIMITS}", markup=False)
    return RunFolder.of(out or Path("runs") / workflow.name, workflow, settings)


def forecast(run: RunFolder, count: int | None) -> Forecast:
    """What the run would send; with a probe of `count` scenarios that are asked for now."""
    from distill import forecast as forecasts
    from distill.run.asking import Asking

    settings = run.config.teacher
    if count is None:
        there = run.path / REPLIES
        with ReplyStore(there if there.exists() else Path(":memory:")) as replies:
            return forecasts.forecast(run, named_teacher(settings), replies)
    _require_teacher(run)
    with locked(run.path, create=True), terminal.TerminalWatcher() as watcher:
        begun = RunFolder.create(run.path, run.workflow, run.config)
        watcher.begins("probe")
        with Asking(begun, watcher.notice) as asking:
            measured = forecasts.probe(begun, asking, count, watcher.progress)
            return forecasts.forecast(begun, asking.inner, asking.replies, measured)


def _require_teacher(run: RunFolder) -> None:
    """A teacher or a budget that cannot be is said before anything of a run is written."""
    make_teacher(run.config.teacher)
    Budget.of(run.config.teacher, spending(run))


def show_forecast(run: RunFolder, found: Forecast) -> None:
    settings, rows = run.config.teacher, []
    for label, amount in (
        ("likely" if found.probe else "first round", found.low),
        ("if all goes badly", found.high),
    ):
        rows.append(
            (
                label,
                f"{amount.scenarios:,}",
                f"{amount.requests:,}",
                f"{amount.prompt_tokens:,}",
                f"{amount.cached_tokens:,}",
                f"{amount.completion_tokens:,}",
                money(amount.usd),
                terminal.duration(amount.seconds),
            )
        )
    columns = ["", "scenarios", "requests", "prompt", "cached", "completion", "money", "time"]
    title = f"{run.path}: {run.config.data.target:,} examples by {settings.model or settings.kind}"
    terminal.out.print(terminal.table(title, columns, rows if found.probe else rows[:1]))
    for line in forecast_notes(run, found):
        terminal.out.print(line, markup=False)


def forecast_notes(run: RunFolder, found: Forecast) -> list[str]:
    """What a forecast rests on, and how to make it better."""
    from distill.forecast import ASSUMED_LATENCY, CHARS_PER_TOKEN

    notes = [f"{found.planned:,} scenarios in the first round, {found.kept:,} answered already"]
    if found.gate:
        notes.append(f"before that, the teacher routes gold: {found.gate:,} requests")
    probe = found.probe
    if probe:
        each = probe.each
        notes.append(
            f"measured on {probe.asked} scenarios: {probe.accepted} accepted, {probe.failed} "
            f"failed, {each.seconds:.1f} s and {each.completion_tokens:.0f} tokens a reply"
        )
    elif run.config.teacher.kind != "grammar":
        notes.append(
            f"estimated: {CHARS_PER_TOKEN} characters a token, {ASSUMED_LATENCY:g} s a reply, "
            "every prompt in full, no round but the first; --probe 30 measures"
        )
    if found.low.usd is None:
        name = run.config.teacher.model
        notes.append(f'the price of "{name}" is not known: give it under [teacher.prices."{name}"]')
    return notes


def spending(run: RunFolder) -> Sequence[LedgerEntry]:
    """What the run has spent so far, by stage."""
    path = run.path / REPLIES
    if not path.exists():
        return ()
    with ReplyStore(path) as replies:
        return replies.entries()


def go_on(
    path: Path, first: str, last: str, config: Path | None, redo: bool, flags: dict[str, Any]
) -> RunFolder:
    """Run a stage of a run that has its data."""
    from distill import pipeline

    with locked(path), terminal.TerminalWatcher() as watcher:
        run = reopen(path, config, flags)
        if redo:
            pipeline.redo(run, first)
        pipeline.run_from(run, watcher, first, last)
    return run


def evaluated(run: RunFolder) -> list[str]:
    """The data sets that the stage evaluate has scored, gold first."""
    counts = run.manifest.stages["evaluate"].counts
    return [name for name in ("gold", "test") if name in counts]


def reopen(path: Path, config: Path | None, flags: dict[str, Any]) -> RunFolder:
    """The run at `path` as it was made, but for --config's [train] and [evaluate] and for flags."""
    run = RunFolder.open(path)
    tables = {name: getattr(run.config, name).model_dump() for name in Config.model_fields}
    if config:
        given = Config.load(config)
        tables |= {"train": given.train.model_dump(), "evaluate": given.evaluate.model_dump()}
    for section, values in _sections(flags).items():
        tables[section] |= {key: value for key, value in values.items() if value is not None}
    return run.with_config(Config.load(None, tables))


def _sections(flags: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Flags named section__setting, as tables."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in flags.items():
        section, _, key = name.partition("__")
        sections.setdefault(section, {})[key] = value
    return sections


def _settings_file(given: Path | None, beside: Path) -> Path | None:
    """--config, or distill.toml beside the rules, or distill.toml here."""
    if given:
        return given
    candidates = [beside / "distill.toml", Path("distill.toml")]
    return next((path for path in candidates if path.is_file()), None)


def show_scores(folder: Path, datasets: Sequence[str], as_json: bool) -> None:
    from distill.evaluate.stage import read_scores
    from distill.evaluate.tables import scores_object, table

    found = {name: read_scores(folder, name) for name in datasets}
    if as_json:
        objects = [scores_object(name, arms) for name, arms in found.items()]
        terminal.print_json(objects[0] if len(objects) == 1 else objects)
    else:
        for name, arms in found.items():
            terminal.out.print(table(arms, name))


def next_is(command: str) -> None:
    terminal.err.print(f"next: {command}", markup=False)
