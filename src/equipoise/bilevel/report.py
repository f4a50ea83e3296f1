"""What happened in a bilevel step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["BilevelReport"]


@dataclass(frozen=True)
class BilevelReport:
    """Diagnostics of one step of a bilevel solver, at the point before the variables moved.

    Attributes:
        step: index of the step, counted from 0.
        objectives: names of the m upper objectives.
        upper: their values F ``[m]``, detached: at ω_T for methods that unroll the lower level, at ω otherwise.
        lower: f(α, ω̃^T), the lower level after its T steps; for methods that unroll the lower level, f(α, ω_{T−1}) on the
            batch of the last step, for at ω_T they evaluate F alone.
        weights: λ ``[m]`` of the objectives in the step taken (float64, CPU), FORUM's being the average λ̃; ``None`` where a
            balancer gave a direction.
        multiplier: ν of the constraint; ``None`` for methods without one.
        constraint: q̃(z) = f(α, ω) − f(α, ω̃^T); ``None`` for methods without a constraint.
        stationarity: 𝒦(z) = ‖Σ λ_i ∇F_i + ν ∇q̃‖², the squared length of the direction (for BVFIM without θω); for methods
            that unroll the lower level, of the combined hypergradient.
    """

    step: int
    objectives: tuple[str, ...]
    upper: Tensor
    lower: float
    weights: Tensor | None
    multiplier: float | None
    constraint: float | None
    stationarity: float
