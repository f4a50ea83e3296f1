"""What is sought at the other point: equal losses (L_t) and a sharper landscape (L_g), as the paper or its code has it.

Both terms are functions of K-vectors of losses. Their gradient with respect to the parameters is therefore a *weighted sum of
task losses' gradients*, with coefficients that are plain numbers: one backward pass, and under data parallelism the same
coefficients on every process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.engine.reals import as_real
from equipoise.errors import InputError
from equipoise.registry import Registry
from equipoise.teleport.checks import check_number, chosen

__all__ = [
    "FORMULATIONS",
    "Formulation",
    "FormulationLike",
    "PaperFormulation",
    "ParetoFormulation",
    "ReleasedFormulation",
    "Terms",
    "as_formulation",
]

Array: TypeAlias = NDArray[np.float64]
_TINY = 1e-30


@dataclass(frozen=True)
class Terms:
    """The two terms at one point, and how each loss enters the objective.

    Attributes:
        invariance: L_t.
        reward: L_g, or what is rewarded in its place.
        at_point: derivative of the objective by the losses at θ + Δθ, ``[K]``.
        at_samples: derivative by the losses at the perturbed points, ``[ñ, K]``; mostly zero.
    """

    invariance: float
    reward: float
    at_point: Array
    at_samples: Array


class Formulation(ABC):
    """What the search minimizes: two functions of the task losses, and what goes with them.

    A formulation of your own is a frozen dataclass with the fields ``gamma`` and ``radius`` and the three methods below.

    Attributes:
        name: how it is asked for.
        radius: norm of a perturbation.
        evaluation_mode: whether the model is put into evaluation mode while the other point is sought.
        pooled_reference: whether L_i* is the mean over all probe batches instead of each batch's own loss.
        on_trigger: whether L_g is taken on the batch of the step that asked for the teleport instead of the search's batches.
        perturbs_all: whether all parameters of the model are perturbed instead of the shared ones.
        default_trigger: the name of the trigger that belongs to it; ``None`` where the number of tasks decides.
        losses_may_fall: whether a loss that falls keeps to the formulation; a guard then looks at rises only.
        tolerance: the relative loss change that a guard allows unless told otherwise.
        relative: whether losses are divided by their sizes unless the search says otherwise.
        history: the name of the history policy unless told otherwise.
        gamma: factor of L_g, or of the agreement that is sought in its place.
        sharper: whether larger task gradients are what is sought (eq. 6).
    """

    name: ClassVar[str]
    evaluation_mode: ClassVar[bool] = False
    pooled_reference: bool = False
    on_trigger: ClassVar[bool] = False
    perturbs_all: ClassVar[bool] = False
    default_trigger: ClassVar[str | None] = None
    losses_may_fall: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.05
    relative: ClassVar[bool] = True
    history: ClassVar[str] = "keep"
    sharper: ClassVar[bool] = False
    gamma: float
    radius: float

    def differentiated(self, samples: int, tasks: int) -> int:
        """How many of the perturbations enter the gradient at most."""
        return min(samples, 1)

    @abstractmethod
    def balance(self, norms: Array) -> Array:
        """The weights R of the tasks, ``[K]``, from the norms of their gradients."""

    @abstractmethod
    def noise(self, parameters: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """One perturbation ε of the shared parameters."""

    @abstractmethod
    def terms(self, point: Array, samples: Array, reference: Array, balance: Array) -> Terms:
        """The terms at a point.

        Args:
            point: losses at θ + Δθ ``[K]``, already divided by their scales, as all others here.
            samples: losses at θ + Δθ + ε_j ``[ñ, K]``; ñ may be 0.
            reference: the losses L* to be kept ``[K]``.
            balance: R ``[K]``.
        """


@dataclass(frozen=True)
class PaperFormulation(Formulation):
    """Eq. 7 to 11 of the COST paper: ``L_t - γ L_g``.

    ``L_t = mean_i |L_i - L_i*|``; ``L_g = max_j |mean_i R_i [L_i(θ+Δθ+ε_j) - L_i(θ+Δθ)]|``, ε_j uniform on the sphere of
    radius δ in the space of all shared parameters; ``R = K softmax(Σ‖g‖ / ‖g_i‖)``.

    Args:
        gamma: γ, 0.1 in the paper; 0 leaves the search for sharpness out.
        radius: δ.
        invariance: factor of L_t; 0 leaves it out (an ablation: the losses then go wherever they like).
        pooled_reference: whether L_i* is the mean over all batches of the search, as in the released code, instead of each
            batch's own loss. With its own, L_t is at its minimum where the search begins: without L_g nothing moves.
    """

    gamma: float = 0.1
    radius: float = 0.1
    invariance: float = 1.0
    pooled_reference: bool = False
    name = "paper"
    sharper = True

    def __post_init__(self) -> None:
        _check(self.gamma, self.radius, self.invariance)

    def balance(self, norms: Array) -> Array:
        """Eq. 10. A vanishing gradient takes all the weight, as it does in the limit."""
        ratios = norms.sum() / norms.clip(min=_TINY)
        powers = np.exp(ratios - ratios.max())
        weights: Array = len(norms) * powers / powers.sum()
        return weights

    def noise(self, parameters: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Uniform on the sphere ‖ε‖ = δ over all shared parameters together."""
        drawn = _gaussian(parameters, generator)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(drawn.values()))).double())
        factor = float(self.radius / norm.clamp(min=_TINY))
        return {name: tensor * factor for name, tensor in drawn.items()}

    def terms(self, point: Array, samples: Array, reference: Array, balance: Array) -> Terms:
        """Eq. 7 and 9."""
        gaps = point - reference
        reward, at_point, at_samples = _sharpness(point, samples, balance, self.gamma)
        at_point += self.invariance * np.sign(gaps) / len(point)
        return Terms(float(np.abs(gaps).mean()), reward, at_point, at_samples)


@dataclass(frozen=True)
class ParetoFormulation(PaperFormulation):
    """Equipoise's own variant: no loss may rise, and the neglected tasks' losses are to fall.

    The paper keeps every loss where it is, from both sides. Here a fall is welcome, so the other point is to be at least as
    good for every task: ``κ mean_i max(0, L_i - L_i*) + ρ mean_i R_i L_i - γ L_g``, with R of eq. 10, which gives its weight
    to the task whose gradient is smallest, and L_g of eq. 9. With γ = 0, the default, an inner step costs one forward and one
    backward pass, whatever the number of tasks.

    Args:
        gamma: γ, factor of the sharpness.
        radius: δ.
        invariance: κ.
        pooled_reference: whether L_i* is the mean over all batches of the search.
        descent: ρ, how much the fall of the neglected tasks counts; below κ, or other tasks pay for it.
    """

    gamma: float = 0.0
    descent: float = 0.2
    name = "pareto"
    sharper = False
    losses_may_fall = True
    tolerance = 0.02

    def __post_init__(self) -> None:
        _check(self.gamma, self.radius, self.invariance, self.descent)

    def terms(self, point: Array, samples: Array, reference: Array, balance: Array) -> Terms:
        """The mean rise, and the weighted fall together with the sharpness."""
        rises = (point - reference).clip(min=0.0)
        reward, at_point, at_samples = _sharpness(point, samples, balance, self.gamma)
        at_point += (self.invariance * np.sign(rises) + self.descent * balance) / len(point)
        fall = float((balance * (reference - point)).mean())
        return Terms(float(rises.mean()), self.descent * fall + self.gamma * reward, at_point, at_samples)


@dataclass(frozen=True)
class ReleasedFormulation(Formulation):
    """What COST's released code minimizes: ``10 L_t - 0.5 L_g``, of which only the point θ + Δθ is differentiated.

    ``L_g = mean_i max_j R_i |L_i(θ+Δθ+ε_j) - L_i(θ+Δθ)| / δ`` with ε of norm δ in every parameter tensor of the model, heads
    included, on the batch of the step that asked for the teleport; ``R = K (1 - ‖g_i‖ / Σ‖g‖)``. There the perturbed copies are
    outside the graph, so the gradient of ``-γ L_g`` is ``Σ_i ±γ R_i / (K δ) ∇L_i``: plus where the perturbation that moved task
    i most had raised its loss, minus where it had lowered it. Chance decides that, and with δ = 1e-4 the factors are
    500 R_i times those of L_t. The model is in evaluation mode, and L* is the mean over the search's batches.

    Args:
        gamma: factor of L_g.
        radius: δ, for each tensor.
        invariance: factor of L_t.
        pooled_reference: whether L_i* is the mean over all batches of the search instead of each batch's own loss.
    """

    gamma: float = 0.5
    radius: float = 1e-4
    invariance: float = 10.0
    pooled_reference: bool = True
    name = "released"
    sharper = True
    evaluation_mode = True
    on_trigger = True
    perturbs_all = True
    default_trigger = "released"
    relative = False
    history = "released"

    def __post_init__(self) -> None:
        _check(self.gamma, self.radius, self.invariance)

    def differentiated(self, samples: int, tasks: int) -> int:
        """None of them."""
        return 0

    def balance(self, norms: Array) -> Array:
        """K (1 - ‖g_i‖ / Σ‖g‖)."""
        weights: Array = len(norms) * (1.0 - norms / max(norms.sum(), _TINY))
        return weights

    def noise(self, parameters: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Norm δ in each tensor."""
        drawn = _gaussian(parameters, generator)
        return {name: tensor * (self.radius / tensor.norm().clamp(min=_TINY)) for name, tensor in drawn.items()}

    def terms(self, point: Array, samples: Array, reference: Array, balance: Array) -> Terms:
        """Each task takes its own largest change, as seen from the point alone."""
        tasks = len(point)
        gaps = point - reference
        at_point = self.invariance * np.sign(gaps) / tasks
        reward = 0.0
        if len(samples):
            rises = samples - point
            chosen = np.abs(rises).argmax(axis=0), np.arange(tasks)
            reward = float((balance * np.abs(rises[chosen])).mean() / self.radius)
            at_point = at_point + self.gamma * np.sign(rises[chosen]) * balance / tasks / self.radius
        return Terms(float(np.abs(gaps).mean()), reward, at_point, np.zeros_like(samples))


FORMULATIONS: Registry[type[Formulation]] = Registry("formulation", error=InputError)
for _kind in (ParetoFormulation, PaperFormulation, ReleasedFormulation):
    FORMULATIONS.add(_kind.name, _kind)
FormulationLike: TypeAlias = "str | Formulation"


def as_formulation(formulation: FormulationLike) -> Formulation:
    """Reads a formulation, or the name of one, which is then made with its defaults.

    Raises:
        InputError: neither of these, or an unknown name.

    Example:
        >>> as_formulation("paper")
        PaperFormulation(gamma=0.1, radius=0.1, invariance=1.0, pooled_reference=False)
    """
    return chosen(FORMULATIONS, formulation, Formulation)  # type: ignore[type-abstract]


def _sharpness(point: Array, samples: Array, balance: Array, gamma: float) -> tuple[float, Array, Array]:
    """L_g of eq. 9, and the derivatives of -γ L_g by the losses at the point and at the samples."""
    at_point, at_samples = np.zeros_like(point), np.zeros_like(samples)
    if not len(samples):
        return 0.0, at_point, at_samples
    rises = (balance * (samples - point)).mean(axis=1)
    chosen = int(np.abs(rises).argmax())
    slope = gamma * np.sign(rises[chosen]) * balance / len(point)
    at_samples[chosen] = -slope
    return float(abs(rises[chosen])), slope, at_samples


def _check(gamma: float, radius: float, invariance: float, descent: float = 0.0) -> None:
    check_number("radius", radius, "positive")
    for name, value in (("gamma", gamma), ("invariance", invariance), ("descent", descent)):
        check_number(name, value, "at least 0", positive=False)


def _gaussian(parameters: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    drawn = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for name, tensor in parameters.items()}
    for tensor in drawn.values():
        as_real(tensor).normal_(generator=generator)
    return drawn
