"""AIM: projections between task gradients whose thresholds are learned."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.balance.registry import register
from equipoise.balance.vector_adam import vector_adam, vector_adam_state
from equipoise.errors import InputError
from equipoise.solvers import intervened_weights, intervention_slope
from equipoise.states import Maybe, Moments, Of

__all__ = ["AIM"]


@register(
    "aim",
    summary="`pcgrad` with soft projections, whose thresholds per pair of tasks are learned",
    paper="Minot and Schneider, AIM: Adaptive Intervention for Deep Multi-task Learning of Molecular Properties, 2025",
    price="K backward",
    promise="without randomness; the thresholds show which tasks get on",
    serves="tasks that conflict in pairs, and a look at which do",
    caveats="single losses may increase; the units of a loss matter; remembers",
    adds_up_to="K, less what is projected",
    checked="autograd of its policy loss; `pcgrad` of two tasks",
)
class AIM(GramianBalancer):
    """Sums the task gradients after soft projections with learned thresholds τ (Minot and Schneider, 2025, eq. 1–3).

    d = Σ_i g_i', g_i' = g_i − Σ_{j≠i} σ(k (τ_ij − cos(g_i, g_j))) (g_iᵀg_j/‖g_j‖²) g_j.

    After each step τ takes a step of Adam down λ_m (‖d‖ − Σ_i ‖g_i‖)² − λ_p Σ_i α_i ⟨g_i, d⟩, d being the direction and α_i =
    ℓ_i/Σ_j ℓ_j (eq. 5 and 6; equal α where a loss is negative), divided by (Σ_i ‖g_i‖)², so that the losses' common unit does
    not matter.

    The paper's text was not available; this follows an independent implementation (by N. Suthar, on QM9) that numbers the
    paper's equations. There the policy learns from batches of held-out data, here from those of training. The policy's loss
    has a third term in eq. 4, the losses on the held-out batch; in that implementation it does not depend on τ, and it is left
    out here.

    Args:
        sharpness: k, of the sigmoid.
        lr: of Adam on τ.
        magnitude: λ_m.
        progress: λ_p.
        per_pair: one τ_ij for each ordered pair of tasks; otherwise a single τ.
        start: τ at the start. With 0 and a sharp sigmoid it is PCGrad without an order.

    Raises:
        InputError: k is not positive, another number is negative, or ``start`` is no cosine.

    Example:
        >>> AIM(sharpness=1e3).weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([1.5000, 1.5000])
    """

    stateful: ClassVar = {
        "thresholds": Maybe(Of(("K", "K"), cpu=True), "memory"),
        "moments": Maybe(Moments((3, "K", "K"), cpu=True), "memory"),
    }
    decides_purely = True

    def __init__(
        self,
        sharpness: float = 10.0,
        lr: float = 0.001,
        magnitude: float = 0.01,
        progress: float = 0.08,
        per_pair: bool = True,
        start: float = 0.0,
    ) -> None:
        if not 0 < sharpness < float("inf"):
            raise InputError(f"sharpness must be positive and finite; got {sharpness}")
        for name, value in (("lr", lr), ("magnitude", magnitude), ("progress", progress)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} must be finite and at least 0; got {value}")
        if not -1 <= start <= 1:
            raise InputError(f"start must be between -1 and 1; got {start}")
        self.sharpness = float(sharpness)
        self.lr = float(lr)
        self.magnitude = float(magnitude)
        self.progress = float(progress)
        self.per_pair = per_pair
        self.start = float(start)
        self.thresholds: Tensor | None = None
        self.moments: Tensor | None = None

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present."""
        gramian = observation.needed("gramian")
        return torch.from_numpy(intervened_weights(gramian.numpy(), self._of_present(observation).numpy(), self.sharpness))

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of all tasks, with the thresholds of now."""
        places = tuple(range(len(gramian)))
        every = Observation(tuple(f"task{k}" for k in places), places)
        return intervened_weights(gramian, self._of_present(every).numpy(), self.sharpness)

    def update(self, observation: Observation) -> None:
        """One step of Adam on the thresholds of the pairs present."""
        gramian, losses = observation.needed("gramian"), observation.needed("losses").double().cpu()
        tasks, present = len(observation.tasks), torch.as_tensor(observation.present, device="cpu")
        total = float(losses.sum())
        fine = bool((losses >= 0).all()) and 0 < total < float("inf")
        hardness = losses / total if fine else torch.full_like(losses, 1 / len(losses))
        slope = torch.from_numpy(
            intervention_slope(
                gramian.numpy(),
                self._of_present(observation).numpy(),
                hardness.numpy(),
                self.sharpness,
                magnitude=self.magnitude,
                progress=self.progress,
            )
        )
        if self.thresholds is None or self.moments is None:
            self.thresholds = torch.full((tasks, tasks), self.start, dtype=torch.float64, device="cpu")
            self.moments = vector_adam_state(self.thresholds)
        if not self.per_pair:
            slope, present = slope.sum().expand(tasks, tasks), torch.arange(tasks, device="cpu")
        pairs = (present[:, None] * tasks + present).flatten()
        values, moments = vector_adam(self.thresholds.flatten(), slope.flatten(), self.moments.flatten(1), pairs, lr=self.lr)
        self.thresholds, self.moments = values.view(tasks, tasks), moments.view(3, tasks, tasks)

    def _of_present(self, observation: Observation) -> Tensor:
        observation.check_memory(self, self.thresholds)
        if self.thresholds is None:
            return torch.full((len(observation.present),) * 2, self.start, dtype=torch.float64, device="cpu")
        present = torch.as_tensor(observation.present, device="cpu")
        return self.thresholds[present[:, None], present]

    def __repr__(self) -> str:
        return f"AIM(sharpness={self.sharpness}, lr={self.lr}, magnitude={self.magnitude}, progress={self.progress})"
