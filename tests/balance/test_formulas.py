"""Each method against its paper's formula, written out by hand."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import equipoise as eq
from equipoise.balance import Observation
from equipoise.balance.vector_adam import vector_adam, vector_adam_state

TASKS = ("a", "b", "c")


def seen(losses: list[float], present: tuple[int, ...] = (0, 1, 2)) -> Observation:
    return Observation(TASKS, present, torch.tensor(losses, dtype=torch.float64))


def gramian_of(*rows: list[float]) -> torch.Tensor:
    g = torch.tensor(rows, dtype=torch.float64)
    return g @ g.T


def test_fixed_weights_by_order_and_by_name() -> None:
    for given in ([1.0, 2.0, 0.5], {"c": 0.5, "a": 1.0, "b": 2.0}):
        balancer = eq.LS(given)
        assert balancer.decide(seen([1, 1, 1])).tolist() == [1.0, 2.0, 0.5]
        assert balancer.decide(seen([1, 1], (0, 2))).tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0, 1.0], "at least 0"),
        ([1.0, math.inf, 1.0], "finite"),
        ([1.0, 2.0], "weights has 2 numbers for 3 tasks"),
        ({"a": 1.0, "b": 1.0, "d": 1.0}, 'weights names a task "d"'),
        ({"a": 1.0, "b": 1.0}, "weights lacks c"),
    ],
)
def test_fixed_weights_that_do_not_fit(weights: object, message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        eq.LS(weights).decide(seen([1, 1, 1]))  # type: ignore[arg-type]


def test_scale_invariance() -> None:
    """The gradient of Σ log ℓ does not change when a loss is measured in other units."""
    balancer = eq.SI(epsilon=0.0)
    losses = torch.tensor([0.5, 20.0])
    units = torch.tensor([1000.0, 0.01])
    assert torch.allclose(balancer.weights(losses * units) * units, balancer.weights(losses))


def test_random_weights_are_a_seeded_softmax_of_normals() -> None:
    generator = torch.Generator().manual_seed(7)
    balancer = eq.RLW(seed=7)
    for _ in range(3):
        assert torch.equal(balancer.decide(seen([1, 1, 1])), torch.softmax(torch.randn(3, generator=generator), 0))
    mean = torch.stack([balancer.decide(seen([1, 1, 1])) for _ in range(4000)]).mean(0)
    assert torch.allclose(mean, torch.full((3,), 1 / 3), atol=0.02)


def test_dynamic_weight_average() -> None:
    balancer = eq.DWA(temperature=2.0)
    for epoch in ([4.0, 1.0, 2.0], [2.0, 1.0, 3.0]):
        for wiggle in (-0.5, 0.5):
            assert balancer.decide(seen([1, 1, 1])).tolist() == [1, 1, 1]
            balancer.update(seen([loss + wiggle for loss in epoch]))
        balancer.end_epoch()
    expected = [math.exp(r / 2.0) for r in (0.5, 1.0, 1.5)]
    expected = [3 * e / sum(expected) for e in expected]
    assert balancer.decide(seen([1, 1, 1])).tolist() == pytest.approx(expected)


def test_dynamic_weight_average_by_steps_and_with_absent_tasks() -> None:
    balancer = eq.DWA(steps_per_epoch=1)
    balancer.update(seen([4.0, 1.0, 2.0]))
    balancer.update(seen([2.0, 4.0], (0, 2)))
    # b was absent in the second epoch: its last mean stays, so its ratio is 1.
    expected = torch.softmax(torch.tensor([0.5, 1.0, 2.0]) / 2.0, 0) * 3
    assert torch.allclose(balancer.decide(seen([1, 1, 1])).float(), expected)
    balancer.end_epoch()
    assert torch.allclose(balancer.decide(seen([1, 1, 1])).float(), expected)


def test_dynamic_weight_average_says_when_no_epoch_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.balance.per_task._PATIENCE", 3)
    balancer = eq.DWA()
    balancer.update(seen([1, 1, 1]))
    balancer.update(seen([1, 1, 1]))
    with pytest.warns(UserWarning, match=r"call mtl\.end_epoch"):
        balancer.update(seen([1, 1, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        balancer.update(seen([1, 1, 1]))


def test_uncertainty_weighting_is_the_gradient_of_its_objective() -> None:
    balancer = eq.UW(lr=0.1)
    reference = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([reference], lr=0.1)
    for step in range(20):
        losses = torch.tensor([4.0, 1.0, 0.1 + step / 10], dtype=torch.float64, requires_grad=True)
        objective = (0.5 * (-reference).exp() * losses + 0.5 * reference).sum()
        adam.zero_grad()
        objective.backward()
        assert torch.allclose(balancer.decide(seen(losses.tolist())).double(), losses.grad)
        adam.step()
        balancer.update(seen(losses.tolist()))
        assert torch.allclose(balancer.log_variances, reference.detach())


def test_uncertainty_weighting_settles_at_the_reciprocal_loss() -> None:
    balancer = eq.UW(lr=0.05)
    for _ in range(2000):
        balancer.decide(seen([4.0, 1.0, 0.1]))
        balancer.update(seen([4.0, 1.0, 0.1]))
    assert balancer.decide(seen([1, 1, 1])).tolist() == pytest.approx([1 / 8, 1 / 2, 5.0], rel=1e-3)


def test_famo_follows_the_gradient_of_its_dual() -> None:
    """ξ descends on −Σ softmax(ξ)_k·(log ℓ_k before − after)… with the falls held fixed, plus the decay."""
    balancer = eq.FAMO(lr=0.1, weight_decay=0.01, epsilon=0.0)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.1, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        before, after = 0.1 + torch.rand(2, 3, generator=generator, dtype=torch.float64)
        shares = torch.softmax(logits.detach(), 0)
        weights = shares / before / (shares / before).sum()
        assert torch.allclose(balancer.decide(seen(before.tolist())), weights)
        adam.zero_grad()
        (torch.softmax(logits, 0) * (before.log() - after.log())).sum().backward()
        adam.step()
        balancer.observe(before, after, (0, 1, 2))
        assert torch.allclose(balancer.logits, logits.detach())


def test_famo_gives_more_to_tasks_that_fall_too_slowly() -> None:
    balancer = eq.FAMO()
    balancer.decide(seen([1.0, 1.0, 1.0]))
    balancer.observe(torch.ones(3), torch.tensor([0.5, 0.9, 0.99]), (0, 1, 2))
    weights = balancer.decide(seen([1.0, 1.0, 1.0])).tolist()
    assert weights[0] < weights[1] < weights[2]


def test_famo_learns_nothing_from_a_step_that_blew_up() -> None:
    balancer = eq.FAMO()
    balancer.decide(seen([1.0, 1.0, 1.0]))
    balancer.observe(torch.ones(3), torch.tensor([0.5, math.nan, 1.0]), (0, 1, 2))
    assert balancer.logits.tolist() == [0, 0, 0]


def test_vector_adam_is_adam_on_what_is_present() -> None:
    values = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    state = vector_adam_state(values)
    alone = values[:2].clone().requires_grad_()
    adam = torch.optim.Adam([alone], lr=0.1, weight_decay=0.02)
    for step in range(10):
        gradient = torch.tensor([step - 3.0, 0.5], dtype=torch.float64)
        alone.grad = gradient.clone()
        adam.step()
        values, state = vector_adam(
            values, gradient, state, torch.tensor([0, 1]), lr=0.1, weight_decay=0.02
        )  # fmt: skip
        assert torch.allclose(values[:2], alone.detach())
    assert values[2] == 3.0
    assert state[:, 2].tolist() == [0, 0, 0]


def test_cagrad_maximises_the_worst_improvement_in_its_ball() -> None:
    gramian = gramian_of([2.0, 0.0], [-1.0, 1.0])
    rows = torch.tensor([[2.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    mean = rows.mean(0)
    direction = eq.CAGrad(c=0.5).weights(gramian) @ rows
    assert (direction - mean).norm() <= 0.5 * mean.norm() * (1 + 1e-9)
    best = float((rows @ direction).min())
    for angle in torch.linspace(0, 2 * math.pi, 2000, dtype=torch.float64):
        other = mean + 0.5 * mean.norm() * torch.stack([angle.cos(), angle.sin()])
        assert float((rows @ other).min()) <= best + 1e-9
    rescaled = eq.CAGrad(c=0.5, rescale=True).weights(gramian)
    assert torch.allclose(rescaled * 1.25, eq.CAGrad(c=0.5).weights(gramian))


def test_pcgrad_of_two_tasks() -> None:
    rows = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    first = rows[0] - (rows[0] @ rows[1]) / (rows[1] @ rows[1]) * rows[1]
    second = rows[1] - (rows[0] @ rows[1]) / (rows[0] @ rows[0]) * rows[0]
    assert torch.allclose(eq.PCGrad().weights(rows @ rows.T) @ rows, first + second)
    assert torch.allclose(eq.PCGrad().weights(torch.eye(2)), torch.ones(2))


@pytest.mark.parametrize("method", ["nash-mtl", "fairgrad", "cagrad", "pcgrad", "graddrop"])
def test_the_shared_direction_can_be_clipped(method: str) -> None:
    """As torch clips gradients, and not where the direction is short enough."""
    rows = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.2], [-0.5, 0.0, 0.1]], dtype=torch.float64)

    def direction(**options: float) -> torch.Tensor:
        made = eq.balancer(method, **options)
        return made.direction(rows) if method == "graddrop" else made.weights(rows @ rows.T) @ rows

    free = direction()
    held = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    held.grad = free.clone()
    torch.nn.utils.clip_grad_norm_([held], 0.5)
    assert free.norm() > 0.5
    assert torch.allclose(direction(max_norm=0.5), held.grad, rtol=1e-4)
    assert torch.equal(direction(max_norm=1e6), free)
    with pytest.raises(eq.InputError, match=r"max_norm must be positive; got 0\.0"):
        eq.balancer(method, max_norm=0.0)


def test_options_out_of_range() -> None:
    cases = [
        ("si", {"epsilon": -1.0}, "epsilon"),
        ("dwa", {"temperature": 0.0}, "temperature must be positive; got 0.0"),
        ("dwa", {"steps_per_epoch": 0}, "steps_per_epoch"),
        ("uw", {"lr": -1.0}, "lr"),
        ("famo", {"weight_decay": -0.1}, "weight_decay must be at least 0; got -0.1"),
        ("cagrad", {"c": -0.1}, "c must be finite and at least 0"),
        ("cagrad", {"c": math.nan}, "c must be finite"),
        ("fairgrad", {"alpha": 0.0}, "alpha must be positive"),
        ("nash-mtl", {"update_every": 0}, "update_every"),
    ]
    for name, options, message in cases:
        with pytest.raises(eq.InputError, match=message):
            eq.balancer(name, **options)
