"""DB-MTL, ExcessMTL, GradNorm and MoCo against plain implementations, and what their memories promise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import equipoise as eq
from equipoise.balance import Observation
from equipoise.solvers import minimum_norm_point
from tests.problems import Heads, batch, losses, optimizer_of, parameters_of, same

TASKS = ("a", "b", "c")
NAMES = ("db-mtl", "excess-mtl", "moco")


def step_of(
    balancer: eq.balance.Balancer,
    gradients: Tensor,
    values: Tensor | None = None,
    present: tuple[int, ...] = (0, 1, 2),
    step: int = 0,
) -> Tensor:
    """One whole step; the direction."""
    values = torch.ones(len(gradients), dtype=torch.float64) if values is None else values
    observation = Observation(TASKS, present, values, gradients=gradients, step=step)
    direction = balancer.decide(observation)
    balancer.update(Observation(TASKS, present, values, step=step))
    return direction


def stream(steps: int = 8, tasks: int = 3) -> list[tuple[Tensor, Tensor]]:
    """Gradients ``[K, 5]`` of different lengths, and losses."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([1.0, 20.0, 0.1, 3.0, 2.0], dtype=torch.float64)[:tasks, None]
    return [
        (
            lengths * torch.randn(tasks, 5, generator=generator, dtype=torch.float64),
            0.1 + torch.rand(tasks, generator=generator, dtype=torch.float64),
        )
        for _ in range(steps)
    ]


# -- DB-MTL


@pytest.mark.parametrize(("beta", "sigma"), [(0.9, 0.0), (0.9, 0.5), (0.0, 0.0)])
def test_db_mtl_by_hand(beta: float, sigma: float) -> None:
    balancer = eq.DBMTL(beta=beta, beta_sigma=sigma, epsilon=1e-8)
    averages = torch.zeros(3, 5, dtype=torch.float64)
    for step, (gradients, values) in enumerate(stream(), start=1):
        fading = beta / step**sigma
        of_logs = gradients / (values + 1e-8)[:, None]
        averages = of_logs + fading * (averages - of_logs)
        norms = averages.norm(dim=1)
        expected = (norms.max() / norms) @ averages
        assert torch.allclose(step_of(balancer, gradients, values), expected)


def test_db_mtl_on_autograd_of_log_losses() -> None:
    """The whole step against torch's own gradients of log losses, through the optimizer."""
    mtl = optimizer_of(eq.DBMTL(beta=0.0), lr=0.0)
    mtl.step(batch())
    shared = list(mtl.shared)
    rows = []
    for value in losses(mtl.objective.model, batch()).values():
        parts = torch.autograd.grad((value + 1e-8).log(), shared, retain_graph=True)
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    norms = torch.stack([row.norm() for row in rows])
    expected = sum(norms.max() / norm * row for norm, row in zip(norms, rows, strict=True))
    assert torch.allclose(torch.cat([p.grad.reshape(-1) for p in shared]), expected, rtol=1e-4, atol=1e-6)


def test_db_mtl_does_not_care_for_the_units_of_a_loss() -> None:
    here, there = eq.DBMTL(epsilon=0.0), eq.DBMTL(epsilon=0.0)
    units = torch.tensor([1e-3, 1.0, 1e4], dtype=torch.float64)
    for gradients, values in stream():
        assert torch.allclose(step_of(here, gradients, values), step_of(there, units[:, None] * gradients, units * values))


def test_db_mtl_needs_positive_losses() -> None:
    balancer = eq.DBMTL()
    with pytest.raises(eq.NonFiniteError, match=r"loss of task b does not exist in step 4") as raised:
        step_of(balancer, torch.ones(3, 2), torch.tensor([1.0, -1.0, 2.0]), step=4)
    assert raised.value.tasks == ("b",)
    assert balancer.state_dict() == {"averages": None, "layout": None, "steps": 0}
    assert torch.isfinite(step_of(eq.DBMTL(log_losses=False), torch.ones(3, 2), torch.tensor([1.0, -1.0, 2.0]))).all()


# -- ExcessMTL


def test_excess_mtl_by_hand() -> None:
    balancer = eq.ExcessMTL(lr=0.3)
    squares, weights, first = torch.zeros(3, 5, dtype=torch.float64), torch.ones(3, dtype=torch.float64), None
    for gradients, _ in stream():
        squares = squares + gradients**2
        risks = torch.stack([g @ torch.diag((s + 1e-7) ** -0.5) @ g for g, s in zip(gradients, squares, strict=True)])
        if first is None:
            first = risks
        else:
            weights = weights * torch.exp(0.3 * risks / first)
            weights = 3 * weights / weights.sum()
        assert torch.allclose(step_of(balancer, gradients), weights @ gradients)
        assert torch.allclose(balancer.task_weights, weights)
    assert float(weights.max()) > 1.1


def test_excess_mtl_gives_less_to_noise_than_to_what_can_still_fall() -> None:
    """Quadratic losses, one far from its optimum, one at its optimum with noisy gradients."""
    balancer = eq.ExcessMTL(lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        noise = torch.randn(5, generator=generator, dtype=torch.float64)
        gradients = torch.stack([torch.full((5,), 1.0, dtype=torch.float64), noise, torch.zeros(5, dtype=torch.float64)])
        step_of(balancer, gradients)
    weights = balancer.task_weights
    assert float(weights[0]) > float(weights[1]) > float(weights[2])


def test_excess_mtl_takes_the_scale_from_the_first_gradient_there_is() -> None:
    balancer = eq.ExcessMTL(lr=0.5)
    gradients = torch.eye(3, dtype=torch.float64)
    step_of(balancer, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)[:, None] * gradients)
    assert float(balancer.scales[1]) == 0
    step_of(balancer, gradients)
    assert float(balancer.scales[1]) == pytest.approx(1.0)
    assert torch.isfinite(balancer.task_weights).all()


# -- MoCo


@pytest.mark.parametrize("projection", ["simplex", "softmax"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("max_norm", [None, 2.0])
def test_moco_by_hand(projection: str, normalize: bool, max_norm: float | None) -> None:
    balancer = eq.MoCo(gamma=0.02, rho=0.3, projection=projection, normalize=normalize, max_norm=max_norm)
    tracked, lambdas = torch.zeros(3, 5, dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64)
    for step, (gradients, values) in enumerate(stream(), start=1):
        taken = gradients / gradients.norm(dim=1, keepdim=True) * values[:, None] if normalize else gradients
        tracked = tracked - 0.5 / step**0.5 * (tracked - taken)
        if max_norm is not None:
            tracked = tracked * (max_norm / tracked.norm(dim=1, keepdim=True)).clamp(max=1)
        moved = lambdas - 0.02 / step**0.5 * (tracked @ tracked.T + 0.3 * torch.eye(3, dtype=torch.float64)) @ lambdas
        lambdas = torch.softmax(moved, 0) if projection == "softmax" else nearest(moved)
        direction = step_of(balancer, gradients, values)
        assert torch.allclose(direction, lambdas @ tracked, rtol=1e-9, atol=1e-10)
        assert torch.allclose(balancer.lambdas, lambdas)
        assert torch.allclose(balancer.tracked, tracked)


def nearest(point: Tensor) -> Tensor:
    """The nearest point of the simplex, by bisection."""
    low, high = float(point.min()) - 1, float(point.max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((point - middle).clamp(min=0).sum()) > 1 else (low, middle)
    return (point - low).clamp(min=0)


def test_moco_finds_the_minimum_norm_point() -> None:
    gradients = torch.tensor([[1.0, 0.0], [-0.2, 0.5], [0.8, 0.9]], dtype=torch.float64)
    balancer = eq.MoCo(gamma=0.5, gamma_sigma=0.0, beta_sigma=0.0)
    for _ in range(500):
        direction = step_of(balancer, gradients)
    expected = torch.from_numpy(minimum_norm_point((gradients @ gradients.T).numpy()))
    assert torch.allclose(direction, expected @ gradients, atol=1e-6)


def test_moco_averages_noise_away() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    balancer = eq.MoCo(beta=1.0, beta_sigma=0.9, gamma=0.0)
    for _ in range(2000):
        step_of(balancer, mean + torch.randn(3, 2, generator=generator, dtype=torch.float64))
    assert torch.allclose(balancer.tracked, mean, atol=0.15)


# -- GradNorm


def test_gradnorm_follows_autograd() -> None:
    balancer = eq.GradNorm(alpha=1.5, lr=0.1, epsilon=0.0)
    weights = torch.ones(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weights], lr=0.1)
    first = None
    for gradients, values in stream(20):
        gramian = gradients @ gradients.T
        observation = Observation(TASKS, (0, 1, 2), values, gramian)
        assert torch.allclose(balancer.decide(observation), weights.detach())
        balancer.update(observation)
        first = values if first is None else first
        norms = weights * gradients.norm(dim=1)
        rates = values / first / (values / first).mean()
        adam.zero_grad()
        (norms - (norms.mean() * rates**1.5).detach()).abs().sum().backward()
        adam.step()
        with torch.no_grad():
            weights.clamp_(min=0)
            weights.mul_(3 / weights.sum())
        assert torch.allclose(balancer.task_weights, weights.detach())
    assert float(weights.detach().min()) < 0.5


def test_gradnorm_settles_at_its_target() -> None:
    balancer = eq.GradNorm(alpha=1.0, lr=0.003)
    gramian = torch.diag(torch.tensor([1.0, 4.0, 16.0], dtype=torch.float64))
    balancer.update(Observation(TASKS, (0, 1, 2), torch.ones(3), gramian))
    now = torch.tensor([1.0, 0.5, 1.5], dtype=torch.float64)
    for _ in range(3000):
        balancer.update(Observation(TASKS, (0, 1, 2), now, gramian))
    weighted = balancer.task_weights * gramian.diagonal().sqrt()
    assert torch.allclose(weighted / weighted.mean(), now / now.mean(), atol=0.05)
    assert float(balancer.task_weights.sum()) == pytest.approx(3)


def test_gradnorm_of_a_model_and_of_features() -> None:
    for options in ({}, {"features": "encoder"}):
        torch.manual_seed(0)
        model = Heads()
        mtl = optimizer_of(eq.GradNorm(), model, **options)
        for step in range(5):
            mtl.step(batch(seed=step))
        weights = mtl.balancer.task_weights
        assert float(weights.sum()) == pytest.approx(3)
        # The loud task has become quieter.
        assert float(weights[1]) < 1 < float(weights[2])


def test_gradnorm_with_absent_tasks_and_odd_losses() -> None:
    balancer = eq.GradNorm(lr=0.1)
    gramian = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    balancer.update(Observation(TASKS, (0, 2), torch.tensor([0.0, 1.0]), gramian))
    assert float(balancer.task_weights[1]) == 1
    assert float(balancer.task_weights.sum()) == pytest.approx(3)
    assert torch.isnan(balancer.first_losses).tolist() == [False, True, False]
    weights = balancer.decide(Observation(TASKS, (0, 1, 2), torch.tensor([1.0, -1.0, 1.0]), torch.eye(3)))
    assert torch.isnan(weights).tolist() == [False, True, False]
    with pytest.raises(eq.InputError, match="has learned from 3 tasks; the Gramian has 2"):
        balancer.weights(torch.eye(2))


def test_gradnorm_survives_a_huge_learning_rate() -> None:
    balancer = eq.GradNorm(lr=100.0)
    for gradients, values in stream(20):
        balancer.update(Observation(TASKS, (0, 1, 2), values, gradients @ gradients.T))
        assert float(balancer.task_weights.sum()) == pytest.approx(3)
        assert (balancer.task_weights >= 0).all()


# -- all of them


@st.composite
def nasty(draw: st.DrawFn, largest: int = 15) -> Tensor:
    """Gradients ``[K, P]`` with zero, equal and opposed rows at scales of 1e-10 to 1e15, or another power of ten."""
    tasks, columns = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.standard_normal((tasks, columns)) * 10.0 ** rng.integers(-10, largest + 1, (tasks, 1))
    for kind in draw(st.lists(st.sampled_from(["copy", "oppose", "zero"]), max_size=3)):
        a, b = rng.integers(tasks, size=2)
        rows[a] = {"copy": rows[b], "oppose": -rows[b] if a != b else rows[a], "zero": 0 * rows[a]}[kind]
    return torch.from_numpy(rows)


VARIANTS: dict[str, Callable[[], eq.balance.GradientBalancer]] = {
    "db-mtl": eq.DBMTL,
    "excess-mtl": eq.ExcessMTL,
    "moco": eq.MoCo,
    "moco, softmax": lambda: eq.MoCo(projection="softmax", normalize=True, max_norm=1.0),
}


def directions(name: str, rows: Tensor, order: Tensor | None = None) -> list[Tensor]:
    """Of three steps with the same gradients, the tasks in another order if one is given."""
    balancer, tasks = VARIANTS[name](), tuple(f"t{k}" for k in range(len(rows)))
    values, found = torch.linspace(0.5, 2.0, len(rows), dtype=torch.float64), []
    if order is not None:
        rows, values = rows[order], values[order]
    for step in range(3):
        observation = Observation(tasks, tuple(range(len(rows))), values, gradients=rows, step=step)
        found.append(balancer.decide(observation))
        balancer.update(observation)
    return found


@pytest.mark.parametrize("name", VARIANTS)
@given(rows=nasty(), single=st.booleans())
def test_always_finite(name: str, rows: Tensor, single: bool) -> None:
    rows = rows.float() if single else rows
    for direction in directions(name, rows):
        assert direction.dtype == rows.dtype
        assert torch.isfinite(direction).all()


@pytest.mark.parametrize("name", VARIANTS)
@given(data=st.data(), single=st.booleans(), seed=st.integers(0, 1000))
def test_the_order_of_the_tasks_does_not_matter(name: str, data: st.DataObject, single: bool, seed: int) -> None:
    # MoCo's weights take a step of the size of squared gradients before they are brought back: rounding grows with those.
    rows = data.draw(nasty(0 if name == "moco" else 15))
    rows = rows.float() if single else rows
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)))
    size = len(rows) * float(rows.double().norm(dim=1).max())
    for here, there in zip(directions(name, rows), directions(name, rows, order), strict=True):
        assert float((here.double() - there.double()).norm()) <= 16 * torch.finfo(rows.dtype).eps * size


@pytest.mark.parametrize("name", NAMES)
def test_a_decision_changes_nothing_and_a_failed_step_teaches_nothing(name: str) -> None:
    balancer = eq.balancer(name)
    (first, values), (second, _), *_ = stream()
    step_of(balancer, first, values)
    state = balancer.state_dict()
    before = balancer.decide(Observation(TASKS, (0, 1, 2), values, gradients=second, step=1))
    balancer.decide(Observation(TASKS, (0, 1, 2), values, gradients=torch.full_like(second, math.nan), step=1))
    again = step_of(balancer, second, values, step=1)
    assert torch.equal(before, again)
    other = eq.balancer(name)
    other.load_state_dict(state)
    assert torch.equal(step_of(other, second, values, step=1), again)
    mine, its = balancer.state_dict(), other.state_dict()
    assert mine.pop("layout", None) == its.pop("layout", None)
    assert all(torch.equal(torch.as_tensor(mine[key]), torch.as_tensor(its[key])) for key in mine)


@pytest.mark.parametrize("name", NAMES)
def test_the_memory_stays_in_place_and_is_not_copied_each_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mtl = optimizer_of(name)
    mtl.step(batch())
    memory = {"db-mtl": "averages", "excess-mtl": "squares", "moco": "tracked"}[name]
    place = getattr(mtl.balancer, memory).data_ptr()
    monkeypatch.setattr(type(mtl.balancer), "state_dict", lambda self: pytest.fail("the state was copied"))
    mtl.step(batch(seed=1))
    assert getattr(mtl.balancer, memory).data_ptr() == place
    assert getattr(mtl.balancer, memory).shape == (3, sum(p.numel() for p in mtl.shared))
    assert mtl.balancer._held is None


@pytest.mark.parametrize("name", NAMES)
def test_absent_tasks_keep_their_rows(name: str) -> None:
    balancer = eq.balancer(name)
    (first, values), (second, _), *_ = stream()
    step_of(balancer, first, values)
    memory = {"db-mtl": "averages", "excess-mtl": "squares", "moco": "tracked"}[name]
    before = getattr(balancer, memory).clone()
    direction = step_of(balancer, second[[0, 2]], values[[0, 2]], (0, 2), step=1)
    after = getattr(balancer, memory)
    assert torch.isfinite(direction).all()
    assert torch.equal(after[1], before[1])
    assert not torch.equal(after[0], before[0])
    # What the present tasks do is what they would do if the absent one had not existed, as far as rows go.
    whole = eq.balancer(name)
    step_of(whole, first, values)
    step_of(whole, second, values, step=1)
    assert torch.allclose(getattr(whole, memory)[[0, 2]], after[[0, 2]])


@pytest.mark.parametrize("name", [*NAMES, "gradnorm"])
def test_partial_batches_and_the_drop_in(name: str) -> None:
    balancer, model = eq.balancer(name), Heads()
    for step in range(6):
        named = losses(model, batch(seed=step))
        if step % 2:
            del named[f"t{step % 3}"]
        assert eq.backward(named, balancer).tasks == tuple(named)
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


@pytest.mark.parametrize("name", [*NAMES, "gradnorm"])
def test_a_bad_batch_leaves_everything_as_it_was(name: str) -> None:
    mtl, other = optimizer_of(name), optimizer_of(name)
    for each in (mtl, other):
        each.step(batch())
    inputs, targets = batch(seed=1)
    with pytest.raises(eq.NonFiniteError):
        mtl.step((inputs, targets * math.nan))
    for each in (mtl, other):
        each.step(batch(seed=2))
    assert same(parameters_of(mtl.objective.model), parameters_of(other.objective.model))


@pytest.mark.parametrize("name", [*NAMES, "gradnorm"])
def test_training_lowers_the_losses(name: str) -> None:
    mtl = optimizer_of(name, make=torch.optim.Adam, lr=0.02)
    first = sum(mtl.step(batch()).values())
    for _ in range(60):
        last = sum(mtl.step(batch()).values())
    assert float(last) < 0.8 * float(first)


@pytest.mark.parametrize("name", [*NAMES, "gradnorm"])
def test_a_memory_of_another_problem_is_refused(name: str) -> None:
    balancer = eq.balancer(name)
    optimizer_of(balancer).step(batch())
    with pytest.raises(eq.InputError, match="has learned from 3 tasks and now meets 2"):
        optimizer_of(balancer, Heads(2)).step(batch(tasks=2))
    if name != "gradnorm":
        with pytest.raises(eq.InputError, match="make a new one for another model"):
            optimizer_of(balancer, Heads(width=9)).step(batch())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("db-mtl", {"beta": 1.0}, "beta must be at least 0 and below 1; got 1.0"),
        ("db-mtl", {"beta_sigma": -1.0}, "beta_sigma must be finite and at least 0"),
        ("excess-mtl", {"lr": math.inf}, "lr must be finite"),
        ("excess-mtl", {"epsilon": 0.0}, "epsilon must be positive"),
        ("gradnorm", {"alpha": -1.0}, "alpha must be finite and at least 0; got -1.0"),
        ("gradnorm", {"lr": math.nan}, "lr must be finite"),
        ("moco", {"beta": 0.0}, "beta must be above 0 and at most 1"),
        ("moco", {"gamma": -1.0}, "gamma must be finite"),
        ("moco", {"projection": "ball"}, 'projection must be "simplex" or "softmax"; got "ball"'),
        ("moco", {"max_norm": 0.0}, "max_norm must be positive"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        eq.balancer(name, **options)
