"""PCD: one task leads, and every other one gets its share of progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.balance.per_task import PerTask, place_of
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import priority_weights
from equipoise.states import Maybe, Of

__all__ = ["PCD"]


@register(
    "pcd",
    summary="one task's gradient, bent just enough that every other task progresses",
    paper=(
        "Varam and AlHajri, Not All Objectives Are Born Equal: Priority-Constrained Descent for Hierarchical Multi-Objective "
        "Optimization, TMLR 2026"
    ),
    price="K backward",
    promise="progress on every task; that of the others a share `tau` of the best",
    serves="one task that counts, beside losses that only constrain it",
    caveats="the first task leads unless `primary` says which; without it in a batch, shared parameters stay",
    adds_up_to="what keeps the norm of the primary gradient",
    checked="KKT conditions, closed form for two tasks, TorchJD",
)
class PCD(GramianBalancer):
    """min ½‖d − g̃_p‖² so that ⟨g̃_j, d⟩ ≥ τ ‖g̃_j‖² for all j ≠ p, rescaled to the norm of g_p (arXiv 2606.29521).

    g̃_i = g_i / √(v̂_i + ε), v̂_i being the bias-corrected average of ‖g_i‖² with decay β, so that τ has no units. The programme
    is solved exactly, by its dual over the Gramian (:func:`~equipoise.solvers.priority_weights`). The paper's text was not
    available; this follows the authors' page and TorchJD's ``PCD``, which takes gradients that are dependent to 1e-9 for
    contradictions. Where the shares contradict each other, d is g_p; where g_p or d is zero, so are all weights.

    Args:
        tau: τ from 0 to 1; one number, or one per task in their order or by name, of which the primary's is not used.
        beta: β from 0 to below 1, of the averages.
        epsilon: ε, at least 0.
        primary: p, by its name or its place from 0 on.

    Raises:
        InputError: an argument is out of range, or no task has that name or place.

    Example:
        >>> PCD(tau=0.25).weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([1.1094, 0.8321])
    """

    stateful: ClassVar = {
        "squares": Maybe(Of(("K",), least=0, cpu=True), "memory"),
        "counts": Maybe(Of(("K",), least=0, cpu=True), "memory"),
    }

    def __init__(
        self,
        tau: float | Sequence[float] | Mapping[str, float] = 0.02,
        beta: float = 0.999,
        epsilon: float = 1e-8,
        primary: int | str = 0,
    ) -> None:
        self.tau = PerTask("tau", tau, least=0.0)
        if max(self.tau.values, default=0.0) > 1:
            raise InputError(f"tau must be at most 1; got {self.tau}")
        if not 0 <= beta < 1:
            raise InputError(f"beta must be at least 0 and less than 1; got {beta}")
        if not 0 <= epsilon < float("inf"):
            raise InputError(f"epsilon must be finite and at least 0; got {epsilon}")
        if isinstance(primary, int) and primary < 0:
            raise InputError(f"primary must be a task's name or its place from 0 on; got {primary}")
        self.beta = float(beta)
        self.epsilon = float(epsilon)
        self.primary = primary
        self.squares: Tensor | None = None
        self.counts: Tensor | None = None

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present."""
        gramian = observation.needed("gramian")
        place = place_of("primary", self.primary, observation.tasks)
        if place not in observation.present:
            return torch.zeros(len(gramian), dtype=torch.float64, device="cpu")
        squares, counts = self._averages(observation)
        averages = (squares / (1 - self.beta**counts)).numpy()
        shares = np.array(self.tau.of_present(observation))
        return torch.from_numpy(self._combine(gramian.numpy(), averages, shares, observation.present.index(place)))

    def update(self, observation: Observation) -> None:
        """Learns the norms of the step's gradients."""
        squares, counts = self._averages(observation)
        entries = torch.tensor(observation.present, device="cpu")
        zero = torch.zeros(len(observation.tasks), dtype=torch.float64, device="cpu")
        self.squares = (zero if self.squares is None else self.squares).index_copy(0, entries, squares)
        self.counts = (zero if self.counts is None else self.counts).index_copy(0, entries, counts)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights from one Gramian of all tasks, as in a first step."""
        tasks = tuple(f"task{k}" for k in range(len(gramian)))
        shares = np.array(self.tau.of_all(tasks))
        return self._combine(gramian, gramian.diagonal().clip(0), shares, place_of("primary", self.primary, tasks))

    def _averages(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """The averages of squared norms ``[k]`` with this step's, before they are corrected, and how many each is of."""
        observation.check_memory(self, self.squares)
        now = observation.needed("gramian").diagonal().clamp(min=0)
        if self.squares is None or self.counts is None:
            return (1 - self.beta) * now, torch.ones_like(now)
        before, counts = observation.of_present(self.squares), observation.of_present(self.counts)
        return self.beta * before + (1 - self.beta) * now, counts + 1

    def _combine(
        self, gramian: NDArray[np.float64], averages: NDArray[np.float64], shares: NDArray[np.float64], primary: int
    ) -> NDArray[np.float64]:
        roots = np.sqrt(averages + self.epsilon)
        scales = np.divide(1.0, roots, out=np.zeros_like(roots), where=roots > 0)
        own = float(gramian[primary, primary])
        if not own > 0 or scales[primary] == 0:
            return np.zeros(len(gramian))
        scaled = gramian * scales[:, None] * scales
        weights = priority_weights(scaled, shares, primary)
        square = float(weights @ scaled @ weights)
        size = float(np.abs(weights) @ np.sqrt(scaled.diagonal().clip(0))) ** 2
        if square <= _ROUNDING * size:  # it is rounding that is left
            return np.zeros(len(gramian))
        found: NDArray[np.float64] = weights * scales * (np.sqrt(own) / np.sqrt(square))
        return found

    def __repr__(self) -> str:
        return f"PCD(tau={self.tau}, beta={self.beta}, epsilon={self.epsilon}, primary={self.primary!r})"


_ROUNDING = 1e-14
"""Of a squared norm, relative to the terms that it is added up from."""
