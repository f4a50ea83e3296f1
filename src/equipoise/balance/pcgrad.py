"""PCGrad: projecting conflicting gradients."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.base import GramianBalancer, clipped, norm_bound
from equipoise.balance.registry import register
from equipoise.solvers import project_conflicts, random_orders
from equipoise.states import Anything

__all__ = ["PCGrad"]


@register(
    "pcgrad",
    summary="from every task gradient, takes away what points against the other tasks' gradients, then sums",
    paper="Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020",
    price="K backward",
    promise="for K = 2 no loss increases to first order; without conflicts it is `ls`",
    serves="few tasks of one scale that conflict now and then",
    caveats="for K > 2 a random order, and conflicts may remain; loud losses stay loud",
    adds_up_to="K or more; exactly K without conflicts",
    checked="reference implementation, equations",
)
class PCGrad(GramianBalancer):
    """Projects each task gradient onto the normal plane of those it conflicts with, one after the other in random order
    (Yu et al., 2020, Algorithm 1), and sums the results.

    The surgery only ever forms combinations of the task gradients, so it is done on coefficients with the Gramian.

    **Mind.** For K > 2 the result depends on a random order, and conflicts may remain. Weights are never below 1, so loud
    losses stay loud. It stops where two gradients are exactly opposed.

    Args:
        seed: of the balancer's own generator, which draws the orders. Under ``torch.distributed`` every process must use
            the same seed.
        max_norm: clip the sum to this norm; 1 in released code. Left out, no clipping.

    Raises:
        InputError: ``max_norm`` is not positive.

    Example:
        >>> import torch
        >>> PCGrad().weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([1.5000, 1.5000])
    """

    stateful: ClassVar = {"generator": Anything()}

    def __init__(self, seed: int = 0, max_norm: float | None = None) -> None:
        self.seed = seed
        self.max_norm = norm_bound(max_norm)
        self.generator = np.random.default_rng(seed)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.project_conflicts`; draws new orders."""
        weights = project_conflicts(gramian, random_orders(len(gramian), self.generator))
        return clipped(weights, gramian, self.max_norm)

    def __repr__(self) -> str:
        return f"PCGrad(seed={self.seed}{'' if self.max_norm is None else f', max_norm={self.max_norm}'})"
