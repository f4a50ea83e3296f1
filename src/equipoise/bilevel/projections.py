"""Sets that α is kept in: a projection after every outer step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.bilevel.problem import LevelVariables
from equipoise.errors import InputError

__all__ = ["Box", "Projection", "Simplex", "may_fail", "projected", "read_projections"]

Projection = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Box:
    """The nearest point with all entries between two bounds.

    Args:
        low: the smallest entry; no bound if left out.
        high: the largest.

    Raises:
        InputError: no bound, or ``low`` above ``high``.

    Example:
        >>> Box(0.0, 1.0)(torch.tensor([-0.5, 0.3, 2.0]))
        tensor([0.0000, 0.3000, 1.0000])
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise InputError("a Box needs low=, high= or both")
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise InputError(f"a Box needs low <= high; got {self.low} and {self.high}")

    def __call__(self, values: Tensor) -> Tensor:
        return values.clamp(self.low, self.high)


@dataclass(frozen=True)
class Simplex:
    """The nearest point whose entries, along the last dimension, are at least 0 and sum to ``total``.

    Args:
        total: of the entries, above 0.

    Raises:
        InputError: a total that cannot be.

    Example:
        >>> Simplex()(torch.tensor([0.9, 0.5, -1.0]))
        tensor([0.7000, 0.3000, 0.0000])
    """

    total: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.total < float("inf"):
            raise InputError(f"the total of a Simplex must be positive and finite; got {self.total}")

    def __call__(self, values: Tensor) -> Tensor:
        # Sorted, the entries that stay positive are the first ones; the threshold makes them sum to the total.
        exact = values.double()
        exact = exact - exact.amax(-1, keepdim=True)  # the set is flat in that direction, and large numbers lose theirs
        ordered = exact.sort(-1, descending=True).values
        over = ordered.cumsum(-1) - self.total
        counts = torch.arange(1, values.shape[-1] + 1, dtype=exact.dtype, device=values.device)
        staying = (ordered * counts > over).sum(-1, keepdim=True).clamp(min=1)
        threshold = over.gather(-1, staying - 1) / staying
        return (exact - threshold).clamp(min=0.0).to(values)


def read_projections(given: Projection | Mapping[str, Projection] | None, variables: LevelVariables) -> list[Projection | None]:
    """One projection, or none, per variable.

    Raises:
        InputError: something that is no function, or names that no variable has.
    """
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in variables.names]
        if unknown:
            raise InputError(
                f'feasible_set names "{unknown[0]}", which no upper-level variable is called; there are '
                f"{', '.join(variables.names)}"
            )
        found = [given.get(name) for name in variables.names]
    else:
        found = [given] * len(variables)
    for name, tensor, project in zip(variables.names, variables.tensors, found, strict=True):
        if project is not None and not callable(project):
            raise InputError(
                f"feasible_set must be a Box, a Simplex, a function tensor → tensor, or a mapping name → one of these; got "
                f"{type(project).__name__}"
            )
        if isinstance(project, Simplex) and not tensor.dim():
            raise InputError(f'feasible_set: the upper-level variable "{name}" is a single number, which a Simplex fixes')
        if project is not None:
            projected(project, name, tensor)
    return found


def may_fail(projections: Sequence[Projection | None]) -> bool:
    """Whether one of them is a function of the user's."""
    return not all(isinstance(project, Box | Simplex | None) for project in projections)


def projected(project: Projection, name: str, values: Tensor) -> Tensor:
    """Where a variable is put back to, which itself stays as it is.

    Raises:
        InputError: the projection gave no tensor, or one of another shape, or took finite numbers to others.
    """
    found = project(values.detach().clone())
    if not isinstance(found, Tensor) or found.shape != values.shape:
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f'feasible_set must keep the shape {list(values.shape)} of the upper-level variable "{name}"; got {got}'
        )
    own = isinstance(project, Box | Simplex)
    if not own and bool(torch.isfinite(values).all()) and not bool(torch.isfinite(found).all()):
        raise InputError(f'feasible_set gave the upper-level variable "{name}" values that are not finite')
    return found.detach()
