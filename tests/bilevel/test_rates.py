"""What the theorems of chapter 3 promise, as slopes: errors over lower steps, FORUM's stationarity over outer ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from equipoise.bilevel import FORUM, hypergradients
from tests.bilevel.problems import Quadratic, synthetic


def test_the_error_of_a_hypergradient_falls_geometrically_with_the_lower_steps() -> None:
    """Theorem 3.3: no slower than (1 − ηϑ)^(T/2), ϑ the strong convexity of the lower level; here about (1 − ηϑ)^T."""
    quadratic = Quadratic()
    curvatures = torch.linalg.eigvalsh(quadratic.a)
    lr = float(0.5 / curvatures.max())
    exact, _ = quadratic.hypergradients(4000, lr)
    steps = [1, 10, 40, 80]
    errors = []
    for count in steps:
        found = hypergradients(quadratic.problem, quadratic.problem.here(), [None] * count, None, lr)
        errors.append(float((found.rows - exact).abs().max()))
    slope = np.polyfit(steps[1:], np.log(errors[1:]), 1)[0]
    bound = float(np.log(1.0 - lr * float(curvatures.min())))
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
    assert slope == pytest.approx(bound, rel=0.2)


def test_forum_becomes_stationary_and_feasible_at_the_rate_of_its_theorem() -> None:
    """Theorem 3.7: max(min 𝒦, q) = O(K^(−1/4)) with μ = O(K^(−1/2)); on problem A.32 it falls faster."""
    reached = []
    counts = [9, 36, 144]
    for count in counts:
        alpha, omega, problem = synthetic(2.0, (0.0, 3.0))
        optimizer = torch.optim.SGD([alpha, omega], count**-0.5)
        solver = FORUM(problem, optimizer, lower_steps=15, lower_lr=0.2, rho=0.3)
        least = float("inf")
        for _ in range(count):
            solver.step()
            assert solver.last is not None
            least = min(least, solver.last.stationarity)
        reached.append(max(least, solver.last.constraint, 1e-12))  # type: ignore[union-attr]
    assert np.polyfit(np.log(counts), np.log(reached), 1)[0] < -0.25
