"""Weights of many two-task Gramians at once: closed forms where there are some, for the library's solvers take them singly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from equipoise.balance.base import Balancer, GramianBalancer
from equipoise.balance.cagrad import CAGrad
from equipoise.balance.fairgrad import FairGrad
from equipoise.balance.ls import LS
from equipoise.balance.mgda import MGDA
from equipoise.balance.nash_mtl import NashMTL
from equipoise.errors import InputError

__all__ = ["Weigh", "weights_of"]

Array: TypeAlias = NDArray[np.float64]
Weigh: TypeAlias = Callable[[Array], Array]

_RIDGE = 1e-10  # that of equipoise.solvers.gramian: max(0, this - 2 λ_min of the cosines)
_NEWTON_ROUNDS = 60


def weights_of(balancer: Balancer) -> Weigh:
    """A function from Gramians ``[n, 2, 2]`` to weights ``[n, 2]`` that does what the balancer does in each single one.

    Equal weights, MGDA, CAGrad, Nash-MTL and FairGrad have closed forms (FairGrad: a scalar equation); any other balancer
    without a memory that looks at the Gramian is asked row by row, which takes longer.

    Raises:
        InputError: the balancer looks at something else, or remembers.

    Example:
        >>> weights_of(NashMTL())(np.array([[[4.0, 0.0], [0.0, 1.0]]])).tolist()
        [[0.5, 1.0]]
    """
    if isinstance(balancer, LS):
        fixed = balancer.weights(torch.ones(2, dtype=torch.float64)).numpy()
        return lambda gramian: np.broadcast_to(fixed, gramian.shape[:-1])
    if type(balancer) is MGDA:
        return _closed(balancer, _minimum_norm)
    if type(balancer) is CAGrad:
        radius, scale = balancer.c, 1.0 + balancer.c**2 if balancer.rescale else 1.0
        return _closed(balancer, lambda gramian: _conflict_averse(gramian, radius) / scale)
    if type(balancer) is NashMTL and balancer.update_every == 1 and balancer.max_norm is None:
        return _closed(balancer, lambda gramian: _fair(gramian, 1.0))
    if type(balancer) is FairGrad:
        alpha = balancer.alpha
        return _closed(balancer, lambda gramian: _fair(gramian, alpha))
    if isinstance(balancer, GramianBalancer) and not balancer.stateful:
        return lambda gramian: balancer.weights(torch.from_numpy(gramian)).numpy()
    raise InputError(
        f"{balancer!r} cannot run here: the trajectories of this figure are computed together, which takes a balancer with "
        f"fixed weights or one that looks at the Gramian only and has no memory (ls, mgda, cagrad, nash-mtl, fairgrad, imtl-g)"
    )


def _closed(balancer: GramianBalancer, form: Weigh) -> Weigh:
    """A closed form, with the few Gramians that have a vanishing gradient left to the balancer itself."""

    def weigh(gramian: Array) -> Array:
        squares = np.diagonal(gramian, axis1=-2, axis2=-1)
        dead = (squares < np.finfo(np.float64).tiny).any(-1)
        if not dead.any():
            return form(gramian)
        weights = np.empty(gramian.shape[:-1])
        weights[~dead] = form(gramian[~dead])
        weights[dead] = balancer.weights(torch.from_numpy(gramian[dead])).numpy()
        return weights

    return weigh


def _norms_and_cosine(gramian: Array) -> tuple[Array, Array, Array]:
    """Norms ``[n, 2]``, cosine ``[n]`` and 1 + ridge ``[n]``."""
    norms = np.sqrt(np.diagonal(gramian, axis1=-2, axis2=-1))
    cosine = (gramian[..., 0, 1] / norms[..., 0] / norms[..., 1]).clip(-1.0, 1.0)
    return norms, cosine, 1.0 + (_RIDGE - 2.0 * (1.0 - np.abs(cosine))).clip(min=0.0)


def _minimum_norm(gramian: Array) -> Array:
    """The foot of the normal on the line between both gradients, unless the longer one reaches beyond the shorter one."""
    norms, cosine, one = _norms_and_cosine(gramian)
    ratio = norms.min(-1) / norms.max(-1)
    longer = (ratio * (one * ratio - cosine)).clip(min=0.0)
    longer = longer / (longer + (one - cosine * ratio))
    first_shorter = norms[..., 0] <= norms[..., 1]
    first = np.where(first_shorter, 1.0 - longer, longer)
    return np.stack((first, 1.0 - first), -1)


def _conflict_averse(gramian: Array, radius: float) -> Array:
    """CAGrad for two tasks: ``F(w) = ⟨g_w, g_0⟩ + c‖g_0‖‖g_w‖`` along g_w = w g_1 + (1-w) g_2 has one stationary point."""
    if radius == 0.0:
        return np.full(gramian.shape[:-1], 0.5)
    norms, cosine, one = _norms_and_cosine(gramian)
    first, second = norms[..., 0] ** 2 * one, norms[..., 1] ** 2 * one
    product = norms[..., 0] * norms[..., 1] * cosine
    mean_norm = 0.5 * np.sqrt((first + second + 2.0 * product).clip(min=0.0))
    reach = radius * mean_norm
    slope = 0.5 * (first - second)  # of ⟨g_w, g_0⟩
    spread = first + second - 2.0 * product  # ‖g_1 - g_2‖²
    # ‖g_w‖² = spread · (w - foot)² + height
    foot = (second - product) / spread
    height = ((first * second - product**2) / spread).clip(min=0.0)
    room = reach**2 * spread - slope**2
    inner = foot - slope * np.sqrt(height / (spread * np.where(room > 0.0, room, 1.0)))
    weight = np.where(room > 0.0, inner, np.where(slope > 0.0, 0.0, 1.0)).clip(0.0, 1.0)
    length = np.sqrt((spread * (weight - foot) ** 2 + height).clip(min=1e-300))
    extra = (reach / length)[..., None] * np.stack((weight, 1.0 - weight), -1)
    result: Array = 0.5 + extra
    return result


def _fair(gramian: Array, alpha: float) -> Array:
    """``(Q w)_i = w_i^(-1/α)`` for two tasks.

    With lengths ``v_i = ‖g_i‖ w_i``, their ratio t = v_2/v_1, gains e^y = (c + t)/(1 + c t) and n = ‖g_1‖/‖g_2‖, dividing the
    equations leaves ``y + log(t)/α = (1 - 1/α) log n``. With a = |c| and ``φ(z) = log((e^z + a)/(1 + a e^z))``, log t = φ(y)
    where c < 0, and y = φ(log t) elsewhere. φ is odd and, for z > 0, concave, so Newton's method from z = 0 cannot overshoot.
    """
    norms, cosine, one = _norms_and_cosine(gramian)
    if alpha == 1.0:
        return 1.0 / (norms * np.sqrt(one + cosine)[..., None])
    goal = (1.0 - 1.0 / alpha) * np.log(norms[..., 0] / norms[..., 1])
    side, goal = np.sign(goal), np.abs(goal)
    conflict = cosine < 0.0
    a = np.abs(cosine) / one
    gap = (one - np.abs(cosine)) / one * (1.0 + a)  # 1 - a²
    straight, bent = np.where(conflict, 1.0, 1.0 / alpha), np.where(conflict, 1.0 / alpha, 1.0)
    z = np.zeros_like(cosine)
    for _ in range(_NEWTON_ROUNDS):
        power = np.exp(-z)
        above, below = 1.0 + a * power, power + a
        phi = np.log(above / below)
        step = (goal - straight * z - bent * phi) / (straight + bent * gap * power / (above * below))
        z = z + step
        if float(step.max(initial=0.0)) <= 1e-13:
            break
    power = np.exp(-z)
    phi = np.log((1.0 + a * power) / (power + a))
    ratio = np.exp(side * np.where(conflict, phi, z))
    # 1 + c t, which for conflicting gradients would suffer from cancellation.
    gain = one * np.where(conflict, gap / (1.0 + a * np.exp(side * z)), 1.0 + a * ratio)
    # The first equation: v_1 ‖g_1‖ (1 + c t) = (v_1 / ‖g_1‖)^(-1/α).
    length = (norms[..., 0] ** (1.0 / alpha - 1.0) / gain) ** (alpha / (1.0 + alpha))
    result: Array = np.stack((length, length * ratio), -1) / norms
    return result
