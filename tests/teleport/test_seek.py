"""Seeking agreement of the gradients: its measure against a direct computation, and that a search raises it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import equipoise as eq
from equipoise.teleport.measure import LossSizes
from equipoise.teleport.search import agreement
from equipoise.teleport.triggers import mean_cosines, pairwise_cosines
from tests import problems
from tests.teleport.helpers import eager_cost, optimizer_with, train


@pytest.mark.parametrize("kind", ["mean", "smallest", "pairwise"])
def test_the_measure_is_that_of_the_gramian_and_can_be_differentiated(kind: Any) -> None:
    torch.manual_seed(0)
    model = problems.Heads().double()
    shared = list(model.encoder.parameters())
    inputs, targets = problems.batch()
    losses = problems.losses(model, (inputs.double(), targets.double()))
    rows = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses.values()]
    stacked = torch.stack([torch.cat([piece.flatten() for piece in row]) for row in rows])
    gramian = (stacked @ stacked.T).numpy()
    pairs = pairwise_cosines(gramian)[np.triu_indices(len(rows), 1)].mean()
    expected = {"mean": mean_cosines(gramian).mean(), "smallest": mean_cosines(gramian).min(), "pairwise": pairs}[kind]
    measure = agreement(losses, shared, kind)
    assert_allclose(float(measure.detach()), expected, rtol=1e-9)
    assert any(float(slope.abs().max()) > 0 for slope in torch.autograd.grad(measure, shared))


@pytest.mark.parametrize("kind", ["mean", "smallest", "pairwise"])
def test_a_search_raises_the_agreement(kind: Any) -> None:
    cost = eager_cost(seek=kind, gamma=10.0, steps=12, lr=0.02, delta=eq.teleport.Dense(), probe="current", stop_step=1)
    train(optimizer_with(cost), range(1))
    (report,) = cost.attempts
    assert report.reward[-1] > report.reward[0] + 0.01


def test_sizes_remember_the_largest_and_leave_out_what_is_not_finite() -> None:
    sizes = LossSizes(relative=True)
    assert_allclose(sizes(np.array([2.0, np.inf])), [2.0, np.inf])
    assert_allclose(sizes(np.array([0.0, 0.5])), [0.002, 0.5])
    again = LossSizes(relative=True)
    again.load_state_dict(sizes.state_dict())
    assert_allclose(again(np.array([0.0, 0.0])), [0.002, 0.0005])
    assert_allclose(LossSizes(relative=False)(np.array([3.0, -1.0])), [1.0, 1.0])


def test_the_default_rank_fits_small_networks() -> None:
    cost = eager_cost(delta=None)
    train(optimizer_with(cost), range(3))
    assert cost.attempts
    assert cost.attempts[0].distance > 0.0
