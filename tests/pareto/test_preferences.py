"""Preferences and indicators."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from equipoise.errors import InputError
from equipoise.pareto import Preferences, epsilon, grid, hypervolume, igd_plus, nondominated


@pytest.mark.parametrize(("count", "tasks", "expected"), [(2, 2, 2), (11, 2, 11), (3, 3, 3), (14, 3, 10), (4, 4, 4)])
def test_a_grid_is_on_the_simplex_and_has_its_corners(count: int, tasks: int, expected: int) -> None:
    rows = grid(count, tasks)
    assert rows.shape == (expected, tasks)
    assert float(rows.min()) >= 0
    assert torch.allclose(rows.sum(1), torch.ones(expected, dtype=torch.float64))
    assert len({tuple(row) for row in rows.tolist()}) == expected
    assert {tuple(row) for row in torch.eye(tasks).tolist()} <= {tuple(row) for row in rows.tolist()}


@pytest.mark.parametrize("alpha", [1e-4, 0.2, 1.0, 50.0])
def test_dirichlet_draws_have_its_moments(alpha: float) -> None:
    preferences = Preferences(3, alpha=alpha, seed=1)
    rows = torch.stack([preferences.draw() for _ in range(4000)])
    assert torch.allclose(rows.sum(1), torch.ones(4000, dtype=torch.float64))
    assert torch.allclose(rows.mean(0), torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.04)
    variance = (1 / 3) * (2 / 3) / (3 * alpha + 1)
    assert torch.allclose(rows.var(0), torch.full((3,), variance, dtype=torch.float64), atol=0.02)


def test_a_schedule_turns_over_its_grid_and_sharpens() -> None:
    preferences = Preferences(2, "schedule", count=5, steps=100, sharpness=5.0)
    rows = torch.stack([preferences.draw() for _ in range(105)])
    assert torch.allclose(rows[0], torch.full((2,), 0.5, dtype=torch.float64))
    assert float(rows[-5:].max()) > 0.99
    assert torch.allclose(rows[-5:].mean(0), torch.full((2,), 0.5, dtype=torch.float64))  # one turn, symmetric


@pytest.mark.parametrize("kind", ["dirichlet", "schedule"])
def test_draws_go_on_from_a_saved_state(kind: str) -> None:
    def made(seed: int) -> Preferences:
        return Preferences(2, kind, steps=50, seed=seed)  # type: ignore[arg-type]

    whole, first, second = made(3), made(3), made(4)
    expected = [whole.draw() for _ in range(12)]
    for _ in range(7):
        first.draw()
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(second.draw(), own) for own in expected[7:])


def test_a_wrong_state_changes_nothing() -> None:
    preferences = Preferences(2, "schedule", count=5, steps=50)
    before = preferences.state_dict()
    for wrong in ({}, {**before, "drawn": -1}, {**before, "order": [0, 1]}, {**before, "generator": {"state": 1}}):
        with pytest.raises(InputError):
            preferences.load_state_dict(wrong)
    assert preferences.state_dict() == before


def test_indicators_by_closed_forms() -> None:
    reference = [2.0, 3.0, 4.0]
    assert hypervolume([[1.0, 1.0, 1.0]], reference) == pytest.approx(1 * 2 * 3)
    assert hypervolume([[5.0, 1.0, 1.0], [np.nan, 0.0, 0.0]], reference) == 0.0
    line = np.linspace(0, 1, 101)
    front = np.stack([line, 1 - line], axis=1)
    assert igd_plus(front + 0.1, front) == pytest.approx(np.sqrt(2) * 0.1, rel=0.35)
    assert epsilon(front + np.array([0.1, 0.2]), front) == pytest.approx(0.2, abs=1e-2)
    assert nondominated([[1, 3], [1, 3], [np.nan, 0], [2, 2], [3, 3]]) == [0, 1, 3]


def test_what_is_refused() -> None:
    for wrong in (lambda: grid(1, 2), lambda: grid(3, 1), lambda: grid(3, 2, inset=1.0), lambda: Preferences(2, alpha=0.0)):
        with pytest.raises(InputError):
            wrong()
    with pytest.raises(InputError, match="steps=None"):
        Preferences(2, "schedule")
    with pytest.raises(InputError, match="3 numbers"):
        hypervolume([[1.0, 1.0, 1.0]], [1.0, 2.0])
    with pytest.raises(InputError, match="no finite point"):
        igd_plus([[np.nan, 1.0]], [[0.0, 1.0]])
