"""examples -> train, dev and test, by family: what resembles each other never parts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import yaml

from distill.config import Config, DataConfig
from distill.dedup import near_pairs
from distill.records import Cell, Example, Failure, Record, Rejection, digest
from distill.workflow.model import Workflow


class Splits(NamedTuple):
    """The three parts, each in the order of ids, and what there is to say about them."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    notes: tuple[str, ...] = ()


class StageCount(Record):
    """What went into a stage and what came out: came_in = kept + all of dropped."""

    stage: str
    came_in: int
    kept: int
    dropped: dict[str, int] = {}
    """How many by reason."""

    @classmethod
    def of(cls, stage: str, kept: int, dropped: Iterable[Rejection | Failure]) -> StageCount:
        reasons = Counter(item.reason.value for item in dropped)
        return cls(
            stage=stage,
            came_in=kept + reasons.total(),
            kept=kept,
            dropped=dict(sorted(reasons.items())),
        )


class Leak(NamedTuple):
    """Two prompts of different parts that are exact or near duplicates."""

    one: Example
    other: Example


def split(examples: Iterable[Example], data: DataConfig) -> Splits:
    """Hold out the shares of `data` of each cell, in whole families.

    Families with near-duplicate prompts are joined first, so that none crosses the splits. A cell
    whose families are too few or too large to come closer to its share keeps all in train, and
    a note says so. The result does not depend on the order of `examples`.
    """
    ordered = sorted(examples, key=lambda example: example.id)
    parts: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    for groups in _by_cell(_joined(ordered, data.near_duplicate)).values():
        for name, members in _deal(groups, data):
            parts[name].extend(members)
    for part in parts.values():
        part.sort(key=lambda example: example.id)
    return Splits(**parts, notes=tuple(_notes(ordered, parts)))


def leaks(a: Sequence[Example], b: Sequence[Example], threshold: float) -> list[Leak]:
    """Every exact or near duplicate between two parts."""
    both = [*a, *b]
    pairs = near_pairs([example.prompt for example in both], threshold)
    return [Leak(both[i], both[j]) for i, j in pairs if i < len(a) <= j]


def _joined(examples: Sequence[Example], threshold: float) -> list[list[Example]]:
    """Families, those with near-duplicate prompts joined (union-find over families)."""
    parent = {example.scenario.family: example.scenario.family for example in examples}

    def root(family: str) -> str:
        while parent[family] != family:
            parent[family] = family = parent[parent[family]]
        return family

    for i, j in near_pairs([example.prompt for example in examples], threshold):
        one, other = root(examples[i].scenario.family), root(examples[j].scenario.family)
        parent[max(one, other)] = min(one, other)
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[root(example.scenario.family)].append(example)
    return list(groups.values())


def _by_cell(groups: Iterable[list[Example]]) -> dict[Cell, list[list[Example]]]:
    """Groups under the cell that most of their examples are of, cells in order."""
    cells: dict[Cell, list[list[Example]]] = defaultdict(list)
    for group in groups:
        counts = Counter(example.scenario.cell for example in group)
        cells[min(counts, key=lambda cell: (-counts[cell], cell))].append(group)
    return dict(sorted(cells.items()))


def _deal(groups: list[list[Example]], data: DataConfig) -> list[tuple[str, list[Example]]]:
    """Each group and its part: held out where that brings the part closer to its share.

    The largest group is always trained on.
    """
    shuffled = sorted(groups, key=lambda g: digest([data.seed, g[0].scenario.family]))
    largest = max(shuffled, key=len)
    total = sum(map(len, groups))
    lacking = {"test": data.test_share * total, "dev": data.dev_share * total}
    dealt = []
    for group in shuffled:
        part = max(lacking, key=lambda name: lacking[name])
        if group is not largest and lacking[part] >= len(group) / 2:
            lacking[part] -= len(group)
        else:
            part = "train"
        dealt.append((part, group))
    return dealt


def _notes(examples: Sequence[Example], parts: Mapping[str, Sequence[Example]]) -> list[str]:
    families: dict[Cell, set[str]] = defaultdict(set)
    for example in examples:
        families[example.scenario.cell].add(example.scenario.family)
    has = {name: {e.scenario.cell for e in part} for name, part in parts.items()}
    notes = []
    for cell, found in sorted(families.items()):
        lacking = [name for name in ("train", "dev", "test") if cell not in has[name]]
        if lacking:
            number = "1 family" if len(found) == 1 else f"{len(found)} families"
            notes.append(
                f"{cell} has no examples in {' and '.join(lacking)}: "
                f"its {number} cannot be parted so as to meet the shares"
            )
    return notes


def dataset_card(
    workflow: Workflow, splits: Splits, config: Config, funnel: Sequence[StageCount] = ()
) -> str:
    """README.md of the folder with the splits: a Hugging Face dataset card."""
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    header = yaml.safe_dump(_card_header(workflow, parts), sort_keys=False, allow_unicode=True)
    teachers = sorted({e.teacher for part in parts.values() for e in part})
    sections = [
        f"---\n{header}---\n\n# {_one_line(workflow.title)}",
        f"Synthetic routing conversations for the workflow `{workflow.name}`: which tool a request "
        "must reach, with which arguments, or whether to ask, to answer or to refuse.",
        "## Counts\n\n" + _counts(parts),
        *(["## What was sieved out\n\n" + _funnel(funnel)] if funnel else []),
        "## How it was made\n\n" + _how(workflow, config, teachers),
        FIELDS,
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in (*LIMITS, *splits.notes)),
    ]
    return "\n\n".join(sections) + "\n"


FIELDS = """## Fields

| field | meaning |
|---|---|
| `id` | digest of scenario, conversation and target |
| `scenario` | what was asked for: rule, target kind, tools, style, language, topic, seed |
| `messages` | the conversation, up to the turn that the target describes |
| `target` | the right action: `kind` is call, ask, answer or refuse; then `calls` or `reply` |
| `teacher` | who wrote it |"""

LIMITS = (
    "The label was decided by the plan before the text was written; no human has read the rows.",
    "The requests are the teacher's idea of how people write. The test split has the same origin: "
    "it measures agreement with the teacher, human-written cases measure use.",
    "Splits are by family: no topic, and no exact or near duplicate, stands in two of them.",
)


def _card_header(workflow: Workflow, parts: Mapping[str, Sequence[Example]]) -> dict[str, object]:
    hub = {"train": "train", "dev": "validation", "test": "test"}
    files = [{"split": hub[n], "path": f"{n}.jsonl"} for n, part in parts.items() if part]
    languages = sorted({e.scenario.language for part in parts.values() for e in part})
    return {
        "pretty_name": workflow.title,
        "language": languages,
        "task_categories": ["text-generation"],
        "tags": ["function-calling", "tool-routing", "synthetic"],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _counts(parts: Mapping[str, Sequence[Example]]) -> str:
    counts = {name: Counter(e.scenario.cell for e in part) for name, part in parts.items()}
    cells = sorted(set().union(*counts.values()))
    rows = ["| rule | target | train | dev | test |", "|---|---|--:|--:|--:|"]
    for cell in cells:
        numbers = " | ".join(str(counts[name][cell]) for name in parts)
        rows.append(f"| {cell.rule} | {cell.target} | {numbers} |")
    totals = " | ".join(str(len(part)) for part in parts.values())
    return "\n".join([*rows, f"| all | | {totals} |"])


def _funnel(funnel: Iterable[StageCount]) -> str:
    rows = ["| stage | in | kept | rejected |", "|---|--:|--:|---|"]
    for count in funnel:
        reasons = ", ".join(f"{reason} {n}" for reason, n in count.dropped.items()) or "none"
        rows.append(f"| {count.stage} | {count.came_in} | {count.kept} | {reasons} |")
    return "\n".join(rows)


def _how(workflow: Workflow, config: Config, teachers: Sequence[str]) -> str:
    data = config.data
    return "\n".join(
        [
            f"- Workflow `{workflow.name}`, fingerprint `{workflow.fingerprint}`.",
            f"- Teacher: {', '.join(f'`{t}`' for t in teachers) or 'none'}. Seed: {data.seed}.",
            "- Checked for format, JSON Schema of arguments and grounding of argument values.",
            f"- Duplicates removed: exact, and near (character 3-grams, Jaccard "
            f"{data.near_duplicate} and more), among themselves and with the gold set "
            f"({len(workflow.gold)} cases).",
            f"- Held out by family: {data.dev_share:g} for dev, {data.test_share:g} for test.",
        ]
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
