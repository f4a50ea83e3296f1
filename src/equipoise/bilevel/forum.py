"""FORUM: a first-order multi-gradient method for multi-objective bilevel optimisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from equipoise.bilevel.problem import BilevelProblem
from equipoise.bilevel.value_function import Combination, ValueFunction, ValueFunctionSolver
from equipoise.errors import InputError
from equipoise.solvers import constrained_descent, constraint_multiplier, printed_constrained_descent
from equipoise.states import Listed, Maybe, Number, read_state

__all__ = ["FORUM"]


class FORUM(ValueFunctionSolver):
    """Steps along the direction that lowers all upper objectives and the constraint (thesis, Algorithm 2).

    With φ = ½ρ‖∇q̃‖², the multipliers λ of the objectives and ν of the constraint solve eq. 3.20 exactly, in m + 1
    variables; λ is averaged over the steps, λ̃ ← (1 − β_k) λ̃ + β_k λ with β_k = (k + 1)^(−decay) (eq. 3.30), ν is the best
    one for λ̃, and the direction is −(Σ λ̃_i ∇F_i + ν ∇q̃) (eq. 3.26), for α and ω at once.

    The optimality conditions of eq. 3.20 give ν = max(0, (φ − ⟨∇q̃, Σ λ_i ∇F_i⟩)/‖∇q̃‖²), and that is used; eq. 3.27 has 2φ
    in place of φ, so that its ρ asks for as much as 2ρ here; ``formulation="printed"`` follows the print: 2φ in the closed form
    (3.27) and the bound of ν (3.29), φ in the objective (3.28). Released code uses φ = its own ρ times ‖∇q̃‖² in π, solves the
    dual with ‖·‖² in place of ½‖·‖², and scales every ∇F_i to length 1, which ``normalize`` does here.

    Args:
        problem: what is solved.
        optimizer: a torch optimizer, or several, that hold α and ω. Plain ``SGD`` at step size μ is the paper's.
        rho: ρ ≥ 0; how fast the constraint is to fall.
        averaging: the exponent of β_k; 0 for no averaging. The paper's is 3/4.
        lower: ``lower_steps``, ``lower_lr``, ``start`` and ``constraint_batches``, see
            :class:`~equipoise.bilevel.value_function.ValueFunction`.
        normalize: scale every ∇F_i to length 1 first, as released code does.
        formulation: ``"optimal"``, the ν that solves eq. 3.20, or ``"printed"``, Algorithm 2 to the letter.

    Raises:
        InputError: an argument that cannot be used.

    Example:
        >>> alpha, omega = torch.tensor(0.0), torch.tensor([0.0, 3.0])
        >>> problem = BilevelProblem(
        ...     lower=lambda alpha, omega, batch: (omega - alpha).square().sum(),
        ...     upper=lambda alpha, omega, batch: [
        ...         (omega - torch.stack([torch.tensor(end), alpha])).square().sum() for end in (1.0, 2.0)
        ...     ],
        ...     variables=(alpha, omega),
        ... )
        >>> solver = FORUM(problem, torch.optim.SGD([alpha, omega], 0.3), lower_steps=50, lower_lr=0.05, rho=0.3)
        >>> for _ in range(200):
        ...     values = solver.step()
        >>> bool(1 <= alpha <= 2), bool((omega - alpha).abs().max() < 1e-3)
        (True, True)
    """

    def __init__(
        self,
        problem: BilevelProblem,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        rho: float = 0.5,
        averaging: float = 0.75,
        normalize: bool = False,
        formulation: Literal["optimal", "printed"] = "optimal",
        **lower: Unpack[ValueFunction],
    ) -> None:
        super().__init__(problem, optimizer, **lower)
        for name, value in (("rho", rho), ("averaging", averaging)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} must be finite and at least 0; got {value}")
        if formulation not in ("optimal", "printed"):
            raise InputError(f'formulation must be "optimal" or "printed"; got {formulation!r}')
        self.formulation = formulation
        self.rho = rho
        self.averaging = averaging
        self.normalize = normalize
        self.weights: NDArray[np.float64] | None = None
        self._next: NDArray[np.float64] | None = None

    def _combine(self, gramian: NDArray[np.float64], gap: float) -> Combination:
        lengths = np.ones(len(gramian))
        if self.normalize:
            norms = np.sqrt(gramian.diagonal()[:-1])
            lengths[:-1] = np.where(norms > 0.0, 1.0 / np.where(norms > 0.0, norms, 1.0), 1.0)
            gramian = gramian * np.outer(lengths, lengths)
        phi = 0.5 * self.rho * float(gramian[-1, -1])
        printed = self.formulation == "printed"
        solved, _ = (printed_constrained_descent if printed else constrained_descent)(gramian, phi)
        share = float((self.steps + 1) ** -self.averaging) if self.averaging else 1.0
        before = np.full(len(solved), 1.0 / len(solved)) if self.weights is None else self.weights
        self._next = (1.0 - share) * before + share * solved
        asked = 2.0 * phi if printed else phi
        return Combination(self._next * lengths[:-1], constraint_multiplier(gramian, self._next, asked))

    def _commit(self) -> None:
        super()._commit()
        self.weights = self._next

    def _memory(self) -> dict[str, Any]:
        return {"forum": None if self.weights is None else self.weights.tolist()}

    def _read_memory(self, memory: Mapping[str, Any]) -> dict[str, Any]:
        read = read_state(type(self).__name__, memory, {"forum": Maybe(Listed(Number(0.0)))})
        known = len(self.problem.objectives)
        if read["forum"] is not None and known and len(read["forum"]) != known:
            raise InputError(f"the state has the weights of {len(read['forum'])} objectives; there are {known} here")
        return read

    def _remember(self, memory: dict[str, Any]) -> None:
        self.weights = None if memory["forum"] is None else np.array(memory["forum"])
