"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import JsonValue

from distill.evaluate.score import Scores
from distill.evaluate.tables import CellFormat, repaired_note, sorted_arms
from distill.records import canonical_json
from distill.report.model import Report, Training, WorstCase
from distill.report.verdict import verdict
from distill.run import layout
from distill.workflow.problems import as_markdown

MAX_CHARS = 300
"""Characters shown of a prompt or an output; the run's files have all of it."""

_FORMAT = CellFormat()


def render(report: Report) -> str:
    """The page; stages that have not run are listed, and have no section."""
    sections = [
        f"# {as_markdown(report.title)}",
        f"**{as_markdown(verdict(report))}**",
        f"Not run yet: {', '.join(report.missing)}." if report.missing else "",
        *_evaluations(report),
        _worst(report),
        *_data(report),
        *_training(report.training),
        _not_measured(report),
        *_provenance(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a column whose name begins with `>` is aligned to the right."""
    names = [column.removeprefix(">") for column in columns]
    alignments = ["--:" if column.startswith(">") else "---" for column in columns]
    lines = [f"| {' | '.join(names)} |", f"|{'|'.join(alignments)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def sparkline(values: Sequence[float]) -> str:
    """One block character for each value, scaled from the smallest to the largest."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (value - low) / span)] for value in values)


def _evaluations(report: Report) -> Iterator[str]:
    if not report.evaluations:
        return
    yield "## Scores"
    yield "Shares in percent with 95% Wilson intervals; - where an arm has none."
    for dataset, arms in report.evaluations.items():
        yield f"### {as_markdown(dataset)}: {_origin(dataset, report.own.get('test', 0))}"
        yield _scores(arms)
        yield _repaired(arms)
        yield _calibration(arms)
        yield from _by_rule(arms)
        yield _outcomes(arms)


def _origin(dataset: str, own: int) -> str:
    """own: how many rows of the test split are the team's own"""
    if dataset == "gold":
        return "prompts written by people"
    if dataset == "test" and own:
        return f"held out, {own} of them from the team's own rows"
    return "held out from the teacher's own data" if dataset == "test" else "a file"


def _scores(arms: Mapping[str, Scores]) -> str:
    columns = ["arm", ">n", ">right tool", ">full call", ">malformed", ">argument F1"]
    rows = [[as_markdown(arm), *_FORMAT.score_cells(arms[arm])] for arm in sorted_arms(arms)]
    return table([*columns, ">grounding F1"], rows)


def _repaired(arms: Mapping[str, Scores]) -> str:
    found = repaired_note(arms)
    return f"{as_markdown(found.capitalize())}." if found else ""


def _calibration(arms: Mapping[str, Scores]) -> str:
    """How well the tuned student's confidence is calibrated; empty if it has none."""
    found = arms["tuned"].calibration if "tuned" in arms else None
    if found is None:
        return ""
    surer, other = _FORMAT.percent(found.surer_half), _FORMAT.percent(found.other_half)
    return (
        f"The tuned student's confidence: right tool {surer} in the half of the {found.n} rows of "
        f"which it is surer, {other} in the other; expected calibration error "
        f"{100 * found.error:.1f}."
    )


def _by_rule(arms: Mapping[str, Scores]) -> Iterator[str]:
    """Tool accuracy by rule, the tuned student's worst rule first."""
    tuned = arms.get("tuned")
    if tuned is None or not tuned.by_rule:
        return
    yield "Right tool by rule, worst first:"
    others = [arm for arm in sorted_arms(arms) if arm != "tuned"]
    rows = []
    for rule, share in sorted(tuned.by_rule.items(), key=lambda r: (r[1].tool_accuracy, r[0])):
        shares = (arms[arm].by_rule.get(rule) for arm in others)
        cells = [_FORMAT.percent(other.tool_accuracy if other else None) for other in shares]
        own = _FORMAT.percent(share.tool_accuracy, share.interval)
        rows.append([as_markdown(rule), str(share.n), own, *cells])
    yield table(["rule", ">n", ">tuned", *(f">{as_markdown(arm)}" for arm in others)], rows)


def _outcomes(arms: Mapping[str, Scores]) -> str:
    names = sorted_arms(arms)
    rows = []
    for outcome in dict.fromkeys(outcome for arm in names for outcome in arms[arm].outcomes):
        counts = [arms[arm].outcomes.get(outcome, 0) for arm in names]
        if any(counts):
            rows.append([as_markdown(outcome), *map(str, counts)])
    return table(["outcome", *(f">{as_markdown(arm)}" for arm in names)], rows)


def _worst(report: Report) -> str:
    if not report.worst:
        return ""
    cases = "\n".join(_worst_case(number, case) for number, case in enumerate(report.worst, 1))
    return f"## What the tuned student got wrong\n\n{cases}"


def _worst_case(number: int, case: WorstCase) -> str:
    rule = f", rule {as_markdown(case.rule)}" if case.rule else ""
    outcome = "wrong arguments" if case.wrong_arguments else case.outcome
    return "\n".join(
        [
            f"{number}. {as_markdown(outcome)} ({as_markdown(case.dataset)}{rule})",
            f"   - prompt: {_excerpt(case.prompt)}",
            f"   - expected: {_excerpt(case.expected)}",
            f"   - output: {_excerpt(case.raw) or 'nothing'}",
        ]
    )


def _excerpt(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return as_markdown(text)
    return f"{as_markdown(text[:MAX_CHARS])} … and {len(text) - MAX_CHARS} more characters"


def _data(report: Report) -> Iterator[str]:
    funnel = report.funnel
    if not funnel.stages:
        return
    yield "## Data"
    yield table(
        ["stage", ">in", ">out", "dropped"],
        [
            [count.stage, str(count.came_in), str(count.kept), _reason_counts(count.dropped)]
            for count in funnel.stages
        ],
    )
    if report.splits:
        yield f"Splits, by family: {_counts(report.splits)}."
    if report.own:
        yield f"Of them the team's own rows: {_counts(report.own)}."
    names = [name for name in _CELL_FIELDS if name != "own" or any(c.own for c in funnel.cells)]
    yield table(
        ["rule", "target", *(f">{name.replace('_', ' ')}" for name in names)],
        [
            [
                as_markdown(cell.rule) or "(none)",
                cell.target,
                *(str(getattr(cell, name)) for name in names),
            ]
            for cell in funnel.cells
        ],
    )
    if funnel.examples:
        yield "One example of each reason:"
        yield table(
            ["stage", "reason", "prompt", "detail"],
            [
                [
                    r.stage,
                    as_markdown(r.reason.replace("_", " ")),
                    _excerpt(r.prompt),
                    _excerpt(r.detail),
                ]
                for r in funnel.examples
            ],
        )


def _counts(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in splits.items())


_CELL_FIELDS = ("quota", "own", "asked", "failed", "rejected", "over_quota", "accepted")


def _reason_counts(counts: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{as_markdown(reason.replace('_', ' '))} {n}" for reason, n in counts.items())
        or "none"
    )


def _training(training: Training | None) -> Iterator[str]:
    if training is None:
        return
    yield "## Training"
    best = training.best_dev_loss
    kept = "there was no dev split"
    if best is not None and training.best_dev_accuracy is not None:
        kept = f"{training.best_dev_accuracy:.1%} of dev's decisions right, dev loss {best:.4f}"
    yield (
        f"Student {as_markdown(training.student)}: {training.steps} steps in "
        f"{training.seconds:.0f} s; "
        f"{kept}. Rows that did not fit: {_reason_counts(training.rejected)}."
    )
    for name in ("train", "dev"):
        losses = [getattr(point, f"{name}_loss") for point in training.curve]
        known = [loss for loss in losses if loss is not None]
        if known:
            ends = f"{known[0]:.3f} to {known[-1]:.3f}"
            yield f"{name} loss, {ends}: `{sparkline(_downsample(known))}`"
    yield f"![Training and dev loss over the steps]({layout.LOSS_PLOT})"


def _downsample(values: Sequence[float], size: int = 60) -> list[float]:
    """At most `size` evenly spaced values, the first and the last among them."""
    if len(values) <= size:
        return list(values)
    return [values[round(i * (len(values) - 1) / (size - 1))] for i in range(size)]


def _not_measured(report: Report) -> str:
    notes = [
        "Agreement of the labels with a second opinion: the label is the plan's, "
        f"{'or that of your own rows, ' * bool(report.own)}and no judge has voted on it.",
        "Use: nobody has sent real requests to the student, and latency was not taken.",
    ]
    if "gold" not in report.evaluations:
        notes.insert(0, "Prompts written by people: there is no gold set, or it was not evaluated.")
    elif "teacher" not in report.evaluations["gold"]:
        notes.insert(0, "The teacher on gold: it was not asked to route the prompts itself.")
    if "test" in report.evaluations and not report.own.get("test"):
        notes.append(
            "The test split is the teacher's own: it shows agreement with the teacher, not use."
        )
    if report.training:
        notes.append("Other training seeds: this is one run with one seed.")
    return "## What was not measured\n\n" + "\n".join(f"- {note}" for note in notes)


def _provenance(report: Report) -> Iterator[str]:
    yield "## Where it comes from"
    yield "\n".join(
        [
            f"- Workflow {as_markdown(report.workflow)}, fingerprint `{report.fingerprint}`",
            f"- distill {as_markdown(report.distill)}",
            f"- Teacher: {as_markdown(report.teacher.name)}. {as_markdown(report.teacher.limits)}",
        ]
    )
    if report.settings:
        yield table(["stages", "settings"], _settings(report.settings))


def _settings(by_stage: Mapping[str, JsonValue]) -> Iterator[list[str]]:
    """A row for each set of settings, with all stages that have it."""
    stages: dict[str, list[str]] = {}
    for stage, values in by_stage.items():
        items = values.items() if isinstance(values, dict) else ()
        settings = ", ".join(f"{name} = {canonical_json(value)}" for name, value in items)
        stages.setdefault(settings, []).append(stage)
    for settings, names in stages.items():
        yield [", ".join(names), as_markdown(settings)]
