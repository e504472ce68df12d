"""examples -> train, dev and test, split by family: near duplicates stay together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from distill.config import DataConfig
from distill.data.dedup import near_duplicate_pairs
from distill.records import Cell, Example, digest


class Splits(NamedTuple):
    """Train, dev and test, each sorted by id, and notes on cells that miss a part."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    notes: tuple[str, ...] = ()


class Leak(NamedTuple):
    """An exact or near duplicate across two splits."""

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
    for groups in _by_cell(_merge_near_duplicates(ordered, data.near_duplicate)).values():
        for name, members in _assign_parts(groups, data):
            parts[name].extend(members)
    for part in parts.values():
        part.sort(key=lambda example: example.id)
    return Splits(**parts, notes=tuple(_missing_parts(ordered, parts)))


def leaks(a: Sequence[Example], b: Sequence[Example], threshold: float) -> list[Leak]:
    """Every exact or near duplicate between two parts."""
    both = [*a, *b]
    pairs = near_duplicate_pairs([example.conversation.key for example in both], threshold)
    return [Leak(both[i], both[j]) for i, j in pairs if i < len(a) <= j]


def _merge_near_duplicates(examples: Sequence[Example], threshold: float) -> list[list[Example]]:
    """Families, merged where prompts are near duplicates (union-find)."""
    parent = {example.scenario.family: example.scenario.family for example in examples}

    def root(family: str) -> str:
        while parent[family] != family:
            parent[family] = family = parent[parent[family]]
        return family

    for i, j in near_duplicate_pairs([example.conversation.key for example in examples], threshold):
        one, other = root(examples[i].scenario.family), root(examples[j].scenario.family)
        parent[max(one, other)] = min(one, other)
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[root(example.scenario.family)].append(example)
    return list(groups.values())


def _by_cell(groups: Iterable[list[Example]]) -> dict[Cell, list[list[Example]]]:
    """Groups by the cell of most of their examples, sorted."""
    cells: dict[Cell, list[list[Example]]] = defaultdict(list)
    for group in groups:
        counts = Counter(example.scenario.cell for example in group)
        cells[min(counts, key=lambda cell: (-counts[cell], cell))].append(group)
    return dict(sorted(cells.items()))


def _assign_parts(groups: list[list[Example]], data: DataConfig) -> list[tuple[str, list[Example]]]:
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


def _missing_parts(
    examples: Sequence[Example], parts: Mapping[str, Sequence[Example]]
) -> list[str]:
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
