"""Finding which variables of a convex quadratic programme are positive.

A strictly convex quadratic programme over v ≥ 0 is solved by a linear system as soon as its *support*, the set of
positive variables, is known; the solution is right when no variable of the support came out negative and the objective
falls towards none of the others. Block principal pivoting (Júdice and Pires 1994; Kim and Park 2011) guesses the
support, solves, and exchanges all variables with a wrong sign at once: two to six solves are usual whatever K.
Exchanging many at once can cycle, so when the number of wrong signs has stopped falling, a primal active-set method
(Lawson and Hanson 1974) takes over from the best point so far; it lowers the objective from round to round and
therefore cannot.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from equipoise.solvers.gramian import Array

Mask = NDArray[np.bool_]

# Slopes within this, relative to the terms that they are summed from, are rounding.
_ROUNDING = 16.0 * float(np.finfo(np.float64).eps)
# How many exchanges in a row may fail to lower the number of wrong signs.
_CHANCES = 3


class SupportProblem(Protocol):
    """A strictly convex quadratic programme, seen through its supports."""

    def solve(self, support: Mask) -> Array:
        """Minimises in the variables of the support [K], whatever their signs; the others are zero."""

    def slope(self, solution: Array, support: Mask) -> tuple[Array, Array | float]:
        """Derivative of the objective along every variable [K], and the size of the terms that it was summed from."""

    def nearby(self, solution: Array) -> Array:
        """A feasible point near the given one."""


def find_support(problem: SupportProblem, support: Mask) -> tuple[Array, Mask]:
    """Solves the programme, starting from a guess of its support [K], which is not modified.

    Returns:
        The solution [K], exactly zero outside of the support, and the support [K].
    """
    size = support.shape[0]
    fewest = size + 1
    chances = _CHANCES
    best = None
    while True:
        solution = problem.solve(support)
        slope, terms = problem.slope(solution, support)
        # Off the support the solution is zero and on it the slope is: one condition is left for each variable.
        wrong = np.where(support, solution < 0.0, slope < -_ROUNDING * terms)
        count = int(np.count_nonzero(wrong))
        if count == 0:
            return solution, support
        if count < fewest:
            fewest, chances, best = count, _CHANCES, solution
        elif chances > 0:
            chances -= 1
        else:
            assert best is not None
            return _descend(problem, problem.nearby(best))
        support = support ^ wrong


def _descend(problem: SupportProblem, feasible: Array) -> tuple[Array, Mask]:
    """Primal active-set method from a feasible point."""
    size = feasible.shape[0]
    current, support = _minimize_on_face(problem, feasible, feasible > 0.0)
    refused = np.zeros(size, dtype=np.bool_)
    several = True
    for _ in range(10 * size + 10):
        slope, terms = problem.slope(current, support)
        falling = np.where(support | refused | (slope >= -_ROUNDING * terms), 0.0, slope)
        steepest = float(falling.min())
        if steepest == 0.0:
            break
        # Letting the steepest enter together saves rounds. If none of them can grow, only the very steepest is tried;
        # if that cannot either, its slope was rounding, and it is set aside.
        entering = falling <= 0.5 * steepest if several else falling == steepest
        moved, widened = _minimize_on_face(problem, current, support | entering)
        if not np.array_equal(widened, support):
            current, support, several = moved, widened, True
            refused[:] = False
        elif several:
            several = False
        else:
            refused |= entering
    return current, support


def _minimize_on_face(problem: SupportProblem, current: Array, support: Mask) -> tuple[Array, Mask]:
    """Moves to the minimum on a face of the feasible set, dropping variables that reach zero on the way."""
    while True:
        target = problem.solve(support)
        blocking = (support & (target <= 0.0)).nonzero()[0]
        if blocking.size == 0:
            return target, support
        support = support.copy()
        idle = blocking[current[blocking] == 0.0]
        if idle.size:
            support[idle] = False
            continue
        ratios = current[blocking] / (current[blocking] - target[blocking])
        step = float(ratios.min())
        current = current + step * (target - current)
        leaving = blocking[ratios <= step]
        current[leaving] = 0.0
        support[leaving] = False
