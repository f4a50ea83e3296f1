"""Weights of losses that are mean squares over points: against released code, per-point gradients and plain autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance import Balancer, Observation
from equipoise.points import Residuals, SelfAdaptivePoints, kernel_trace, mean_square, residuals_of

TASKS = ("a", "b", "c")


def run(balancer: Balancer, *rows: list[float], present: tuple[int, ...] = (0, 1, 2)) -> list[list[float]]:
    """The weights of each step, one after the other."""
    answers = []
    for row in rows:
        seen = Observation(TASKS, present, torch.tensor(row, dtype=torch.float64))
        answers.append(balancer.decide(seen).tolist())
        balancer.update(seen)
    return answers


def softmax(values: list[float]) -> list[float]:
    largest = max(values)
    powers = [math.exp(value - largest) for value in values]
    return [power / sum(powers) for power in powers]


# -- ReLoBRaLo

LOSSES = [[4.0, 1.0, 2.0], [2.0, 1.0, 3.0], [1.0, 0.5, 3.0], [0.5, 0.6, 1.0], [0.4, 0.1, 0.5]]


@pytest.mark.parametrize("memory", [1.0, 0.0, 0.5])
def test_relobralo_is_the_released_recursion(memory: float) -> None:
    alpha, temperature = 0.9, 0.5
    signs = torch.Generator().manual_seed(3)
    expected, scales = [], [1.0, 1.0, 1.0]
    for step, losses in enumerate(LOSSES):
        rho = float(torch.rand((), generator=signs) < memory)
        if step:
            now = [
                3 * w for w in softmax([new / (old * temperature) for new, old in zip(losses, LOSSES[step - 1], strict=True)])
            ]
            start = [3 * w for w in softmax([new / (old * temperature) for new, old in zip(losses, LOSSES[0], strict=True)])]
            a = alpha if step > 1 else 0.0  # its schedule: 1 in the first step, 0 in the second
            scales = [rho * a * s + (1 - rho) * a * o + (1 - a) * n for s, o, n in zip(scales, start, now, strict=True)]
        expected.append(scales)
    found = run(eq.ReLoBRaLo(alpha, temperature, memory, seed=3), *LOSSES)
    assert found == [pytest.approx(row) for row in expected]


def test_relobralo_with_absent_tasks_and_losses_of_zero() -> None:
    balancer = eq.ReLoBRaLo(alpha=0.5)
    run(balancer, [1.0, 0.0, 1.0], [0.5, 0.0, 1.0])
    assert balancer.averages is not None
    before = balancer.averages.clone()
    run(balancer, [0.5, 0.0], present=(0, 1))
    assert balancer.averages[2] == before[2]
    assert balancer.last is not None
    assert balancer.last.tolist() == [0.5, 0.0, 1.0]
    fresh = eq.ReLoBRaLo()
    run(fresh, [1.0, 1.0], [1.0, 1.0], present=(0, 1))
    assert run(fresh, [1.0, 1.0, 5.0])[0] == pytest.approx([1.0, 1.0, 1.0])  # the third is new and stands still
    now = [3 * weight for weight in softmax([1.0, 1.0, 0.5])]
    expected = [0.999 + 0.001 * now[0], 0.999 + 0.001 * now[1], now[2]]  # it has no average yet
    assert run(fresh, [1.0, 1.0, 2.5])[0] == pytest.approx(expected)


# -- SoftAdapt

HISTORY = [[1.0, 150.0, 1500.0, 10.0], [2, 100, 1000, 20], [3, 50, 500, 30], [4, 10, 100, 40], [5, 0.1, 1, 50]]
# What the README of github.com/dr-aheydari/SoftAdapt prints for these losses, with β = 0.1.
PRINTED = {
    "original": ([9.9343e-01, 6.5666e-03, 3.8908e-22], [2.8850e-01, 1.9070e-03, 1.1299e-22, 7.0959e-01]),
    "normalized": ([0.3221, 0.3251, 0.3528], [0.2436, 0.2459, 0.2673, 0.2432]),
    "loss-weighted": ([8.7978e-01, 1.2022e-01, 7.1234e-20], [3.8861e-02, 5.3104e-03, 3.1465e-21, 9.5583e-01]),
}


@pytest.mark.parametrize("variant", PRINTED)
def test_softadapt_gives_the_numbers_of_the_released_code(variant: str) -> None:
    for printed in PRINTED[variant]:
        balancer = eq.SoftAdapt(beta=0.1, variant=variant, order=4)  # type: ignore[arg-type]
        for row in HISTORY:
            seen = Observation.of_all(row[: len(printed)])
            weights = balancer.decide(seen)
            balancer.update(seen)
        assert weights.tolist() == pytest.approx(printed, rel=2e-4)


def test_softadapt_takes_the_slope_of_polynomials_exactly() -> None:
    """At the first of the points, of every order, and with as many points as there are at the beginning."""
    balancer = eq.SoftAdapt(beta=1.0, order=3)
    curves = [lambda t: 1 + 2 * t, lambda t: t**2 - t, lambda t: 3 - t**3 + t / 2]
    found = run(balancer, *[[curve(t) for curve in curves] for t in range(6)])
    assert found[0] == pytest.approx([1 / 3] * 3)
    assert found[1] == pytest.approx(softmax([2.0, 0.0, -0.5]))
    for t in (3, 4, 5):
        first = t - 3
        assert found[t] == pytest.approx(softmax([2.0, 2 * first - 1, 0.5 - 3 * first**2]))


def test_softadapt_remembers_absent_tasks_and_finds_an_answer_without_any_loss() -> None:
    balancer = eq.SoftAdapt(beta=1.0)
    run(balancer, [1.0, 2.0, 3.0])
    run(balancer, [5.0], present=(1,))
    assert run(balancer, [1.0, 6.0, 3.5])[0] == pytest.approx(softmax([0.0, 1.0, 0.5]))
    assert run(eq.SoftAdapt(variant="loss-weighted"), [0.0, 0.0, 0.0])[0] == pytest.approx([1 / 3] * 3)
    assert run(eq.SoftAdapt(variant="normalized"), [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])[1] == pytest.approx([1 / 3] * 3)


def test_softadapt_refuses_a_history_of_another_order() -> None:
    balancer = eq.SoftAdapt(order=2)
    run(balancer, [1.0, 2.0, 3.0])
    with pytest.raises(eq.InputError, match="history"):
        eq.SoftAdapt(order=3).load_state_dict(balancer.state_dict())


# -- IGB


def test_igb_is_a_softmax_relative_to_an_early_epoch_times_the_slope_of_logarithms() -> None:
    balancer = eq.IGB(epsilon=0.0)
    for epoch in ([9.0, 9.0, 9.0], [2.0, 1.0, 4.0]):
        assert run(balancer, *[[loss + wiggle for loss in epoch] for wiggle in (-0.5, 0.5)])[1] == pytest.approx(
            [1 / (loss + 0.5) for loss in epoch]
        )
        balancer.end_epoch()
    expected = [3 * weight / loss for weight, loss in zip(softmax([0.5, 1.5, 0.25]), (1.0, 1.5, 1.0), strict=True)]
    for _ in range(3):
        assert run(balancer, [1.0, 1.5, 1.0])[0] == pytest.approx(expected)
        balancer.end_epoch()  # the base stays
    with pytest.raises(eq.NonFiniteError, match="a"):
        eq.MultiTaskOptimizer(
            eq.Objective(line := nn.Linear(1, 1), lambda m, x: {"a": m(x).sum() * 0 - 1}),
            torch.optim.SGD(line.parameters(), 0.1),
            "igb",
        ).step(torch.ones(1, 1))


# -- learning-rate annealing


@pytest.mark.parametrize(("statistic", "weighted"), [("max", True), ("mean", False)])
def test_annealing_is_the_released_recursion(statistic: str, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    balancer = eq.LRAnnealing("b", alpha=0.25, every=2, statistic=statistic, weighted=weighted)  # type: ignore[arg-type]
    scales = [1.0, 1.0, 1.0]
    for step in range(6):
        g = torch.randn(3, 5, generator=generator, dtype=torch.float64) * torch.tensor([[1e-3], [10.0], [1.0]])
        if step % 2 == 0:
            size = max(g[1].abs().tolist()) if statistic == "max" else sum(g[1].abs().tolist()) / 5
            for k in (0, 2):
                mean = sum(abs(x * (scales[k] if weighted else 1.0)) for x in g[k].tolist()) / 5
                scales[k] = 0.75 * scales[k] + 0.25 * size / mean
        seen = Observation(TASKS, (0, 1, 2), gradients=g)
        torch.testing.assert_close(balancer.decide(seen), torch.tensor(scales, dtype=torch.float64) @ g)
        balancer.update(seen)


def test_annealing_does_not_care_for_the_units_of_a_condition() -> None:
    g = torch.tensor([[3.0, 1.0], [0.5, -0.25]], dtype=torch.float64)
    balancer = eq.LRAnnealing(alpha=1.0, weighted=False)
    here = balancer.direction(g)
    torch.testing.assert_close(eq.LRAnnealing(alpha=1.0, weighted=False).direction(g * torch.tensor([[1.0], [1e9]])), here)


def test_annealing_keeps_what_it_has_where_there_is_nothing_to_see() -> None:
    balancer = eq.LRAnnealing(alpha=1.0, every=1)
    g = torch.tensor([[4.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    for present in ((0, 1, 2), (1, 2), (0, 2)):
        seen = Observation(TASKS, present, gradients=g[list(present)])
        direction = balancer.decide(seen)
        balancer.update(seen)
        assert balancer.scales is not None
        assert balancer.scales.tolist() == [1.0, 4.0, 1.0], present
    assert direction.tolist() == [4.0, 0.0]
    with pytest.raises(eq.InputError, match='reference names a task "d"'):
        eq.LRAnnealing("d").decide(seen)
    with pytest.raises(eq.InputError, match="task 3"):
        eq.LRAnnealing(3).decide(seen)


# -- residuals and the kernel


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()


def derivative(model: nn.Module, points: Tensor) -> Tensor:
    """∂u/∂x at the points, differentiably."""
    points = points.requires_grad_(True)
    (slope,) = torch.autograd.grad(model(points).sum(), points, create_graph=True)
    return slope[:, 0]


def test_the_trace_is_the_sum_of_squared_gradients_of_single_residuals() -> None:
    model, points = network(), torch.rand(70, 2, dtype=torch.float64)  # more than go at once
    parameters, weights = list(model.parameters()), torch.rand(70, dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    for point, weight in zip(points, weights, strict=True):
        row = torch.autograd.grad(derivative(model, point[None]).sum(), parameters, allow_unused=True)
        expected += weight * sum(part.square().sum() for part in row if part is not None)
    residuals = Residuals(derivative(model, points), weights)
    torch.testing.assert_close(kernel_trace(residuals, parameters), expected)
    # Hutchinson's estimate: the mean of many is near, as near as its standard deviation says, and few differ by chance.
    jacobian = (
        torch.stack(
            [
                torch.cat(
                    [part.flatten() for part in torch.autograd.grad(r, parameters, retain_graph=True, materialize_grads=True)]
                )
                for r in residuals.values
            ]
        )
        * weights.sqrt()[:, None]
    )
    kernel = jacobian @ jacobian.T
    deviation = math.sqrt(2 * float((kernel - kernel.diag().diag()).square().sum()) / 2000)
    estimate = kernel_trace(residuals, parameters, 2000, torch.Generator().manual_seed(0))
    assert abs(float(estimate - expected)) < 4 * deviation < 0.2 * float(expected)


def test_a_loss_remembers_its_residuals_behind_sums_casts_and_factors() -> None:
    model = network()
    first, second = model(torch.rand(4, 2).double()), model(torch.rand(3, 2).double())
    loss = 3 * mean_square(first).float() + mean_square(second, torch.tensor(2.0)) / 2
    assert {id(part.values) for part in residuals_of(loss)} == {id(first), id(second)}
    assert residuals_of(first.square().mean()) == []
    torch.testing.assert_close(mean_square(second, torch.tensor(2.0)), 2 * second.square().mean())
    for bad in (torch.zeros(0), torch.zeros(2, dtype=torch.complex64)):
        with pytest.raises(eq.InputError):
            mean_square(bad)


def physics(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
    inside, border = points[:6].clone(), points[6:]
    return {
        "residual": mean_square(10 * derivative(model, inside)),
        "border": mean_square(model(border)) + mean_square(model(border + 1)),
    }


def test_ntk_weights_are_the_ratios_of_the_traces() -> None:
    points, model = torch.rand(10, 2, dtype=torch.float64), network()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, physics), torch.optim.SGD(model.parameters(), 1e-3), eq.NTK(every=2))
    parameters = list(model.parameters())

    def traces() -> list[float]:
        found = []
        for residuals in (10 * derivative(model, points[:6].clone()), torch.cat([model(points[6:]), model(points[6:] + 1)])):
            rows = [torch.autograd.grad(r, parameters, retain_graph=True, allow_unused=True) for r in residuals.flatten()]
            found.append(sum(float(part.square().sum()) for row in rows for part in row if part is not None))
        return found

    for step in range(3):
        if step % 2 == 0:
            known = traces()
        mtl.step(points)
        assert mtl.last is not None
        assert mtl.last.weights is not None
        assert mtl.last.weights.tolist() == pytest.approx([sum(known) / trace for trace in known])
    state = mtl.state_dict()
    again = eq.MultiTaskOptimizer(eq.Objective(model, physics), torch.optim.SGD(model.parameters(), 1e-3), eq.NTK(every=2))
    again.load_state_dict(state)
    again.step(points)  # not due: it goes on with the traces of the state
    assert again.last is not None
    assert again.last.weights is not None
    assert again.last.weights.tolist() == mtl.last.weights.tolist()


def test_ntk_of_losses_that_tell_no_residuals() -> None:
    points, model = torch.rand(10, 2, dtype=torch.float64), network()

    def plain(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
        return {"first": model(points).square().mean(), "second": 100 * (model(points) - 1).square().mean()}

    expected = []
    for loss in plain(model, points).values():
        row = torch.autograd.grad(loss.sqrt(), list(model.parameters()))
        expected.append(sum(float(part.square().sum()) for part in row))
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, plain), torch.optim.SGD(model.parameters(), 1e-3), "ntk")
    mtl.step(points)
    assert mtl.last is not None
    assert mtl.last.weights is not None
    assert mtl.last.weights.tolist() == pytest.approx([sum(expected) / trace for trace in expected])
    mixed = eq.Objective(model, lambda m, x: {**plain(m, x), "third": mean_square(m(x))})
    with pytest.raises(eq.InputError, match="not of first, second; make all of them by"):
        eq.MultiTaskOptimizer(mixed, torch.optim.SGD(model.parameters(), 1e-3), "ntk").step(points)
    with pytest.raises(eq.InputError, match="MultiTaskOptimizer"):
        eq.backward(plain(model, points), eq.NTK(), model)


# -- self-adaptive points


class Adaptive(nn.Module):
    """A network with weights for its six points inside."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.points = SelfAdaptivePoints(6, start=torch.linspace(1, 2, 6), mask=torch.sigmoid).double()

    def forward(self, points: Tensor) -> Tensor:
        out: Tensor = self.net(points)
        return out


def adaptive(model: Adaptive, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    points, rows = batch
    return {"residual": model.points(derivative(model, points[rows].clone()), rows), "border": mean_square(model(points[6:]))}


@pytest.mark.parametrize("method", ["ls", "mgda", "ntk"])
def test_points_go_up_while_the_network_goes_down(method: str) -> None:
    model, points, rows = Adaptive(), torch.rand(10, 2, dtype=torch.float64), torch.tensor([4, 1])
    before = model.points.scales.detach().clone()
    slope = torch.sigmoid(before) * (1 - torch.sigmoid(before))
    expected = before.clone()
    expected[rows] += 0.5 * slope[rows] * derivative(model, points[rows].clone()).detach().square() / 2
    groups = [{"params": list(model.net.parameters())}, model.points.ascent(lr=0.5)]
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, adaptive), torch.optim.SGD(groups, 1e-2), method)
    mtl.step((points, rows))
    found = model.points.scales.detach()
    if method == "ntk":  # a balancer of losses weighs λ's gradient, too
        assert mtl.last is not None
        assert mtl.last.weights is not None
        expected = before + mtl.last.weights[0] * (expected - before)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found[[0, 2, 3, 5]], before[[0, 2, 3, 5]])
    again = Adaptive()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.points.scales, found)


def test_points_that_do_not_fit() -> None:
    with pytest.raises(eq.InputError, match="at least 1"):
        SelfAdaptivePoints(0)
    with pytest.raises(eq.InputError, match=r"each of 3 points; got the shape \[2\]"):
        SelfAdaptivePoints(3, start=[1.0, 2.0])
    with pytest.raises(eq.InputError, match="at least 0"):
        SelfAdaptivePoints(3, start=-1.0)
    with pytest.raises(eq.InputError, match=r"\[3, …\]; got \[2\], and no positions"):
        SelfAdaptivePoints(3)(torch.zeros(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: eq.IGB(base_epoch=-1), "base_epoch"),
        (lambda: eq.IGB(steps_per_epoch=0), "steps_per_epoch"),
        (lambda: eq.ReLoBRaLo(alpha=1.5), "alpha"),
        (lambda: eq.ReLoBRaLo(temperature=0.0), "temperature"),
        (lambda: eq.SoftAdapt(beta=math.nan), "beta"),
        (lambda: eq.SoftAdapt(variant="other"), "variant"),  # type: ignore[arg-type]
        (lambda: eq.SoftAdapt(order=0), "order"),
        (lambda: eq.LRAnnealing(-1), "reference"),
        (lambda: eq.LRAnnealing(alpha=2.0), "alpha"),
        (lambda: eq.LRAnnealing(every=0), "every"),
        (lambda: eq.LRAnnealing(statistic="median"), "statistic"),  # type: ignore[arg-type]
        (lambda: eq.NTK(every=0), "every"),
        (lambda: eq.NTK(probes=-1), "probes"),
    ],
)
def test_options_out_of_range(make: object, message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        make()  # type: ignore[operator]
