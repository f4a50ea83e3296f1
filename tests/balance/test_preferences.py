"""The option ``preference``: what it means for each method that has one, by the equation that it changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.concave_front import descend
from torch import Tensor
from torchjd import scalarization

import equipoise as eq
from equipoise import solvers
from equipoise.balance import Observation
from tests.solvers.matrices import gramians

P = [0.5, 0.3, 0.2]


def gradients(seed: int = 0, tasks: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((tasks, 8)))


# -- a concave front


def end(method: str, preference: tuple[float, ...] | None) -> Tensor:
    """The losses of two Gaussians where descent with the weights of a method ends: on the front.

    That is where the distances from the centres, which the losses tell, add up to the distance between these, 2.
    """
    losses = descend(method, preference)[-1]
    assert float((-(1 - losses).log()).sqrt().sum()) < 2.02
    return losses


@pytest.mark.parametrize("preference", [(0.2, 0.8), (0.7, 0.3)])
def test_weighted_sums_end_at_the_ends_of_a_concave_front(preference: tuple[float, ...]) -> None:
    assert float(end("ls", preference).min()) < 0.01


@pytest.mark.parametrize("preference", [(0.2, 0.8), (0.7, 0.3)])
@pytest.mark.parametrize("method", ["epo", "pmgda", "ferero", "pbi", "cosmos:penalty=20", "stch:mu=0.002"])
def test_ends_on_the_ray(method: str, preference: tuple[float, ...]) -> None:
    found = end(method, preference)
    ray = torch.tensor(preference, dtype=torch.float64)
    ray = ray if eq.balance.method(method.partition(":")[0]).ray else 1 / ray
    assert float(found[0] / found.sum()) == pytest.approx(float(ray[0] / ray.sum()), abs=0.02)


def test_ends_in_the_sector_or_within_the_bounds() -> None:
    for preference in ((0.25, 0.75), (0.75, 0.25)):
        found = end("pmtl", preference)
        # The next rays of the lattice are (0, 1), (0.5, 0.5) and (1, 0), and sectors are bounded half way between, by angle.
        angle = float(torch.atan2(found[0], found[1]))
        own = np.arctan2(*preference)
        ends = sorted((own + other) / 2 for other in ((0.0, np.pi / 4) if own < np.pi / 4 else (np.pi / 4, np.pi / 2)))
        assert ends[0] - 0.01 < angle < ends[1] + 0.01
    assert float(end("ferero:bounds=[inf,0.3]", None)[1]) == pytest.approx(0.3, abs=0.01)
    assert float(end("ferero:bounds=[0.45,inf]", None)[0]) == pytest.approx(0.45, abs=0.01)


# -- COSMOS and PBI


@pytest.mark.parametrize("losses", [[0.3, 1.7, 0.4], [1e-6, 2e-6, 5e-7], [3e8, 1.0, 1e4], [2.0, 0.0, -1.0]])
def test_scalarisations_are_torchjds(losses: list[float]) -> None:
    """But for PBI next to its ray, which TorchJD smooths over 1e-6 in the losses' units and we over a share of them."""
    at, preference = torch.tensor(losses, dtype=torch.float64, requires_grad=True), torch.tensor(P, dtype=torch.float64)
    small = at.detach().abs().max() < 1e-5
    for ours, theirs in (
        (eq.COSMOS(P, penalty=2.0), scalarization.COSMOS(2.0, preference)),
        (eq.PBI(P, theta=3.0), scalarization.PBI(3.0, preference)),
        (eq.PBI(P, theta=3.0, ideal=[-1.0, 0.5, 0.0]), scalarization.PBI(3.0, preference, torch.tensor([-1.0, 0.5, 0.0]))),
    ):
        (expected,) = torch.autograd.grad(theirs(at), at)
        assert torch.allclose(ours.weights(at), expected, rtol=1e-6, atol=1e-6) != bool(small and expected.norm() < 3)


def test_where_scalarisations_have_no_derivative() -> None:
    assert eq.COSMOS(P).weights(torch.zeros(3)).tolist() == pytest.approx(P)
    ray = torch.tensor(P, dtype=torch.float64)
    for losses in (ray, 1e12 * ray, torch.zeros(3).double()):
        assert torch.allclose(eq.PBI(P).weights(losses), ray / ray.norm(), rtol=1e-6)
    assert torch.allclose(eq.PBI(P).weights([1.0, 2.0, 3.0]), eq.PBI(P).weights([1e9, 2e9, 3e9]))


# -- what they have in common

CHOSEN = ["epo", "pmgda", "ferero", "pmtl", "pbi", "cosmos"]


@pytest.mark.parametrize("name", CHOSEN)
def test_by_name_and_of_the_tasks_present(name: str) -> None:
    g, losses = gradients(1), torch.tensor([0.4, 1.5, 5.0], dtype=torch.float64)
    ordered, named = eq.balancer(name, preference=[3.0, 1.0, 0.5]), eq.balancer(name, preference={"c": 0.5, "a": 3, "b": 1})

    def seen(*present: int) -> Observation:
        few = g[list(present)]
        return Observation(("a", "b", "c"), present, losses[list(present)], few @ few.T)

    assert torch.equal(ordered.decide(seen(0, 1, 2)), named.decide(seen(0, 1, 2)))
    assert not torch.allclose(ordered.decide(seen(0, 1, 2)), eq.balancer(name).decide(seen(0, 1, 2)))
    pair = Observation(("a", "c"), (0, 1), losses[[0, 2]], g[[0, 2]] @ g[[0, 2]].T)
    assert torch.equal(ordered.decide(seen(0, 2)), eq.balancer(name, preference=[3.0, 0.5]).decide(pair))
    alone = ordered.decide(seen(1))
    assert alone.shape == (1,)
    assert alone > 0
    with pytest.raises(eq.InputError, match="preference lacks b, c"):
        eq.balancer(name, preference={"a": 1.0}).decide(seen(0, 1))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("epo", {"preference": [1.0, 0.0]}, "must be above 0 for EPO"),
        ("epo", {"tolerance": -1.0}, "tolerance must be finite"),
        ("pmgda", {"sigma": 1.5}, "sigma must be between 0 and 1"),
        ("ferero", {"preference": [1.0, 1.0], "bounds": [1.0, 1.0]}, "give one of the two"),
        ("ferero", {"pull": 0.0}, "pull must be positive"),
        ("pmtl", {"rays": 1}, "rays must be at least 2"),
        ("pmtl", {"others": [[0.0, 0.0]]}, "others are rays"),
        ("pbi", {"theta": -1.0}, "theta must be finite"),
        ("cosmos", {"penalty": float("nan")}, "penalty must be finite"),
    ],
)
def test_options_out_of_range(method: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        eq.balancer(method, **options)


def test_losses_that_do_not_fit() -> None:
    q = gradients() @ gradients().T
    with pytest.raises(eq.InputError, match="2 losses were given with a Gramian"):
        eq.EPO().weights(q, [1.0, 1.0])
    with pytest.raises(eq.InputError, match="others has rays of 2 numbers for 3 tasks"):
        eq.PMTL(others=[[1.0, 0.0]]).weights(q)
    bad = eq.EPO().weights(q, [1.0, 0.0, 1.0])
    assert bad.isnan().tolist() == [False, True, False]


def test_the_search_for_a_sector_goes_on_where_it_stopped() -> None:
    q, losses = gradients(2, 2) @ gradients(2, 2).T, torch.tensor([1.0, 0.1], dtype=torch.float64)
    balancer = eq.PMTL([0.1, 0.9], warmup_steps=3)
    out, inside = (Observation(("a", "b"), (0, 1), values, q) for values in (losses, losses.flip(0)))
    first = balancer.decide(out)
    balancer.update(out)
    again = eq.PMTL([0.1, 0.9], warmup_steps=3)
    again.load_state_dict(balancer.state_dict())
    assert again.steps == 1
    again.update(inside)
    assert again.steps == 3
    assert not torch.allclose(again.decide(out), first)


# -- equations


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
