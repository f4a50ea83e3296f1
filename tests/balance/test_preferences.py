"""The option ``preference``: what it means for each method that has one, by the equation that it changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import equipoise as eq
from equipoise import solvers
from tests.solvers.matrices import gramians

P = [0.5, 0.3, 0.2]


def gradients(seed: int = 0, tasks: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((tasks, 8)))


def test_every_method_with_the_option_says_what_it_means() -> None:
    for info in eq.methods():
        if info.cls.__module__.startswith("equipoise."):
            assert ("preference" in info.options) == bool(info.preference), info.name
            assert not info.preference or info.preference.startswith(("weights: ", "ray: "))


def test_equations_with_powers() -> None:
    g = gradients()
    q, p = g @ g.T, 3 * torch.tensor(P, dtype=torch.float64)
    alpha = eq.NashMTL(preference=P).weights(q)
    assert torch.allclose(alpha * (q @ alpha), p)
    shared = eq.FairGrad(alpha=2.0, preference=[5, 3, 2]).weights(q)
    assert torch.allclose(q @ shared, (p / shared) ** 0.5)
    assert torch.allclose(eq.FairGrad(preference=P).weights(q), alpha)
    # The mean loss's place is taken by the weighted one, and the ball is around its gradient.
    direction, mean = eq.CAGrad(c=0.5, preference=[5, 3, 2]).weights(q) @ g, p @ g / 3
    assert float((direction - mean).norm()) == pytest.approx(0.5 * float(mean.norm()))
    assert torch.allclose(eq.CAGrad(c=0.0, preference=P).weights(q), p / 3)
    assert eq.LS(preference=P).weights(torch.ones(3)).tolist() == pytest.approx(P)
    with pytest.raises(eq.InputError, match="the same for fixed weights; give one"):
        eq.LS(P, preference=P)


@pytest.mark.parametrize("name", ["nash-mtl", "fairgrad:alpha=2", "cagrad"])
def test_equal_preferences_are_none_and_a_task_without_is_left_out(name: str) -> None:
    g = gradients(3)
    q = g @ g.T
    assert torch.allclose(eq.balancer(name, preference=[0.7] * 3).weights(q), eq.balancer(name).weights(q), rtol=1e-9)
    without = eq.balancer(name, preference=[1.0, 0.0, 1.0]).weights(q)
    if name != "cagrad":
        assert without[1] == 0
        assert torch.allclose(without[[0, 2]], eq.balancer(name).weights(q[[0, 2]][:, [0, 2]]) * _longer(name))


def _longer(name: str) -> float:
    # Two tasks share the power of three.
    return 1.5**0.5 if name == "nash-mtl" else 1.5 ** (1 / 3)


def test_another_preference_from_the_next_decision_on() -> None:
    q = gradients() @ gradients().T
    for name in ("upgrad", "nash-mtl"):
        balancer = eq.balancer(name)
        before = balancer.weights(q)
        balancer.prefer(P)  # type: ignore[attr-defined]
        assert torch.equal(balancer.weights(q), eq.balancer(name, preference=P).weights(q))
        with pytest.raises(eq.InputError, match="at least 0"):
            balancer.prefer([-1.0, 0.5, 0.5])  # type: ignore[attr-defined]
        assert torch.equal(balancer.weights(q), eq.balancer(name, preference=P).weights(q))
        balancer.prefer(None)  # type: ignore[attr-defined]
        assert torch.equal(balancer.weights(q), before)
    with pytest.raises(eq.InputError, match="the released formulation has none"):
        eq.STCH(formulation="released").prefer(P)


def test_powers_on_nasty_gramians() -> None:
    generator = np.random.default_rng(5)
    for number, (name, gramian) in enumerate(gramians(generator, (1, 2, 5))):
        if number % 4:
            continue  # one in four keeps this under a second
        powers = generator.dirichlet(np.full(len(gramian), 0.5))
        weights = solvers.nash_bargaining(gramian, powers)
        assert np.isfinite(weights).all()
        assert solvers.nash_residual(gramian, weights, powers) < 1e-12, name
        if number % 8 == 0:
            weights = solvers.fair_weights(gramian, 2.0, powers)
            assert solvers.fair_residual(gramian, 2.0, weights, powers) < 1e-10, name
            weights = solvers.conflict_averse_weights(gramian, 0.5, powers)
            assert solvers.conflict_averse_residual(gramian, 0.5, weights, powers) < 1e-8, name
