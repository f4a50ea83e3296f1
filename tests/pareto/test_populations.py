"""Several models at once: hypervolume gradients and MOO-SVGD."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.pareto import MOOSVGD, HVGrad, Population, nondominated


class Point(nn.Module):
    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(x)
        self.register_buffer("seen", torch.zeros(()))


def gaussians(model: Any, batch: Any) -> dict[str, Tensor]:
    """Fonseca and Fleming's two Gaussians: a concave front, of which weighted sums reach the ends alone."""
    model.seen += 1
    center = 1 / math.sqrt(model.x.numel())
    scale = 1.0 if batch is None else batch
    return {
        name: scale - torch.exp(-(model.x - sign * center).square().sum()) for name, sign in (("right", 1.0), ("left", -1.0))
    }


def population(method: Any, count: int = 5, seed: int = 0, lr: float = 1.5) -> Population:
    torch.manual_seed(seed)
    models = [Point(0.5 * torch.randn(3)) for _ in range(count)]
    points = [model.x for model in models]
    adam = not isinstance(method, MOOSVGD) and "hvgrad" in str(method).lower()
    optimizer = torch.optim.Adam(points, 0.05) if adam else torch.optim.SGD(points, lr)
    return Population(models, gaussians, optimizer, method)


@pytest.mark.parametrize("method", ["hvgrad(reference=[1.1,1.1])", "moo-svgd(bandwidth=0.04,repulsion=0.03)"])
def test_a_population_spreads_over_a_concave_front(method: str) -> None:
    found = population(method)
    for _ in range(80):
        found.step(None)
    points = found.front([None]).points(found.tasks)
    line = np.linspace(-1, 1, 2001)
    front = np.stack([1 - np.exp(-((line - sign) ** 2)) for sign in (1.0, -1.0)], axis=1)
    assert np.sqrt(((points[:, None] - front) ** 2).sum(axis=2)).min(axis=1).max() < 5e-3
    assert len(nondominated(points)) == 5
    steps = np.sort(points[:, 0])
    assert np.diff(steps).min() > 0.08
    assert np.diff(steps).max() < 0.45
    # Five points can dominate 0.83 of what the whole front does.
    assert found.front([None]).hypervolume(found.tasks, [1.1, 1.1]) > 0.38
    if "moo" in method:  # as the docstring says, full repulsion keeps some of them off it
        apart = population("moo-svgd(bandwidth=0.04)", lr=0.05)
        for _ in range(80):
            apart.step(None)
        points = apart.front([None]).points(apart.tasks)
        assert np.sqrt(((points[:, None] - front) ** 2).sum(axis=2)).min(axis=1).max() > 0.05


def test_hypervolume_weights_per_front_and_of_length_one() -> None:
    method = HVGrad()
    points = np.array([[0.1, 0.9], [0.8, 0.2], [0.9, 0.95], [0.95, 0.85]])
    weights = method.weights(points)
    assert method.reference == pytest.approx([1.1 * 0.95, 1.1 * 0.95])
    assert np.linalg.norm(weights, axis=1) == pytest.approx(np.ones(4))
    first = np.array([1.045 - 0.9, 0.8 - 0.1])  # facets of the front of both undominated points
    assert weights[0] == pytest.approx(first / np.linalg.norm(first))
    third = np.array([1.045 - 0.95, 0.95 - 0.9])  # and of the two that are dominated
    assert weights[2] == pytest.approx(third / np.linalg.norm(third))
    assert method.weights(10 * points)[2:] == pytest.approx(weights[2:])
    assert HVGrad([1e-9, 1e-9]).weights(1e-12 * points) == pytest.approx(HVGrad([1.0, 1.0]).weights(1e-3 * points))
    with pytest.raises(eq.InputError, match="2 numbers for 3 tasks"):
        HVGrad([1.0, 1.0]).weights(np.ones((2, 3)))


def test_moo_svgd_takes_the_released_direction() -> None:
    """(κ g* - κ')/n with κ' = -½ ∂Σκ/∂x, as autograd has it."""
    method = MOOSVGD(bandwidth=0.3)
    found = population(method, count=4)
    before = torch.stack([model.x.detach().clone() for model in found.models]).double().requires_grad_()
    right, left = ((1 - torch.exp(-(before - sign / math.sqrt(3)).square().sum(1))) for sign in (1.0, -1.0))
    g1, g2 = (torch.autograd.grad(loss.sum(), before, retain_graph=True)[0] for loss in (right, left))
    share = (((g2 - g1) * g2).sum(1) / (g1 - g2).square().sum(1)).clamp(0, 1)[:, None]
    points = torch.stack([right, left], 1)
    kernel = torch.exp(-(points[:, None] - points).square().sum(2) / 0.3)
    push = -0.5 * torch.autograd.grad(kernel.sum(), before, retain_graph=True)[0]
    expected = (kernel @ (share * g1 + (1 - share) * g2) - push) / 4
    losses = found.step(None)
    assert torch.allclose(losses.double(), points, atol=1e-6)
    moved = before - torch.stack([model.x for model in found.models]).double()
    assert torch.allclose(moved, 1.5 * expected, atol=1e-5)
    # The median's bandwidth; models of equal losses have none.
    assert population("moo-svgd", count=3).step(None).shape == (3, 2)
    same = population("moo-svgd", count=2)
    same.models[1].load_state_dict(same.models[0].state_dict())
    same.step(None)
    assert torch.equal(same.models[0].x, same.models[1].x)


@pytest.mark.parametrize("method", ["hvgrad", "moo-svgd(bandwidth=0.04,repulsion=0.03)"])
def test_stopped_and_resumed_and_failed(method: str) -> None:
    whole = population(method)
    for _ in range(3):
        whole.step(None)
    again = population(method, seed=1)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    before, random = copy.deepcopy(again.state_dict()), torch.get_rng_state()
    with pytest.raises(eq.NonFiniteError, match=r"loss of right, left .* model 0, 1, 2, 3, 4"):
        again.step(torch.tensor(math.nan))
    assert str(again.state_dict()) == str(before)
    assert torch.equal(torch.get_rng_state(), random)
    for _ in range(3):
        assert torch.equal(whole.step(None), again.step(None))
    assert all(torch.equal(one.x, two.x) for one, two in zip(whole.models, again.models, strict=True))
    with pytest.raises(eq.InputError):
        again.load_state_dict(population(method, count=4).state_dict())


def test_networks_make_a_population_and_bad_ones_are_refused() -> None:
    torch.manual_seed(0)

    def losses(model: Any, batch: Tensor) -> dict[str, Tensor]:
        out = model(batch)
        found = {"one": (out[:, 0] - 1).square().mean(), "other": (out[:, 0] + 1).square().mean()}
        return found if len(batch) > 1 else {"one": found["one"]}

    models = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)) for _ in range(3)]
    optimizer = torch.optim.Adam([p for model in models for p in model.parameters()], 0.01)
    for method in ("hvgrad", "moo-svgd"):
        found = Population(models, losses, optimizer, method)
        first = found.step(torch.randn(8, 3))
        assert first.shape == (3, 2)
        front = found.front([torch.randn(8, 3)])
        assert front.points(found.tasks).shape == (3, 2)
        assert all(model.training for model in models)
    for model in models:
        model.eval()
    with pytest.raises(eq.InputError, match="all tasks"):
        found.step(torch.randn(1, 3))
    other = [nn.Linear(3, 1), nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 1))]
    both = torch.optim.SGD([p for model in other for p in model.parameters()], 0.1)
    for wrong in (
        lambda: Population(models[:1], losses, optimizer),
        lambda: Population([models[0], models[0]], losses, optimizer),
        lambda: Population(other, losses, optimizer),
        lambda: Population(other, losses, both, "moo-svgd"),
        lambda: Population(models, losses, optimizer, "hvgrd"),
        lambda: Population(models, losses, optimizer, "hvgrad(at=1)"),
        lambda: MOOSVGD(bandwidth=0.0),
    ):
        with pytest.raises(eq.InputError):
            wrong()
