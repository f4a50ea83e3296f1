"""What the theorems of chapter 4 promise, as slopes over the iterations."""

from __future__ import annotations

import numpy as np

from equipoise.blackbox import ASMG


def test_the_mean_gap_falls_as_one_over_the_iterations_on_a_convex_problem() -> None:
    """Theorem 4.3 and (4.19): 1/T Σ λᵀ(F(μ_t) − F(μ*)) = O(log T / T); μ* minimises λᵀF here, so no term is negative."""
    ends = np.array([[1.0], [-1.0]]) * np.ones(4)
    gaps = []
    for seed in range(2):
        optimizer = ASMG(np.full(4, 3.0), samples=30, seed=seed, shaping="mean", lr=0.3)
        own = []
        for _ in range(800):
            points = optimizer.ask()
            optimizer.tell(((points[:, None] - ends) ** 2).mean(axis=2))
            best = optimizer.weights @ ends
            own.append(optimizer.weights @ (((optimizer.mean - ends) ** 2).mean(axis=1) - ((best - ends) ** 2).mean(axis=1)))
        gaps.append(np.cumsum(own) / np.arange(1, len(own) + 1))
    counts = np.array([100, 200, 400, 800])
    mean = np.mean(gaps, axis=0)[counts - 1]
    assert np.polyfit(np.log(counts), np.log(mean), 1)[0] < -0.8


def test_the_squared_gradient_falls_as_one_over_the_root_of_the_iterations_on_wells() -> None:
    """Theorem 4.4: 1/T Σ ‖Σ λ_i ∇_μ J_i‖² = O(γ/β + 1/(βT) + γ + β), so O(T^(−1/2)) with β = O(T^(−1/2)) and γ = 1/T.

    F_i = mean over k of 1 − exp(−(x − c_i)_k²/2) is bounded, Lipschitz and not convex, and its J_i has a closed form. The
    estimates of its curvature are positive in the mean where |μ − c_i|² < 1 + σ², which holds along all paths from 1 on. With
    γ = 1, which leaves the bound's γ where it is, the slope is −0.28; from 3, where the estimates of curvature are negative and
    the theorem says nothing, with wells at ±1 and a tenth of the step size, +0.34.
    """
    ends, reached, counts = np.array([[0.25], [-0.25]]) * np.ones(4), [], [50, 100, 200, 400]
    for count in counts:
        squares = []
        for seed in range(2):
            optimizer = ASMG(
                np.ones(4),
                samples=20,
                seed=seed,
                shaping="mean",
                lr=10 * count**-0.5,
                momentum=lambda t, count=count: 1.0 / count if t else 1.0,
            )
            for _ in range(count):
                variance, away = 1.0 + optimizer.std**2, optimizer.mean - ends
                assert (away**2 < variance).all()
                slopes = np.exp(-(away**2) / (2.0 * variance)) * away / (4.0 * variance**1.5)
                optimizer.tell((1.0 - np.exp(-0.5 * (optimizer.ask()[:, None] - ends) ** 2)).mean(axis=2))
                squares.append(float(((optimizer.weights @ slopes) ** 2).sum()))
        reached.append(np.mean(squares))
    assert np.polyfit(np.log(counts), np.log(reached), 1)[0] < -0.45
