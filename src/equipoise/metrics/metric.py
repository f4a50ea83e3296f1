"""A metric: its name, its task, its direction; and mean and deviation of its values over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from equipoise.errors import InputError

__all__ = ["Metric", "Spread", "mean", "spread", "unit_of"]

_UNSAID: Final[Any] = object()


@dataclass(frozen=True)
class Metric:
    """One number by which one task is judged.

    Args:
        name: the key under which an evaluation returns it.
        task: name of the task it judges; a task may have several metrics.
        higher_is_better: ``True`` for an accuracy, ``False`` for an error. There is no default: Δm and the ranks take
            their signs from it.
        unit: what the number is counted in, such as ``"%"`` or ``"m"``; empty for a pure number.
        label: what a person reads in tables and pictures; the name where it is left out.

    Raises:
        InputError: the direction was left out or is not a truth value.

    Example:
        >>> accuracy = Metric("left accuracy", "left", higher_is_better=True, unit="%")
        >>> accuracy.heading
        'left accuracy (%) ↑'
        >>> Metric("left accuracy", "left")
        Traceback (most recent call last):
            ...
        equipoise.errors.InputError: metric "left accuracy" has no direction; say higher_is_better=True or \
higher_is_better=False, because Δm and the ranks depend on it
    """

    name: str
    task: str
    higher_is_better: bool = _UNSAID
    unit: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.higher_is_better, bool):
            given = "" if self.higher_is_better is _UNSAID else f" (given: {self.higher_is_better!r})"
            raise InputError(
                f'metric "{self.name}" has no direction{given}; say higher_is_better=True or higher_is_better=False, '
                "because Δm and the ranks depend on it"
            )
        if not self.label:
            object.__setattr__(self, "label", self.name)

    @property
    def sign(self) -> float:
        """What values are multiplied with so that lower is better: −1 where higher is."""
        return -1.0 if self.higher_is_better else 1.0

    @property
    def quantity(self) -> str:
        """Label and unit, as on an axis: ``left accuracy (%)``."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def heading(self) -> str:
        """Label, unit and an arrow in the better direction, as over a column: ``left accuracy (%) ↑``."""
        return f"{self.quantity} {'↑' if self.higher_is_better else '↓'}"

    @property
    def axis(self) -> str:
        """Label, unit and direction in words, as along an axis: ``left accuracy (%), higher is better``."""
        return f"{self.quantity}, {'higher' if self.higher_is_better else 'lower'} is better"


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
        # Hundreds of digits, or six zeros behind the point, would say less.
        odd = abs(self.mean) >= 1e9 or (digits >= 6 and 0 < abs(self.mean) < 1e-6)
        form = ".3g" if odd else f".{digits}f"
        mean = f"{self.mean:{'+' if sign else ''}{form}}".replace("-", "−")
        return mean if math.isnan(self.std) else f"{mean} ± {self.std:{form}}"


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
    center = mean(numbers)
    if len(numbers) == 1:
        return Spread(center, math.nan, 1)
    unit = unit_of(numbers)
    squares = math.fsum((number / unit - center / unit) ** 2 for number in numbers)
    return Spread(center, unit * math.sqrt(squares / (len(numbers) - 1)), len(numbers))


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean, however large the numbers are; ``nan`` of none, of one that is ``nan``, of infinities of both signs.

    Example:
        >>> mean([1e308, 1.5e308]), mean([math.inf, 1.0]), mean([math.inf, -math.inf])
        (1.25e+308, inf, nan)
    """
    numbers = [float(value) for value in values]
    if not numbers:
        return math.nan
    try:
        return math.fsum(numbers) / len(numbers)
    except ValueError:
        return math.nan
    except OverflowError:  # of the sum, not of the mean
        return math.fsum(number / len(numbers) for number in numbers)


def unit_of(numbers: Iterable[float]) -> float:
    """A power of two to divide finite numbers by before their squares are summed; 1 unless those could over- or underflow.

    Example:
        >>> unit_of([3.0, 1e100]), unit_of([3e200]) > 1e199, unit_of([0.0])
        (1.0, True, 1.0)
    """
    largest = max(map(abs, numbers), default=0.0)
    if largest == 0 or 1e-130 < largest < 1e150:
        return 1.0
    return math.ldexp(1.0, math.frexp(largest)[1] - 1)
