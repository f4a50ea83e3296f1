import math

import numpy as np
import pytest
import torch

from equipoise.errors import InputError
from equipoise_papers.toys import STARTS, TwoTasks

PLACES = [*STARTS, (3.0, 2.0), (-6.0, 0.5), (1.0, -0.3), (-7.0 - 2.0 * math.tanh(-4.0), 4.0)]


def by_hand(first, second, sign, factor):
    """The formula with plain numbers, written for one point."""
    minus = {"paper": -1.0, "released": 1.0}[sign]
    f1 = math.log(max(abs(0.5 * (-first - 7) - math.tanh(-second)), 5e-6)) + 6
    f2 = math.log(max(abs(0.5 * (-first + 3) + minus * math.tanh(-second) + 2), 5e-6)) + 6
    g1 = ((-first + 7) ** 2 + 0.1 * (-second - 8) ** 2) / 10 - 20
    g2 = ((-first - 7) ** 2 + 0.1 * (-second - 8) ** 2) / 10 - 20
    c1, c2 = max(math.tanh(0.5 * second), 0), max(math.tanh(-0.5 * second), 0)
    return [(0.1 if factor else 1.0) * (c1 * f1 + c2 * g1), c1 * f2 + c2 * g2]


@pytest.mark.parametrize("sign", ["released", "paper"])
@pytest.mark.parametrize("factor", [False, True])
def test_losses_are_the_papers_formula(sign, factor):
    losses = TwoTasks(sign, factor).losses(torch.tensor(PLACES, dtype=torch.float64))
    expected = [by_hand(*place, sign, factor) for place in PLACES]
    assert losses.tolist() == [pytest.approx(row, abs=1e-12) for row in expected]


@pytest.mark.parametrize("sign", ["released", "paper"])
def test_gradients_are_those_of_each_task_alone(sign):
    problem = TwoTasks(sign, factor=True)
    places = torch.tensor([place for place in PLACES[:-1] if place != (0.0, 0.0)], dtype=torch.float64)
    losses, gradients = problem.gradients(places)
    assert torch.equal(losses, problem.losses(places))
    for task in range(2):
        for coordinate in range(2):
            shift = torch.zeros(2, dtype=torch.float64)
            shift[coordinate] = 1e-6
            slope = (problem.losses(places + shift) - problem.losses(places - shift))[:, task] / 2e-6
            torch.testing.assert_close(gradients[:, task, coordinate], slope, rtol=1e-5, atol=1e-6)


def test_any_leading_dimensions_and_the_points_precision():
    points = torch.randn(3, 1, 4, 2, generator=torch.Generator().manual_seed(0))
    problem = TwoTasks()
    losses, gradients = problem.gradients(points)
    assert losses.shape == (3, 1, 4, 2)
    assert gradients.shape == (3, 1, 4, 2, 2)
    assert losses.dtype == gradients.dtype == torch.float32
    torch.testing.assert_close(losses.double(), problem.losses(points.double()), rtol=1e-4, atol=1e-4)
    assert torch.equal(problem.gradients(points[2, 0, 1])[1], gradients[2, 0, 1])


def test_the_middle_start_has_a_way_down():
    # At x₂ = 0 both blends vanish; with a derivative of zero there, trajectories would never leave.
    _, gradients = TwoTasks().gradients(torch.zeros(2, dtype=torch.float64))
    assert float(gradients[:, 1].abs().min()) > 1.0


def test_the_released_valleys_are_nearer_to_each_other():
    line = np.linspace(-12.0, 12.0, 20001)
    points = torch.from_numpy(np.stack((line, np.full_like(line, 6.0)), -1))
    lowest = {sign: line[TwoTasks(sign).losses(points).argmin(0).numpy()] for sign in ("released", "paper")}
    assert lowest["released"] == pytest.approx([-5.0, 5.0], abs=0.01)
    assert lowest["paper"] == pytest.approx([-5.0, 9.0], abs=0.01)


def test_bad_input():
    with pytest.raises(InputError, match='sign must be released or paper; got "plus"'):
        TwoTasks("plus")
    with pytest.raises(InputError, match=r"points have the shape \[\.\.\., 2\]; got \[4, 3\]"):
        TwoTasks().losses(torch.zeros(4, 3))
