"""Is one method better than another, or is it the seeds? A paired comparison over runs that share their seeds.

Runs with the same seed start from the same parameters and see the same batches, so their difference is less noisy than
the difference of two means. With three seeds the test still has two degrees of freedom only: it tells large, consistent
differences apart and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from equipoise.errors import InputError, require
from equipoise.metrics.metric import spread, unit_of

__all__ = ["LEVEL", "Comparison", "holm", "paired_comparison"]

LEVEL = 0.05
"""Corrected p-values below this count as a difference."""


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

    @property
    def identical(self) -> bool:
        """Whether there is no difference on any of several seeds, which is more than that no test sees one."""
        return self.n > 1 and self.difference == 0 and self.std == 0


def paired_comparison(one: Sequence[float], other: Sequence[float]) -> Comparison:
    """Student's paired t test: ``t = d̄ / (s / √n)`` with ``n − 1`` degrees of freedom.

    Args:
        one: one value per seed.
        other: the other method's values for the same seeds, in the same order.

    Returns:
        The comparison ``one − other``.

    Raises:
        InputError: different numbers of values, or none.
        MissingExtraError: SciPy is not installed.

    Example:
        >>> verdict = paired_comparison([3.0, 4.0, 6.0], [1.0, 1.5, 3.5])
        >>> verdict.n, round(verdict.difference, 3), round(verdict.p, 4)
        (3, 2.333, 0.0051)
    """
    if len(one) != len(other):
        raise InputError(f"a paired comparison needs equally many values on both sides; given: {len(one)} and {len(other)}")
    # A difference of two huge numbers may be larger than any; the test does not ask for the unit.
    unit = unit_of([value for value in (*one, *other) if math.isfinite(value)])
    differences = spread(a / unit - b / unit for a, b in zip(one, other, strict=True))
    mean, std, n = differences.mean, differences.std, differences.n
    if n < 2 or math.isnan(mean):
        p = math.nan
    elif std == 0:
        p = 1.0 if mean == 0 else 0.0
    else:
        p = _two_sided(mean / (std / math.sqrt(n)), n - 1)
    return Comparison(unit * mean, unit * std, n, p)


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
    """P(|T| > t) for Student's t."""
    # Not scipy.stats, which takes long to import and is off by 3e-9 for t near 0: there, the complement is the exact one.
    special = require("scipy.special", "study")
    square = t * t
    if square < freedom:
        return float(special.betaincc(0.5, freedom / 2, square / (freedom + square)))
    return float(special.betainc(freedom / 2, 0.5, freedom / (freedom + square)))
