"""The slower methods that take over when the fast ones stop making progress, each on its own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from equipoise import solvers
from equipoise.solvers import fair, pivoting
from equipoise.solvers.gramian import accurate_product
from equipoise.solvers.nash import solve_bargaining, solve_bargaining_damped
from equipoise.solvers.nonnegative import NonnegativeProgram, solve_nonnegative
from equipoise.solvers.simplex import SimplexProgram
from tests.solvers.matrices import Array


def cosines_of(gradients: Array) -> Array:
    return solvers.scale_gramian(gradients @ gradients.T).cosines


@pytest.mark.parametrize("rank", [3, 6, 12, 30])
@pytest.mark.parametrize("start", ["nothing", "everything"])
def test_descent_over_supports_ends_at_the_solution(rank: int, start: str) -> None:
    generator = np.random.default_rng(rank)
    for _ in range(20):
        cosines = cosines_of(generator.standard_normal((12, rank)))
        linear = generator.standard_normal(12)
        programme = NonnegativeProgram(cosines, linear, 1.0)
        found, support = pivoting._descend(programme, np.full(12, float(start == "everything")))
        slope = cosines @ found - linear
        scale = np.abs(found).sum() + 1.0
        assert (found[~support] == 0.0).all()
        assert (found[support] > 0.0).all()
        assert slope.min() >= -1e-12 * scale
        assert np.abs(slope[support]).max(initial=0.0) <= 1e-12 * scale
        expected, _ = solve_nonnegative(cosines, linear, 1.0)
        assert_allclose(cosines @ found, cosines @ expected, atol=1e-9 * scale)


def test_descent_over_faces_of_the_simplex() -> None:
    generator = np.random.default_rng(0)
    for _ in range(30):
        cosines = cosines_of(generator.standard_normal((8, 5)))
        linear, share = generator.standard_normal(8), generator.uniform(0.1, 1.0, 8)
        programme = SimplexProgram(cosines, linear, share)
        found, _ = pivoting._descend(programme, programme.nearby(np.zeros(8)))
        expected, _ = pivoting.find_support(programme, np.ones(8, dtype=bool))
        assert_allclose(share @ found, 1.0)
        assert_allclose(cosines @ found, cosines @ expected, atol=1e-8)
        empty, _ = pivoting.find_support(programme, np.zeros(8, dtype=bool))
        assert_allclose(cosines @ empty, cosines @ expected, atol=1e-8)


def test_knife_edge_matrices_need_the_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """With rank K / 2, zero is as likely as not in the convex hull, and exchanging blocks cycles now and then."""
    calls = []
    descend = pivoting._descend

    def counted(problem: pivoting.SupportProblem, feasible: Array) -> tuple[Array, pivoting.Mask]:
        calls.append(1)
        return descend(problem, feasible)

    monkeypatch.setattr(pivoting, "_descend", counted)
    generator = np.random.default_rng(0)
    for _ in range(40):
        gradients = generator.standard_normal((40, 20))
        gramian = gradients @ gradients.T
        assert solvers.minimum_norm_residual(gramian, solvers.minimum_norm_point(gramian)) < 1e-10
    assert 0 < len(calls) < 40


@pytest.mark.parametrize("tasks", [1, 3, 10, 40])
def test_damped_steps_find_the_bargain(tasks: int) -> None:
    generator = np.random.default_rng(tasks)
    for rank in (2 * tasks + 3, max(1, tasks // 2)):
        cosines = cosines_of(generator.standard_normal((tasks, rank)))
        found = solve_bargaining_damped(cosines, np.ones(tasks))
        assert_allclose(found, solve_bargaining(cosines), rtol=1e-5)


def test_changing_fairness_gradually(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close to α = 0 and on the knife's edge of rank K / 2, Newton's method may cycle unless it comes from α = 1."""
    outcomes = []
    follow = fair._follow_curves

    def recorded(
        cosines: Array, log_norms: Array, alpha: float, powers: Array | None, start: Array | None
    ) -> tuple[Array, bool]:
        logarithms, converged = follow(cosines, log_norms, alpha, powers, start)
        outcomes.append((alpha, converged))
        return logarithms, converged

    monkeypatch.setattr(fair, "_follow_curves", recorded)
    generator = np.random.default_rng(0)
    for _ in range(10):
        gradients = generator.standard_normal((40, 20))
        gramian = gradients @ gradients.T
        assert solvers.fair_residual(gramian, 0.02, solvers.fair_weights(gramian, 0.02)) < 1e-10
        assert outcomes[-1] == (pytest.approx(0.02), True)
    assert not all(converged for _, converged in outcomes)


def test_products_survive_cancellation() -> None:
    generator = np.random.default_rng(0)
    for size in (1, 2, 40, 100):
        matrix = generator.standard_normal((size, size))
        vector = generator.standard_normal(size)
        assert_allclose(accurate_product(matrix, vector), matrix @ vector, rtol=1e-10, atol=1e-13)
    # Rows that cancel to one part in 1e17, which a plain sum cannot tell from zero.
    small = 2.0**-60
    matrix = np.array([[1.0, -1.0, small], [3.0, -3.0, 5.0 * small]])
    assert_allclose(accurate_product(matrix, np.array([1 / 3, 1 / 3, 1.0])), [small, 5.0 * small], rtol=1e-6)
