"""Leaves that are no parameters, parameters that are no nn.Parameter, and shared parameters that are all frozen."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.errors import InputError
from tests import problems
from tests.integration.processes import Pool


def rows_of(losses: list[Tensor], parameters: list[Tensor]) -> Tensor:
    return torch.stack(
        [
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
                ]
            )
            for loss in losses
        ]
    ).double()


@pytest.mark.parametrize("method", ["mgda", "fairgrad", "graddrop", "db-mtl"])
def test_inputs_that_require_grad_do_not_count_in_the_drop_in(method: str) -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    inputs, targets = problems.batch()
    reports = []
    grads = []
    for requires in (False, True):
        model.zero_grad()
        batch = inputs.clone().requires_grad_(requires)
        losses = problems.losses(model, (batch, targets))
        plain = rows_of(list(losses.values()), [batch]).sum(0) if requires else None
        reports.append(eq.backward(losses, eq.balancer(method)))
        grads.append([parameter.grad.clone() for parameter in model.parameters()])
        if plain is not None:
            assert torch.allclose(batch.grad.flatten().double(), plain, rtol=1e-4, atol=1e-7)
    without, with_inputs = reports
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))
    if without.gramian is not None:
        assert torch.equal(without.gramian, with_inputs.gramian)


def test_a_frozen_embedding_whose_output_requires_grad() -> None:
    """What adapters on a frozen model ask for: its first output is made to require grad, a leaf like a parameter."""
    torch.manual_seed(0)
    embedding = nn.Embedding(10, 6).requires_grad_(False)
    model = problems.Heads()
    words = torch.randint(10, (16,))
    targets = problems.batch()[1]

    def losses() -> dict[str, Tensor]:
        return problems.losses(model, (embedding(words).requires_grad_(), targets))

    report = eq.backward(losses(), "mgda")
    rows = rows_of(list(losses().values()), list(model.encoder.parameters()))
    assert torch.allclose(report.gramian, rows @ rows.T, rtol=1e-5)


def test_parameters_may_be_plain_tensors() -> None:
    """Where the tasks share no nn.Parameter, all leaves count: weights that no module owns, under heads that modules own."""
    torch.manual_seed(0)
    weight = torch.randn(4, 3, requires_grad=True)
    heads = [nn.Linear(3, 1) for _ in range(2)]
    inputs = torch.randn(5, 4)

    def losses() -> list[Tensor]:
        features = torch.tanh(inputs @ weight)
        return [head(features).square().mean() for head in heads]

    with pytest.warns(UserWarning, match="balanced as parameters; if they are inputs"):  # an encoder could be frozen instead
        report = eq.backward(losses(), "mgda")
    rows = rows_of(losses(), [weight])
    assert torch.allclose(report.gramian, rows @ rows.T, rtol=1e-5)
    assert torch.allclose(weight.grad.flatten().double(), report.weights.double() @ rows, rtol=1e-4)


def test_plain_tensors_beside_parameters_count_where_they_are_declared() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    extra = torch.randn(4, requires_grad=True)
    inputs = torch.randn(5, 4)

    def losses() -> list[Tensor]:
        features = layer(inputs) * extra
        return [features[:, 0].square().mean(), (3 * features).sum(1).square().mean()]

    for shared, counted in (([*layer.parameters(), extra], True), (None, False)):
        layer.zero_grad()
        extra.grad = None
        report = eq.backward(losses(), "mgda", shared)
        rows = rows_of(losses(), [*layer.parameters(), *([extra] if counted else [])])
        assert torch.allclose(report.gramian, rows @ rows.T, rtol=1e-5)
        own = rows_of(losses(), [extra])
        expected = report.weights.double() @ own if counted else own.sum(0)
        assert torch.allclose(extra.grad.double(), expected, rtol=1e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_inputs_of_one_task_alone(shared: bool) -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    inputs, targets = problems.batch()
    own = torch.randn(16, requires_grad=True)
    losses = problems.losses(model, (inputs, targets))
    losses["t1"] = losses["t1"] + 7 * (own * model(inputs)[1]).mean()
    expected = torch.autograd.grad(losses["t1"], own, retain_graph=True)[0]
    eq.backward(losses, "mgda", model.encoder if shared else None)
    assert torch.allclose(own.grad, expected)


def test_partly_labelled_batches_do_not_keep_their_inputs() -> None:
    """What is known of the tasks grows with the batches; their inputs must not."""
    torch.manual_seed(0)
    model = problems.Heads()
    balancer = eq.MGDA()
    inputs, targets = problems.batch()
    for present in (["t0", "t1", "t2"], ["t0", "t1"], ["t2", "t0"]):
        batch = inputs.clone().requires_grad_()
        losses = problems.losses(model, (batch, targets))
        report = eq.backward({name: losses[name] for name in present}, balancer)
        again = problems.losses(model, (inputs, targets))
        rows = rows_of([again[name] for name in sorted(present)], list(model.encoder.parameters()))
        assert torch.allclose(report.gramian, rows @ rows.T, rtol=1e-5)


def test_further_batches_leave_no_trace_on_leaves_that_do_not_count() -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    scale = torch.ones(16, 1, requires_grad=True)

    def losses(seed: int) -> dict[str, Tensor]:
        inputs, targets = problems.batch(seed=seed)
        return problems.losses(model, (scale * inputs, targets))

    expected = rows_of(list(losses(0).values()), [scale]).sum(0)
    eq.backward(losses(0), eq.balancer("modo"), further=[losses(1), losses(2)])
    assert torch.allclose(scale.grad.flatten().double(), expected, rtol=1e-4, atol=1e-6)


# -- nothing shared trains


@pytest.mark.parametrize("route", ["found", "declared", "features", "drop-in", "lazy", "micro-batches", "batched"])
@pytest.mark.parametrize("method", ["mgda", "graddrop", "db-mtl", "nash-mtl"])
def test_with_a_frozen_encoder_the_heads_train(method: str, route: str) -> None:
    if route == "features" and method == "db-mtl":
        pytest.skip("needs the gradients themselves")
    torch.manual_seed(0)
    model = problems.Heads()
    model.encoder.requires_grad_(False)
    balancer = eq.balancer(method)
    state = balancer.state_dict()
    batches = [problems.batch(seed=seed) for seed in range(2 if route == "micro-batches" else 1)]

    def lazy(model: nn.Module, batch: problems.Batch) -> dict[str, Any]:
        return {f"t{k}": lambda k=k: problems.losses(model, batch)[f"t{k}"] for k in range(3)}

    options: dict[str, Any] = {
        "declared": {"shared": model.encoder},
        "features": {"features": "encoder"},
        "batched": {"batched": 0},
    }
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, lazy if route == "lazy" else problems.losses),
        torch.optim.SGD(model.parameters(), lr=0.0),
        balancer,
        **options.get(route, {}),
    )

    def step() -> Any:
        if route != "drop-in":
            mtl.step(*batches)
            return mtl.last
        model.zero_grad()
        return eq.backward(problems.losses(model, *batches), balancer)

    with pytest.warns(UserWarning, match="no parameter that the tasks share is trained") as said:
        step()
    assert len(said) == 1
    report = step()  # says nothing, or it would raise here
    assert report.weights is None
    assert report.gramian is None
    losses = [list(problems.losses(model, batch).values()) for batch in batches]
    for k, head in enumerate(model.heads):
        expected = rows_of([sum(found[k] for found in losses) / len(losses)], list(head.parameters()))
        got = torch.cat([parameter.grad.flatten() for parameter in head.parameters()])
        assert torch.allclose(got.double(), expected[0], rtol=1e-5, atol=1e-8)
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    after = balancer.state_dict()
    assert {name: str(value) for name, value in after.items()} == {name: str(value) for name, value in state.items()}


def test_a_look_at_a_frozen_encoder_sees_nothing() -> None:
    model = problems.Heads()
    model.encoder.requires_grad_(False)
    mtl = problems.optimizer_of("mgda", model)
    with pytest.warns(UserWarning, match="no parameter that the tasks share is trained"):
        assert torch.equal(mtl.gramian(problems.batch()), torch.zeros(3, 3, dtype=torch.float64))


def test_an_encoder_that_is_unfrozen_is_balanced() -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    model.encoder.requires_grad_(False)
    mtl = problems.optimizer_of("mgda", model, lr=0.0, shared=model.encoder)
    with pytest.warns(UserWarning, match="no parameter that the tasks share is trained"):
        mtl.step(problems.batch())
    model.encoder.requires_grad_(True)
    mtl.step(problems.batch())
    rows = rows_of(list(problems.losses(model, problems.batch()).values()), list(model.encoder.parameters()))
    assert mtl.last is not None
    assert mtl.last.gramian is not None
    assert torch.allclose(mtl.last.gramian, rows @ rows.T, rtol=1e-5)


@pytest.mark.parametrize("method", ["consmtl", "modo", "cost(start=0,check_every=1)+mgda"])
def test_methods_that_do_more_wait_while_the_encoder_is_frozen(method: str) -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    model.encoder.requires_grad_(False)
    objective = eq.Objective(model, problems.losses, batches=problems.further_batches(model))
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.05), method)
    with pytest.warns(UserWarning, match="no parameter that the tasks share is trained"):
        first = mtl.step(problems.batch())
    for _ in range(10):
        last = mtl.step(problems.batch())
    assert all(last[name] < first[name] for name in first)


def test_a_frozen_part_under_a_shared_trunk_is_no_place_for_features() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"encoder": nn.Linear(6, 8).requires_grad_(False), "rest": problems.Heads(inputs=8)})

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        return problems.losses(model["rest"], (model["encoder"](batch[0]), batch[1]))

    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.1), "mgda", features="encoder"
    )
    with pytest.raises(InputError, match="nothing below the output of the features module is trained"):
        mtl.step(problems.batch())


# -- several processes


def inputs_with_gradients(rank: int, count: int, method: str, shared: bool) -> dict[str, Any]:
    """The drop-in on inputs that require grad, of another number of samples in each process."""
    torch.manual_seed(0)
    model = problems.Heads()
    inputs, targets = problems.batch(8 + 4 * rank, seed=rank)
    inputs.requires_grad_()
    losses = problems.losses(model, (inputs, targets))
    plain = torch.autograd.grad(sum(losses.values()), inputs, retain_graph=True)[0] / count  # of the processes' mean loss
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        report = eq.backward(losses, eq.balancer(method), model.encoder if shared else None)
    return {
        "said": sum("taken for inputs" in str(warning.message) for warning in said),
        "own": bool(torch.allclose(inputs.grad, plain, rtol=1e-4, atol=1e-7)),
        "head": model.heads[0].weight.grad.tolist(),
        "gramian": None if report.gramian is None else report.gramian.tolist(),
    }


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("method", ["mgda", "ls"])
def test_inputs_are_not_summed_over_the_processes(pool: Pool, method: str, shared: bool) -> None:
    one, other = pool.run(inputs_with_gradients, method, shared)
    assert one["own"]
    assert other["own"]
    assert one["head"] == other["head"]
    assert one["gramian"] == other["gramian"]
    assert (one["said"], other["said"]) == (1, 1)
