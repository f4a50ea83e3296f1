"""Numbers, verdicts and small tables as a reader should see them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from equipoise.metrics import Comparison
from equipoise.metrics.paired import LEVEL

__all__ = ["LEVEL", "SideTable", "brief", "places", "verdict"]


@dataclass(frozen=True)
class SideTable:
    """One line per method."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def places(values: Iterable[float]) -> int:
    """How many decimal places show three significant digits of a typical value; the same for a whole column.

    Example:
        >>> places([91.2, 88.0]), places([1.7]), places([0.046])
        (1, 2, 4)
    """
    sizes = sorted(abs(value) for value in values if math.isfinite(value) and value != 0)
    if not sizes:
        return 1
    return min(6, max(0, 2 - math.floor(math.log10(sizes[len(sizes) // 2]))))


def verdict(comparison: Comparison, p: float, reference: str) -> str:
    """One phrase on whether a method's Δm differs from the reference's.

    Example:
        >>> verdict(Comparison(-20.0, 1.0, 3, 0.001), 0.004, "ls")
        'better than ls (p = 0.004)'
        >>> verdict(Comparison(-20.0, 15.0, 3, 0.1), 0.4, "ls")
        'not told apart from ls (p = 0.40)'
        >>> verdict(Comparison(0.0, 0.0, 3, 1.0), 1.0, "ls")
        'identical to ls on every seed'
    """
    if comparison.identical:
        return f"identical to {reference} on every seed"
    if math.isnan(p):
        return "not tested (one seed)" if comparison.n < 2 else "not tested"
    if p >= LEVEL:
        return f"not told apart from {reference} ({_shown(p)})"
    return f"{'better' if comparison.difference < 0 else 'worse'} than {reference} ({_shown(p)})"


def brief(comparison: Comparison, p: float) -> str:
    """The verdict for a narrow column.

    Example:
        >>> brief(Comparison(-20.0, 1.0, 3, 0.001), 0.004), brief(Comparison(-20.0, 15.0, 3, 0.1), 0.4)
        ('better, p = 0.004', 'p = 0.40')
    """
    if comparison.identical:
        return "identical"
    if math.isnan(p):
        return "not tested"
    if p >= LEVEL:
        return _shown(p)
    return f"{'better' if comparison.difference < 0 else 'worse'}, {_shown(p)}"


def _shown(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
