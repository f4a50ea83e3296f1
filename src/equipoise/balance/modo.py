"""MoDo: multi-objective gradient descent with double sampling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.double_sampling import DoubleSampling
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import project_on_simplex

__all__ = ["MoDo"]


@register(
    "modo",
    summary="`mgda` one step of the weights at a time, without bias: from two further batches per step",
    paper="Chen et al., Three-Way Trade-Off in Multi-Objective Learning: Optimization, Generalization and Conflict-Avoidance, "
    "NeurIPS 2023",
    price="3 K backward, 2 forward more; memory for K gradients",
    promise="an unbiased step of the weights towards the common descent direction, however noisy the batches",
    serves="small batches, whose noise would lead `mgda` astray, and where `moco`'s averages lag behind",
    caveats="needs two further batches per step; `gamma` must suit the squared gradient norms; remembers",
    adds_up_to="1; less where tasks are absent",
    checked="TorchJD, its recursion from gradients by hand",
)
class MoDo(DoubleSampling):
    """Takes λ one projected step at a time, on three independent batches z₁, z₂, z₃ (Chen et al., 2023, Algorithm 1):

        λ ← Π_Δ(λ − γ (G(z₁) G(z₂)ᵀ λ + ρ λ)),    direction G(z₃)ᵀ λ,

    G(z) [K, P] being the task gradients on the batch z, Π_Δ the projection on the simplex, and λ = 1/K at the start. As z₁
    and z₂ are independent, the step of λ is without bias: E[G(z₁) G(z₂)ᵀ] is the Gramian of the expected gradients, whereas
    that of one batch has the noise's variance on its diagonal. The batch given to ``step`` is z₃; z₁ and z₂ are the further
    ones (see :class:`~equipoise.Objective` and :meth:`~equipoise.MultiTaskOptimizer.step`).

    Task-specific parameters learn from z₃ alone; released code gives them the mean of the gradients on all three. λ moves
    among the tasks that both z₁ and z₂ hold, which keep the weight that they had together; tasks that z₃ lacks take theirs
    with them.

    One γ cannot suit losses of unequal sizes. On this library's ``digits`` (``equipoise study digits -m
    ls,mgda,modo,modo:gamma=0.01 -s 2 -e 20``) the default's Δm is 29 %, between those of :class:`~equipoise.MGDA` (5 %) and of
    equal weights (53 %); with a larger γ, noise moves the weights: γ = 0.01 gives 75 %.

    **Mind.** A step costs three times as much. The further batches come from a loader or by hand; each costs a forward pass and
    K backward passes. ``gamma`` must suit the squared gradient norms, because the units of a loss matter. If it is too small,
    the weights stay equal; if it is too large, noise moves them. One ``gamma`` for losses of unequal sizes suits the loudest
    alone. It remembers, so start a fresh one for each training.

    Args:
        gamma: γ, step size of the weights.
        rho: ρ, pulls the weights together; 0 in the paper, 0.1 in released code.

    Raises:
        InputError: an argument is negative or not finite.

    Example:
        >>> import torch
        >>> MoDo(gamma=0.1).weights(torch.tensor([[4.0, 0.0], [0.0, 2.0]]))
        tensor([0.4500, 0.5500])
        >>> import equipoise as eq
        >>> model = torch.nn.Linear(3, 2)
        >>> objective = eq.Objective(model, lambda model, batch: model(batch).square().mean(0), batches=torch.randn(5, 4, 3))
        >>> mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 0.1), MoDo())
        >>> sorted(mtl.step(torch.randn(4, 3)))
        ['task0', 'task1']
    """

    def __init__(self, gamma: float = 1e-3, rho: float = 0.0) -> None:
        for name, value in (("gamma", gamma), ("rho", rho)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} must be finite and at least 0; got {value}")
        super().__init__()
        self.gamma = float(gamma)
        self.rho = float(rho)

    def moved(self, shares: NDArray[np.float64], cross: NDArray[np.float64]) -> NDArray[np.float64]:
        """One projected step."""
        slope = cross @ shares + self.rho * shares
        return project_on_simplex(shares - np.clip(self.gamma * slope, -1e12, 1e12))

    def __repr__(self) -> str:
        return f"MoDo(gamma={self.gamma}, rho={self.rho})"
