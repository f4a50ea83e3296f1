"""Numbers over several seeds, as text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["mean_and_spread"]


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and with several values their standard deviation (n − 1).

    Example:
        >>> mean_and_spread([1.0, 2.0, 3.0]), mean_and_spread([0.25], digits=2)
        ('2.0 ± 1.0', '0.25')
    """
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
