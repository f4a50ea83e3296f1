"""SDMGrad: stochastic direction-oriented multi-objective gradient descent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.double_sampling import DoubleSampling
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import project_on_simplex

__all__ = ["SDMGrad"]


@register(
    "sdmgrad",
    summary="a common descent direction near the mean gradient, from two further batches, without bias",
    paper="Xiao, Ban and Ji, Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms, "
    "NeurIPS 2023",
    price="3 K backward, 2 forward more; memory for K gradients",
    promise="`lam` leads from a common descent direction (0) to the mean gradient (large), without bias",
    serves="when the mean loss counts and batches are small and noisy",
    caveats="needs two further batches per step; loud losses stay loud; noisy at its default step sizes; remembers",
    adds_up_to="1; less where tasks are absent",
    checked="TorchJD, its recursion from gradients by hand",
)
class SDMGrad(DoubleSampling):
    """Approaches min over the simplex of ½‖g_w + λ g_0‖², and takes d = (g_w + λ g_0)/(1 + λ).

    g_0 is the mean gradient and g_w = Gᵀw. On two batches z₁ and z₂ further than the one z₃ that is given to ``step``, w takes
    ``steps`` projected steps (Xiao et al., 2023, Algorithm 1), and the direction is taken on z₃:

        w ← Π_Δ(w − β G(z₁)(G(z₂)ᵀw + λ g_0(z₂))),    d = G(z₃)ᵀ(w + λ/K) / (1 + λ).

    From step to step w is kept. As in released code, all ``steps`` inner steps of a training step use the same pair of
    batches (Algorithm 1 draws a pair each, which would cost 2·``steps`` batches), they have momentum, and the products are
    divided by the square of the mean norm of the task gradients, so that β does not depend on their size: the norm of
    task k is taken from its product between the batches, counted as 0 where that is negative. Where this leaves no norm at
    all, the root of the largest product stands for it. The variant with sampled objectives (SDMGrad-OS) is not offered.

    Task-specific parameters learn from z₃ alone. w moves among the tasks that both z₁ and z₂ hold, which keep the weight that
    they had together, g_0 being their mean; tasks that z₃ lacks take theirs with them.

    The default inner steps overshoot, and so amplify: what differs by rounding (another order of the tasks, say) differs by a
    thousand times as much, or more, after some training steps. With β = 0.1 it does not.

    The pull λ knows the mean gradient as it is, so where losses differ in size the loudest leads. On this library's ``digits``
    (``equipoise study digits -m ls,mgda,sdmgrad,sdmgrad:lam=0 -s 2 -e 20``), whose losses do, the default thus does no better
    than equal weights: Δm is 64 %, theirs 53 %, that of :class:`~equipoise.MGDA` 5 %. Without the pull (``lam=0``) it is 57 %:
    there noise remains, for the weights change by a fifth from step to step.

    **Mind.** A step costs three times as much. The further batches come from a loader or by hand; each costs a forward pass and
    K backward passes. The units of a loss matter: however loud, a loss keeps a share of ``lam``/(K(1 + ``lam``)) or more. All
    inner steps use the same two batches, so only the first is strictly without bias. At the default step size noise moves the
    weights far. It remembers, so start a fresh one for each training.

    Args:
        lam: λ ≥ 0; 0 is the common descent direction of :class:`~equipoise.MGDA`, large values tend to the mean gradient.
        steps: inner steps of w.
        lr: β, of the inner steps.
        momentum: of the inner steps; starts again in every training step.
        normalize: divide the products by the squared mean norm; off as in the paper's equations.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import torch
        >>> SDMGrad(lam=0.0, steps=200, lr=0.1).weights(torch.tensor([[4.0, 0.0], [0.0, 2.0]]))
        tensor([0.3333, 0.6667])
    """

    def __init__(
        self, lam: float = 0.3, steps: int = 20, lr: float = 5.0, momentum: float = 0.5, normalize: bool = True
    ) -> None:
        for name, value in (("lam", lam), ("lr", lr)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} must be finite and at least 0; got {value}")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps must be a whole number of at least 1; got {steps}")
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must be at least 0 and below 1; got {momentum}")
        super().__init__()
        self.lam = float(lam)
        self.steps = steps
        self.lr = float(lr)
        self.momentum = float(momentum)
        self.normalize = normalize

    def moved(self, shares: NDArray[np.float64], cross: NDArray[np.float64]) -> NDArray[np.float64]:
        """``steps`` projected steps."""
        products = cross / _square_of_mean_norm(cross) if self.normalize else cross
        towards_mean = self.lam * products.mean(axis=1)
        velocity = np.zeros_like(shares)
        for _ in range(self.steps):
            velocity = self.momentum * velocity + products @ shares + towards_mean
            shares = project_on_simplex(shares - np.clip(self.lr * velocity, -1e12, 1e12))
        return shares

    def given(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """(w + λ/K)/(1 + λ)."""
        return (shares + self.lam / len(shares)) / (1 + self.lam)

    def __repr__(self) -> str:
        return (
            f"SDMGrad(lam={self.lam}, steps={self.steps}, lr={self.lr}, momentum={self.momentum}, normalize={self.normalize})"
        )


def _square_of_mean_norm(cross: NDArray[np.float64]) -> float:
    square = float(np.sqrt(np.diagonal(cross).clip(min=0)).mean() ** 2)
    largest = float(np.abs(cross).max())
    # Noise may leave next to nothing on the diagonal; the quotient must stay a number.
    return max(square, 1e-12 * largest) if square > 0 else largest or 1.0
