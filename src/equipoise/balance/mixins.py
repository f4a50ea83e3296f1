"""What a few balancers do besides weighing tasks. Each mixin is one such thing, and the step looks for it by ``isinstance``.

Derive from a mixin and from one of the three base classes: ``class RotoGrad(OnFeatures, GramianBalancer)``. Balancers that
look at further batches have a base class of their own, :class:`~equipoise.balance.double_sampling.DoubleSampling`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from equipoise.balance.base import Observation

if TYPE_CHECKING:
    from equipoise.objective import Objective

__all__ = [
    "Accompanied",
    "Attached",
    "Companion",
    "Elsewhere",
    "ElsewhereObservation",
    "FeaturesObservation",
    "LooksElsewhere",
    "OnFeatures",
    "Paced",
    "Perturbation",
    "Perturbing",
    "Pull",
    "PullsHeads",
    "TakesFeatures",
]


class Attached:
    """A balancer that knows the model, which :class:`~equipoise.MultiTaskOptimizer` shows it."""

    def attach(self, objective: Objective) -> None:
        """Called when the :class:`~equipoise.MultiTaskOptimizer` is made, with the objective that it balances."""

    def begin(self) -> None:
        """Called when a step begins, before its losses are evaluated."""


class OnFeatures(Attached, ABC):
    """A balancer that acts at the output of a module of the model, where the gradients are then taken.

    Only :class:`~equipoise.MultiTaskOptimizer` can do that. One that needs ``"gradients"`` decides on a
    :class:`FeaturesObservation` with those of the features, flat ``[k, F]``, and its direction ``[F]`` is taken through the
    encoder. In ``update`` it gets an observation with these gradients, whatever it needs.

    Attributes:
        needs_targets: whether :meth:`take_parts` takes a third argument, ``targets``: a function that gives a batch's targets
            by task.
    """

    needs_targets: ClassVar[bool] = False

    @property
    @abstractmethod
    def features_module(self) -> nn.Module | None:
        """The module at whose output the gradients are taken; ``None`` before :meth:`attach`."""

    @property
    def lacks_parts(self) -> bool:
        """Whether :meth:`take_parts` still has to say which parts of the model it acts on."""
        return False

    def take_parts(self, features: Any = None, heads: Any = None) -> None:
        """Says where the shared features and the tasks' heads are."""


class TakesFeatures:
    """A balancer of gradients that decides on those of features as well, where ``MultiTaskOptimizer`` has ``features=``.

    There it is shown a :class:`FeaturesObservation`, and its direction ``[F]`` is taken through the encoder.
    """


@dataclass(frozen=True, kw_only=True)
class FeaturesObservation(Observation):
    """What a balancer of the features' gradients decides on.

    Attributes:
        features: what the features module gave: one tensor, detached.
        batch: what the losses were evaluated on.
    """

    features: Tensor
    batch: Any


class Elsewhere(Protocol):
    """Evaluates the losses of a step at other parameters; the model stays as it is."""

    def parameters(self) -> dict[str, Tensor]:
        """The model's trained parameters by name."""

    def losses(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Losses ``[k]`` of the tasks present in this process, at substituted parameters, differentiable."""

    def average(self, values: Tensor) -> Tensor:
        """Means over the processes that train together."""


@dataclass(frozen=True, kw_only=True)
class ElsewhereObservation(Observation):
    """What a balancer that :class:`LooksElsewhere` decides on, in the steps of :class:`~equipoise.MultiTaskOptimizer`.

    Attributes:
        elsewhere: evaluates this step's losses at other parameters.
    """

    elsewhere: Elsewhere


class LooksElsewhere(ABC):
    """A balancer that evaluates a step's losses at other parameters before it decides."""

    @property
    @abstractmethod
    def looks_elsewhere(self) -> bool:
        """Whether the next decision does so, and wants an :class:`ElsewhereObservation`."""


class Perturbation(NamedTuple):
    """How far from the parameters of now each task's gradient is taken; see :class:`~equipoise.SAMO`.

    Attributes:
        rho: length of the step away, of the shared parameters and of each task's own.
        alpha: share of the mean loss's gradient in the direction; the rest is an estimate of the task's own.
        radius: how far apart the losses that make the estimate are evaluated.
        generator: of the estimate's random directions.
    """

    rho: float
    alpha: float
    radius: float
    generator: torch.Generator


class Perturbing(LooksElsewhere):
    """A balancer of gradients that are taken at points of their own, one per task."""

    looks_elsewhere = True

    @property
    @abstractmethod
    def perturbation(self) -> Perturbation:
        """How these points are found."""


class Companion(NamedTuple):
    """What a balancer of losses wants differentiated together with them.

    Attributes:
        output: a tensor on the graph of this step's losses, or on one of its own.
        seed: what its gradient is multiplied with, of the same shape.
        parameters: the balancer's own parameters, whose ``.grad`` is filled for it.
        lent: the same where the trainer's optimizer moves them: their ``.grad`` is as any other of the model's.
    """

    output: Tensor
    seed: Tensor
    parameters: Sequence[Tensor] = ()
    lent: Sequence[Tensor] = ()


class Accompanied(ABC):
    """A balancer of losses that trains modules of its own in their backward pass."""

    @abstractmethod
    def companion(self) -> Companion | None:
        """What is to be differentiated together with the losses; asked after the decision."""


class Paced(ABC):
    """A balancer that learns beside the model, at the pace of the model's learning rate."""

    @abstractmethod
    def pace(self, *optimizers: torch.optim.Optimizer) -> None:
        """Says which optimizers train the model. :class:`~equipoise.MultiTaskOptimizer` does so; in your own loop, call it
        once before the first step.
        """


class Pull(NamedTuple):
    """What a balancer adds to the gradients of task-specific parameters, second order through the task gradients.

    To its loss, task i adds a function of its own gradient g_i whose derivative with respect to g_i is
    u_i = Σ_j C_ij g_j, all u held constant. Its own parameters φ_i then get ∂⟨g_i, u_i⟩/∂φ_i besides ∂ℓ_i/∂φ_i.

    Attributes:
        coefficients: C ``[k, k]`` in float64, of the tasks present. Tasks with equal rows are differentiated together.
        at_most: bounds the norm of what is added for a task, relative to that of ∂ℓ_i/∂φ_i; no bound if ``None``.
        features: take g_i and u_i at this module's output instead of the shared parameters.
    """

    coefficients: Tensor
    at_most: float | None = None
    features: nn.Module | None = None


class PullsHeads(ABC):
    """A balancer on the Gramian that adds to the gradients of task-specific parameters."""

    @property
    def pulls(self) -> bool:
        """Whether it does so in the next step."""
        return True

    @abstractmethod
    def pull(self, weights: Tensor, gramian: Tensor) -> Pull | None:
        """What is added.

        Args:
            weights: this step's decision ``[k]``.
            gramian: of the task gradients, ``[k, k]`` in float64.
        """
