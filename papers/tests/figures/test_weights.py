"""The closed forms for two tasks against the library's balancers, one Gramian at a time."""

import numpy as np
import pytest
import torch

import equipoise as eq
from equipoise.errors import InputError
from equipoise_papers.figures.cost_toy.weights import weights_of

BALANCERS = [
    eq.LS(),
    eq.LS([2.0, 0.5]),
    eq.MGDA(),
    eq.CAGrad(),
    eq.CAGrad(c=0.0),
    eq.CAGrad(c=1.5),
    eq.CAGrad(c=0.5, rescale=True),
    eq.NashMTL(),
    eq.FairGrad(alpha=1.0),
    eq.FairGrad(alpha=2.0),
    eq.FairGrad(alpha=0.3),
    eq.FairGrad(alpha=20.0),
    eq.IMTLG(),
]


def gradients(count, spread):
    generator = np.random.default_rng(0)
    return generator.normal(size=(count, 2, 2)) * 10.0 ** generator.uniform(-spread, spread, (count, 2, 1))


def one_by_one(balancer, gramian):
    if isinstance(balancer, eq.LS):
        return np.stack([balancer.weights(torch.ones(2, dtype=torch.float64)).numpy()] * len(gramian))
    return balancer.weights(torch.from_numpy(gramian)).numpy()


@pytest.mark.parametrize("balancer", BALANCERS, ids=repr)
def test_the_same_direction_as_the_librarys_balancer(balancer):
    tasks = gradients(400, 3.0)
    gramian = tasks @ tasks.transpose(0, 2, 1)
    got, expected = weights_of(balancer)(gramian), one_by_one(balancer, gramian)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())
    error = np.linalg.norm(((got - expected)[:, :, None] * tasks).sum(1), axis=1)
    # Not relative to the direction, which nearly vanishes where gradients cancel.
    assert (error <= 1e-7 * (np.abs(expected)[:, :, None] * np.abs(tasks)).sum((1, 2))).all()


@pytest.mark.parametrize("balancer", BALANCERS, ids=repr)
def test_nearly_opposed_gradients(balancer):
    """What trajectories meet in the valleys and near the Pareto set."""
    tasks = gradients(300, 0.0)
    tasks[:, 1] = -tasks[:, 0] * np.linspace(0.1, 10.0, 300)[:, None] + 0.01 * tasks[:, 1]
    gramian = tasks @ tasks.transpose(0, 2, 1)
    got, expected = weights_of(balancer)(gramian), one_by_one(balancer, gramian)
    scale = np.abs(expected).max(axis=1, keepdims=True)
    # Here the weights are as large as 1 / (1 + cosine), of which rounding leaves about six digits.
    assert (np.abs(got - expected) / scale).max() <= 1e-5


@pytest.mark.parametrize("balancer", BALANCERS, ids=repr)
def test_vanishing_gradients(balancer):
    tasks = np.array([[[0.0, 0.0], [1.0, 2.0]], [[3.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    gramian = tasks @ tasks.transpose(0, 2, 1)
    got = weights_of(balancer)(gramian)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, one_by_one(balancer, gramian), rtol=1e-9)


@pytest.mark.parametrize("balancer", [eq.FAMO(), eq.PCGrad(), eq.NashMTL(update_every=5)], ids=repr)
def test_a_balancer_that_remembers_or_draws_is_refused(balancer):
    with pytest.raises(InputError, match="cannot run here") as caught:
        weights_of(balancer)
    assert "\n" not in str(caught.value)
