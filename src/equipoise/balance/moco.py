"""MoCo: multi-objective gradient correction."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from equipoise.balance.base import Observation
from equipoise.balance.per_task import RowsBalancer, mixed_row, move_rows
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import project_on_simplex
from equipoise.states import Listed, Maybe, Of, Text, Together, Whole

__all__ = ["MoCo", "MoCoProjection"]

MoCoProjection = Literal["simplex", "softmax"]


@register(
    "moco",
    summary="`mgda` on averaged gradients, with weights that take one step at a time",
    paper="Fernando et al., Mitigating Gradient Bias in Multi-objective Learning, ICLR 2023",
    price="K backward, memory for K more gradients",
    promise="with fading steps tends to Pareto-stationary points, even from noisy gradients",
    serves="small batches, where the noise of single gradients would lead `mgda` astray",
    caveats="four step sizes to choose; the units of a loss matter; `normalize` helps",
    adds_up_to="1, of averaged gradients that start from 0",
    checked="reference implementation, equations",
)
class MoCo(RowsBalancer):
    """Follows Yᵀλ, Y [K, P] tracking the task gradients and λ descending on ½‖Yᵀλ‖² + ½ρ‖λ‖².

    In step t = 1, 2, … (Fernando et al., 2023, Algorithm 1), with β_t = β/t^σ and γ_t = γ/t^τ:

        y_k ← Π(y_k − β_t (y_k − g_k)),    λ ← Π_Δ(λ − γ_t (Y Yᵀ + ρ I) λ),    direction Yᵀλ,

    from Y = 0 and λ = 1/K. Π is the projection on the ball of radius ``max_norm``, Π_Δ that on the simplex. The step is taken
    with the new Y and λ, as in released code; by its indices the paper takes it with those before. Released code also
    differs in two ways that are options here: a softmax in place of Π_Δ, and gradients scaled to the length of their loss. It
    has no ball. Default step sizes are those of released code. Single level only: no lower level's solution is
    estimated.

    Memory: one row of the shared parameters' length per task, and two more during the step. Of a batch that lacks tasks,
    those present share the weight that they had together; a task alone in its batch thus keeps its weight. Y starts from 0
    for parameters that become shared later (a layer that is unfrozen), and goes on for the others.

    **Mind.** You have to choose four step sizes. The units of a loss matter as for ``mgda``, and ``gamma`` must suit the
    squared gradient norms: if it is too large, one task has all the weight. ``normalize`` helps. The averages lag behind, more
    as ``beta`` fades.

    Args:
        beta: β, of the tracking, at most 1.
        beta_sigma: σ, how fast β fades.
        gamma: γ, of the weights.
        gamma_sigma: τ, how fast γ fades.
        rho: ρ ≥ 0, pulls the weights together.
        projection: ``"simplex"``, or ``"softmax"`` as in released code. The softmax is taken of the weights themselves, which
            lie between 0 and 1, and so pulls them towards equality in every step.
        normalize: take ℓ_k g_k/‖g_k‖ in place of g_k, as released code does.
        max_norm: radius of Π; no bound if left out.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> MoCo(beta=1.0, gamma=0.0).direction(torch.tensor([[4.0, 0.0], [0.0, 2.0]]))
        tensor([2., 1.])
    """

    stateful: ClassVar = {
        "tracked": Maybe(Of(("K", "P"), dtype=None), "memory"),
        "layout": Maybe(Listed(Together((Text(), Whole())))),
        "lambdas": Maybe(Of(("K",), least=0, most=1, cpu=True), "memory"),
        "steps": Whole(),
    }

    def __init__(
        self,
        beta: float = 0.5,
        beta_sigma: float = 0.5,
        gamma: float = 0.1,
        gamma_sigma: float = 0.5,
        rho: float = 0.0,
        projection: MoCoProjection = "simplex",
        normalize: bool = False,
        max_norm: float | None = None,
    ) -> None:
        if not 0 < beta <= 1:
            raise InputError(f"beta must be above 0 and at most 1; got {beta}")
        for name, value in (("beta_sigma", beta_sigma), ("gamma", gamma), ("gamma_sigma", gamma_sigma), ("rho", rho)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} must be finite and at least 0; got {value}")
        if projection not in get_args(MoCoProjection):
            raise InputError(f'projection must be "simplex" or "softmax"; got "{projection}"')
        if max_norm is not None and not max_norm > 0:
            raise InputError(f"max_norm must be positive; got {max_norm}")
        self.beta = beta
        self.beta_sigma = beta_sigma
        self.gamma = gamma
        self.gamma_sigma = gamma_sigma
        self.rho = rho
        self.projection = projection
        self.normalize = normalize
        self.max_norm = max_norm
        self.tracked: Tensor | None = None
        self.lambdas: Tensor | None = None
        self.steps = 0
        self._held: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None] | None = None

    def decide(self, observation: Observation) -> Tensor:
        """Direction ``[P]`` of the tasks present."""
        gradients = observation.needed("gradients")
        tracked = self._fitted(self.tracked, observation)
        lambdas = torch.full((len(gradients),), 1 / len(observation.tasks), dtype=torch.float64, device="cpu")
        if self.lambdas is not None:
            lambdas = observation.of_present(self.lambdas)
        take = self._beta() * self._lengths(observation, gradients)
        shrink = self._shrink(observation, tracked, take)
        old, new = (1 - self._beta()) * shrink, take * shrink
        # Y is a combination of its past and the gradients, so nothing of its size is made: everything goes by products.
        past = tracked
        if past is not None and not observation.complete:
            past = past[torch.tensor(observation.present, device=past.device)]
        combined = _combine(past, old, gradients, new, lambdas)
        largest = combined.abs().max().double().clamp(min=1e-300)
        # Products of two large or two small gradients leave float32's range; with numbers of at most 1 they do not.
        scaled = combined / largest.to(combined)
        products = new * torch.mv(gradients, scaled).double().cpu()
        if past is not None:
            products += old * torch.mv(past, scaled).double().cpu()
        moved = self._step(lambdas, largest.cpu() * products)
        self._held = (gradients, take, shrink, moved, tracked)
        return _combine(past, old, gradients, new, moved)

    def update(self, observation: Observation) -> None:
        """Moves the tracked gradients and the weights of the tasks present."""
        if self._held is None:
            return
        gradients, take, shrink, moved, tracked = self._held
        self._held = None
        if tracked is None:
            tracked = gradients.new_zeros(len(observation.tasks), gradients.shape[1])
        self.tracked, self.layout = tracked, observation.layout
        if self.lambdas is None:
            self.lambdas = torch.full((len(observation.tasks),), 1 / len(observation.tasks), dtype=torch.float64, device="cpu")
        move_rows(self.tracked, observation.present, 1 - self._beta(), gradients, take)
        if self.max_norm is not None:
            for position, factor in zip(observation.present, shrink.tolist(), strict=True):
                if factor < 1:
                    self.tracked[position].mul_(factor)
        self.lambdas = self.lambdas.index_copy(0, torch.tensor(observation.present, device="cpu"), moved)
        self.steps += 1

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """As every balancer; gradients are tracked from the first step on."""
        read = super().read_state(state, sizes)
        if (read["tracked"] is None) != (read["steps"] == 0):
            raise InputError(f"the state of MoCo does not fit together: tracked gradients with steps={read['steps']}")
        return read

    def _beta(self) -> float:
        return float(self.beta / (self.steps + 1) ** self.beta_sigma)

    def _lengths(self, observation: Observation, gradients: Tensor) -> Tensor:
        """What gradients are multiplied with first, ``[k]``."""
        if not self.normalize:
            return torch.ones(len(gradients), dtype=torch.float64, device="cpu")
        norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64).cpu()
        losses = observation.needed("losses").detach().to("cpu", torch.float64)
        return torch.where(norms > 0, losses / torch.where(norms > 0, norms, 1.0), 0.0)

    def _shrink(self, observation: Observation, tracked: Tensor | None, take: Tensor) -> Tensor:
        """What brings the tracked gradients back into the ball, ``[k]``."""
        gradients = observation.needed("gradients")
        if self.max_norm is None:
            return torch.ones(len(gradients), dtype=torch.float64, device="cpu")
        spare = torch.empty_like(gradients[0])
        norms = []
        for position, gradient, share in zip(observation.present, gradients, take.to(gradients).unbind(), strict=True):
            past = None if tracked is None else tracked[position]
            row = mixed_row(past, 1 - self._beta(), gradient, share, spare)
            norms.append(torch.linalg.vector_norm(row, dtype=torch.float64))
        return (self.max_norm / torch.stack(norms).cpu()).clamp(max=1.0)

    def _step(self, lambdas: Tensor, products: Tensor) -> Tensor:
        """New weights of the tasks present, which keep their sum."""
        total = float(lambdas.sum())
        gamma = self.gamma / (self.steps + 1) ** self.gamma_sigma
        moved = lambdas - gamma * (products + self.rho * lambdas)
        if total <= 0 or not bool(torch.isfinite(moved).all()):
            return lambdas
        if self.projection == "softmax":
            return total * torch.softmax(moved, 0)
        return torch.from_numpy(np.asarray(project_on_simplex(moved.numpy(), total)))

    def __repr__(self) -> str:
        return f'MoCo(beta={self.beta}, gamma={self.gamma}, rho={self.rho}, projection="{self.projection}")'


def _combine(past: Tensor | None, old: Tensor, gradients: Tensor, new: Tensor, lambdas: Tensor) -> Tensor:
    combined = torch.mm((lambdas * new).to(gradients)[None], gradients)[0]
    return combined if past is None else combined.addmv_(past.T, (lambdas * old).to(past))
