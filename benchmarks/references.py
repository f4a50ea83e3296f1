"""The reference routes: what the papers' experiments do with a Gramian, written down from the papers.

All of them work in float64 and without a stopping rule other than the usual one of their route.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ConvexConcaveNash", "closed_form_imtl_g", "frank_wolfe", "least_squares_fair", "project_vectors", "slsqp_cagrad"]

Array = NDArray[np.float64]


def frank_wolfe(gramian: Array, rounds: int = 250, tolerance: float = 1e-5) -> Array:
    """Minimum-norm point by Frank-Wolfe with exact line search (Sener and Koltun, 2018, algorithm 2)."""
    weights = np.full(len(gramian), 1.0 / len(gramian))
    for _ in range(rounds):
        products = gramian @ weights
        best = int(products.argmin())
        along, across, ahead = weights @ products, products[best], gramian[best, best]
        length = float(np.clip((along - across) / max(along + ahead - 2.0 * across, 1e-300), 0.0, 1.0))
        weights = (1.0 - length) * weights
        weights[best] += length
        if 2.0 * length < tolerance:
            break
    return weights


def slsqp_cagrad(gramian: Array, c: float = 0.4) -> Array:
    """CAGrad's dual over the simplex by SciPy's SLSQP with numerical derivatives (Liu et al., 2021, algorithm 1)."""
    minimize = import_module("scipy.optimize").minimize
    size = len(gramian)
    mean = gramian.mean(axis=1)
    radius = c * np.sqrt(gramian.mean() + 1e-8)
    start = np.full(size, 1.0 / size)
    result = minimize(
        lambda w: w @ mean + radius * np.sqrt(w @ gramian @ w + 1e-8),
        start,
        bounds=[(0.0, 1.0)] * size,
        constraints={"type": "eq", "fun": lambda w: 1.0 - w.sum()},
    )
    weights: Array = result.x
    return weights


def least_squares_fair(gramian: Array, alpha: float = 1.0) -> Array:
    """(Q w)_i = w_i^(−1/α) by SciPy's bounded least squares with numerical derivatives (Ban and Ji, 2024)."""
    least_squares = import_module("scipy.optimize").least_squares
    start = np.full(len(gramian), 1.0 / len(gramian))
    weights: Array = least_squares(lambda w: gramian @ w - w ** (-1.0 / alpha), start, bounds=(0.0, np.inf)).x
    return weights


def closed_form_imtl_g(gramian: Array) -> Array:
    """The inverse of a (K−1)×(K−1) matrix of gradient differences (Liu et al., 2021, IMTL-G), its entries from the Gramian."""
    if len(gramian) == 1:
        return np.ones(1)
    norms = np.sqrt(gramian.diagonal())
    # Rows and columns: g_1 − g_i against u_1 − u_j, u being the unit gradients.
    against = gramian / norms
    differences = against[0] - against[1:]
    differences = differences[:, :1] - differences[:, 1:]
    first = against[0, :1] - against[0, 1:]
    rest = np.linalg.solve(differences.T, first)
    weights: Array = np.concatenate([[1.0 - rest.sum()], rest])
    return weights


def project_vectors(gradients: Array, orders: NDArray[np.intp]) -> Array:
    """The sum of all gradients after surgery, vector by vector (Yu et al., 2020, algorithm 1); ``[P]``.

    Args:
        gradients: ``[K, P]``.
        orders: row i holds the tasks that task i visits.
    """
    squares = [float(row @ row) for row in gradients]
    total: Array = np.zeros_like(gradients[0])
    for row, order in zip(gradients, orders, strict=True):
        changed = row.copy()
        for other in order:
            product = float(changed @ gradients[other])
            if product < 0.0:
                changed -= (product / squares[other]) * gradients[other]
        total += changed
    return total


class ConvexConcaveNash:
    """α_i (Qα)_i = 1 by a sequence of up to 20 convex programmes (Navon et al., 2022, section 3.2), with CVXPY and ECOS.

    With φ_i = log α_i + log (Qα)_i, each programme minimises Σ_i (Qα)_i plus the linearisation of Σ_i φ_i around the last
    α, under φ_i ≥ 0. The first step starts from α = 1 and later ones from the step before; where a programme cannot be
    solved, the last α stays. The problem object is made once; only solving is timed.

    Args:
        tasks: K.
        compiled: the route as it could be: the constraints as one, the linearisation's slope as a parameter of its own, which
            lets CVXPY keep the compiled problem, and an end as soon as the equation holds to 1e-3. Otherwise as the method's
            released code and what derives from it have it: one constraint per task, the slope an expression of parameters, for
            which CVXPY compiles every programme anew, and an end when α has stopped moving.
        programmes: the most to solve.
    """

    def __init__(self, tasks: int, *, compiled: bool = False, programmes: int = 20) -> None:
        cvxpy: Any = import_module("cvxpy")
        self.programmes = programmes
        self.last = np.ones(tasks)
        self._solver = cvxpy
        self._weights = cvxpy.Variable(tasks, nonneg=True)
        self._gramian = cvxpy.Parameter((tasks, tasks), value=np.eye(tasks))
        self._before = cvxpy.Parameter(tasks, value=np.ones(tasks))
        self._slope = cvxpy.Parameter(tasks) if compiled else None
        self._log_scale = cvxpy.Parameter()
        self._unit = cvxpy.Parameter(nonneg=True)
        # Of the Gramian in units of its norm, which is how the solver likes it.
        improvements = self._gramian @ self._weights
        slope = (
            self._slope if compiled else self._unit * (1 / self._before + (1 / (self._gramian @ self._before)) @ self._gramian)
        )
        objective = cvxpy.Minimize(cvxpy.sum(improvements) + slope @ self._weights)
        if compiled:
            constraints = [cvxpy.log(self._weights) + cvxpy.log(improvements) + self._log_scale >= 0]
        else:
            constraints = [
                -cvxpy.log(self._weights[k]) - cvxpy.log(improvements[k]) - self._log_scale <= 0 for k in range(tasks)
            ]
        self._problem = cvxpy.Problem(objective, constraints)

    def __call__(self, gramian: Array) -> Array:
        """The weights."""
        scale = float(np.linalg.norm(gramian))
        self._gramian.value = gramian / scale
        self._log_scale.value = np.log(scale)
        self._unit.value = 1.0 / scale
        weights = self.last
        for _ in range(self.programmes):
            if self._slope is None:
                self._before.value = weights
            else:
                self._slope.value = (1.0 / weights + (1.0 / (gramian @ weights)) @ gramian) / scale
            try:
                self._problem.solve(solver=self._solver.ECOS, max_iters=100)
            except (self._solver.SolverError, ValueError):
                break
            found = self._weights.value
            if found is None or not (found > 0).all():
                break
            moved = float(np.linalg.norm(found - weights))
            weights = found
            mismatch = float(np.linalg.norm(weights * (gramian @ weights) - 1.0))
            if moved < 1e-6 or (self._slope is not None and mismatch < 1e-3):
                break
        self.last = weights
        return weights
