"""examples -> at most the quota of each cell. Only removes: weighting belongs to training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from distill.records import Cell, Example, Reason, Rejection, Sifted, digest


def balance(examples: Iterable[Example], quotas: Mapping[Cell, int], seed: int) -> Sifted[Example]:
    """Keep min(quota, available) examples of each cell, spread over its families and styles.

    A cell without a quota keeps none. What a quota keeps, every larger quota keeps too. The team's
    own rows are kept beside the quotas.
    Both lists are sorted by id; the order of `examples` does not matter.
    """
    by_cell: dict[Cell, list[Example]] = defaultdict(list)
    sifted: Sifted[Example] = Sifted([], [])
    for example in examples:
        if example.is_own:
            sifted.kept.append(example)
        else:
            by_cell[example.scenario.cell].append(example)
    for cell, members in sorted(by_cell.items()):
        quota = quotas.get(cell, 0)
        ordered = list(_round_robin(members, seed))
        sifted.kept.extend(ordered[:quota])
        detail = f"{cell} has its quota of {quota}" if quota else f"{cell} has no quota"
        sifted.rejected.extend(
            Rejection(stage="balance", reason=Reason.OVER_QUOTA, detail=detail, item=example)
            for example in ordered[quota:]
        )
    sifted.kept.sort(key=lambda example: example.id)
    sifted.rejected.sort(key=lambda rejection: rejection.item.id)
    return sifted


def deficits(kept: Iterable[Example], quotas: Mapping[Cell, int]) -> dict[Cell, int]:
    """The number of examples missing per cell; cells that have their quota are left out."""
    counts = Counter(example.scenario.cell for example in kept)
    return {cell: quota - counts[cell] for cell, quota in quotas.items() if counts[cell] < quota}


def _round_robin(members: Iterable[Example], seed: int) -> Iterator[Example]:
    """In every round one example of each family, in its style with the fewest examples so far.

    Families, examples and ties of styles are in an order that depends on `seed` and ids alone.
    """
    by_family: dict[str, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    for example in sorted(members, key=lambda e: digest([seed, e.id])):
        by_family[example.scenario.family][example.scenario.style].append(example)
    families = [by_family[name] for name in sorted(by_family, key=lambda f: digest([seed, f]))]
    taken: Counter[str] = Counter()
    while families:
        for styles in families:
            style = min(styles, key=lambda s: (taken[s], digest([seed, s])))
            taken[style] += 1
            yield styles[style].pop()
            if not styles[style]:
                del styles[style]
        families = [styles for styles in families if styles]
