"""The nearest point of a simplex."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import equipoise as eq
from equipoise.solvers import project_on_simplex

points = st.lists(st.floats(-3, 3), min_size=1, max_size=8)


@given(point=points, total=st.floats(0.1, 5), seed=st.integers(0, 100))
def test_it_is_the_nearest(point: list[float], total: float, seed: int) -> None:
    """⟨v − w, u − w⟩ ≤ 0 for every u of the simplex: its corners are enough."""
    v = np.array(point)
    w = project_on_simplex(v, total)
    assert (w >= 0).all()
    assert w.sum() == pytest.approx(total)
    for corner in total * np.eye(len(v)):
        assert (v - w) @ (corner - w) <= 1e-10
    assert np.allclose(project_on_simplex(w, total), w)
    assert np.allclose(project_on_simplex(v + 7.0, total), w)


@pytest.mark.parametrize("size", [1e-300, 1e15, 1e300])
def test_any_scale(size: float) -> None:
    assert project_on_simplex(np.array([-1.0, 1.0, 0.5]) * size).sum() == pytest.approx(1.0)
    assert project_on_simplex([size, -size]).tolist() == pytest.approx([1.0, 0.0] if size > 1 else [0.5, 0.5])


@pytest.mark.parametrize(
    ("point", "total", "message"),
    [
        ([], 1.0, r"expected \[K\]"),
        ([np.nan], 1.0, "not a number"),
        ([1.0], 0.0, "total must be positive"),
        ([[1.0]], 1.0, "shape"),
    ],
)
def test_bad_input(point: list[float], total: float, message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        project_on_simplex(point, total)
