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
