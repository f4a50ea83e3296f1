"""MGDA: the multiple-gradient descent algorithm."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import minimum_norm_point

__all__ = ["MGDA"]

Normalization: TypeAlias = Literal["none", "l2", "loss", "loss+"]


@register(
    "mgda",
    summary="the shortest convex combination of the task gradients: no task's loss increases",
    paper="Désidéri, Comptes Rendus 2012; Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018",
    price="K backward",
    promise="to first order no loss increases; stops only where no direction serves all tasks",
    serves="when no task may pay for another",
    caveats="a task that has converged stops all others; the units of a loss matter",
    adds_up_to="1",
    checked="reference implementation, equations",
)
class MGDA(GramianBalancer):
    """Takes the minimum-norm point of the gradients' convex hull: min over w ≥ 0, Σw = 1 of ‖Σ_k w_k g_k‖².

    The direction d satisfies ⟨g_k, d⟩ ≥ ‖d‖² for every task: to first order no loss increases. The problem is solved
    exactly (an active-set method), not by the paper's Frank-Wolfe steps.

    Released code first divides the gradients by a number per task, and then weighs the gradients as they are with what it
    found, which ``normalization`` offers: by their norms ‖g_k‖ (``"l2"``), by the losses ℓ_k (``"loss"``), or by the products
    ℓ_k ‖g_k‖ (``"loss+"``). A weighted task is then no longer one that the direction must serve, but a small gradient no
    longer takes all the weight.

    **Mind.** It favours the task with the smallest gradient norm: a task that has converged stops all others. The units of a
    loss matter.

    With ``power`` it is GAPO (Li et al., Gradient-Adaptive Policy Optimization, ACL 2025): gradients are divided by ‖g_k‖^p,
    and the direction is the shortest point of *these*, so task k weighs α_k/‖g_k‖^p. Every task with a weight then gains
    in proportion: ⟨g_k, d⟩ = ‖g_k‖^p ‖d‖². The paper's text was not available; this follows public summaries of it.

    Args:
        normalization: ``"none"`` (the paper), ``"l2"``, ``"loss"`` or ``"loss+"``. A zero gradient stays one.
        power: p; 0 without rescaling, 1 and 2 in the paper of GAPO. Not together with a normalization.

    Raises:
        InputError: there is no such normalization, or a power below 0 or beside one.
        NonFiniteError: at a step that divides by losses, when one is not positive.

    Example:
        >>> import torch
        >>> MGDA().weights(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.2000, 0.8000])
        >>> MGDA(normalization="l2").weights(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 0.5000])
        >>> MGDA(power=1).weights(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.2500, 0.5000])
    """

    def __init__(self, normalization: Normalization | None = "none", power: float = 0.0) -> None:
        normalization = "none" if normalization is None else normalization  # "none" in a study's text means None
        if normalization not in get_args(Normalization):
            raise InputError(f'normalization must be one of {", ".join(get_args(Normalization))}; got "{normalization}"')
        if not 0 <= power < float("inf"):
            raise InputError(f"power must be finite and at least 0; got {power}")
        if power and normalization != "none":
            raise InputError("power rescales the gradients, and normalization does so in another way; give one of them")
        self.normalization: Normalization = normalization
        self.power = float(power)

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present."""
        gramian = observation.needed("gramian")
        if not self.normalization.startswith("loss"):
            return self.weights(gramian)
        losses = observation.needed("losses").detach().to("cpu", torch.float64)
        fine = losses > 0
        units = torch.where(fine, losses, 1.0).numpy()
        weights = torch.from_numpy(self._normalized(gramian.numpy(), units))
        # Which task it is that has no positive loss is for the error to say.
        return torch.where(fine, torch.where(fine.all(), weights, 1.0), torch.nan)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.minimum_norm_point`."""
        if self.normalization.startswith("loss"):
            raise InputError(f'normalization="{self.normalization}" needs the losses; use the balancer in a step')
        if self.power:
            # The norms relative to the largest, for their powers may leave the number range.
            norms = np.sqrt(np.clip(gramian.diagonal(), 0, None))
            largest = float(norms.max()) or 1.0
            scales = np.where(norms > 0, norms / largest, 1.0) ** -self.power
            found = minimum_norm_point(gramian / largest / largest * scales[:, None] * scales)
            return np.asarray(found * scales * largest**-self.power)
        return self._normalized(gramian, np.ones(len(gramian)))

    def _normalized(self, gramian: NDArray[np.float64], units: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.normalization in ("l2", "loss+"):
            norms = np.sqrt(np.clip(gramian.diagonal(), 0, None))
            # One after the other, for their product may leave the number range.
            safe = np.where(norms > 0, norms, 1.0)
            gramian = gramian / safe[:, None] / safe
        if self.normalization in ("loss", "loss+"):
            gramian = gramian / units[:, None] / units
        return minimum_norm_point(gramian)

    def __repr__(self) -> str:
        if self.power:
            return f"MGDA(power={self.power})"
        return "MGDA()" if self.normalization == "none" else f'MGDA(normalization="{self.normalization}")'
