"""examples -> train, dev and test, split by family: near duplicates stay together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from distill.config import DataConfig
from distill.data.dedup import near_duplicate_pairs
from distill.records import Cell, Example, Split, digest

_HELD_OUT_FIRST: tuple[Split, ...] = ("test", "dev", "train")


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
    """Stratified split: hold out the dev and test shares of each cell, by whole families.

    Families with near-duplicate prompts are merged first, so that none leaks across the splits.
    A cell whose families are too few or too large for its shares stays in train, with a note.
    A row that says its split is in it, its family with it, and counts to the shares.
    The order of `examples` does not matter.
    """
    ordered = sorted(examples, key=lambda example: example.id)
    cells: dict[Cell, list[list[Example]]] = defaultdict(list)
    told: dict[Cell, Counter[str]] = defaultdict(Counter)
    parts: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    for group in _merge_near_duplicates(ordered, data.near_duplicate):
        # Merged families may span cells; the group counts as its most frequent cell.
        counts = Counter(example.scenario.cell for example in group)
        cell = min(counts, key=lambda cell: (-counts[cell], cell))
        rest = min((e.split for e in group if e.split), key=_HELD_OUT_FIRST.index, default=None)
        if rest is None:
            cells[cell].append(group)
            continue
        for example in group:
            parts[example.split or rest].append(example)
            told[cell][example.split or rest] += 1
    for cell, groups in cells.items():
        for name, members in _assign_parts(groups, data, told[cell]):
            parts[name].extend(members)
    for part in parts.values():
        part.sort(key=lambda example: (example.id, example.place))
    return Splits(**parts, notes=tuple(_missing_parts(ordered, parts)))


def leaks(a: Sequence[Example], b: Sequence[Example], threshold: float) -> list[Leak]:
    """Every exact or near duplicate of an example of `a` in `b`."""
    examples = [*a, *b]
    pairs = near_duplicate_pairs(_keys(examples), threshold)
    return [Leak(examples[i], examples[j]) for i, j in pairs if i < len(a) <= j]


def _merge_near_duplicates(examples: Sequence[Example], threshold: float) -> list[list[Example]]:
    """Families, merged where prompts are near duplicates (union-find)."""
    parent = {example.scenario.family: example.scenario.family for example in examples}

    def root(family: str) -> str:
        while parent[family] != family:
            parent[family] = family = parent[parent[family]]
        return family

    for i, j in near_duplicate_pairs(_keys(examples), threshold):
        one, other = root(examples[i].scenario.family), root(examples[j].scenario.family)
        parent[max(one, other)] = min(one, other)
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[root(example.scenario.family)].append(example)
    return list(groups.values())


def _keys(examples: Iterable[Example]) -> list[str]:
    return [example.conversation.without_system().key for example in examples]


def _assign_parts(
    groups: list[list[Example]], data: DataConfig, told: Mapping[str, int]
) -> list[tuple[str, list[Example]]]:
    """(part, group) of each group: held out where that brings the part closer to its share.

    told: how many more examples each part has
    The largest group always goes to train.
    """
    shuffled = sorted(groups, key=lambda g: digest([data.seed, g[0].scenario.family]))
    largest = max(shuffled, key=len)
    total = sum(map(len, groups)) + sum(told.values())
    shares = {"test": data.test_share, "dev": data.dev_share}
    remaining = {name: share * total - told.get(name, 0) for name, share in shares.items()}
    assigned = []
    for group in shuffled:
        part = max(remaining, key=lambda name: remaining[name])
        if group is not largest and remaining[part] >= len(group) / 2:
            remaining[part] -= len(group)
        else:
            part = "train"
        assigned.append((part, group))
    return assigned


def _missing_parts(
    examples: Sequence[Example], parts: Mapping[str, Sequence[Example]]
) -> list[str]:
    """A note for each cell that has no examples in one of the parts."""
    families: dict[Cell, set[str]] = defaultdict(set)
    untold = {example.scenario.cell for example in examples if not example.split}
    for example in examples:
        families[example.scenario.cell].add(example.scenario.family)
    cells = {name: {e.scenario.cell for e in part} for name, part in parts.items()}
    notes = []
    for cell, names in sorted(families.items()):
        missing = [part for part in ("train", "dev", "test") if cell not in cells[part]]
        if missing:
            number = "1 family" if len(names) == 1 else f"{len(names)} families"
            reason = f"its {number} cannot be parted so as to meet the shares"
            if cell not in untold:
                reason = "each of its rows says its split"
            notes.append(f"{cell} has no examples in {' and '.join(missing)}: {reason}")
    return notes
