"""Dimensions of a sweep: ranges, choices, and weights on the simplex."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from equipoise.errors import InputError
from equipoise.method import read_value, settled, split_outside

__all__ = ["Choices", "Dimension", "Range", "Weights", "read_dimension", "read_sweep", "read_weights", "significant"]

_FORM = "write low:high, low:high:log, or choices such as 1|2|4"


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    name: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        given = f"{self.low:g}:{self.high:g}"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(f'the range of "{self.name}" is {given}; it must go from a smaller number to a larger one')
        if self.log and self.low <= 0:
            raise InputError(f'the range of "{self.name}" is {given}:log; a logarithmic range must begin above 0')

    @property
    def distribution(self) -> BaseDistribution:
        """As Optuna knows it."""
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def ends(self) -> tuple[Any, ...]:
        """The values at both ends: whoever refuses one of them refuses the range."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the range."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.whole or value == int(value))

    def shown(self, value: Any) -> Any:
        """A value as the method gets it: four significant digits, which keeps labels short."""
        return int(value) if self.whole else significant(float(value))

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}{':log' * self.log}"


@dataclass(frozen=True)
class Choices:
    """A few values to choose from.

    Attributes:
        name: of the option.
        values: numbers, words, truth values or ``None``.
    """

    name: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(set(map(repr, self.values))) < 2:
            raise InputError(f'"{self.name}" has {len(self.values)} choice to sweep over; give at least two different ones')
        for value in self.values:
            if not (value is None or isinstance(value, bool | int | float | str)):
                raise InputError(f'a choice of "{self.name}" is {value!r}; choices must be numbers, words, true, false or none')

    @property
    def distribution(self) -> BaseDistribution:
        """As Optuna knows it."""
        return CategoricalDistribution(self.values)

    def ends(self) -> tuple[Any, ...]:
        """All values."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the choices."""
        return any(value is own or (type(value) is type(own) and value == own) for own in self.values)

    def shown(self, value: Any) -> Any:
        """A value as the method gets it."""
        return value

    def __str__(self) -> str:
        return "|".join(map(str, self.values))


Dimension: TypeAlias = Range | Choices


def significant(value: float, digits: int = 4) -> float:
    """Rounds to significant digits.

    Example:
        >>> significant(0.123456), significant(1234.56)
        (0.1235, 1235.0)
    """
    return float(f"{value:.{digits}g}")


def read_dimension(name: str, given: Any, default: Any = None) -> Dimension:
    """Reads what one option is to be swept over.

    Args:
        name: of the option.
        given: ``"0:1"``, ``"0.1:10:log"``, ``"a|b|c"``; in Python also ``(low, high)``, ``(low, high, "log")``, or a list of
            choices.
        default: the option's own default; a range of whole numbers is meant where that is one.

    Raises:
        InputError: none of these, or a range that cannot be.

    Example:
        >>> read_dimension("c", "0:1"), read_dimension("n", "1:8:log", default=2)
        (Range(name='c', low=0.0, high=1.0, log=False, whole=False), Range(name='n', low=1, high=8, log=True, whole=True))
        >>> read_dimension("rescale", "true|false").values
        (True, False)
    """
    if isinstance(given, Range | Choices):
        return given
    if isinstance(given, list | set | frozenset):
        return Choices(name, tuple(given))
    if isinstance(given, str):
        return _read(name, given, default)
    if isinstance(given, tuple) and 2 <= len(given) <= 3 and given[2:] in ((), ("log",)):
        return _range(name, given[0], given[1], bool(given[2:]), default)
    raise InputError(f'"{name}" cannot be swept over {given!r}; {_FORM}, in Python (low, high), (low, high, "log") or a list')


def read_sweep(given: str | Sequence[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    """Reads ``"c=0:1,rescale=true|false"``, several such texts, or a mapping; each option on its own stays as it was given.

    Raises:
        InputError: a part without an equals sign, or an option that is given twice.

    Example:
        >>> read_sweep("c=0:1, rescale=true|false")
        {'c': '0:1', 'rescale': 'true|false'}
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    read: dict[str, Any] = {}
    for text in [given] if isinstance(given, str) else given:
        for part in filter(None, (part.strip() for part in split_outside(text, ","))):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not name or not equals or not value:
                raise InputError(f'"{part}" does not say what to sweep; write option=range, and for the range {_FORM}')
            if name in read:
                raise InputError(f'the range of "{name}" is given twice: {read[name]} and {value}')
            read[name] = value
    return read


def _read(name: str, text: str, default: Any) -> Dimension:
    if "|" in text:
        return Choices(name, tuple(_literal(part.strip()) for part in split_outside(text, "|")))
    low, *rest = (part.strip() for part in text.split(":"))
    if len(rest) not in (1, 2) or rest[1:] not in ([], ["log"]):
        raise InputError(f'the range of "{name}" is "{text}"; {_FORM}')
    return _range(name, _literal(low), _literal(rest[0]), bool(rest[1:]), default)


def _literal(text: str) -> Any:
    return settled({"value": read_value(text)})["value"] if text else ""


def _range(name: str, low: Any, high: Any, log: bool, default: Any) -> Range:
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, int | float) or math.isinf(end):
            raise InputError(f'the range of "{name}" has an end {end!r}, which is no number; {_FORM}')
    whole = isinstance(low, int) and isinstance(high, int) and isinstance(default, int) and not isinstance(default, bool)
    return Range(name, low if whole else float(low), high if whole else float(high), log, whole)


_LOWEST, _HIGHEST = 0.001, 1.0  # losses in different units easily differ by a factor of hundreds
_EDGE = 1e-9  # keeps the logarithm of a uniform number finite


@dataclass(frozen=True)
class Weights:
    """Weights ``w_k = K x_k / Σ_j x_j``, which sum to K as equal weights do.

    Two ways of drawing the ``x_k``. ``"log"``: log-uniformly in ``[low, high]``, one by one, so that no weight is more than
    ``high / low`` times another; losses of very different scale need weights of very different size. ``"dirichlet"``:
    ``x_k = −log u_k`` with ``u_k`` uniform in (0, 1), which makes ``w / K`` uniform on the simplex (Dirichlet with all
    parameters 1).

    Example:
        >>> weights = Weights(("left", "ink"))
        >>> weights.values({"weights.left": 0.1, "weights.ink": 0.3})
        [0.5, 1.5]
    """

    tasks: tuple[str, ...]
    kind: str = "log"
    low: float = _LOWEST
    high: float = _HIGHEST

    def __post_init__(self) -> None:
        if len(self.tasks) < 2:
            raise InputError(f"weights of {len(self.tasks)} task cannot be swept; there must be at least two")

    def distributions(self) -> dict[str, BaseDistribution]:
        """One parameter per task, as Optuna knows it."""
        own = FloatDistribution(self.low, self.high, log=True) if self.kind == "log" else FloatDistribution(_EDGE, 1 - _EDGE)
        return {self._name(task): own for task in self.tasks}

    def equal(self) -> dict[str, float]:
        """Parameters that stand for equal weights."""
        middle = math.sqrt(self.low * self.high) if self.kind == "log" else math.exp(-1)
        return {self._name(task): middle for task in self.tasks}

    def values(self, parameters: Mapping[str, Any]) -> list[float]:
        """The weights that parameters stand for, to four significant digits."""
        drawn = [float(parameters[self._name(task)]) for task in self.tasks]
        sizes = drawn if self.kind == "log" else [-math.log(value) for value in drawn]
        total = math.fsum(sizes)
        return [significant(len(sizes) * size / total) for size in sizes]

    def _name(self, task: str) -> str:
        return f"weights.{task}"

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}:log" if self.kind == "log" else "dirichlet"


def read_weights(given: Any, tasks: tuple[str, ...]) -> Weights:
    """Reads how weights are swept: ``"log"`` (0.001 to 1), a logarithmic range ``"0.01:1:log"``, or ``"dirichlet"``.

    Raises:
        InputError: none of these.
    """
    if isinstance(given, Weights):
        return given
    if given in ("log", "dirichlet"):
        return Weights(tasks, given)
    try:
        dimension = read_dimension("weights", given)
    except InputError as error:
        raise InputError(f'{error}; for weights "log" and "dirichlet" will do, too') from None
    if not isinstance(dimension, Range) or not dimension.log:
        raise InputError(
            f'the weights are to be swept over "{given}"; write a logarithmic range such as 0.01:1:log, or "dirichlet" for '
            "uniform on the simplex"
        )
    return Weights(tasks, "log", dimension.low, dimension.high)
