"""When to teleport: conditions on the Gramian of the task gradients, and nothing else.

A trigger sees ``Q = G Gᵀ``, the inner products of the task gradients of the step just taken, as a NumPy array ``[K, K]`` in
float64; row k belongs to the k-th of the tasks that the batch holds.

With ``g₀`` the mean gradient, ``cos φ_i0 = (mean_j Q_ij) / √(Q_ii · mean_jl Q_jl)``. Every condition here has the form "some
cosine is below zero", and that cosine, negated, is its *measure*: what a landing must not make worse.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError
from equipoise.registry import Registry
from equipoise.teleport.checks import check_number, chosen

__all__ = [
    "TRIGGERS",
    "Custom",
    "Dominated",
    "Majority",
    "Released",
    "Trigger",
    "TriggerLike",
    "Weak",
    "as_trigger",
    "default_trigger",
    "mean_cosines",
    "norms",
    "pairwise_cosines",
]

Array: TypeAlias = NDArray[np.float64]
MANY_TASKS = 10
"""From so many tasks on, a dominated conflict is nearly always there (97 % of the steps on CelebA), and eq. 4 is used."""


def norms(gramian: Array) -> Array:
    """Norms of the task gradients, ``[..., K]``, from ``gramian [..., K, K]``."""
    squares: Array = np.diagonal(gramian, axis1=-2, axis2=-1).clip(min=0.0)
    return np.sqrt(squares)


def mean_cosines(gramian: Array) -> Array:
    """Cosine of each task gradient with the mean gradient, ``[..., K]``; 0 where either of them vanishes.

    Args:
        gramian: inner products of the task gradients ``[..., K, K]``.

    Example:
        >>> mean_cosines(np.array([[4.0, 0.0], [0.0, 4.0]])).round(3)
        array([0.707, 0.707])
    """
    mean_norm = np.sqrt(gramian.mean(axis=(-2, -1)).clip(min=0.0))
    return _ratio(gramian.mean(axis=-1), norms(gramian) * mean_norm[..., None])


def pairwise_cosines(gramian: Array) -> Array:
    """Cosines between the task gradients, ``[..., K, K]``; 0 where one of them vanishes."""
    own = norms(gramian)
    return _ratio(gramian, own[..., :, None] * own[..., None, :])


class Trigger(ABC):
    """A condition under which to look for another point.

    A trigger of your own needs the method :meth:`measure`; it fires where the measure is above zero. Derive from this class as
    a frozen dataclass, so that its fields are its options.

    Attributes:
        name: in reports; the name of the class unless it says another.
    """

    name: str = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @abstractmethod
    def measure(self, gramian: Array) -> Array | float:
        """How much conflict there is, from -1 (none) to 1.

        A guard with ``conflict=True`` refuses a landing where it has grown.

        Args:
            gramian: ``[..., K, K]``, one Gramian or several.

        Returns:
            One number per Gramian, ``[...]``.
        """

    def __call__(self, gramian: Array) -> bool:
        """Whether one Gramian ``[K, K]`` asks for a teleport."""
        return gramian.shape[-1] > 1 and bool(self.measure(gramian) > 0.0)


@dataclass(frozen=True)
class Dominated(Trigger):
    """Eq. 3 of the COST paper: the task with the smallest gradient norm conflicts with the mean gradient.

    Example:
        >>> bool(Dominated()(np.array([[9.0, -1.0], [-1.0, 0.5]])))
        True
    """

    name = "dominated"

    def measure(self, gramian: Array) -> Array | float:
        """Minus the cosine between the smallest gradient and the mean gradient; of several that are smallest, the lowest."""
        own = norms(gramian)
        # Taking the first of several would make the answer depend on the order of the tasks.
        smallest = own == own.min(axis=-1, keepdims=True)
        taken: Array = np.where(smallest, mean_cosines(gramian), np.inf).min(axis=-1)
        return -taken


@dataclass(frozen=True)
class Weak(Trigger):
    """Definition 1 of the COST paper, weak conflict: two tasks' gradients conflict (Table 7)."""

    name = "weak"

    def measure(self, gramian: Array) -> Array | float:
        """Minus the smallest cosine between two tasks' gradients."""
        tasks = gramian.shape[-1]
        cosines = pairwise_cosines(gramian) + 2.0 * np.eye(tasks)  # the diagonal does not count
        smallest: Array = cosines.min(axis=(-2, -1)).clip(max=1.0)
        return -smallest


@dataclass(frozen=True)
class Majority(Trigger):
    """Eq. 4 of the COST paper: at least ``⌈fraction · K⌉`` tasks conflict with the mean gradient.

    Args:
        fraction: 1/2 in eq. 4; smaller values teleport more often (Figure 10). At least one task is asked for.

    Raises:
        InputError: the fraction is not above 0 and at most 1.
    """

    fraction: float = 0.5
    name = "majority"

    def __post_init__(self) -> None:
        check_number("fraction", self.fraction, "above 0 and at most 1")
        if self.fraction > 1.0:
            raise InputError(f"fraction must be above 0 and at most 1; got {self.fraction!r}")

    def measure(self, gramian: Array) -> Array | float:
        """Minus the ⌈fraction · K⌉-th smallest cosine with the mean gradient: it is positive where so many conflict."""
        tasks = gramian.shape[-1]
        needed = min(max(math.ceil(self.fraction * tasks - 1e-9), 1), tasks)
        own: Array = np.partition(mean_cosines(gramian), needed - 1, axis=-1)[..., needed - 1]
        return -own


@dataclass(frozen=True)
class Released(Trigger):
    """The condition of COST's released code: the cosine of any task with the mean gradient is zero or below."""

    name = "released"

    def measure(self, gramian: Array) -> Array | float:
        """Minus the smallest cosine with the mean gradient."""
        smallest: Array = mean_cosines(gramian).min(axis=-1)
        return -smallest

    def __call__(self, gramian: Array) -> bool:
        """Whether it is at most zero; a task without gradient counts, as it does there."""
        return gramian.shape[-1] > 1 and bool(self.measure(gramian) >= 0.0)


class Custom(Trigger):
    """A user's own condition; its measure is that of :class:`Released`.

    Args:
        condition: called with one Gramian ``[K, K]`` (NumPy, float64); says whether to teleport.
    """

    def __init__(self, condition: Callable[[Array], Any]) -> None:
        self.condition = condition
        self.name = getattr(condition, "__name__", type(condition).__name__)

    def measure(self, gramian: Array) -> Array | float:
        """Minus the smallest cosine with the mean gradient."""
        return Released().measure(gramian)

    def __call__(self, gramian: Array) -> bool:
        """What the user's condition says."""
        return bool(self.condition(gramian))

    def __repr__(self) -> str:
        return f"Custom({self.name})"


TriggerLike: TypeAlias = "str | Trigger | Callable[[Array], Any] | None"
TRIGGERS: Registry[type[Trigger]] = Registry("trigger", error=InputError)
for _kind in (Dominated, Weak, Majority, Released):
    TRIGGERS.add(_kind.name, _kind)


def as_trigger(trigger: TriggerLike) -> Trigger | None:
    """Reads a trigger: its name, a trigger, a function of the Gramian, or ``None`` (decided by the number of tasks).

    Raises:
        InputError: an unknown name, or none of these.

    Example:
        >>> as_trigger("majority")
        Majority(fraction=0.5)
    """
    if trigger is None or isinstance(trigger, Trigger):
        return trigger
    if callable(trigger) and not isinstance(trigger, type):
        return Custom(trigger)
    return chosen(TRIGGERS, trigger, Trigger, ", a function of the Gramian")  # type: ignore[type-abstract]


def default_trigger(tasks: int) -> Trigger:
    """Eq. 3 for few tasks, eq. 4 from ten tasks on.

    Example:
        >>> default_trigger(4), default_trigger(40)
        (Dominated(), Majority(fraction=0.5))
    """
    return Majority() if tasks >= MANY_TASKS else Dominated()


def _ratio(numerator: Array, scale: Array) -> Array:
    ratio: Array = np.divide(numerator, scale, out=np.zeros_like(numerator), where=scale > 0).clip(-1.0, 1.0)
    return ratio
