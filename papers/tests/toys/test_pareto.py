import numpy as np
import pytest
import torch

from equipoise.errors import InputError
from equipoise_papers.toys import TOLERANCE, ParetoCurve, TwoTasks


@pytest.fixture(params=["released", "paper"], scope="module")
def pareto(request):
    return ParetoCurve(TwoTasks(request.param))


def test_gradients_oppose_each_other_on_the_set(pareto):
    """Pareto-stationary: some convex combination of the gradients vanishes."""
    _, gradients = TwoTasks().gradients(torch.from_numpy(pareto.points))
    weights = (torch.from_numpy(pareto.points[:, 0]) + 7.0) / 14.0
    combined = torch.stack((weights, 1.0 - weights), -1)[:, None] @ gradients
    assert float(combined.abs().max()) < 1e-9
    assert float(weights.min()) == 0.0
    assert float(weights.max()) == 1.0


def test_no_point_of_the_plane_is_better_than_the_front(pareto):
    generator = np.random.default_rng(0)
    points = np.concatenate(
        (
            generator.uniform(-15.0, 15.0, (200_000, 2)),
            pareto.points[generator.integers(0, len(pareto.points), 50_000)] + 0.05 * generator.normal(size=(50_000, 2)),
        )
    )
    assert pareto.gap(points).min() > -1e-5


def test_the_gap_is_the_improvement_that_some_point_of_the_set_gives(pareto):
    points = np.random.default_rng(1).uniform(-12.0, 12.0, (300, 2))
    losses = TwoTasks(pareto.problem.sign).losses(torch.from_numpy(points)).numpy()
    improvements = (losses[:, None] - ParetoCurve(TwoTasks(pareto.problem.sign)).front[None]).min(-1).max(-1)
    np.testing.assert_allclose(pareto.gap(points), improvements, atol=0.02)  # front in steps of 0.01


def test_membership(pareto):
    assert pareto.contains(pareto.points, tolerance=1e-9).all()
    beside = pareto.points[700]
    assert pareto.contains(beside + np.array([0.0, 0.2]))
    assert not pareto.contains(beside + np.array([0.0, 0.5]))
    assert not pareto.contains([[0.0, 8.0], [-8.5, 7.5], [10.0, -8.0], [7.2, -8.43], [-7.2, -8.43]]).any()
    assert pareto.gap(beside + np.array([0.0, 0.5])) > TOLERANCE
    assert pareto.distance(beside + np.array([0.0, 0.5])) == pytest.approx(0.5, rel=1e-3)
    assert pareto.distance(torch.tensor([[10.0, -8.0]])) == pytest.approx([np.hypot(3.0, 0.434)], rel=1e-3)


def test_the_factor_changes_the_front_but_not_the_set():
    plain, scaled = ParetoCurve(TwoTasks()), ParetoCurve(TwoTasks(factor=True))
    np.testing.assert_array_equal(plain.points, scaled.points)
    np.testing.assert_allclose(scaled.front, plain.front * [0.1, 1.0])
    places = np.random.default_rng(2).uniform(-12.0, 12.0, (50, 2))
    np.testing.assert_array_equal(plain.gap(places), scaled.gap(places))


def test_bad_input():
    with pytest.raises(InputError, match="at least two points; got 1"):
        ParetoCurve(TwoTasks(), size=1)
    with pytest.raises(InputError, match=r"points have the shape"):
        ParetoCurve(TwoTasks()).distance(np.zeros(3))
