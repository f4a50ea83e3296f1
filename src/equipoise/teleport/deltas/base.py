"""What a parameter delta is: a few trainable factors a weight, from which its Δθ is made.

The model is not touched. An :class:`Adaptation` gives tensors ``θ + Δθ`` by the parameters' names, the objective is evaluated
at them, and gradients flow back to the factors. Every delta starts at Δθ = 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equipoise.autocast import without_autocast
from equipoise.errors import InputError

__all__ = ["Adaptation", "Delta", "DenseDifference", "Difference", "fan_in_uniform", "matrix_shape"]


class Difference(ABC):
    """The Δ of one parameter.

    Attributes:
        factors: the tensors to train.
    """

    factors: tuple[Tensor, ...]

    @abstractmethod
    def compute(self) -> Tensor:
        """Δ, in the parameter's shape, differentiable with respect to the factors."""


class DenseDifference(Difference):
    """A Δ whose entries are all free.

    Args:
        parameter: whose Δ it is.
    """

    def __init__(self, parameter: Tensor) -> None:
        self.factors = (torch.zeros_like(parameter, dtype=factor_dtype(parameter)).requires_grad_(),)

    def compute(self) -> Tensor:
        """Δ itself."""
        return self.factors[0]


class Adaptation:
    """Deltas of several parameters, being trained.

    Args:
        parameters: by name; those that have a difference.
        differences: one for each, by name.
    """

    def __init__(self, parameters: Mapping[str, Tensor], differences: Mapping[str, Difference]) -> None:
        self._parameters = {name: parameters[name].detach() for name in differences}
        self._differences = dict(differences)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapted parameters."""
        return tuple(self._differences)

    @property
    def factors(self) -> list[Tensor]:
        """Everything that is trained."""
        return [factor for difference in self._differences.values() for factor in difference.factors]

    def deltas(self) -> dict[str, Tensor]:
        """Δθ by name, in the parameters' shapes and precision."""
        computed = {}
        for name, difference in self._differences.items():
            # A caller's autocast would remember casts of the factors and miss that they are being trained.
            with without_autocast(self._parameters[name].device):
                computed[name] = difference.compute().to(self._parameters[name].dtype)
        return computed

    def elsewhere(self) -> dict[str, Tensor]:
        """θ + Δθ by name, differentiable with respect to the factors."""
        return {name: _WithDenseGradient.apply(self._parameters[name] + delta) for name, delta in self.deltas().items()}


@dataclass(frozen=True)
class Delta(ABC):
    """The shape that Δθ may take; a small policy that makes an :class:`Adaptation` whenever a teleport is attempted."""

    @abstractmethod
    def difference(self, parameter: Tensor, generator: torch.Generator) -> Difference | None:
        """The Δ of one parameter, or ``None`` if this kind of delta leaves it alone.

        Args:
            parameter: a shared parameter.
            generator: on the parameter's device; for factors that do not start at zero.
        """

    def adapt(self, parameters: Mapping[str, Tensor], generator: torch.Generator) -> Adaptation:
        """Makes the deltas of the shared parameters.

        Args:
            parameters: the shared parameters by name.
            generator: as above.

        Raises:
            InputError: there is nothing here that this kind of delta can adapt.
        """
        self.check(parameters)
        found = {name: self.difference(parameter, generator) for name, parameter in parameters.items()}
        differences = {name: difference for name, difference in found.items() if difference is not None}
        if not differences:
            shapes = ", ".join(f"{name} {list(parameter.shape)}" for name, parameter in list(parameters.items())[:5])
            more = ", …" if len(parameters) > 5 else ""
            raise InputError(
                f"{type(self).__name__} has nothing to adapt: none of the {len(parameters)} shared parameters has two or more "
                f"dimensions ({shapes}{more}). Use delta=Dense(), which takes parameters of any shape"
            )
        return Adaptation(parameters, differences)

    def check(self, parameters: Mapping[str, Tensor]) -> None:  # noqa: B027  (most deltas fit everything)
        """Refuses parameters that do not fit the options."""


def matrix_shape(parameter: Tensor) -> tuple[int, int]:
    """A weight as a matrix: its first dimension by all others, as PEFT's layers have it.

    Example:
        >>> matrix_shape(torch.zeros(8, 3, 5, 5))
        (8, 75)
    """
    return parameter.shape[0], math.prod(parameter.shape[1:])


class _WithDenseGradient(torch.autograd.Function):
    """The tensor itself. An embedding may answer with a sparse gradient, which cannot go back through a reshape."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.to_dense() if gradient.is_sparse else gradient


def factor_dtype(parameter: Tensor) -> torch.dtype:
    """Half precision is too coarse to train factors in."""
    return torch.float32 if parameter.dtype in (torch.float16, torch.bfloat16) else parameter.dtype


def fan_in_uniform(parameter: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """A factor with entries uniform in ±1/√(columns), which is how PEFT's LoRA and LoHa layers start."""
    bound = 1.0 / math.sqrt(shape[-1])
    factor = torch.empty(*shape, dtype=factor_dtype(parameter), device=parameter.device)
    return factor.uniform_(-bound, bound, generator=generator).requires_grad_()


def zeros(parameter: Tensor, shape: Sequence[int]) -> Tensor:
    """A factor that starts at zero."""
    return torch.zeros(*shape, dtype=factor_dtype(parameter), device=parameter.device).requires_grad_()
