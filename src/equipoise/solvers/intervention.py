"""AIM's soft projections between task gradients, and what its thresholds learn from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from equipoise.solvers.gramian import Array, read_array, read_number, read_vector, scale_gramian


def intervened_weights(gramian: ArrayLike, thresholds: ArrayLike, sharpness: float = 10.0) -> Array:
    """Weights of the sum of the task gradients after soft projections.

    Σ_i g_i', g_i' = g_i - Σ_{j≠i} σ(k (τ_ij - cos(g_i, g_j))) (g_iᵀg_j/‖g_j‖²) g_j (Minot and Schneider 2025, "AIM: adaptive
    intervention for deep multi-task learning of molecular properties", eq. 1 to 3).

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        thresholds: τ [K, K]: pairs with a cosine well below are projected in full, well above not at all.
        sharpness: k > 0.

    Returns:
        w [K]; a task with a zero gradient has 1.

    Raises:
        InputError: the Gramian is not square or not finite, the thresholds have another shape, or k is not positive.

    Example:
        >>> intervened_weights([[1.0, -0.5], [-0.5, 1.0]], np.zeros((2, 2)), 1e3).tolist()  # as PCGrad
        [1.5, 1.5]
    """
    return _intervene(gramian, thresholds, sharpness)[0]


def intervention_slope(
    gramian: ArrayLike,
    thresholds: ArrayLike,
    hardness: ArrayLike,
    sharpness: float = 10.0,
    *,
    magnitude: float = 0.01,
    progress: float = 0.08,
) -> Array:
    """Gradient of AIM's loss of the policy with respect to its thresholds.

    λ_m (‖d‖ - S)² - λ_p Σ_i α_i g_iᵀd with d = Σ_i g_i' and S = Σ_i ‖g_i‖ (ibid., eq. 5 and 6), here divided by S², so that the
    units of the losses do not matter.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        thresholds: τ [K, K].
        hardness: α [K].
        sharpness: k > 0.
        magnitude: λ_m.
        progress: λ_p.

    Returns:
        [K, K], with zeros on the diagonal.

    Example:
        >>> float(intervention_slope([[1.0, -0.5], [-0.5, 1.0]], np.zeros((2, 2)), [0.5, 0.5])[0, 0])
        0.0
    """
    weights, gates, ratios, cosines, norms = _intervene(gramian, thresholds, sharpness)
    total = float(norms.sum())
    if total == 0.0:
        return np.zeros_like(gates)
    shares = norms / total
    products = (cosines * shares[:, None]) * shares
    length = float(np.sqrt(max(float(weights @ products @ weights), 0.0)))
    alphas = read_vector(hardness, len(norms), "the hardness")
    per_weight = -progress * (products @ alphas)
    if length > 0.0:
        per_weight += magnitude * 2.0 * (length - 1.0) / length * (products @ weights)
    # w_j = 1 - Σ_{i≠j} gate_ij ratio_ij, and the gate's slope is k gate (1 - gate).
    slope: Array = -per_weight * ratios * sharpness * gates * (1.0 - gates)
    np.fill_diagonal(slope, 0.0)
    return slope


def _intervene(gramian: ArrayLike, thresholds: ArrayLike, sharpness: float) -> tuple[Array, Array, Array, Array, Array]:
    read_number(sharpness, "sharpness", above=True)
    scaled = scale_gramian(gramian)
    size, live = scaled.size, scaled.live
    given = read_array(thresholds, "the thresholds")
    norms = scaled.spread(scaled.norms)
    cosines = np.zeros((size, size))
    cosines[live[:, None], live] = scaled.cosines - scaled.ridge * np.eye(live.size)
    # ‖g_i‖ cos/‖g_j‖, in which a zero gradient has no part.
    ratios = np.zeros((size, size))
    ratios[live[:, None], live] = cosines[live[:, None], live] * (scaled.norms[:, None] / scaled.norms)
    np.fill_diagonal(ratios, 0.0)
    # Half of one of these is the sigmoid less a half, and it does not overflow.
    gates = 0.5 + 0.5 * np.tanh(0.5 * sharpness * (given.reshape(size, size) - cosines))
    return 1.0 - (gates * ratios).sum(axis=0), gates, ratios, cosines, norms
