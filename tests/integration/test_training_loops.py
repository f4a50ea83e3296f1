"""What users do around the step: schedules, groups, freezing, odd parameters, odd layouts, any optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests import problems

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    f"{kind.__name__}-{variant}": (
        lambda parameters, kind=kind, options=options: kind(parameters, lr=0.01, weight_decay=0.1, **options)
    )
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)
    for variant, options in (("loop", {"foreach": False}), ("foreach", {"foreach": True}), ("fused", {"fused": True}))
    if not (kind is torch.optim.RMSprop and variant == "fused")
}


def by_hand(
    model: nn.Module, losses: Any, batch: Any, balancer: eq.balance.Balancer, shared: list[Tensor], present: list[nn.Parameter]
) -> None:
    """Fills ``.grad`` the plain way, from a dense matrix of task gradients."""
    found = list(losses(model, batch).values())
    rows = []
    for parameter in present:
        parameter.grad = None
    for loss in found:
        gradients = torch.autograd.grad(loss, present, retain_graph=True, allow_unused=True)
        rows.append(gradients)
    ids = {id(parameter) for parameter in shared}
    flat = torch.stack(
        [
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g).reshape(-1)
                    for p, g in zip(present, row, strict=True)
                    if id(p) in ids
                ]
            )
            for row in rows
        ]
    ).double()
    tasks = tuple(f"task{k}" for k in range(len(found)))
    weights = balancer.decide(
        eq.balance.Observation(tasks, tuple(range(len(found))), torch.stack([loss.detach() for loss in found]), flat @ flat.T)
    )
    for weight, row in zip(weights.tolist(), rows, strict=True):
        for parameter, gradient in zip(present, row, strict=True):
            if gradient is not None:
                gradient = gradient * (weight if id(parameter) in ids else 1.0)
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_takes_the_step_of_gradients_filled_by_hand(name: str) -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), OPTIMIZERS[name](model.parameters()), "fairgrad")
    torch.manual_seed(0)
    other = problems.Heads()
    optimizer = OPTIMIZERS[name](other.parameters())
    for step in range(5):
        mtl.step(problems.batch(seed=step))
        by_hand(
            other,
            problems.losses,
            problems.batch(seed=step),
            eq.FairGrad(),
            list(other.encoder.parameters()),
            list(other.parameters()),
        )
        optimizer.step()
    assert problems.same(problems.parameters_of(model), problems.parameters_of(other), rtol=1e-4, atol=1e-6)


def test_schedulers_and_groups() -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    optimizer = torch.optim.SGD(
        [{"params": model.encoder.parameters(), "lr": 0.1}, {"params": model.heads.parameters(), "lr": 0.0}], momentum=0.0
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.0)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), optimizer, "mgda")
    before = problems.parameters_of(model)
    mtl.step(problems.batch())
    after = problems.parameters_of(model)
    assert all(torch.equal(before[name], after[name]) == name.startswith("heads") for name in before)
    scheduler.step()
    mtl.step(problems.batch())
    assert problems.same(after, problems.parameters_of(model))


@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize("method", ["ls", "fairgrad"])
def test_a_group_added_later(method: str, steps_before: int) -> None:
    """Parameters that the model did not have at first, one shared by all tasks and one for one task only."""
    torch.manual_seed(0)
    model = problems.Heads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    extra: dict[str, Tensor] = {}

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        found = problems.losses(model, (batch[0] + extra["all"] if extra else batch[0], batch[1]))
        if extra:
            found["t2"] = found["t2"] + (extra["one"] - 1).square().sum()
        return found

    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, method)
    for step in range(steps_before):
        mtl.step(problems.batch(seed=step))
    extra["all"] = torch.zeros(6, requires_grad=True)
    extra["one"] = torch.zeros(2, requires_grad=True)
    optimizer.add_param_group({"params": list(extra.values()), "lr": 0.01})
    for step in range(3):
        at = {name: tensor.detach().clone() for name, tensor in extra.items()}
        mtl.step(problems.batch(seed=9 + step))
        assert extra["one"].grad is not None
        # Were gradients of earlier steps still there, this would be more.
        assert torch.allclose(extra["one"].grad, 2 * (at["one"] - 1), rtol=1e-5)
        assert not torch.equal(at["all"], extra["all"])
    if method == "fairgrad":
        assert any(parameter is extra["all"] for parameter in mtl.shared)
        assert not any(parameter is extra["one"] for parameter in mtl.shared)


@pytest.mark.parametrize("given", [False, True])
def test_freezing_and_unfreezing(given: bool) -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.1)
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, problems.losses), optimizer, "fairgrad", shared=model.encoder if given else None
    )
    first, last = model.encoder[0], model.encoder[2]
    for frozen in ((), (first,), (last,), ()):
        for layer in (first, last):
            layer.requires_grad_(layer not in frozen)
        before = problems.parameters_of(model)
        expected_model = problems.Heads()
        expected_model.load_state_dict(model.state_dict())
        for name, parameter in model.named_parameters():
            expected_model.get_parameter(name).requires_grad_(parameter.requires_grad)
        trained = [parameter for parameter in expected_model.parameters() if parameter.requires_grad]
        by_hand(
            expected_model, problems.losses, problems.batch(), eq.FairGrad(), list(expected_model.encoder.parameters()), trained
        )
        mtl.step(problems.batch())
        for name, parameter in model.named_parameters():
            expected = expected_model.get_parameter(name).grad
            assert (parameter.grad is None) == (expected is None), name
            if expected is not None:
                assert parameter.grad is not None
                assert torch.allclose(parameter.grad, expected, rtol=1e-4, atol=1e-7), name
            else:
                assert torch.equal(before[name], parameter)


class WithEmbedding(nn.Module):
    """Words looked up in a sparse table, then a head a task; one head has a sparse table of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 4, sparse=True)
        self.own = nn.Embedding(50, 1, sparse=True)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(2))

    def forward(self, words: Tensor) -> list[Tensor]:
        features = self.words(words).mean(1)
        outputs = [head(features) for head in self.heads]
        outputs[1] = outputs[1] + self.own(words).mean(1)
        return outputs


def embedding_losses(model: nn.Module, words: Tensor) -> dict[str, Tensor]:
    first, second = model(words)
    return {"a": (first - 1).square().mean(), "b": 5 * (second + 1).square().mean()}


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("method", ["ls", "uw", "fairgrad", "pcgrad"])
def test_sparse_embeddings(method: str, micro_batches: int) -> None:
    def trained(sparse: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = WithEmbedding()
        model.words.sparse = model.own.sparse = sparse
        kind = torch.optim.SparseAdam if sparse else torch.optim.SGD
        tables = kind([model.words.weight, model.own.weight], lr=0.01)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, embedding_losses), tables, method)
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            mtl.step(*(torch.randint(0, 40, (8, 3), generator=generator) for _ in range(micro_batches)))
            for table in (model.words.weight, model.own.weight):
                assert table.grad is not None
                assert table.grad.is_sparse == sparse
        return problems.parameters_of(model)

    moved = trained(True)
    torch.manual_seed(0)
    start = problems.parameters_of(WithEmbedding())
    assert not torch.equal(moved["words.weight"][:40], start["words.weight"][:40])
    assert torch.equal(moved["words.weight"][40:], start["words.weight"][40:])


@pytest.mark.parametrize("method", ["ls", "mgda"])
def test_sparse_gradients_equal_dense_ones(method: str) -> None:
    def trained(sparse: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = WithEmbedding()
        model.words.sparse = model.own.sparse = sparse
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, embedding_losses), torch.optim.SGD(model.parameters(), lr=0.1), method)
        for step in range(3):
            mtl.step(torch.randint(0, 40, (8, 3), generator=torch.Generator().manual_seed(step)))
        return problems.parameters_of(model)

    assert problems.same(trained(True), trained(False), rtol=1e-5, atol=1e-6)


class Images(nn.Module):
    """Two convolutions and a head a task."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(6, 1) for _ in range(2))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.encoder(images).mean((2, 3))
        return [head(features) for head in self.heads]


@pytest.mark.parametrize("method", ["ls", "fairgrad"])
def test_channels_last(method: str) -> None:
    def trained(memory_format: torch.memory_format) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = Images().to(memory_format=memory_format)  # type: ignore[call-overload]
        mtl = eq.MultiTaskOptimizer(
            eq.Objective(model, embedding_losses), torch.optim.SGD(model.parameters(), lr=0.01, foreach=True), method
        )
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            mtl.step(torch.randn(4, 3, 8, 8, generator=generator).to(memory_format=memory_format))
        weight = model.encoder[3].weight
        assert isinstance(weight, Tensor)
        assert weight.grad is not None
        assert weight.grad.stride() == weight.stride()
        return problems.parameters_of(model)

    assert problems.same(trained(torch.channels_last), trained(torch.contiguous_format), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["uw", "fairgrad"])
def test_tied_weights(method: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second = nn.Linear(6, 6)
            self.second.weight = self.first.weight
            self.head = nn.Linear(6, 3)

        def forward(self, inputs: Tensor) -> list[Tensor]:
            return list(self.head(self.second(self.first(inputs).tanh()).tanh()).unbind(-1))

    torch.manual_seed(0)
    model = Tied()
    torch.manual_seed(0)
    other = Tied()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, problems.losses), torch.optim.SGD(model.parameters(), lr=0.01), method)
    optimizer, balancer = torch.optim.SGD(other.parameters(), lr=0.01), eq.balancer(method)
    for step in range(4):
        mtl.step(problems.batch(seed=step))
        parameters = list(other.parameters())
        if method == "uw":
            found = torch.stack(list(problems.losses(other, problems.batch(seed=step)).values()))
            observation = eq.balance.Observation(("t0", "t1", "t2"), (0, 1, 2), found.detach())
            optimizer.zero_grad()
            (balancer.decide(observation).float() * found).sum().backward()
            balancer.update(observation)
        else:
            by_hand(other, problems.losses, problems.batch(seed=step), balancer, list(parameters), parameters)
        optimizer.step()
    assert problems.same(problems.parameters_of(model), problems.parameters_of(other), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("method", ["ls", "fairgrad"])
def test_a_parameter_that_nobody_uses_stays(method: str, given: bool, features: bool) -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    model.encoder.register_parameter("idle", nn.Parameter(torch.ones(3)))
    model.register_parameter("idle", nn.Parameter(torch.ones(3)))
    options: dict[str, Any] = {"features": model.encoder} if features else {}
    mtl = problems.optimizer_of(
        method,
        model,
        make=lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.5),
        shared=model.encoder if given else None,
        **options,
    )
    for step in range(3):
        mtl.step(problems.batch(seed=step))
    for parameter in (model.idle, model.encoder.idle):
        assert isinstance(parameter, Tensor)
        assert parameter.grad is None
        assert torch.equal(parameter, torch.ones(3))


@pytest.mark.parametrize("info", eq.methods(), ids=lambda info: info.name)
@pytest.mark.parametrize("tasks", [1, 2, 40])
def test_any_number_of_tasks(info: eq.balance.MethodInfo, tasks: int) -> None:
    torch.manual_seed(0)
    model = problems.Heads(tasks)
    mtl = problems.optimizer_of(info.cls(), model, lr=1e-3 / tasks)
    start = sum(mtl.step(problems.batch(tasks=tasks)).values())
    for _ in range(5):
        losses = mtl.step(problems.batch(tasks=tasks))
    assert len(losses) == tasks
    assert sum(losses.values()) < start
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


@pytest.mark.parametrize("method", ["ls", "rlw", "uw", "famo", "mgda", "nash-mtl"])
def test_double_precision_is_kept(method: str) -> None:
    torch.manual_seed(0)
    model = problems.Heads().double()
    inputs, targets = problems.batch()
    batch = inputs.double(), targets.double()
    balancer = eq.balancer(method) if method != "ls" else eq.LS([0.25, 0.5, 2.0])
    mtl = problems.optimizer_of(balancer, model)
    mtl.step(batch)
    assert mtl.last is not None
    assert mtl.last.losses.dtype == torch.float64
    assert mtl.last.weights is not None
    # The direction is the one of these weights to double precision, not to that of a detour through single precision.
    other = problems.Heads().double()
    torch.manual_seed(0)
    other = problems.Heads().double()
    weights = mtl.last.weights.tolist()
    sum(w * loss for w, loss in zip(weights, problems.losses(other, batch).values(), strict=True)).backward()  # type: ignore[union-attr]
    for parameter, expected in zip(model.encoder.parameters(), other.encoder.parameters(), strict=True):
        assert parameter.grad is not None
        assert expected.grad is not None
        assert parameter.grad.dtype == torch.float64
        assert torch.allclose(parameter.grad, expected.grad, rtol=1e-12, atol=1e-14)


def test_tasks_that_do_not_reach_a_parameter_have_zeros_there() -> None:
    """The first two tasks share one encoder, the last two another; the middle one reaches both."""
    torch.manual_seed(0)
    left, right = nn.Linear(6, 4), nn.Linear(6, 4)
    model = nn.ModuleList([left, right])

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        x = batch[0]
        return {
            "a": left(x).square().mean(),
            "b": (left(x)[:, 0] - right(x)[:, 0]).square().mean() + left(x).sum(1).tanh().mean(),
            "c": (right(x) - 1).square().mean(),
        }

    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.0), "mgda")
    mtl.step(problems.batch())
    assert mtl.last is not None
    assert mtl.last.gramian is not None
    assert float(mtl.last.gramian[0, 2]) == 0.0
    assert float(mtl.last.gramian[0, 1]) != 0.0
    found = losses(model, problems.batch())
    parameters = list(model.parameters())
    rows = [
        torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).flatten()
                for p, g in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True)
            ]
        )
        for loss in found.values()
    ]
    flat = torch.stack(rows).double()
    assert torch.allclose(mtl.last.gramian, flat @ flat.T, rtol=1e-5, atol=1e-9)


def test_inputs_that_require_grad_are_no_parameters() -> None:
    """Gradient penalties ask for the inputs' gradients; the inputs are not what is trained."""
    torch.manual_seed(0)
    model = problems.Heads()

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        return problems.losses(model, (batch[0].clone().requires_grad_(), batch[1]))

    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.0), "mgda")
    plain = problems.optimizer_of("mgda", lr=0.0)
    for _ in range(2):
        mtl.step(problems.batch())
        plain.step(problems.batch())
        assert mtl.last is not None
        assert plain.last is not None
        assert mtl.last.gramian is not None
        assert plain.last.gramian is not None
        assert torch.allclose(mtl.last.gramian, plain.last.gramian, rtol=1e-5)
    assert {id(parameter) for parameter in mtl.shared} == {id(parameter) for parameter in model.encoder.parameters()}


@pytest.mark.parametrize("method", ["mgda", "fairgrad"])
def test_features_equal_gradients_of_the_features_by_hand(method: str) -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    mtl = problems.optimizer_of(method, model, lr=0.0, features=model.encoder)
    mtl.step(problems.batch())
    inputs, targets = problems.batch()
    features = model.encoder(inputs)
    found = [
        problems.SCALES[k] * (head(features).squeeze(-1) - targets[:, k]).square().mean() for k, head in enumerate(model.heads)
    ]
    rows = torch.stack([torch.autograd.grad(loss, features, retain_graph=True)[0].flatten() for loss in found]).double()
    assert mtl.last is not None
    assert mtl.last.gramian is not None
    assert mtl.last.weights is not None
    assert torch.allclose(mtl.last.gramian, rows @ rows.T, rtol=1e-5)
    expected = torch.autograd.grad(
        sum(w * loss for w, loss in zip(mtl.last.weights.tolist(), found, strict=True)), list(model.encoder.parameters())
    )
    for parameter, gradient in zip(model.encoder.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-7)


def test_losses_that_reach_the_encoder_past_the_features_are_refused() -> None:
    """Their gradient of the encoder's parameters goes through the features and past them; it would count twice."""
    torch.manual_seed(0)
    model = problems.Heads()
    first = model.encoder[0]

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        found = problems.losses(model, batch)
        found["t0"] = found["t0"] + first(batch[0]).square().mean()
        return found

    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.01), "mgda", features=model.encoder
    )
    with pytest.raises(eq.InputError, match="past the features"):
        mtl.step(problems.batch())


@pytest.mark.parametrize("method", ["ls", "famo", "fairgrad"])
def test_hooks_of_the_users_own(method: str) -> None:
    """Hooks on parameters see gradients and may change them, as in any backward pass."""
    torch.manual_seed(0)
    model = problems.Heads()
    weight = model.encoder[0].weight
    assert isinstance(weight, nn.Parameter)
    calls: list[int] = []

    def zero_first_row(gradient: Tensor) -> Tensor:
        calls.append(1)
        gradient = gradient.clone()
        gradient[0] = 0
        return gradient

    weight.register_hook(zero_first_row)
    before = weight.detach().clone()
    mtl = problems.optimizer_of(method, model)
    mtl.step(problems.batch())
    assert calls
    assert torch.equal(before[0], weight[0])
    assert not torch.equal(before[1], weight[1])
