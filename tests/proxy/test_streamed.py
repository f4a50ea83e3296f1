"""The streamed exact Gramian against plain autograd, on graphs of many kinds, and steps with it against steps with rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import equipoise as eq
from equipoise.balance.registry import classes
from equipoise.engine.heads import HeadCut, numbered_in_order
from equipoise.engine.streamed import Streamed
from equipoise.errors import InputError

D = torch.float64
Case = tuple[dict[int, Tensor], list[Tensor]]


def heads(features: Tensor, tasks: int = 3) -> dict[int, Tensor]:
    width = features.shape[-1]
    return {k: nn.Linear(width, 1, dtype=D)(features).square().mean() for k in range(tasks)}


def layers(count: int = 4) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(6, 6, dtype=D) for _ in range(count)))


def x() -> Tensor:
    return torch.randn(3, 6, dtype=D)


def mlp() -> Case:
    model = layers()
    h = x()
    for layer in model:
        h = torch.tanh(layer(h))
    return heads(h), list(model.parameters())


def transformer() -> Case:
    block = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True, norm_first=True, dtype=D)
    model = nn.TransformerEncoder(block, 3, enable_nested_tensor=False)
    return heads(model(torch.randn(2, 3, 6, dtype=D))), list(model.parameters())


def everything_reads_everything() -> Case:
    model, found = layers(), [x()]
    for layer in model:
        found.append(torch.tanh(layer(torch.stack(found).sum(0))))
    return heads(torch.stack(found).sum(0)), list(model.parameters())


def a_cell_between_layers() -> Case:
    model, cell, h = layers(), nn.Linear(6, 6, dtype=D), x()
    for layer in model:
        h = layer(torch.tanh(cell(h)))
    return heads(h), [*cell.parameters(), *model.parameters()]


def lstm() -> Case:
    cell, last = nn.LSTM(4, 6, num_layers=2, batch_first=True, dtype=D), nn.Linear(6, 6, dtype=D)
    return heads(last(cell(torch.randn(2, 4, 4, dtype=D))[0])), [*cell.parameters(), *last.parameters()]


def batch_norm() -> Case:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, dtype=D),
        nn.BatchNorm2d(3, dtype=D),
        nn.ReLU(),
        nn.Conv2d(3, 3, 3, dtype=D),
        nn.BatchNorm2d(3, dtype=D),
    )
    return heads(model(torch.randn(4, 2, 6, 6, dtype=D)).mean((2, 3))), list(model.parameters())


def checkpoints_around_a_cell() -> Case:
    model, cell, h = layers(), nn.Linear(6, 6, dtype=D), x()

    def run(layer: nn.Module, h: Tensor) -> Any:
        return torch.tanh(cell(torch.tanh(layer(h))))

    for layer in model:
        h = checkpoint(run, layer, h, use_reentrant=False)
    return heads(h), [*cell.parameters(), *model.parameters()]


def sparse_embedding() -> Case:
    table, model = nn.Embedding(9, 6, sparse=True, dtype=D), layers(2)
    h = table(torch.randint(9, (5,)))
    for layer in model:
        h = torch.tanh(layer(h))
    return heads(h + table.weight[2]), [table.weight, *model.parameters()]


def complex_weights() -> Case:
    weights = [torch.randn(6, 6, dtype=torch.complex128, requires_grad=True) for _ in range(3)]
    h = x().to(torch.complex128)
    for weight in weights:
        h = h @ weight
        h = h / (1 + h.abs())
    last = nn.Linear(6, 6, dtype=D)
    return heads(last(h.abs())), [*weights, *last.parameters()]


def tasks_that_part_at_several_depths() -> Case:
    weights = layers()
    states = [x()]
    for layer in weights:
        states.append(torch.tanh(layer(states[-1])))
    losses = {k: loss for k, state in enumerate(states[1:]) for loss in heads(state, 1).values()}
    losses[4] = (states[1] * states[4]).sum() + next(weights.parameters()).square().sum()
    return losses, list(weights.parameters())


def maps_without_biases_and_a_hook_on_the_first() -> Case:
    model = nn.Sequential(*(nn.Linear(6, 6, bias=False, dtype=D) for _ in range(3)))
    first = model[0](x())
    first.register_hook(lambda gradient: gradient.square())
    return heads(torch.tanh(model[2](torch.tanh(model[1](first))))), list(model.parameters())


def a_weight_with_a_hook_and_one_that_is_read_twice() -> Case:
    model = layers(3)
    weights = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    weights[0].register_hook(lambda gradient: gradient.square())
    h = torch.tanh(model[2](torch.tanh(model[1](torch.tanh(model[0](x()))))))
    return heads(h + weights[1][0]), list(model.parameters())


def one_task() -> Case:
    losses, leaves = mlp()
    return {0: losses[0]}, leaves


def some_leaves_only() -> Case:
    losses, leaves = mlp()
    return losses, leaves[2:5]


def double_backward() -> Case:
    model, inputs = layers(), x().requires_grad_()
    h = inputs
    for layer in model:
        h = torch.tanh(layer(h))
    energy = h.square().sum(1)
    force = torch.autograd.grad(energy.sum(), inputs, create_graph=True)[0]
    losses = {k: force[:, k].square().sum() + k * energy.mean() for k in range(3)}
    return losses, list(model.parameters())


def hooks_on_activations() -> Case:
    model, h = layers(), x()
    for layer in model:
        h = layer(h)
        h.register_hook(lambda gradient: gradient.square())
        h = torch.tanh(h)
        h.register_hook(lambda gradient: gradient * gradient.abs())
    return heads(h), list(model.parameters())


def changed_in_place() -> Case:
    model, inputs = layers(), x()
    h = model[0](inputs)
    h[:, 2:4] *= model[1](inputs)[:, 2:4]
    left, right = h[:, :3], h[:, 3:]
    right.add_(left)
    return heads(model[2](torch.cat([left, h], 1)[:, 1:7])), list(model[:3].parameters())


def several_threads() -> Case:
    model = layers()
    found: dict[str, Tensor] = {"first": torch.tanh(model[0](x()))}

    def run() -> None:
        found["second"] = torch.tanh(model[2](torch.tanh(model[1](found["first"])))) + found["first"]

    for _ in range(40):  # numbers that the other thread's are below
        model[3](x())
    found["first"] = found["first"] * 1
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    losses = heads(model[3](found["second"]))
    losses[3] = found["first"].square().sum()
    losses[4] = (found["first"] * found["second"]).sum()
    assert not numbered_in_order(losses.values())
    return losses, list(model.parameters())


CASES: list[Callable[[], Case]] = [
    mlp,
    transformer,
    everything_reads_everything,
    a_cell_between_layers,
    lstm,
    batch_norm,
    checkpoints_around_a_cell,
    sparse_embedding,
    complex_weights,
    tasks_that_part_at_several_depths,
    maps_without_biases_and_a_hook_on_the_first,
    a_weight_with_a_hook_and_one_that_is_read_twice,
    one_task,
    some_leaves_only,
    double_backward,
    hooks_on_activations,
    changed_in_place,
    several_threads,
]


def plain_gramian(losses: Mapping[int, Tensor], leaves: list[Tensor]) -> Tensor:
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        dense = [torch.zeros_like(p) if g is None else g.to_dense() for p, g in zip(leaves, found, strict=True)]
        rows.append(torch.cat([(torch.view_as_real(g) if g.is_complex() else g).flatten() for g in dense]))
    matrix = torch.stack(rows)
    return matrix @ matrix.T


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("room", [0, 1, 45, 100, 10**6])
def test_the_gramian_by_blocks_is_that_of_plain_autograd(case: Callable[[], Case], room: int) -> None:
    """With no room at all, every operation is made a block."""
    torch.manual_seed(0)
    losses, leaves = case()
    expected = plain_gramian(losses, leaves)
    assert expected.diagonal().min() > 0
    cut = HeadCut(losses, leaves if len(losses) == 1 else (), ranked=True)
    streamed = Streamed(cut, leaves, room)
    assert streamed.blocks == 1 or room < 10**6
    if not room:
        streamed._stops = list(range(len(streamed._graph.order)))
    if case in (mlp, transformer) and room == 1:
        assert streamed.blocks > 3
    flows, _, _ = cut.differentiate(dict.fromkeys(losses), own=False)
    torch.testing.assert_close(streamed.gramian(flows), expected, rtol=1e-10, atol=1e-12 * float(expected.max()))
    for leaf in leaves:
        assert leaf.grad is None


def test_blocks_hold_the_rows_of_the_largest_layer_and_not_of_all() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(30, 30) for _ in range(8)))
    h = model(torch.randn(2, 30))
    streamed = Streamed(HeadCut({k: h[:, k].sum() for k in range(3)}), list(model.parameters()), 1)
    assert streamed.blocks > 1
    assert streamed.peak <= 2 * 90 + 2 * 60  # two inputs of 30 entries: rows of 30 × 2 in place of 30 × 30, and biases
    h = model(torch.randn(20, 30))
    streamed = Streamed(HeadCut({k: h[:, k].sum() for k in range(3)}), list(model.parameters()), 930)
    assert streamed.blocks == 8
    assert streamed.peak <= 930 + 2 * 600


class Net(nn.Module):
    """Batch norm, a layer that is used twice, a skip, and heads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.norm = nn.Linear(4, 6, dtype=D), nn.Linear(6, 6, dtype=D), nn.BatchNorm1d(6, dtype=D)
        self.heads = nn.ModuleList(nn.Linear(6, 1, dtype=D) for _ in range(4))

    def forward(self, inputs: Tensor) -> Any:
        h = self.norm(torch.tanh(self.first(inputs)))
        return h + self.again(torch.tanh(self.again(h)))


def losses_of(model: Net, batch: tuple[Tensor, tuple[int, ...]]) -> dict[str, Tensor]:
    inputs, held = batch
    h = model(inputs)
    errors = {f"t{k}": (head(h)[:, 0] - k).square().mean() * 10.0**-k for k, head in enumerate(model.heads)}
    errors["t0"] = errors["t0"] + 1e-2 * nn.functional.linear(h, model.again.weight).square().mean()
    return {f"t{k}": errors[f"t{k}"] for k in held}


def callable_losses(model: Net, batch: tuple[Tensor, tuple[int, ...]]) -> dict[str, object]:
    inputs, held = batch
    common = losses_of(model, batch)
    return {f"t{k}": common[f"t{k}"] if k < 2 else lambda k=k: losses_of(model, (inputs + k, (k,)))[f"t{k}"] for k in held}


def trained(
    method: str, losses: Callable[..., Any] = losses_of, held: tuple[tuple[int, ...], ...] = ((0, 1, 2, 3),) * 2, **options: Any
) -> tuple[eq.MultiTaskOptimizer, list[Tensor], list[Tensor]]:
    """The optimizer after a few steps, model and buffers then, and the Gramians."""
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    objective = eq.Objective(model, losses, tasks=["t0", "t1", "t2", "t3"])
    mtl = eq.MultiTaskOptimizer(objective, optimizer, method, **options)
    gramians = []
    for present in held:
        mtl.step((torch.randn(5, 4, dtype=D), present))
        assert mtl.last is not None
        if mtl.last.gramian is not None:
            gramians.append(mtl.last.gramian)
    return mtl, [tensor.detach() for tensor in model.state_dict().values()], gramians


def same(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)


STREAMED_AND_NOT: list[dict[str, Any]] = [{"memory": "streamed"}, {}]
REFUSED = ("MoDo", "SDMGrad", "RotoGrad", "ConsMTL")
SERVED = [name for name, made in classes().items() if made.needs == "gramian" and name not in REFUSED]


@pytest.mark.parametrize("method", SERVED)
def test_every_gramian_method_takes_the_steps_that_it_takes_with_rows(method: str) -> None:
    _, model, gramians = trained(method, memory="streamed")
    _, expected, rows = trained(method)
    same(gramians, rows)
    same(model, expected)


@pytest.mark.parametrize("losses", [losses_of, callable_losses])
def test_partial_labels_and_callables(losses: Callable[..., object]) -> None:
    held = ((0, 1, 2, 3), (3, 1), (2,), (1, 2, 3))
    mtl, model, gramians = trained("fairgrad", losses, held, memory="streamed")
    _, expected, rows = trained("fairgrad", losses, held)
    assert [len(gramian) for gramian in gramians] == [4, 2, 1, 3]
    same(gramians, rows)
    same(model, expected)
    assert mtl.last is not None
    assert mtl.last.proxy is None


def test_a_look_at_the_gramian_and_a_clipped_step_with_a_teleport() -> None:
    found = []
    for options in STREAMED_AND_NOT:
        mtl, model, _ = trained("cost(start=0)+mgda", clip=0.1, **options)
        batch = torch.randn(5, 4, dtype=D), (3, 0, 1)
        before = [None if p.grad is None else p.grad.clone() for p in mtl.objective.model.parameters()]
        gramian = mtl.gramian(batch)
        after = [p.grad for p in mtl.objective.model.parameters()]
        assert all(b is None if a is None else b is not None and torch.equal(a, b) for a, b in zip(before, after, strict=True))
        found.append([*model, gramian])
    same(*found)


def test_a_scaler_and_single_precision() -> None:
    found = []
    for options in STREAMED_AND_NOT:
        torch.manual_seed(0)
        model = Net().float()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        optimizer = torch.optim.SGD(model.parameters(), 1e-2)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses_of), optimizer, "imtl-g", scaler=scaler, **options)
        mtl.step((torch.randn(5, 4), (0, 1, 2, 3)))
        assert mtl.last is not None
        assert mtl.last.gramian is not None
        found.append([*(p.detach() for p in model.parameters()), mtl.last.gramian.float()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_with_all_that_is_shared_frozen_the_heads_are_trained() -> None:
    found = []
    for options in STREAMED_AND_NOT:
        torch.manual_seed(0)
        model = Net()
        for module in (model.first, model.again, model.norm):
            module.requires_grad_(False)
        optimizer = torch.optim.SGD(model.parameters(), 1e-2)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses_of), optimizer, "mgda", **options)
        with pytest.warns(UserWarning, match="nothing to balance"):
            mtl.step((torch.randn(5, 4, dtype=D), (0, 1, 2, 3)))
        found.append([p.detach() for p in model.parameters()])
    same(*found)


@pytest.mark.parametrize("method", ["moco", "graddrop", "db-mtl", "modo", "sdmgrad"])
def test_methods_that_need_more_than_the_gramian_are_refused(method: str) -> None:
    with pytest.raises(InputError, match=r'memory="streamed"'):
        trained(method, memory="streamed")


def test_what_it_cannot_be_combined_with_is_refused() -> None:
    for options in ({"proxy": "last"}, {"features": "again"}, {"batched": 0}):
        with pytest.raises(InputError, match=f"leave {next(iter(options))}= out"):
            trained("fairgrad", memory="streamed", **options)
    with pytest.raises(InputError, match="memory must be"):
        trained("fairgrad", memory="small")


def test_micro_batches_are_refused_and_nothing_changes() -> None:
    mtl, model, _ = trained("fairgrad", memory="streamed")
    before = [tensor.clone() for tensor in model]
    batch = torch.randn(5, 4, dtype=D), (0, 1, 2, 3)
    with pytest.raises(InputError, match="one batch per step"):
        mtl.step(batch, batch)
    assert all(torch.equal(a, b) for a, b in zip(before, mtl.objective.model.state_dict().values(), strict=True))
    assert mtl.steps == 2


def test_a_loss_that_is_not_finite_is_named_and_nothing_changes() -> None:
    mtl, model, _ = trained("fairgrad", memory="streamed")
    before = [tensor.clone() for tensor in model]
    inputs = torch.randn(5, 4, dtype=D)
    inputs[0, 0] = torch.inf
    with pytest.raises(eq.NonFiniteError):
        mtl.step((inputs, (0, 1, 2, 3)))
    assert all(torch.equal(a, b) for a, b in zip(before, mtl.objective.model.state_dict().values(), strict=True))


def test_audits_hold_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.step.proxying import HeadGradients

    def refuse(*_: object) -> None:
        raise AssertionError("rows of all shared parameters")

    monkeypatch.setattr(HeadGradients, "exact_rows", refuse)
    _, model, gramians = trained("fairgrad", proxy=eq.Proxy("last", audit=1))
    _, expected, rows = trained("fairgrad")
    same(gramians, rows)
    same(model, expected)
