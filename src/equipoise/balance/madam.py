"""MAdam: the combined gradient, divided by the root of what its own weights say of its squares."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.balance.per_task import RowsBalancer
from equipoise.balance.registry import register
from equipoise.balance.wrapping import Holding, inner_balancer, keeps_weights
from equipoise.engine.gramian import gramian as gramian_of
from equipoise.errors import InputError
from equipoise.states import Listed, Maybe, Of, Text, Together, Whole

__all__ = ["MAdam"]


@register(
    "madam",
    summary="the combination of another method, whitened by second moments of its own weights before Adam",
    paper="Liu et al., MAdam: Metric-Aware Multi-Objective Adam, 2026",
    price="K backward, memory for K (K + 1) / 2 more gradients",
    promise="Adam's step follows the weights of now, not those that its second moments remember",
    serves="weights that change a lot from step to step, under Adam",
    caveats="made for Adam; memory grows with K²; inner products stay plain, see `metric=optimizer`",
    adds_up_to="a direction",
    checked="equations, the sum over all earlier steps",
)
class MAdam(Holding, RowsBalancer):
    """d / (√C_λ + ε) with d = Σ λ_i g_i and C_λ = Σ_ij λ_i λ_j F_ij, where F_ij averages g_i ⊙ g_j (arXiv 2606.03904).

    λ are another method's weights, from plain inner products. If they had always been the present ones, C_λ would be Adam's
    second moment of d; Adam's own mixes the weights of all earlier steps. After this division Adam receives a white direction,
    and its step follows C_λ. Only the abstract of the paper was available; the equations are those of its summary in the list
    "zij" (github.com/junaidaliop/zij). The summary mentions a ramp from the plain direction early on, and pairs of tasks drawn
    at random, without details. Here F is divided by its mass, as in Adam, and all pairs are kept.

    Memory: K (K + 1) / 2 rows of the shared parameters' length. The products with tasks that a batch lacks stay as they were.
    ``metric=optimizer``, an option of methods on the Gramian, complements this: it changes λ, and not d.

    Args:
        balancer: any method on the Gramian, by its name or as an object; in text ``balancer=fairgrad(alpha=2)``. MGDA if left
            out.
        beta: the decay of F, that of Adam's second moments.
        epsilon: ε.

    Raises:
        InputError: an argument is out of range, or the balancer does more than weigh tasks by their Gramian.

    Example:
        >>> MAdam().direction(torch.tensor([[4.0, 0.0], [0.0, 2.0]])).round(decimals=3)
        tensor([1., 1.])
    """

    stateful: ClassVar = {
        "moments": Maybe(Of(("pairs", "P"), dtype=None), "memory"),
        "layout": Maybe(Listed(Together((Text(), Whole())))),
        "counts": Maybe(Of(("K", "K"), least=0, cpu=True), "memory"),
    }
    _rows_are_tasks = False

    def __init__(self, balancer: GramianBalancer | str | None = None, beta: float = 0.999, epsilon: float = 1e-8) -> None:
        if not 0 <= beta < 1:
            raise InputError(f"beta must be at least 0 and less than 1; got {beta}")
        if not 0 < epsilon < float("inf"):
            raise InputError(f"epsilon must be positive and finite; got {epsilon}")
        self.balancer = inner_balancer(balancer)
        if self.balancer.metric is not None or keeps_weights(self.balancer) or self.balancer.needs != "gramian":
            raise InputError(f"balancer must decide in every step, by plain inner products; got {self.balancer!r}")
        self.beta = float(beta)
        self.epsilon = float(epsilon)
        self.moments: Tensor | None = None
        self.counts: Tensor | None = None
        self._held: tuple[Any, ...] | None = None
        self.decides_purely = not self.balancer.stateful or self.balancer.decides_purely  # type: ignore[misc]

    def decide(self, observation: Observation) -> Tensor:
        """Direction ``[P]`` of the tasks present."""
        gradients = observation.needed("gradients")
        observation.check_memory(self, self.counts)
        moments = self._fitted(self.moments, observation)
        inner = self._inner(observation, gramian_of(gradients).cpu())
        weights = self.balancer.decide(inner).double().cpu()
        counts = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device="cpu")
        places = torch.tensor(observation.present, device="cpu")
        if self.counts is not None:
            counts = self.counts[places[:, None], places]
        # Of each pair: what its past and its present count for.
        shares = torch.outer(weights, weights) / (1 - self.beta ** (counts + 1))
        now = (1 - self.beta) * shares
        direction = torch.mv(gradients.T, weights.to(gradients))
        square = ((now.to(gradients) @ gradients) * gradients).sum(0)
        least = square.clamp(min=0)
        if moments is not None:
            factors = torch.zeros(len(moments), dtype=torch.float64, device="cpu")
            for i, one in enumerate(observation.present):
                for j, other in enumerate(observation.present[: i + 1]):
                    factors[_pair(one, other)] = self.beta * shares[i, j] * (2.0 if i != j else 1.0)
            square = square + torch.mv(moments.T, factors.to(moments))
        self._held = (gradients, moments, inner)
        # The past alone is at least 0, but for the rounding of terms that cancel.
        return direction / (torch.maximum(square, least).sqrt() + self.epsilon)

    def update(self, observation: Observation) -> None:
        """Moves the averages of the pairs present, and lets the balancer learn."""
        if self._held is None:
            return
        gradients, moments, inner = self._held
        self._held = None
        self.balancer.update(inner)
        count = len(observation.tasks)
        if moments is None:
            moments = gradients.new_zeros(count * (count + 1) // 2, gradients.shape[1])
        self.moments, self.layout = moments, observation.layout
        for i, one in enumerate(observation.present):
            for j, other in enumerate(observation.present[: i + 1]):
                row = moments[_pair(one, other)]
                row.mul_(self.beta).addcmul_(gradients[i], gradients[j], value=1 - self.beta)
        counts = torch.zeros(count, count, dtype=torch.float64, device="cpu") if self.counts is None else self.counts.clone()
        places = torch.tensor(observation.present, device="cpu")
        counts[places[:, None], places] += 1
        self.counts = counts

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """As every balancer; the moments must be those of the tasks and of the layout."""
        sizes = {} if sizes is None else sizes
        read = super().read_state(state, sizes)
        if read["moments"] is not None:
            count, layout = sizes["K"], read["layout"]
            fits = sizes["pairs"] == count * (count + 1) // 2
            if not fits or (layout is not None and sum(size for _, size in layout) != sizes["P"]):
                raise InputError("the state of MAdam does not fit together: its moments are not those of its tasks and layout")
        return read

    @staticmethod
    def _inner(observation: Observation, gramian: Tensor) -> Observation:
        """What the balancer sees."""
        o = observation
        return Observation(o.tasks, o.present, o.losses, gramian, None, o.step, o.processes, o.layout)

    def __repr__(self) -> str:
        return f"MAdam({self.balancer!r}, beta={self.beta})"


def _pair(one: int, other: int) -> int:
    """The row of two tasks, ``one`` ≥ ``other``."""
    return one * (one + 1) // 2 + other
