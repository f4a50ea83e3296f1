"""SAMO: any method on the Gramian, of gradients taken where each task's loss is larger."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from equipoise.balance.base import GramianBalancer
from equipoise.balance.mixins import Attached, Perturbation, Perturbing
from equipoise.balance.registry import register
from equipoise.balance.wrapping import Forwarding, inner_balancer
from equipoise.errors import InputError
from equipoise.states import Anything

if TYPE_CHECKING:
    from equipoise.objective import Objective

__all__ = ["SAMO"]


@register(
    "samo",
    summary="another method on the Gramian, with each task's gradient taken a short way up its loss",
    paper="Ban et al., SAMO: A Lightweight Sharpness-Aware Approach for Multi-Task Optimization, ICCV 2025",
    price="K + 1 backward, 3K + 1 forward",
    promise="with `rho` 0 the other method; else steps towards flat minima",
    serves="tasks that overfit or conflict in sharp valleys, where time is cheap",
    caveats="the price; `rho` to choose; not for losses in hand, features or proxies",
    adds_up_to="what the other method's do",
    checked="released code's steps, autograd at the points by hand",
)
class SAMO(Attached, Perturbing, Forwarding):
    """Balances the gradients g_k = ∇ℓ_k(θ + ε_k), each at a point ε_k where its loss is larger (Ban et al., 2025).

    For the shared parameters ε_k = ρ e_k/‖e_k‖, where layer by layer e_k = α ḡ + (1 − α) ‖ḡ‖ ĝ_k/‖ĝ_k‖: the gradient ḡ of the
    mean loss (global) and an estimate ĝ_k of the task's own (local) from two forward passes, ĝ_k = z (ℓ_k(θ + μz) − ℓ_k(θ −
    μz))/2μ along one random direction z ~ N(0, I) per task and step. By the division the estimate counts by its sign alone.
    Parameters of one task alone go ρ along their gradient. Then K gradients are taken, one forward and one backward pass each,
    and ``balancer`` combines those of the shared parameters. The losses reported are those at θ.

    The paper's text was not available; this follows its released code (github.com/OptMN-Lab/SAMO, commit 3b686c9), but for two
    things: all evaluations of a batch draw the same random numbers, in the model's own mode (there the estimate is of the
    model in evaluation mode), and each task's own parameters are moved by ρ on every data set (there not on QM9).

    Only :class:`~equipoise.MultiTaskOptimizer` can evaluate the losses elsewhere. Buffers (batch-norm statistics) move once.

    Args:
        balancer: any method on the Gramian, by its name or as an object; in text ``balancer=cagrad(c=0.2)``. FairGrad if
            left out.
        rho: ρ, length of the steps away: 0.001 in released scripts, 0.00001 on QM9.
        alpha: α, share of the mean loss's gradient, from 0 to 1: 0.5 in released scripts (their ``beta`` is 1 − α), 0.1 on QM9.
        radius: μ of the estimate.
        seed: of the random directions.

    Raises:
        InputError: an argument is out of range, or the balancer does more than weigh tasks by their Gramian.

    Example:
        >>> SAMO("cagrad", rho=0.01)
        SAMO(CAGrad(c=0.4), rho=0.01, alpha=0.5)
    """

    stateful: ClassVar = {"generator": Anything()}

    def __init__(
        self,
        balancer: GramianBalancer | str | None = None,
        rho: float = 0.001,
        alpha: float = 0.5,
        radius: float = 0.01,
        seed: int = 0,
    ) -> None:
        if not 0 <= rho < float("inf"):
            raise InputError(f"rho must be finite and at least 0; got {rho}")
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha must be from 0 to 1; got {alpha}")
        if not 0 < radius < float("inf"):
            raise InputError(f"radius must be positive and finite; got {radius}")
        super().__init__(inner_balancer(balancer, "fairgrad"))
        self.rho = float(rho)
        self.alpha = float(alpha)
        self.radius = float(radius)
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def perturbation(self) -> Perturbation:
        """Where the gradients are taken."""
        return Perturbation(self.rho, self.alpha, self.radius, self.generator)

    def attach(self, objective: Objective) -> None:
        """Looks for losses with fixed weights, whose gradient is taken at θ alone. Raises InputError: there are some."""
        if objective.fixed:
            raise InputError(f"{self!r} takes each task's gradient elsewhere; losses with fixed weights have no such point")

    def __repr__(self) -> str:
        return f"SAMO({self.balancer!r}, rho={self.rho}, alpha={self.alpha})"
