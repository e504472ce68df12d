"""Confidence intervals of shares, a paired test of two arms, and the calibration error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A confidence interval of a share, as fractions."""

    low: float
    high: float


def wilson(successes: int, n: int, z: float = 1.96) -> Interval:
    """The Wilson score interval of `successes` out of `n`; (0, 1) for n = 0.

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


class PairedTest(NamedTuple):
    """McNemar's test of two arms on the same rows."""

    only_a: int
    """Rows on which only the first arm is right."""
    only_b: int
    p: float


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> PairedTest:
    """McNemar's exact two-sided test of two arms on the same rows, in the same order.

    p is the probability that the rows on which only one arm is right are split at least this
    unevenly if both arms are equally good. Source: McNemar 1947, doi:10.1007/BF02295996, with the
    binomial test.
    """
    pairs = list(zip(a, b, strict=True))
    only_a = sum(one and not other for one, other in pairs)
    only_b = sum(other and not one for one, other in pairs)
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return PairedTest(only_a, only_b, min(1.0, float(2 * tail / 2**n)))


def calibration_error(
    confidences: Sequence[float], correct: Sequence[bool], bins: int = 10
) -> float:
    """The expected calibration error: the distance between confidence and accuracy.

    Rows fall into equally wide bins by confidence, from 0 to 1; each bin's distance is weighted by
    its rows. Source: Naeini, Cooper and Hauskrecht 2015, doi:10.1609/aaai.v29i1.9602.
    """
    gaps = [0.0] * bins
    for confidence, is_correct in zip(confidences, correct, strict=True):
        gaps[min(int(confidence * bins), bins - 1)] += confidence - is_correct
    return sum(map(abs, gaps)) / len(confidences) if confidences else 0.0
