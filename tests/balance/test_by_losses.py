"""IMTL-L, GLS, STCH and GO4Align: their weights are the gradients of their defining losses, and hold at any scale."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import equipoise as eq
from equipoise.balance import Observation
from tests.problems import Heads, batch, losses, optimizer_of, parameters_of, same

TASKS = ("a", "b", "c")
NAMES = ("imtl-l", "gls", "stch", "go4align")


def seen(values: list[float] | Tensor, present: tuple[int, ...] = (0, 1, 2)) -> Observation:
    return Observation(TASKS, present, torch.as_tensor(values, dtype=torch.float64))


def slopes(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The gradient of a function of the losses, by autograd."""
    at = at.clone().double().requires_grad_()
    loss(at).backward()
    assert at.grad is not None
    return at.grad


positive = st.lists(st.floats(-10, 15).map(lambda power: 10.0**power), min_size=1, max_size=6)


# -- IMTL-L


def test_imtl_l_follows_autograd() -> None:
    balancer = eq.IMTLL(lr=0.1)
    scales = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([scales], lr=0.1)
    for step in range(20):
        values = torch.tensor([4.0, 1.0, 0.1 + step / 10], dtype=torch.float64, requires_grad=True)
        adam.zero_grad()
        (scales.exp() * values - scales).sum().backward()
        assert torch.allclose(balancer.decide(seen(values.detach())), values.grad)
        adam.step()
        balancer.update(seen(values.detach()))
        assert torch.allclose(balancer.log_scales, scales.detach())


def test_imtl_l_settles_at_the_reciprocal_loss_and_is_twice_uncertainty_weighting() -> None:
    ours, theirs = eq.IMTLL(lr=0.05), eq.UW(lr=0.05)
    for step in range(2000):
        if step < 50:
            assert torch.allclose(ours.decide(seen([1, 1, 1])), 2 * theirs.decide(seen([1, 1, 1])).double(), rtol=1e-5)
        for balancer in (ours, theirs):
            balancer.update(seen([4.0, 1.0, 0.1]))
    assert ours.decide(seen([1, 1, 1])).tolist() == pytest.approx([1 / 4, 1.0, 10.0], rel=1e-3)


def test_imtl_l_leaves_absent_tasks_alone() -> None:
    balancer = eq.IMTLL(lr=0.1, initial=0.5)
    balancer.update(seen([4.0, 0.1], (0, 2)))
    weights = balancer.decide(seen([1, 1, 1]))
    assert float(weights[1]) == pytest.approx(math.exp(0.5))
    assert balancer.decide(seen([1, 1], (1, 2))).tolist() == weights[1:].tolist()


# -- GLS


@given(values=positive)
def test_gls_is_the_gradient_of_the_geometric_mean(values: list[float]) -> None:
    at = torch.tensor(values, dtype=torch.float64)
    expected = slopes(lambda x: x.log().mean().exp(), at)
    assert torch.allclose(eq.GLS(epsilon=0.0).weights(at), expected, rtol=1e-10)


def test_gls_by_the_product_itself() -> None:
    at = torch.tensor([2.0, 3.0, 5.0])
    assert torch.allclose(eq.GLS(epsilon=0.0).weights(at), slopes(lambda x: x.prod() ** (1 / 3), at).float())


@given(values=positive)
def test_gls_weights_add_up_to_geometric_over_harmonic_mean(values: list[float]) -> None:
    at = torch.tensor(values, dtype=torch.float64)
    weights = eq.GLS(epsilon=0.0).weights(at)
    assert float(weights.sum()) >= 1 - 1e-9
    # Every weighted loss is the same.
    assert torch.allclose(weights * at, (weights * at)[:1].expand_as(at), rtol=1e-9)


# -- STCH


@pytest.mark.parametrize("mu", [1e-3, 0.1, 1.0, 100.0])
def test_stch_is_the_gradient_of_the_smooth_maximum(mu: float) -> None:
    preference, ideal = torch.tensor([0.2, 0.5, 0.3]).double(), torch.tensor([0.1, 0.0, -1.0]).double()
    at = torch.tensor([1.0, 0.7, 0.2]).double()
    expected = slopes(lambda x: mu * torch.logsumexp(preference * (x - ideal) / mu, 0), at)
    by_order = eq.STCH(mu=mu, preference=preference.tolist(), ideal=ideal.tolist())
    by_name = eq.STCH(mu=mu, preference={"b": 0.5, "a": 0.2, "c": 0.3}, ideal={"c": -1.0, "a": 0.1, "b": 0.0})
    assert torch.allclose(by_order.decide(seen(at)), expected)
    assert torch.allclose(by_name.decide(seen(at)), expected)
    equal = slopes(lambda x: mu * torch.logsumexp(x / 3 / mu, 0), at)
    assert torch.allclose(eq.STCH(mu=mu).decide(seen(at)), equal)


def test_stch_of_a_tiny_mu_is_the_maximum() -> None:
    assert eq.STCH(mu=1e-300).decide(seen([1e15, 3.0, 1e-10])).tolist() == pytest.approx([1 / 3, 0, 0])
    assert eq.STCH(mu=1e-300, preference=1.0).decide(seen([2.0, 2.0, -5.0])).tolist() == pytest.approx([0.5, 0.5, 0])
    assert eq.STCH(mu=1e30).decide(seen([1e15, 3.0, 1e-10])).tolist() == pytest.approx([1 / 9] * 3)


def test_stch_reaches_a_non_convex_front() -> None:
    """Two losses whose front is a quarter circle bent the wrong way: weighted sums only find its ends."""

    def front(angle: Tensor) -> Tensor:
        return torch.stack([angle.cos(), angle.sin()])  # minimised, so concave

    def descend(balancer: eq.balance.Balancer) -> float:
        angle = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
        for _ in range(400):
            point = front(angle)
            weights = balancer.decide(Observation(("a", "b"), (0, 1), point.detach()))
            (slope,) = torch.autograd.grad((weights * point).sum(), angle)
            angle = (angle - 0.05 * slope).clamp(0, math.pi / 2).detach().requires_grad_()
        return float(angle.detach())

    assert descend(eq.STCH(mu=0.1, preference=1.0)) == pytest.approx(math.pi / 4, abs=1e-3)
    assert descend(eq.LS()) == pytest.approx(0.0, abs=1e-6)


def test_stch_as_released() -> None:
    balancer = eq.STCH(mu=0.5, formulation="released", warmup_epochs=1)
    for epoch in range(2):
        for wiggle in (-0.5, 0.5):
            values = torch.tensor([4.0, 1.0, 2.0]).double() + epoch + wiggle
            assert torch.allclose(balancer.decide(seen(values)), 1 / values)
            balancer.update(seen(values))
        balancer.end_epoch()
    reference = torch.tensor([5.0, 2.0, 3.0]).double()
    assert torch.allclose(balancer.reference, reference)
    at = torch.tensor([1.0, 3.0, 2.5]).double()
    expected = slopes(lambda x: 3 * 0.5 * torch.logsumexp((x / reference).log() / 0.5, 0), at)
    assert torch.allclose(balancer.decide(seen(at)), expected)
    part = slopes(lambda x: 2 * 0.5 * torch.logsumexp((x / reference[[0, 2]]).log() / 0.5, 0), at[[0, 2]])
    assert torch.allclose(balancer.decide(seen(at[[0, 2]], (0, 2))), part)


def test_stch_as_released_by_steps_and_with_a_task_that_comes_late() -> None:
    balancer = eq.STCH(formulation="released", warmup_epochs=0, steps_per_epoch=2)
    balancer.end_epoch()
    for _ in range(2):
        balancer.update(seen([4.0, 2.0], (0, 2)))
    assert torch.isnan(balancer.reference).tolist() == [False, True, False]
    assert balancer.decide(seen([4.0, 7.0, 2.0])).tolist() == pytest.approx([1 / 4, 1 / 7, 1 / 2])
    balancer.update(seen([4.0, 7.0, 2.0]))
    assert balancer.reference.tolist() == [4.0, 7.0, 2.0]
    assert torch.isnan(balancer.decide(seen([4.0, -7.0, 2.0]))).tolist() == [False, True, False]


def test_stch_says_when_no_epoch_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.balance.per_task._PATIENCE", 2)
    balancer = eq.STCH(formulation="released")
    balancer.update(seen([1, 1, 1]))
    with pytest.warns(UserWarning, match=r"call mtl\.end_epoch"):
        balancer.update(seen([1, 1, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            eq.STCH().update(seen([1, 1, 1]))


@pytest.mark.parametrize("epochs", [3, 8])
def test_stch_as_released_resumes_to_the_bit(epochs: int) -> None:
    def make() -> eq.MultiTaskOptimizer:
        torch.manual_seed(0)
        balancer = eq.STCH(formulation="released", warmup_epochs=1, steps_per_epoch=3)
        return optimizer_of(balancer, Heads(), make=torch.optim.Adam, lr=0.01)

    straight, stopped, resumed = make(), make(), make()
    for step in range(14):
        straight.step(batch(seed=step))
    for step in range(epochs):
        stopped.step(batch(seed=step))
    resumed.load_state_dict(stopped.state_dict())
    for step in range(epochs, 14):
        resumed.step(batch(seed=step))
    assert same(parameters_of(straight.objective.model), parameters_of(resumed.objective.model))


# -- GO4Align


def go4align_by_hand(values: np.ndarray, shares: np.ndarray, lr: float, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """One step of the released code's formula, the grouping by scikit-learn."""
    from sklearn.cluster import KMeans

    shares = shares * np.exp(-lr * values)
    shares = shares / shares.sum()
    weights = shares * values.sum() / values
    found = KMeans(groups, n_init=20, random_state=0).fit(weights[:, None])
    return found.cluster_centers_[found.labels_, 0], shares


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_go4align_follows_the_released_formula(groups: int) -> None:
    generator = np.random.default_rng(0)
    tasks = tuple("abcdefgh")
    balancer, shares = eq.GO4Align(groups=groups, lr=0.05, epsilon=0.0), np.full(8, 1 / 8)
    scales = np.repeat([1.0, 10.0, 0.1, 3.0], 2)
    for _ in range(10):
        values = scales * generator.uniform(0.8, 1.2, 8)
        expected, shares = go4align_by_hand(values, shares, 0.05, groups)
        observation = Observation(tasks, tuple(range(8)), torch.from_numpy(values))
        assert balancer.decide(observation).tolist() == pytest.approx(expected.tolist(), rel=1e-9)
        balancer.update(observation)


def test_go4align_with_a_group_a_task_and_absent_tasks() -> None:
    balancer = eq.GO4Align(groups=5, lr=0.1, epsilon=0.0)
    balancer.update(seen([3.0, 1.0], (0, 2)))
    shares = torch.softmax(-0.1 * torch.tensor([3.0 + 1, 2, 1 + 4], dtype=torch.float64), 0)
    at = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    assert torch.allclose(balancer.decide(seen(at)), shares * 7 / at)
    alone = balancer.decide(seen([5.0], (1,)))
    assert alone.tolist() == [1.0]


def test_go4align_gives_equal_tasks_equal_weights() -> None:
    weights = eq.GO4Align(groups=2).decide(seen([2.0, 5.0, 2.0])).tolist()
    assert weights[0] == weights[2] > weights[1]


# -- all of them


@pytest.mark.parametrize("name", NAMES)
@given(values=positive)
def test_finite_at_any_scale(name: str, values: list[float]) -> None:
    for dtype in (torch.float32, torch.float64):
        weights = eq.balancer(name).weights(torch.tensor(values, dtype=dtype))
        assert weights.shape == (len(values),)
        assert weights.dtype == dtype
        assert torch.isfinite(weights).all()
        assert (weights >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_zero_losses_have_a_finite_answer(name: str) -> None:
    assert torch.isfinite(eq.balancer(name).weights(torch.tensor([0.0, 1.0, 0.0]))).all()
    assert torch.isfinite(eq.balancer(name).weights(torch.zeros(3))).all()


@pytest.mark.parametrize("balancer", [eq.GLS(), eq.GO4Align(), eq.STCH(formulation="released")])
def test_negative_losses_name_the_task(balancer: eq.balance.Balancer) -> None:
    model = Heads()
    before = parameters_of(model)

    def shifted(model: torch.nn.Module, data: object) -> dict[str, Tensor]:
        named = losses(model, data)  # type: ignore[arg-type]
        return named | {"t1": named["t1"] - 1e4}

    mtl = eq.MultiTaskOptimizer(eq.Objective(model, shifted), torch.optim.SGD(model.parameters(), lr=0.1), balancer)
    with pytest.raises(eq.NonFiniteError, match=r'weight of task "t1" is not finite') as raised:
        mtl.step(batch())
    assert raised.value.tasks == ("t1",)
    assert same(before, parameters_of(model))


@pytest.mark.parametrize("name", NAMES)
def test_partial_batches_and_the_drop_in(name: str) -> None:
    balancer, model = eq.balancer(name), Heads()
    for step in range(6):
        named = losses(model, batch(seed=step))
        if step % 2:
            del named[f"t{step % 3}"]
        report = eq.backward(named, balancer)
        assert report.tasks == tuple(named)
        assert report.weights.shape == (len(named),)
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in gradients)


@pytest.mark.parametrize("name", ["imtl-l", "go4align"])
def test_a_memory_of_another_problem_is_refused(name: str) -> None:
    balancer = eq.balancer(name)
    optimizer_of(balancer).step(batch())
    with pytest.raises(eq.InputError, match="has learned from 3 tasks and now meets 2"):
        optimizer_of(balancer, Heads(2)).step(batch(tasks=2))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("imtl-l", {"lr": -1.0}, "lr must be at least 0"),
        ("imtl-l", {"initial": math.inf}, "initial must be finite"),
        ("gls", {"epsilon": -1.0}, "epsilon must be at least 0"),
        ("stch", {"mu": 0.0}, "mu must be positive and finite; got 0.0"),
        ("stch", {"preference": [0.5, -0.5]}, "preference must be finite and at least 0"),
        ("stch", {"ideal": math.nan}, "ideal must be finite; got nan"),
        ("stch", {"formulation": "code"}, 'formulation must be "paper" or "released"; got "code"'),
        ("stch", {"formulation": "released", "ideal": 1.0}, "belong to formulation"),
        ("stch", {"warmup_epochs": -1}, "warmup_epochs"),
        ("stch", {"steps_per_epoch": 0}, "steps_per_epoch"),
        ("go4align", {"groups": 0}, "groups must be at least 1; got 0"),
        ("go4align", {"lr": -1.0}, "lr must be at least 0"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        eq.balancer(name, **options)


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        ([0.5, 0.5], "preference has 2 numbers for 3 tasks"),
        ({"a": 1.0, "b": 1.0}, "preference lacks c"),
        ({"a": 1.0, "b": 1.0, "c": 1.0, "aa": 1.0}, 'names a task "aa", which does not exist. Did you mean "a"'),
    ],
)
def test_preferences_that_do_not_fit(preference: object, message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        eq.STCH(preference=preference).decide(seen([1, 1, 1]))  # type: ignore[arg-type]


@pytest.mark.parametrize("balancer", [eq.IMTLL(), eq.GLS(), eq.STCH(), eq.STCH(formulation="released", warmup_epochs=0)])
@pytest.mark.parametrize("present", [(0, 1, 2), (0, 2)])
def test_no_value_is_looked_at_so_that_a_gpu_need_not_be_waited_for(
    balancer: eq.balance.Balancer, present: tuple[int, ...]
) -> None:
    """On torch's meta device there are no values: whoever asks for one gets an error."""
    for _ in range(3):
        observation = Observation(TASKS, present, torch.ones(len(present), device="meta"))
        assert balancer.decide(observation).shape == (len(present),)
        balancer.update(observation)
        balancer.end_epoch()
