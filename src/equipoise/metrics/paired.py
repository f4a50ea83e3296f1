"""Is one method better than another, or is it the seeds? A paired comparison over runs that share their seeds.

Runs with the same seed start from the same parameters and see the same batches, so their difference is less noisy than
the difference of two means. With three seeds the test still has two degrees of freedom only: it tells large, consistent
differences apart and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from equipoise.errors import InputError
from equipoise.metrics.spread import spread

__all__ = ["Comparison", "holm", "paired_comparison"]


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two methods over ``n`` seeds.

    Attributes:
        difference: mean over seeds of the one minus the other.
        std: sample standard deviation of the differences; ``nan`` for one seed.
        n: seeds that both have.
        p: two-sided p-value of Student's t test on the differences; ``nan`` where there are fewer than two.
    """

    difference: float
    std: float
    n: int
    p: float


def paired_comparison(one: Sequence[float], other: Sequence[float]) -> Comparison:
    """Student's paired t test: ``t = d̄ / (s / √n)`` with ``n − 1`` degrees of freedom.

    Args:
        one: one value per seed.
        other: the other method's values for the same seeds, in the same order.

    Returns:
        The comparison ``one − other``.

    Raises:
        InputError: different numbers of values, or none.

    Example:
        >>> verdict = paired_comparison([3.0, 4.0, 6.0], [1.0, 1.5, 3.5])
        >>> verdict.n, round(verdict.difference, 3), round(verdict.p, 4)
        (3, 2.333, 0.0051)
    """
    if len(one) != len(other):
        raise InputError(f"a paired comparison needs equally many values on both sides; given: {len(one)} and {len(other)}")
    differences = spread(a - b for a, b in zip(one, other, strict=True))
    mean, std, n = differences.mean, differences.std, differences.n
    if n < 2 or math.isnan(mean):
        p = math.nan
    elif std == 0:
        p = 1.0 if mean == 0 else 0.0
    else:
        p = _two_sided(mean / (std / math.sqrt(n)), n - 1)
    return Comparison(mean, std, n, p)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction for looking at many comparisons at once.

    The i-th smallest of ``m`` p-values is multiplied by ``m − i + 1`` and never falls below those before it. Values
    that are ``nan`` were not tested: they stay, and do not count.

    Args:
        p_values: name → p-value.

    Returns:
        name → corrected p-value, at most 1, in the order given.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": math.nan})
        {'a': 0.02, 'b': 0.04, 'c': nan}
    """
    tested = sorted((name for name, p in p_values.items() if not math.isnan(p)), key=lambda name: p_values[name])
    corrected = dict(p_values)
    floor = 0.0
    for position, name in enumerate(tested):
        floor = max(floor, min(1.0, (len(tested) - position) * p_values[name]))
        corrected[name] = floor
    return corrected


def _two_sided(t: float, freedom: int) -> float:
    """P(|T| > t) for Student's t: a finite trigonometric series for whole degrees of freedom, so no SciPy is needed."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    cosine_squared = math.cos(angle) ** 2
    odd = freedom % 2 == 1
    # Terms 1, 2/3 cos², 2·4/(3·5) cos⁴ … for odd, 1, 1/2 cos², 1·3/(2·4) cos⁴ … for even degrees of freedom.
    term, series = 1.0, 0.0
    start = 1 if odd else 0
    for numerator in range(start, freedom - 1, 2):
        series += term
        term *= (numerator + 1) / (numerator + 2) * cosine_squared
    inside = 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * series) if odd else math.sin(angle) * series
    return min(1.0, max(0.0, 1.0 - inside))
