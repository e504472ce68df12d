"""How sure a share is, and whether two arms differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A confidence interval of a share, as fractions."""

    low: float
    high: float


def wilson(successes: int, n: int, z: float = 1.96) -> Interval:
    """The Wilson score interval of `successes` out of `n`; of nothing, everything is possible.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n}")
    if n == 0:
        return Interval(0.0, 1.0)
    share, spread = successes / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / n / 4) / (1 + spread)
    # The formula gives these two exactly; floats do not.
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return Interval(low, high)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """The exact two-sided p of McNemar's test for two arms on the same rows, in the same order.

    The chance of rows on which only one arm is right being split at least this unevenly if both
    were equally good. Source: McNemar 1947, doi:10.1007/BF02295996, with the binomial test.
    """
    pairs = list(zip(a, b, strict=True))
    only_a = sum(one and not other for one, other in pairs)
    only_b = sum(other and not one for one, other in pairs)
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**n))


def calibration_error(sure: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """The expected calibration error: how far confidence and share of right answers lie apart.

    Rows fall into equally wide bins by confidence, from 0 to 1; the distances are weighted by the
    rows in a bin. Source: Naeini, Cooper and Hauskrecht 2015, doi:10.1609/aaai.v29i1.9602.
    """
    gaps = [0.0] * bins
    for p, was_right in zip(sure, right, strict=True):
        gaps[min(int(p * bins), bins - 1)] += p - was_right
    return sum(map(abs, gaps)) / len(sure) if sure else 0.0
