"""IMTL: impartial multi-task learning, losses and gradients together."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.balance.registry import register
from equipoise.balance.vector_adam import learn_from_losses
from equipoise.errors import InputError
from equipoise.solvers import equal_projections
from equipoise.states import Maybe, Moments, Of

__all__ = ["IMTL"]


@register(
    "imtl",
    summary="`imtl-g` on losses that learned scales bring to one size",
    paper="Liu et al., Towards Impartial Multi-task Learning, ICLR 2021",
    price="K backward",
    promise="equal projections onto all unit task gradients, as `imtl-g`; the scales learn to bring every loss to 1",
    serves="as `imtl-g`, when losses differ in size: the length of the step then does not follow the quietest loss",
    caveats="as `imtl-g`; losses must be positive; the scales have a learning rate of their own",
    adds_up_to="a weighted mean of exp(s)",
    checked="defining equations, closed form of the scales",
)
class IMTL(GramianBalancer):
    """IMTL-G on the gradients of the scaled losses exp(s_k) ℓ_k, with s learned as in IMTL-L (Liu et al., 2021, section 3.3).

    s descends on Σ_k exp(s_k) ℓ_k − s_k, whose gradient is exp(s_k) ℓ_k − 1: at rest every scaled loss is 1. With α the
    weights of :class:`~equipoise.IMTLG` for the scaled gradients, task k weighs α_k exp(s_k). The direction of IMTL-G does not
    depend on the units of the losses, so s decides only how long the step is.

    In the paper task-specific parameters get the gradient of their scaled loss, and s is learned by the model's own
    optimizer. Here s has an Adam of its own, because the optimizer stays the user's, and task-specific parameters get the
    gradient of their own loss as with every balancer that looks at gradients. For optimizers that normalise gradients, Adam
    among them, a slowly moving factor exp(s_k) there makes little difference; with plain SGD it is one learning rate per task.

    **Mind.** All of ``imtl-g``. Losses must be positive. The scales have a learning rate of their own and change the length of
    the step, not its direction. Task-specific parameters get their task's own gradient, unscaled.

    Args:
        lr: of Adam on s.

    Raises:
        InputError: the learning rate is negative.

    Example:
        >>> import torch
        >>> IMTL().weights(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.3333, 0.6667])
    """

    stateful: ClassVar = {"log_scales": Maybe(Of(("K",)), "memory"), "moments": Maybe(Moments((3, "K")), "memory")}

    def __init__(self, lr: float = 1e-3) -> None:
        if not lr >= 0:
            raise InputError(f"lr must be at least 0; got {lr}")
        self.lr = lr
        self.log_scales: Tensor | None = None
        self.moments: Tensor | None = None
        self._here: list[int] | None = None

    def decide(self, observation: Observation) -> Tensor:
        """α_k exp(s_k) of the tasks present."""
        observation.check_memory(self, self.log_scales)
        self._here = list(observation.present)
        try:
            return self.weights(observation.needed("gramian"))
        finally:
            self._here = None

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.equal_projections`, here of the scaled losses' Gramian."""
        scales = np.ones(len(gramian))
        if self.log_scales is not None:
            logs = self.log_scales.cpu().numpy()
            if self._here is not None:
                logs = logs[self._here]
            if len(logs) != len(gramian):
                raise InputError(f"this IMTL has learned from {len(logs)} tasks; the Gramian is of {len(gramian)}")
            scales = np.exp(logs)
        return equal_projections(scales[:, None] * gramian * scales) * scales

    def update(self, observation: Observation) -> None:
        """One Adam step on the log-scales of the tasks present."""
        self.log_scales, self.moments = learn_from_losses(
            self.log_scales,
            self.moments,
            observation,
            lambda values, losses: values.exp() * losses - 1,
            initial=0.0,
            lr=self.lr,
        )

    def __repr__(self) -> str:
        return f"IMTL(lr={self.lr})"
