"""Auto-λ: task weights from a finite difference of the training losses along the primary tasks' validation gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equipoise.balance import LS
from equipoise.bilevel.hypergradients import Hypergradients
from equipoise.bilevel.levels import Parts
from equipoise.bilevel.lower import check_answer, check_lower, check_upper
from equipoise.bilevel.problem import Point
from equipoise.bilevel.rules import Descent
from equipoise.bilevel.weighting.look_ahead import LookAhead
from equipoise.bilevel.weighting.problem import WeightProblem
from equipoise.errors import InputError, near_misses

__all__ = ["AutoLambda"]

_RADIUS = 0.01  # how far from ω the two points of a difference lie, as in released code


class AutoLambda(LookAhead):
    """Steps λ down the summed validation loss of the primary tasks, L(ω'), ω' being one virtual training step ahead.

    The weights are λ itself, not a softmax: they start from one number for all, do not add up to anything, and may fall below
    0, as in the released code; an auxiliary task is then unlearned. With d = ∇L(ω') and ε = 0.01/‖d‖,

        ω' = ω − η (m + Σ_k λ_k ∇ℓ_k(ω) + γ ω),    ∂L/∂λ_k ≈ −η (ℓ_k(ω + ε d) − ℓ_k(ω − ε d))/(2 ε),

    ℓ_k the training losses, η and γ the learning rate and weight decay of the model's optimizer as they are now, m what its
    momentum adds (0 where it has none). ω' depends linearly on λ, so only the error of the difference, of order ε², is between
    this and the derivative. Parameter groups with other rates count with these. Both evaluations draw the random numbers
    of the first one.

    The paper's text could not be had; this follows its authors' released code, in which the batch for L is a second one of
    training data. With several processes or a gradient scaler the derivative is taken by unrolling a plain step in place of
    the difference. The released step size of λ (Adam's, ``lr``) is 1e-4 on NYUv2 and 3e-5 on CityScapes.

    Args:
        problem: with ``raw=True``.
        optimizer: holds λ.
        model: the model's optimizer.
        primary: the tasks whose validation losses count, by name; all if left out.
        initial: the first weight of every task; 0.1 in released code.
        lower_lr: η; the present learning rate of the model's optimizer if left out.
        scaler: as for every solver.

    Raises:
        InputError: an argument that cannot be used; at the first step, a primary task that does not exist.
    """

    def __init__(
        self,
        problem: WeightProblem,
        optimizer: torch.optim.Optimizer,
        model: torch.optim.Optimizer,
        *,
        primary: Sequence[str] | str | None = None,
        initial: float = 0.1,
        lower_lr: float | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        if isinstance(initial, bool) or not 0 < initial < float("inf"):
            raise InputError(f"initial must be positive and finite; got {initial}")
        chosen = (primary,) if isinstance(primary, str) else primary
        named = isinstance(chosen, Sequence) and len(chosen) > 0 and all(isinstance(name, str) for name in chosen)
        if chosen is not None and not named:
            raise InputError(f"primary must name at least one task; got {primary!r}")
        self.primary = None if chosen is None else tuple(chosen)
        self.model_optimizer = model
        self._rate = lower_lr
        rate = 1.0 if lower_lr is None else lower_lr
        super().__init__(problem, optimizer, balancer=LS(), lower_steps=1, lower_lr=rate, scaler=scaler)

    def _hypergradients(self, batches: list[Parts], upper_parts: Parts) -> Hypergradients:
        wanted = self._wanted()
        if not self._one(batches, upper_parts):
            self.balancer = LS(wanted.tolist())
            if self._rate is None:
                self.rule = Descent(max(float(self.model_optimizer.param_groups[0]["lr"]), 1e-300))
            return self._unrolled(batches, upper_parts)
        return self._by_differences(batches[0][0], upper_parts[0], wanted)

    def _wanted(self) -> Tensor:
        names = self.problem.objectives
        for name in self.primary or ():
            if name not in names:
                raise InputError(f'primary names a task "{name}", which does not exist.{near_misses(name, names)}')
        counts = [float(self.primary is None or name in self.primary) for name in names]
        return torch.tensor(counts, dtype=torch.float64, device="cpu")

    def _by_differences(self, batch: object, upper_batch: object, wanted: Tensor) -> Hypergradients:
        problem, start, state = self.problem, self._lower_start(), self.problem.random_state()
        free = start.upper[0].detach()
        leaves = [value.detach().requires_grad_() for value in start.lower]
        losses = problem.losses_at(Point(start.upper, leaves, start.buffers), batch)
        positions = problem.objective.tasks.positions(losses)
        total = torch.stack([free[place].to(own) * own for place, own in zip(positions, losses.values(), strict=True)]).sum()
        check_lower([total.detach()], self.steps)
        gradients = _gradients(total, leaves)
        with torch.no_grad():
            rates, moved = [], []
            for parameter, gradient in zip(problem.lower_variables.tensors, gradients, strict=True):
                rate, step = self._step(parameter, gradient)
                rates.append(rate)
                moved.append(parameter - rate * step)
        check_answer(moved, problem.lower_variables.names, 1, self.steps)
        moved = [value.requires_grad_() for value in moved]
        # On copies of the buffers: statistics are those of the training batches.
        elsewhere = {name: buffer.clone() for name, buffer in start.buffers.items()}
        objectives = torch.stack(problem.objectives_at(Point(start.upper, moved, elsewhere), upper_batch))
        values = check_upper(objectives.detach(), problem.objectives, self.steps)
        found = _gradients((wanted.to(objectives) * objectives).sum(), moved)
        ahead = [rate * gradient for rate, gradient in zip(rates, found, strict=True)]
        norm = torch.stack([torch.linalg.vector_norm(own).double() for own in ahead]).norm()
        row = torch.zeros(1, len(problem.objectives), dtype=free.dtype, device=free.device)
        if bool(norm > 0):
            radius = _RADIUS / norm
            sides = []
            for sign in (1, -1):
                there = [value.detach() + (sign * radius).to(own) * own for value, own in zip(leaves, ahead, strict=True)]
                buffers = {name: buffer.clone() for name, buffer in start.buffers.items()}
                with torch.no_grad(), state.replayed():
                    sides.append(torch.stack(list(problem.losses_at(Point(start.upper, there, buffers), batch).values())))
            row[0, positions] = (-(sides[0].double() - sides[1].double()) / (2 * radius)).to(row)
        solution = Point(start.upper, [value.detach() for value in moved], start.buffers)
        return Hypergradients(row, values, solution, float(total.detach()), weights=wanted)

    def _step(self, parameter: Tensor, gradient: Tensor) -> tuple[float, Tensor]:
        """The rate of a parameter's group, and what it is multiplied with in the virtual step."""
        for group in self.model_optimizer.param_groups:
            if any(own is parameter for own in group["params"]):
                step = gradient + group.get("weight_decay", 0.0) * parameter
                buffer = self.model_optimizer.state.get(parameter, {}).get("momentum_buffer")
                rate = float(group["lr"]) if self._rate is None else self._rate
                return rate, step if buffer is None else step + group["momentum"] * buffer
        return 0.0, gradient


def _gradients(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [
        torch.zeros_like(leaf) if own is None else own.to_dense() if own.layout != torch.strided else own
        for own, leaf in zip(found, leaves, strict=True)
    ]
