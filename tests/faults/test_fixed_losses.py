"""Losses with fixed weights beside the balanced ones: λ times their gradient, whatever the method, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import equipoise as eq
from equipoise.bilevel.weighting import TaskWeighting
from tests.states import assert_same_state, kept

TASKS = ("near", "far")
FIXED = {"decay": 0.3, "other": -2.0}
NAMES = [info.name for info in eq.methods() if info.name != "bayesagg-mtl"]


class Model(nn.Module):
    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in TASKS})
        self.alone = nn.Parameter(torch.tensor([1.0, -2.0]))  # which the fixed losses alone reach


def model_of(*, norm: bool = False) -> Model:
    torch.manual_seed(0)
    return Model(norm=norm).double()


def batch(seed: int = 0) -> Tensor:
    return torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def balanced(model: Any, batch: Tensor) -> dict[str, Tensor]:
    z = model.norm(model.encoder(batch).tanh())
    return {name: (model.heads[name](z) - k).square().mean() for k, name in enumerate(TASKS, 1)}


def beside(model: Any, batch: Tensor) -> dict[str, Tensor]:
    """One reaches everything, heads included; one the encoder and what nobody else reaches."""
    decay = sum((parameter.square().sum() for parameter in model.parameters()), torch.zeros(()))
    return {"decay": decay, "other": model.encoder(batch).square().mean() * model.alone.sum()}


def losses(model: Any, batch: Tensor) -> dict[str, Tensor]:
    return {**balanced(model, batch), **beside(model, batch)}


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def plain(model: Model, batches: list[Tensor]) -> dict[str, Tensor]:
    """Σ λ ∇ℓ by autograd, averaged over the micro-batches."""
    total = torch.zeros((), dtype=torch.float64)
    for each in batches:
        found = beside(model, each)
        total = total + sum(FIXED[name] * loss for name, loss in found.items()) / len(batches)
    parameters = dict(model.named_parameters())
    return dict(zip(parameters, torch.autograd.grad(total, list(parameters.values()), allow_unused=True), strict=True))


def optimizer_of(name: str, model: Model, function: Callable[..., Any], fixed: dict[str, float] | None, **options: Any) -> Any:
    own = {"features": "encoder", "heads": {task: f"heads.{task}" for task in TASKS}} if name == "rotograd" else {}
    objective = eq.Objective(model, function, fixed=fixed)
    return eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 0.0), eq.balancer(name, **own), **options)


def rotated(model: Any, batch: Tensor) -> dict[str, Tensor]:
    z = model.encoder(batch)
    return {name: (model.heads[name](z) - k).square().mean() for k, name in enumerate(TASKS, 1)}


def rotated_and_fixed(model: Any, batch: Tensor) -> dict[str, Tensor]:
    """From one evaluation of the features, which is what RotoGrad asks for."""
    z = model.encoder(batch)
    found = {name: (model.heads[name](z) - k).square().mean() for k, name in enumerate(TASKS, 1)}
    decay = sum((parameter.square().sum() for parameter in model.parameters()), torch.zeros(()))
    return {**found, "decay": decay, "other": z.square().mean() * model.alone.sum()}


@pytest.mark.parametrize("count", [1, 2], ids=["one batch", "micro-batches"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "samo"])  # which refuses fixed losses
def test_every_method_has_its_gradients_and_those_of_the_fixed_losses(name: str, count: int) -> None:
    if name == "rotograd" and count > 1:
        pytest.skip("takes one batch per step")
    tasks, function = (rotated, rotated_and_fixed) if name == "rotograd" else (balanced, losses)
    further = {"further": tuple(batch(9 + place) for place in range(2 * count))} if name in ("modo", "sdmgrad") else {}
    batches = [batch(place) for place in range(count)]
    without, with_fixed = model_of(), model_of()
    expected, found = (optimizer_of(name, without, tasks, None), optimizer_of(name, with_fixed, function, FIXED))
    for _ in range(2):
        returned = expected.step(*batches, **further)
        got = found.step(*batches, **further)
        added = plain(with_fixed, batches)
        own = gradients(without)
        for parameter, gradient in gradients(with_fixed).items():
            base = own[parameter]
            assert gradient is not None
            assert_close(gradient, added[parameter] + (0 if base is None else base), rtol=1e-9, atol=1e-10)
        # What the balancer saw and learned is to the bit what it is without them.
        assert_same_state(found.balancer.state_dict(), expected.balancer.state_dict())
        assert found.last.tasks == TASKS
        assert {task: got[task] for task in TASKS} == returned
        assert set(got) == {*TASKS, *FIXED}
        values = [beside(with_fixed, each) for each in batches]
        for loss in FIXED:
            assert_close(found.last.fixed[loss], torch.stack([value[loss] for value in values]).mean().detach())
        assert not any(value.requires_grad for value in got.values())


@pytest.mark.parametrize("name", ["ls", "famo", "mgda", "moco", "pcgrad"])
def test_the_drop_in_and_the_accumulator(name: str) -> None:
    first, second = batch(0), batch(1)
    for parts in ([first], [first, second]):
        without, with_fixed = model_of(), model_of()
        for model, function, fixed in ((without, balanced, None), (with_fixed, losses, FIXED)):
            if len(parts) == 1:
                report = eq.backward(function(model, first), eq.balancer(name), model.encoder, fixed=fixed)
            else:
                accumulator = eq.dropin.Accumulator(eq.balancer(name), model.encoder, fixed=fixed)
                for part in parts:
                    accumulator.add(lambda model=model, part=part, function=function: function(model, part))
                report = accumulator.backward()
            assert report.tasks == TASKS
            assert set(report.fixed) == set(fixed or {})
        added, own = plain(with_fixed, parts), gradients(without)
        for parameter, gradient in gradients(with_fixed).items():
            base = own[parameter]
            assert gradient is not None
            assert_close(gradient, added[parameter] + (0 if base is None else base), rtol=1e-9, atol=1e-10)


def test_a_scale_and_what_grad_holds_already() -> None:
    model = model_of()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    eq.backward(losses(model, batch()), "mgda", model.encoder, fixed=FIXED, scale=0.25)
    other = model_of()
    eq.backward(balanced(other, batch()), "mgda", other.encoder)
    added, own = plain(model, [batch()]), gradients(other)
    for name, gradient in gradients(model).items():
        base = own[name]
        assert_close(gradient, 1 + 0.25 * (added[name] + (0 if base is None else base)))


def test_features_batch_norm_callables_and_sparse_tables() -> None:
    whole, lazy = model_of(norm=True), model_of(norm=True)

    def postponed(model: Any, batch: Tensor) -> dict[str, Any]:
        found = losses(model, batch)
        return {**{name: found[name] for name in TASKS}, **{name: (lambda name=name: found[name]) for name in FIXED}}

    for model, function in ((whole, losses), (lazy, postponed)):
        optimizer_of("mgda", model, function, FIXED, features="norm").step(batch())
    assert_same_state(dict(whole.named_buffers()), dict(lazy.named_buffers()))
    assert int(whole.norm.num_batches_tracked) == 1  # type: ignore[arg-type]
    assert_same_state(gradients(whole), gradients(lazy))

    table = nn.Embedding(5, 2, sparse=True)

    def of_table(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        rows = model(batch)
        return {"a": rows[:, 0].square().mean(), "b": (rows[:, 1] - 1).square().mean(), "length": rows.square().sum()}

    mtl = eq.MultiTaskOptimizer(
        eq.Objective(table, of_table, fixed={"length": 0.5}), torch.optim.SGD(table.parameters(), 0.0), "ls"
    )
    mtl.step(torch.tensor([0, 3, 3]))
    assert table.weight.grad is not None
    found = table.weight.grad.to_dense()
    table.weight.grad = None
    values = of_table(table, torch.tensor([0, 3, 3]))
    (values["a"] + values["b"] + 0.5 * values["length"]).backward()
    assert_close(found, table.weight.grad.to_dense())


@pytest.mark.parametrize("name", ["ls", "mgda"])
def test_a_fixed_loss_that_is_not_finite_is_named_and_nothing_changes(name: str) -> None:
    model = model_of()
    bad = {"what": ""}

    def damaged(model: Any, batch: Tensor) -> dict[str, Tensor]:
        found = losses(model, batch)
        if bad["what"] == "loss":
            found["decay"] = found["decay"] * torch.nan
        elif bad["what"] == "gradient":
            found["other"] = (model.alone.sum() * 0).sqrt()
        return found

    mtl = optimizer_of(name, model, damaged, FIXED)
    mtl.step(batch())
    before = kept(mtl.state_dict())
    for what, loss in (("loss", "decay"), ("gradient", "other")):
        bad["what"] = what
        with pytest.raises(eq.NonFiniteError, match=loss) as caught:
            mtl.step(batch())
        assert loss in caught.value.tasks
        assert caught.value.what == what
        assert_same_state(mtl.state_dict(), before)
        assert all(parameter.grad is None for parameter in model.parameters())
    bad["what"] = ""
    mtl.step(batch())


def test_trained_with_a_penalty_as_the_sum_would_be() -> None:
    """With plain weights it is ordinary training on the sum."""
    ours, theirs = model_of(), model_of()
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(ours, losses, fixed={"decay": 0.01, "other": 0.1}), torch.optim.Adam(ours.parameters(), 1e-2), "ls"
    )
    adam = torch.optim.Adam(theirs.parameters(), 1e-2)
    for step in range(20):
        mtl.step(batch(step))
        adam.zero_grad()
        found = losses(theirs, batch(step))
        (found["near"] + found["far"] + 0.01 * found["decay"] + 0.1 * found["other"]).backward()
        adam.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(mine, other, rtol=1e-6, atol=1e-9)


def test_what_cannot_be_a_fixed_loss() -> None:
    model = model_of()
    for fixed, says in (
        ({"near": 1.0}, "is one of the tasks"),
        ({"kl": float("nan")}, "finite weight"),
        ({"kl": "0.1"}, "finite weight"),
        ({"kl": True}, "finite weight"),
        ([("kl", 0.1)], "mapping"),
    ):
        with pytest.raises(eq.InputError, match=says):
            eq.Objective(model, losses, TASKS, fixed=fixed)  # type: ignore[arg-type]
    objective = eq.Objective(model, losses, fixed=FIXED)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(eq.InputError, match="teleport looks at the tasks alone"):
        eq.MultiTaskOptimizer(objective, sgd, "cost+mgda")
    with pytest.raises(eq.InputError, match="leave fixed= of the objective out"):
        TaskWeighting(objective, sgd, "moml")
    # A batch may lack it; then it counts as 0.
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, balanced, fixed=FIXED), sgd, "mgda")
    assert set(mtl.step(batch())) == set(TASKS)
