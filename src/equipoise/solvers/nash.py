"""The Nash bargaining solution between tasks."""

from __future__ import annotations

from numpy.typing import ArrayLike

from equipoise.solvers.fair import fair_residual, fair_weights
from equipoise.solvers.gramian import Array


def nash_bargaining(gram: ArrayLike) -> Array:
    """Weights of the Nash bargaining solution.

    α > 0 with α_i (Q α)_i = 1 (Navon et al. 2022, "Multi-task learning as a bargaining game", claim 3.1): the minimiser
    of the convex ½ αᵀQ α - Σ log α_i. The direction Σ α_i g_i does not depend on the scale of single gradients.

    Where gradients cancel exactly there is no solution; that of the regularised Gramian Q̃, which is what is computed,
    has large but finite weights, and its direction is no longer than √K in any case, as αᵀQ̃ α = K.

    Args:
        gram: Gramian Q of the task gradients [K, K].

    Returns:
        α [K], positive, except that tasks with a zero gradient, which no weight can improve, have weight 0.
        :func:`nash_residual` is at most 1e-12.

    Raises:
        InputError: the Gramian is not square or not finite.

    Example:
        >>> nash_bargaining([[4.0, 0.0], [0.0, 1.0]]).tolist()
        [0.5, 1.0]
    """
    return fair_weights(gram, 1.0)


def nash_residual(gram: ArrayLike, weights: ArrayLike) -> float:
    """How far weights are from those of :func:`nash_bargaining`.

    max_i |α_i (Q̃ α)_i - 1| / Σ_j |α_i Q̃_ij α_j|, with Q̃ the regularised Gramian: the relative change in the entries
    of Q̃ that would make the weights exact; see :func:`equipoise.solvers.fair_residual`.

    Example:
        >>> nash_residual([[4.0, 0.0], [0.0, 1.0]], [0.5, 1.0])
        0.0
    """
    return fair_residual(gram, 1.0, weights)
