"""Mean and standard deviation over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from equipoise.errors import InputError

__all__ = ["Spread", "spread"]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of ``n`` values.

    Attributes:
        mean: arithmetic mean.
        std: square root of ``Σ (x − mean)² / (n − 1)``; ``nan`` for a single value, which says nothing about spread.
        n: how many values there were.
    """

    mean: float
    std: float
    n: int

    def text(self, digits: int = 2, *, sign: bool = False) -> str:
        """Words it as ``mean ± std``, or as the mean alone where there is only one value.

        Args:
            digits: places behind the decimal point.
            sign: whether a plus is written before a positive mean.

        Example:
            >>> spread([1.0, 2.0, 3.0]).text(1), spread([1.0]).text(1, sign=True)
            ('2.0 ± 1.0', '+1.0')
        """
        mean = f"{self.mean:{'+' if sign else ''}.{digits}f}".replace("-", "−")
        return mean if math.isnan(self.std) else f"{mean} ± {self.std:.{digits}f}"


def spread(values: Iterable[float]) -> Spread:
    """Mean ± sample standard deviation (n − 1 in the denominator).

    Args:
        values: at least one number; one that is not finite makes mean and standard deviation ``nan``.

    Raises:
        InputError: no values.

    Example:
        >>> spread([2.0, 4.0])
        Spread(mean=3.0, std=1.4142135623730951, n=2)
    """
    numbers = [float(value) for value in values]
    if not numbers:
        raise InputError("mean and standard deviation were asked for without any value; pass at least one")
    if not all(map(math.isfinite, numbers)):
        return Spread(math.nan, math.nan, len(numbers))
    mean = math.fsum(numbers) / len(numbers)
    if len(numbers) == 1:
        return Spread(mean, math.nan, 1)
    squares = math.fsum((number - mean) ** 2 for number in numbers)
    return Spread(mean, math.sqrt(squares / (len(numbers) - 1)), len(numbers))
