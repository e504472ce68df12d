"""examples -> as many examples per cell as its quota asks for; only removes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from distill.records import Cell, Example, Reason, Rejection, Sifted, digest


def balance(examples: Iterable[Example], quotas: Mapping[Cell, int], seed: int) -> Sifted[Example]:
    """Keep min(quota, available) of each cell, its families and styles as even as they allow.

    A cell without a quota keeps nothing. A larger quota keeps what a smaller one kept, and more.
    Both lists come back in the order of ids, whatever the order of `examples`.
    """
    sifted: Sifted[Example] = Sifted([], [])
    for cell, members in sorted(_by_cell(examples).items()):
        quota = quotas.get(cell, 0)
        turns = list(_round_robin(members, seed))
        sifted.kept.extend(turns[:quota])
        sifted.rejected.extend(_over_quota(example, cell, quota) for example in turns[quota:])
    sifted.kept.sort(key=lambda example: example.id)
    sifted.rejected.sort(key=lambda rejection: rejection.item.id)
    return sifted


def deficits(kept: Iterable[Example], quotas: Mapping[Cell, int]) -> dict[Cell, int]:
    """How many examples each cell still lacks; cells that lack none are left out."""
    have = Counter(example.scenario.cell for example in kept)
    return {cell: quota - have[cell] for cell, quota in quotas.items() if have[cell] < quota}


def _by_cell(examples: Iterable[Example]) -> dict[Cell, list[Example]]:
    groups: dict[Cell, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.scenario.cell].append(example)
    return groups


def _round_robin(members: Iterable[Example], seed: int) -> Iterator[Example]:
    """Round after round one example of each family, of the style that was least taken so far."""
    taken: Counter[str] = Counter()
    families = _shuffled_families(members, seed)
    while families:
        for styles in families:
            style = min(styles, key=lambda s: (taken[s], digest([seed, s])))
            taken[style] += 1
            yield styles[style].pop()
            if not styles[style]:
                del styles[style]
        families = [styles for styles in families if styles]


def _shuffled_families(members: Iterable[Example], seed: int) -> list[dict[str, list[Example]]]:
    """Families in an order that is the seed's; in each, the examples by style."""
    families: dict[str, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    for example in sorted(members, key=lambda e: digest([seed, e.id])):
        families[example.scenario.family][example.scenario.style].append(example)
    return [families[name] for name in sorted(families, key=lambda f: digest([seed, f]))]


def _over_quota(example: Example, cell: Cell, quota: int) -> Rejection:
    detail = f"{cell} has its quota of {quota}" if quota else f"{cell} has no quota"
    return Rejection(stage="balance", reason=Reason.OVER_QUOTA, detail=detail, item=example)
