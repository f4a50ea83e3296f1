"""SAMO against the released code's steps, written out by hand with plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import equipoise as eq
from tests.problems import Heads, batch, losses, optimizer_of


def by_hand(model: Heads, data: Any, rho: float, alpha: float, radius: float, seed: int) -> tuple[Tensor, list[Tensor]]:
    """Task gradients of the encoder at the points of the tasks ``[K, P]``, and those of the heads' weights."""
    named = dict(model.named_parameters())
    shared = [name for name in named if name.startswith("encoder")]
    values = losses(model, data)
    means = dict(zip(named, torch.autograd.grad(sum(values.values()) / 3, list(named.values())), strict=True))
    generator = torch.Generator().manual_seed(seed)
    rows, heads = [], []

    def at(point: dict[str, Tensor], task: int) -> Tensor:
        def play(*_: Any) -> Tensor:
            return losses(model, data)[f"t{task}"]

        before = {name: parameter.detach().clone() for name, parameter in named.items()}
        with torch.no_grad():
            for name, value in point.items():
                named[name].copy_(value)
        value = play()
        found = torch.autograd.grad(value, [named[name] for name in [*shared, f"heads.{task}.weight"]])
        with torch.no_grad():
            for name, value_before in before.items():
                named[name].copy_(value_before)
        rows.append(torch.cat([part.flatten() for part in found[:-1]]))
        heads.append(found[-1])
        return value.detach()

    for task in range(3):
        z = {name: torch.randn(named[name].shape, generator=generator) for name in shared}
        sides = []
        for sign in (1, -1):
            sides.append(at({name: named[name].detach() + sign * radius * z[name] for name in shared}, task))
            rows.pop(), heads.pop()
        slope = (sides[0] - sides[1]) / (2 * radius)
        mixed = {}
        for name in shared:
            estimate = slope * z[name]
            mixed[name] = alpha * means[name] + (1 - alpha) * means[name].norm() * estimate / estimate.norm()
        length = torch.cat([part.flatten() for part in mixed.values()]).norm()
        own = [name for name in named if name.startswith(f"heads.{task}.")]
        own_length = torch.cat([means[name].flatten() for name in own]).norm()
        point = {name: named[name].detach() + rho * mixed[name] / length for name in shared}
        at(point | {name: named[name].detach() + rho * means[name] / own_length for name in own}, task)
    return torch.stack(rows), heads


def test_one_step_by_hand() -> None:
    for alpha, micro_batches in ((0.5, 1), (0.0, 1), (0.3, 2)):
        torch.manual_seed(3)
        model, data = Heads(), batch()
        rows, heads = by_hand(model, data, rho=0.2, alpha=alpha, radius=0.05, seed=7)
        mtl = optimizer_of(eq.SAMO("cagrad", rho=0.2, alpha=alpha, radius=0.05, seed=7), model, lr=0.0)
        before = {name: value.detach() for name, value in losses(model, data).items()}
        parts = [tuple(part.chunk(micro_batches)[place] for part in data) for place in range(micro_batches)]
        found = mtl.step(*parts)
        expected = eq.CAGrad().weights(rows @ rows.T) @ rows
        assert torch.allclose(torch.cat([p.grad.flatten() for p in model.encoder.parameters()]), expected, rtol=1e-3, atol=1e-5)
        for task, head in enumerate(heads):
            assert torch.allclose(model.heads[task].weight.grad, head, rtol=1e-3, atol=1e-5)
            assert torch.allclose(found[f"t{task}"], before[f"t{task}"]), "the losses told are those at θ"
        plain = optimizer_of("cagrad", model, lr=0.0)
        plain.step(data)
        assert not torch.allclose(plain.last.gramian, mtl.last.gramian, rtol=1e-2)


def test_without_a_step_away_it_is_the_other_method() -> None:
    """To the last bit of the losses and random numbers, with dropout and batch norm, whose statistics move once."""
    trained = []
    for balancer in ("fairgrad", eq.SAMO(rho=0.0)):
        torch.manual_seed(0)
        model = Heads(dropout=0.3, norm=True)
        mtl = optimizer_of(balancer, model, lr=0.01)
        for seed in range(3):
            mtl.step(batch(seed=seed))
        trained.append((torch.cat([value.flatten().float() for value in model.state_dict().values()]), torch.rand(2)))
    assert torch.allclose(trained[0][0], trained[1][0], rtol=1e-5)
    assert torch.equal(trained[0][1], trained[1][1])


def test_the_points_are_where_the_losses_are_larger() -> None:
    torch.manual_seed(1)
    model, data = Heads(), batch()
    seen: list[dict[str, float]] = []

    class Watching(eq.FairGrad):
        def decide(self, observation: Any) -> Tensor:
            seen.append(dict(zip(observation.tasks, observation.losses.tolist(), strict=True)))
            return super().decide(observation)

    mtl = optimizer_of(eq.SAMO(Watching(), rho=0.05), model, lr=0.0)
    here = mtl.step(data)
    assert sum(seen[0][name] > float(here[name]) for name in here) == 3


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: eq.SAMO("samo"), "looks at the Gramian alone"),
        (lambda: eq.SAMO("famo"), "looks at the Gramian alone"),
        (lambda: eq.SAMO(alpha=1.5), r"alpha must be from 0 to 1; got 1\.5"),
        (lambda: optimizer_of(eq.SAMO(), features="encoder").step(batch()), "leave features= out"),
        (lambda: optimizer_of(eq.SAMO(), proxy="last"), "gradients that proxy= does not form"),
        (lambda: eq.backward(losses(Heads(), batch()), eq.SAMO()), "use MultiTaskOptimizer"),
        (lambda: eq.balanced_loss(losses(Heads(), batch()), eq.SAMO()), "does not form|use MultiTaskOptimizer"),
        (
            lambda: eq.MultiTaskOptimizer(
                eq.Objective(model := Heads(), losses, fixed={"l2": 1.0}), torch.optim.SGD(model.parameters()), eq.SAMO()
            ),
            "losses with fixed weights",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(act: Callable[[], object], message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        act()


def test_callables_and_missing_tasks() -> None:
    """Losses that are evaluated when their turn comes, of which a batch lacks one."""

    def lazily(model: Heads, data: Any) -> dict[str, Any]:
        inputs, aims, names = data
        made = losses(model, (inputs, aims))
        return {name: (lambda value=made[name]: value) if name == "t0" else made[name] for name in names}

    torch.manual_seed(2)
    model = Heads()
    objective = eq.Objective(model, lazily, tasks=["t0", "t1", "t2"])
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 0.01), eq.SAMO(rho=0.05))
    assert list(mtl.step((*batch(), ["t0", "t1", "t2"]))) == ["t0", "t1", "t2"]
    assert list(mtl.step((*batch(), ["t0", "t2"]))) == ["t0", "t2"]
    assert list(mtl.step((*batch(), ["t1"]), (*batch(seed=1), ["t0", "t1"]))) == ["t0", "t1"]
    with pytest.warns(UserWarning, match="held no task's loss"):
        assert mtl.step((*batch(), [])) == {}


def test_what_is_not_finite_changes_nothing_and_names_the_task() -> None:
    def spoiled(model: Heads, data: Any) -> dict[str, Tensor]:
        made = losses(model, data[:2])
        return made | {"t1": made["t1"] * data[2]}

    torch.manual_seed(0)
    model = Heads(dropout=0.2)
    objective = eq.Objective(model, spoiled)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 0.01), eq.SAMO("nash-mtl"))
    mtl.step((*batch(), 1.0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator, random = mtl.balancer.generator.get_state(), torch.get_rng_state()
    with pytest.raises(eq.NonFiniteError, match='of task "t1" is not finite'):
        mtl.step((*batch(), float("nan")))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert torch.equal(generator, mtl.balancer.generator.get_state())
    assert torch.equal(random, torch.get_rng_state())
