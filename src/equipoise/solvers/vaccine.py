"""Gradient vaccine: task gradients are turned towards each other until their cosines are what they usually are: GradVac."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from equipoise.errors import InputError
from equipoise.solvers.gramian import Array, read_square
from equipoise.solvers.project_conflicts import read_orders

# Targets are at most the cosine of an angle of 1e-4: to turn a gradient by an angle φ to the target's angle takes
# sin φ / sin(target) of the other, which has no bound.
_LARGEST_TARGET = 1.0 - 0.5e-8
# A gradient that is shorter than this after a turn, relative to what it was, is rounding.
_VANISHED = 1e-7


def vaccinate(gramian: ArrayLike, orders: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    """Coefficients of the sum of all task gradients after gradient vaccine.

    Each gradient g_i visits the others in turn. Where the cosine φ between its current form h and g_j is below the target
    φ̂_ij, h is turned towards g_j until the cosine is φ̂_ij (Wang et al. 2021, "Gradient vaccine", eq. 3 and algorithm 1):
    h ← h + ‖h‖ (φ̂ √(1-φ²) - φ √(1-φ̂²)) / (‖g_j‖ √(1-φ̂²)) g_j. With targets of 0 this is PCGrad. All h are combinations of
    the g_j, so only coefficients and lengths are kept, and all K tasks take each turn together.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        orders: for each task, the order in which it visits the others, indices [K, K - 1].
        targets: φ̂ [K, K], between -1 and 1; those above cos 1e-4 count as that.

    Returns:
        Coefficients [K] of Σ_i h_i, and the cosines φ_ij met [K, K]: not a number where there was none to meet, which is
        on the diagonal, with a zero gradient, and with a form that has vanished.

    Raises:
        InputError: the Gramian or the targets are not finite [K, K], or the orders not indices [K, K - 1].

    Example:
        >>> coefficients, met = vaccinate([[1.0, -0.5], [-0.5, 1.0]], [[1], [0]], [[0.0, 0.0], [0.0, 0.0]])
        >>> coefficients.round(12).tolist(), met[0, 1].tolist()
        ([1.5, 1.5], -0.5)
    """
    array = read_square(gramian, "the Gramian")
    size = array.shape[0]
    wanted = read_square(targets, "the matrix of targets")
    turns = read_orders(orders, size)
    fits = turns.shape == (size, size - 1) and turns.dtype.kind in "iu"
    if not fits or (turns.size and (turns.min() < 0 or turns.max() >= size)):
        raise InputError(f"orders has shape {turns.shape} and type {turns.dtype}; expected tasks' indices [{size}, {size - 1}]")
    if wanted.shape != array.shape or np.abs(wanted).max() > 1.0 + 1e-9:
        raise InputError(f"targets has shape {wanted.shape}; expected cosines [{size}, {size}]")
    squares = array.diagonal()
    live = squares >= np.finfo(np.float64).tiny
    norms = np.sqrt(np.where(live, squares, 1.0))
    cosines = array / norms[:, None] / norms
    cosines = np.clip(0.5 * (cosines + cosines.T), -1.0, 1.0)
    cosines[~live] = 0.0
    cosines[:, ~live] = 0.0
    wanted = np.clip(wanted, -_LARGEST_TARGET, _LARGEST_TARGET)
    met = np.full((size, size), np.nan)
    # In units of the gradients' own lengths: row i of `parts` makes h_i of the unit gradients, `lengths` is its norm.
    parts = np.eye(size)
    lengths = live.astype(np.float64)
    every = np.arange(size)
    for others in turns.T:
        there = (lengths > 0.0) & live[others]
        safe = np.where(there, lengths, 1.0)
        cosine = np.clip(np.einsum("ij,ij->i", parts, cosines[others]) / safe, -1.0, 1.0)
        target = wanted[every, others]
        met[every, others] = np.where(there, cosine, np.nan)
        sine = np.sqrt((1.0 - cosine) * (1.0 + cosine))
        target_sine = np.sqrt((1.0 - target) * (1.0 + target))
        turned = there & (cosine < target)
        ratio = sine / target_sine
        parts[every, others] += np.where(turned, safe * (target * ratio - cosine), 0.0)
        lengths = np.where(turned, lengths * ratio, lengths)
        vanished = turned & (lengths <= _VANISHED)
        parts[vanished] = 0.0
        lengths[vanished] = 0.0
    largest = norms.max()
    total: Array = ((norms / largest) @ parts) / (norms / largest)
    total[~live] = 1.0
    return total, met
