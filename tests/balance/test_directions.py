"""GradDrop, GradVac, IMTL, Aligned-MTL, UPGrad, DualProj and ConFIG against formulas and equations written out by hand."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import equipoise as eq
from equipoise import solvers
from equipoise.balance import Observation
from tests.balance.test_properties import rows
from tests.problems import Heads, batch, losses, optimizer_of, parameters_of, same
from tests.solvers.matrices import gramians, ordinary

TASKS = ("a", "b", "c")
NEW = ["graddrop", "gradvac", "imtl", "aligned-mtl", "upgrad", "dualproj", "config"]
PREFERRED = ["aligned-mtl", "upgrad", "dualproj", "config", "cagrad", "nash-mtl", "fairgrad"]


def tensor(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def part(g: Tensor, present: tuple[int, ...], losses: Tensor | None = None) -> Observation:
    return Observation(TASKS, present, losses, g @ g.T)


# -- UPGrad and DualProj


def test_two_tasks_in_closed_form() -> None:
    """π(g_1) = g_1 − ⟨g_1, g_2⟩/‖g_2‖² g_2 for two tasks that conflict."""
    g = tensor([2.0, 0.0], [-1.0, 1.0])
    first = g[0] - (g[0] @ g[1]) / (g[1] @ g[1]) * g[1]
    second = g[1] - (g[0] @ g[1]) / (g[0] @ g[0]) * g[0]
    assert torch.allclose(eq.UPGrad().weights(g @ g.T) @ g, (first + second) / 2)
    assert torch.allclose(eq.UPGrad([3.0, 0.5]).weights(g @ g.T) @ g, 3 * first + 0.5 * second)
    # The mean serves both; twice the first gradient and a tenth of the second harms the second.
    assert torch.equal(eq.DualProj().weights(g @ g.T), tensor(0.5, 0.5))
    mean = 2 * g[0] + 0.1 * g[1]
    projected = mean - (mean @ g[1]) / (g[1] @ g[1]) * g[1]
    assert torch.allclose(eq.DualProj([2.0, 0.1]).weights(g @ g.T) @ g, projected)


def test_projections_meet_their_conditions_on_adversarial_gramians() -> None:
    generator = np.random.default_rng(0)
    for name, gramian in gramians(generator, (1, 2, 5, 13)):
        size = len(gramian)
        mean = np.full(size, 1.0 / size)
        weights = solvers.dual_cone_projection(gramian, mean)
        assert solvers.dual_cone_residual(gramian, mean, weights) < 1e-10, name
        for k in range(size):
            one = solvers.unconflicting_weights(gramian, np.eye(size)[k])
            assert solvers.dual_cone_residual(gramian, np.eye(size)[k], one) < 1e-10, name
    assert solvers.dual_cone_residual(np.eye(2), [1.0, 0.0], [1.0, 0.3]) > 0.1


@pytest.mark.parametrize("tasks", [3, 11, 40])
def test_unconflicting_weights_are_those_of_single_programmes(tasks: int) -> None:
    g = ordinary(np.random.default_rng(tasks), tasks)
    g = g - 0.9 * g.mean(0)
    gramian = g @ g.T
    expected = np.zeros(tasks)
    for k in range(tasks):
        added = solvers.nonnegative_quadratic_program(gramian, -gramian[k])
        assert added.any()
        expected += (np.eye(tasks)[k] + added) / tasks
    found = solvers.unconflicting_weights(gramian, np.full(tasks, 1 / tasks))
    assert np.linalg.norm((found - expected) @ g) < 1e-10 * np.linalg.norm(expected @ g)


@given(g=rows())
def test_without_conflicts_both_are_the_mean(g: Tensor) -> None:
    gramian = (g.abs()) @ (g.abs()).T
    for name in ("upgrad", "dualproj"):
        assert torch.allclose(eq.balancer(name).weights(gramian), torch.full((len(g),), 1 / len(g), dtype=g.dtype))


@given(st.integers(2, 6), st.integers(0, 1000), st.floats(-3, 3))
def test_upgrad_is_linear_under_scaling(tasks: int, seed: int, power: float) -> None:
    """π(g_k) is proportional to ‖g_k‖ and the cone does not know of lengths: scaling one gradient scales its part alone."""
    g = torch.randn(tasks, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scaled = g.clone()
    scaled[0] *= 10.0**power
    rest = [0.0] + [1.0] * (tasks - 1)
    first = [1.0] + [0.0] * (tasks - 1)
    for preference, factor in ((rest, 1.0), (first, 10.0**power)):
        here = eq.UPGrad(preference).weights(g @ g.T) @ g
        there = eq.UPGrad(preference).weights(scaled @ scaled.T) @ scaled
        assert torch.allclose(factor * here, there, rtol=1e-6, atol=1e-9 * factor)


# -- ConFIG


def test_config_of_orthogonal_gradients() -> None:
    g = tensor([2.0, 0.0], [0.0, 1.0])
    unit = torch.ones(2, dtype=torch.float64) / math.sqrt(2)
    assert torch.allclose(eq.ConFIG().weights(g @ g.T) @ g, (g @ unit).sum() * unit)


@given(st.integers(1, 6), st.integers(0, 1000))
def test_config_has_the_cosines_and_the_length_asked_for(tasks: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(tasks, 12, generator=generator, dtype=torch.float64) * torch.logspace(-4, 4, tasks)[:, None]
    preference = (0.1 + torch.rand(tasks, generator=generator)).tolist()
    direction = eq.ConFIG(preference).weights(g @ g.T) @ g
    cosines = (g @ direction) / g.norm(dim=1) / tensor(*preference)
    assert torch.allclose(cosines, cosines[:1].expand_as(cosines), rtol=1e-6)
    unit = direction / direction.norm()
    assert float(g.sum(0) @ unit) == pytest.approx(float(direction.norm()) * math.copysign(1, float(g.sum(0) @ unit)), rel=1e-6)


def test_config_of_dependent_gradients_is_the_least_squares_direction() -> None:
    g = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 3)))
    units = g / g.norm(dim=1, keepdim=True)
    best = torch.linalg.lstsq(units, torch.ones(5, 1, dtype=torch.float64)).solution[:, 0]
    direction = eq.ConFIG().weights(g @ g.T) @ g
    assert abs(float(best @ direction) / float(best.norm() * direction.norm())) == pytest.approx(1.0, abs=1e-10)


def test_config_residual_on_adversarial_gramians() -> None:
    for name, gramian in gramians(np.random.default_rng(1), (1, 2, 5, 13)):
        ones = np.ones(len(gramian))
        weights = solvers.conflict_free_weights(gramian, ones)
        assert np.isfinite(weights).all(), name
        if "indefinite" not in name:
            assert solvers.conflict_free_residual(gramian, ones, weights) < 1e-4, name
    assert solvers.conflict_free_residual(np.eye(2), [1.0, 1.0], [1.0, 0.5]) > 0.1


# -- Aligned-MTL


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
@given(st.integers(1, 6), st.integers(0, 1000))
def test_alignment_by_singular_values(scale: str, tasks: int, seed: int) -> None:
    """All singular values of the gradients are replaced by one."""
    g = np.random.default_rng(seed).standard_normal((tasks, 10))
    left, sizes, right = np.linalg.svd(g, full_matrices=False)
    common = {"min": sizes[-1], "median": np.sort(sizes)[(tasks - 1) // 2], "rmse": math.sqrt(np.mean(sizes**2))}[scale]
    expected = common * (left @ right).mean(0)
    balancer = eq.AlignedMTL(scale=scale)
    found = balancer.weights(torch.from_numpy(g @ g.T)).numpy()
    assert np.allclose(found @ g, expected, rtol=1e-6, atol=1e-9)
    assert solvers.aligned_residual(g @ g.T, np.full(tasks, 1 / tasks), found, scale) < 1e-6
    assert solvers.aligned_residual(g @ g.T, np.full(tasks, 1 / tasks), 1.1 * found, scale) > 0.05


# -- GradVac


def _vaccinated(g: np.ndarray, orders: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The paper's algorithm on the vectors themselves."""
    total = np.zeros(g.shape[1])
    for i, order in enumerate(orders):
        current = g[i].copy()
        for j in order:
            cosine = current @ g[j] / np.linalg.norm(current) / np.linalg.norm(g[j])
            target = targets[i, j]
            if cosine < target:
                other = math.sqrt(1 - target**2)
                factor = np.linalg.norm(current) * (target * math.sqrt(1 - cosine**2) - cosine * other)
                current = current + factor / (np.linalg.norm(g[j]) * other) * g[j]
                reached = current @ g[j] / np.linalg.norm(current) / np.linalg.norm(g[j])
                assert reached == pytest.approx(target, abs=1e-9)
        total += current
    return total


@given(st.integers(2, 7), st.integers(0, 1000))
def test_vaccine_in_coefficients_is_vaccine_on_vectors(tasks: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    g = ordinary(generator, tasks)
    orders = solvers.random_orders(tasks, generator)
    targets = generator.uniform(-0.5, 0.9, (tasks, tasks))
    coefficients, met = solvers.vaccinate(g @ g.T, orders, targets)
    expected = _vaccinated(g, orders, targets)
    assert np.linalg.norm(coefficients @ g - expected) < 1e-8 * np.linalg.norm(expected)
    assert np.isnan(met.diagonal()).all()
    units = g / np.linalg.norm(g, axis=1, keepdims=True)
    for i, order in enumerate(orders):
        assert met[i, order[0]] == pytest.approx(float(units[i] @ units[order[0]]))


def test_vaccine_with_targets_of_zero_is_gradient_surgery() -> None:
    generator = np.random.default_rng(4)
    g = ordinary(generator, 6) - 0.5
    orders = solvers.random_orders(6, generator)
    coefficients, _ = solvers.vaccinate(g @ g.T, orders, np.zeros((6, 6)))
    assert np.allclose(coefficients, solvers.project_conflicts(g @ g.T, orders))


def test_vaccine_averages_the_cosines_of_the_tasks_present() -> None:
    g = tensor([1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 0.0])
    balancer = eq.GradVac(beta=0.25)
    balancer.decide(part(g, (0, 1, 2)))
    assert balancer.targets is None, "a decision alone teaches nothing"
    balancer.update(part(g, (0, 1, 2)))
    assert torch.allclose(balancer.targets, tensor([0, 0.15, 0], [0.15, 0, 0], [0, 0, 0]))
    balancer.decide(part(g[:2], (0, 2)))
    balancer.update(part(g[:2], (0, 2)))
    assert torch.allclose(balancer.targets, tensor([0, 0.15, 0.15], [0.15, 0, 0], [0.15, 0, 0]))
    with pytest.raises(eq.InputError, match="has learned from 3 tasks"):
        balancer.weights(torch.eye(2))


def test_vaccine_with_extreme_targets_and_gradients_is_finite() -> None:
    for name, gramian in gramians(np.random.default_rng(5), (1, 2, 5)):
        orders = solvers.random_orders(len(gramian), np.random.default_rng(0))
        for target in (-1.0, 0.0, 0.5, 1.0):
            assert np.isfinite(solvers.vaccinate(gramian, orders, np.full(gramian.shape, target))[0]).all(), name


# -- IMTL


def test_imtl_learns_scales_and_keeps_the_direction() -> None:
    g = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 8)))
    values = tensor(4.0, 1.0, 0.1)
    balancer = eq.IMTL(lr=0.05)
    plain = eq.IMTLG().weights(g @ g.T)
    assert torch.allclose(balancer.decide(part(g, (0, 1, 2), values)), plain)
    for _ in range(3000):
        balancer.update(part(g, (0, 1, 2), values))
    scales = balancer.log_scales.exp()
    assert torch.allclose(scales * values, torch.ones(3, dtype=torch.float64), rtol=1e-3)
    weights = balancer.decide(part(g, (0, 1, 2), values))
    assert torch.allclose(weights / weights.sum(), plain)
    assert float((weights / scales).sum()) == pytest.approx(1.0)
    assert not torch.allclose(weights, plain)
    few = balancer.decide(part(g[:2], (0, 2), values[:2]))
    assert float((few / scales[[0, 2]]).sum()) == pytest.approx(1.0)
    with pytest.raises(eq.InputError, match="has learned from 3 tasks"):
        balancer.weights(torch.eye(2))


def test_imtl_scales_follow_the_gradient_of_their_objective() -> None:
    balancer, reference = eq.IMTL(lr=0.1), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([reference], lr=0.1)
    for step in range(10):
        values = tensor(4.0, 1.0, 0.1 + step)
        adam.zero_grad()
        (reference.exp() * values - reference).sum().backward()
        adam.step()
        balancer.update(part(torch.eye(3), (0, 1, 2), values))
        assert torch.allclose(balancer.log_scales, reference.detach())


# -- GradDrop


def test_sign_dropout_keeps_one_sign_and_the_sum_in_expectation() -> None:
    generator = torch.Generator().manual_seed(1)
    g = torch.randn(4, 20, generator=generator)
    balancer = eq.GradDrop(seed=2)
    drawn = torch.stack([balancer.direction(g) for _ in range(8000)])
    positive, negative = g.clamp(min=0).sum(0), g.clamp(max=0).sum(0)
    assert (torch.isclose(drawn, positive, atol=1e-5) | torch.isclose(drawn, negative, atol=1e-5)).all()
    error = (positive - negative) / math.sqrt(8000)
    assert ((drawn.mean(0) - g.sum(0)).abs() <= 3 * error + 1e-6).all()
    assert torch.allclose(eq.GradDrop(leak=1.0).direction(g), g.sum(0), atol=1e-6)


def test_leaks_belong_to_tasks() -> None:
    g = torch.tensor([[1.0] * 50, [-1.0] * 50])
    leaking = eq.GradDrop(leak=[0.0, 0.5], seed=0).direction(g)
    # Either the first passes with half of the second, or the second passes whole.
    assert set(leaking.tolist()) == {0.5, -1.0}
    named = eq.GradDrop(leak={"b": 0.5}, seed=0)
    assert torch.equal(named.decide(Observation(("a", "b"), (0, 1), gradients=g)), leaking)
    alone = eq.GradDrop(leak=[0.0, 0.5, 1.0], seed=0).decide(Observation(TASKS, (0, 2), gradients=g))
    assert set(alone.tolist()) == {0.0, -1.0}
    wide = eq.GradDrop().direction(torch.full((2, 3), 1e38))
    assert wide.dtype == torch.float32
    half = eq.GradDrop().direction(torch.ones(2, 3, dtype=torch.float16))
    assert half.tolist() == [2.0, 2.0, 2.0]


# -- all of them


@pytest.mark.parametrize("name", PREFERRED)
def test_preferences_by_order_by_name_and_of_the_tasks_present(name: str) -> None:
    g = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 8)))
    ordered, named = eq.balancer(name, preference=[3.0, 1.0, 0.5]), eq.balancer(name, preference={"c": 0.5, "a": 3, "b": 1})
    whole = ordered.decide(part(g, (0, 1, 2)))
    assert torch.equal(whole, ordered.weights(g @ g.T))
    assert torch.equal(whole, named.decide(part(g, (0, 1, 2))))
    assert not torch.allclose(whole, eq.balancer(name).weights(g @ g.T))
    few = named.decide(part(g[[0, 2]], (0, 2)))
    assert torch.equal(few, eq.balancer(name, preference=[3.0, 0.5]).weights(g[[0, 2]] @ g[[0, 2]].T))
    assert torch.equal(few, ordered.decide(part(g[[0, 2]], (0, 2))))
    assert torch.isfinite(eq.balancer(name, preference=[0.0, 0.0, 0.0]).weights(g @ g.T)).all()
    with pytest.raises(eq.InputError, match="the tasks' names"):
        named.weights(g @ g.T)
    with pytest.raises(eq.InputError, match="preference has 3 numbers for 2 tasks"):
        ordered.weights(torch.eye(2))
    with pytest.raises(eq.InputError, match='preference names a task "d", which does not exist'):
        eq.balancer(name, preference={"d": 1.0}).decide(part(g, (0, 1, 2)))
    with pytest.raises(eq.InputError, match="preference lacks b, c"):
        eq.balancer(name, preference={"a": 1.0}).decide(part(g, (0, 1, 2)))


def test_options_out_of_range() -> None:
    cases: list[tuple[str, dict[str, object], str]] = [
        *[(name, {"preference": [1.0, -1.0]}, "preference must be finite and at least 0") for name in PREFERRED],
        *[(name, {"preference": [math.nan]}, "preference must be finite") for name in PREFERRED],
        ("aligned-mtl", {"scale": "mean"}, 'scale must be one of min, median, rmse; got "mean"'),
        ("gradvac", {"beta": 1.5}, "beta must be between 0 and 1; got 1.5"),
        ("imtl", {"lr": -1.0}, "lr must be at least 0"),
        ("graddrop", {"leak": 2.0}, "leak must be between 0 and 1; got 2.0"),
        ("graddrop", {"leak": [0.0, math.nan]}, "leak must be between 0 and 1"),
    ]
    for name, options, message in cases:
        with pytest.raises(eq.InputError, match=message):
            eq.balancer(name, **options)
    with pytest.raises(eq.InputError, match="2 leaks were given for 3 tasks"):
        eq.GradDrop(leak=[0.0, 1.0]).direction(torch.ones(3, 2))
    with pytest.raises(eq.InputError, match='a leak was given for task "d"'):
        eq.GradDrop(leak={"d": 0.0}).decide(Observation(TASKS, (0,), gradients=torch.ones(1, 2)))
    with pytest.raises(eq.InputError, match=r"\[K, P\]; got \[3\]"):
        eq.GradDrop().direction(torch.ones(3))
    for function in (solvers.dual_cone_projection, solvers.unconflicting_weights, solvers.conflict_free_weights):
        with pytest.raises(eq.InputError, match="preferences must be at least 0"):
            function(np.eye(2), [1.0, -1.0])
    with pytest.raises(eq.InputError, match="expected tasks' indices"):
        solvers.vaccinate(np.eye(2), [[1]], np.zeros((2, 2)))
    with pytest.raises(eq.InputError, match="expected cosines"):
        solvers.vaccinate(np.eye(2), [[1], [0]], np.full((2, 2), 2.0))


@pytest.mark.parametrize("name", NEW)
def test_one_task_alone_gets_its_own_gradient(name: str) -> None:
    g = tensor([3.0, -4.0])
    balancer = eq.balancer(name)
    direction = balancer.direction(g) if name == "graddrop" else balancer.weights(g @ g.T) @ g
    assert torch.allclose(direction, g[0])


@pytest.mark.parametrize("name", [name for name in NEW if name != "graddrop"])
@pytest.mark.parametrize("exponent", [-10, 0, 15])
def test_extreme_scales_zeros_and_copies(name: str, exponent: int) -> None:
    g = torch.from_numpy(np.random.default_rng(3).standard_normal((4, 6))) * 10.0**exponent
    balancer = eq.balancer(name)
    for matrix in (
        g,
        torch.cat([g, g]),
        torch.cat([g, -g]),
        torch.cat([g, 0 * g]),
        0 * g,
        g * torch.logspace(-20, 0, 4)[:, None],
    ):
        weights = balancer.weights(matrix @ matrix.T)
        assert torch.isfinite(weights).all()


@pytest.mark.parametrize("name", NEW)
def test_batches_that_lack_tasks_and_a_resumed_state(name: str) -> None:
    """Tasks come and go; what was saved in between goes on to the same bits, through the optimizer and the drop-in."""

    def some(model: torch.nn.Module, data: tuple[Tensor, Tensor, int]) -> dict[str, Tensor]:
        found = losses(model, data[:2])
        del found[f"t{data[2] % 3}"]
        return found

    def fresh() -> eq.MultiTaskOptimizer:
        torch.manual_seed(0)
        model = Heads()
        adam = torch.optim.Adam(model.parameters(), lr=0.01)
        return eq.MultiTaskOptimizer(eq.Objective(model, some, tasks=("t0", "t1", "t2")), adam, name)

    straight, stopped, resumed = fresh(), fresh(), fresh()
    for step in range(12):
        straight.step((*batch(seed=step), step))
        (stopped if step < 6 else resumed).step((*batch(seed=step), step))
        if step == 5:
            file = io.BytesIO()
            torch.save(stopped.state_dict(), file)
            file.seek(0)
            resumed.load_state_dict(torch.load(file, weights_only=True))
    assert same(parameters_of(straight.objective.model), parameters_of(resumed.objective.model))

    mtl = optimizer_of(name, lr=0.0)
    mtl.step(batch())
    torch.manual_seed(0)
    model = Heads()
    eq.backward(losses(model, batch()), eq.balancer(name), shared=model.encoder)
    for mine, other in zip(mtl.objective.model.encoder.parameters(), model.encoder.parameters(), strict=True):
        assert torch.allclose(mine.grad, other.grad, rtol=1e-4, atol=1e-6)
