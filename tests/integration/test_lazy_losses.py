"""Losses given as callables: one task's graph in memory at a time, whatever the balancer."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests import problems

METHODS = problems.METHODS + problems.SAMPLING


class Graphs:
    """Counts graphs that are alive: each holds a tensor of its own, which says when it goes."""

    def __init__(self) -> None:
        self.alive = 0
        self.most = 0
        self.built = 0

    def through(self, tensor: Tensor) -> Tensor:
        """The tensor itself, behind a node of the graph that is counted as long as its context lives."""
        graphs = self

        class Token:
            def __init__(self) -> None:
                graphs.alive += 1
                graphs.built += 1
                graphs.most = max(graphs.most, graphs.alive)

            def __del__(self) -> None:
                graphs.alive -= 1

        class Counted(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, value: Tensor) -> Tensor:
                ctx.token = Token()
                return value.clone()

            @staticmethod
            def backward(ctx: Any, gradient: Tensor) -> Tensor:
                return gradient

        with_graph: Tensor = Counted.apply(tensor) if torch.is_grad_enabled() else tensor
        return with_graph


def lazy_losses(graphs: Graphs) -> Any:
    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Callable[[], Tensor]]:
        def task(k: int) -> Callable[[], Tensor]:
            def evaluate() -> Tensor:
                inputs, targets = problems.batch(seed=k)
                return (graphs.through(model(inputs)[k]) - targets[:, k]).square().mean()

            return evaluate

        return {f"t{k}": task(k) for k in range(3)}

    return losses


@pytest.fixture(autouse=True)
def _no_collector() -> Any:
    # What only the collector of reference cycles would free counts as alive.
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_one_graph_at_a_time(method: str, micro_batches: int) -> None:
    graphs = Graphs()
    torch.manual_seed(0)
    model = problems.Heads()
    objective = eq.Objective(model, lazy_losses(graphs), batches=problems.further_batches(model))
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.02), method)
    for _ in range(3):
        mtl.step(*[problems.batch()] * micro_batches)
        assert graphs.alive == 0, "the step left a graph behind"
    assert graphs.built >= 9 * micro_batches
    assert graphs.most == 1


@pytest.mark.parametrize("method", ["ls", "si", "mgda"])
def test_one_graph_at_a_time_in_the_drop_in(method: str) -> None:
    graphs = Graphs()
    torch.manual_seed(0)
    model = problems.Heads()
    balancer = eq.balancer(method)
    for _ in range(3):
        model.zero_grad()
        eq.backward(lazy_losses(graphs)(model, None), balancer)
        assert graphs.alive == 0
    assert graphs.most == 1


def test_one_graph_at_a_time_for_a_look_at_conflicts() -> None:
    graphs = Graphs()
    torch.manual_seed(0)
    model = problems.Heads()
    objective = eq.Objective(model, lazy_losses(graphs))
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.02), "ls")
    mtl.gramian(problems.batch())
    assert (graphs.alive, graphs.most) == (0, 1)


@pytest.mark.parametrize("method", METHODS)
def test_eager_graphs_go_with_the_step(method: str) -> None:
    graphs = Graphs()

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        return {f"t{k}": graphs.through(loss) for k, loss in enumerate(problems.losses(model, batch).values())}

    torch.manual_seed(0)
    model = problems.Heads()
    objective = eq.Objective(model, losses, batches=problems.further_batches(model))
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.02), method)
    for _ in range(2):
        found = mtl.step(problems.batch())
        assert graphs.alive == 0, "mtl.last or the losses keep the graph alive"
        assert not any(loss.requires_grad for loss in found.values())


@pytest.mark.parametrize("method", ["ls", "mgda"])
@pytest.mark.parametrize("features", [False, True])
def test_graphs_go_with_a_step_that_failed(method: str, features: bool) -> None:
    if features and method == "ls":
        pytest.skip("balancers that look at losses only have no use for features")
    graphs = Graphs()
    torch.manual_seed(0)
    model = problems.Heads()

    def losses(model: nn.Module, batch: tuple[problems.Batch, str]) -> dict[str, Tensor]:
        assert isinstance(model, problems.Heads)
        inputs, targets = batch[0]
        encoded = graphs.through(model.encoder(inputs))
        found = {f"t{k}": (head(encoded).squeeze(-1) - targets[:, k]).square().mean() for k, head in enumerate(model.heads)}
        if batch[1] == "raise":
            raise RuntimeError("the user's own")
        if batch[1] == "infinite":
            found["t1"] = found["t1"] * float("inf")
        return found

    options: dict[str, Any] = {"features": model.encoder} if features else {}
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.02), method, **options)
    mtl.step((problems.batch(), ""))
    for what, error in (("raise", RuntimeError), ("infinite", eq.NonFiniteError)):
        with pytest.raises(error):
            mtl.step((problems.batch(), what))
        gc.collect()  # a traceback is a cycle; what remains after it is gone is kept by the library
        assert graphs.alive == 0
    mtl.step((problems.batch(), ""))


def mixture(model: nn.Module, batch: problems.Batch) -> dict[str, Any]:
    """Two callables build on what is computed at once, a third has inputs of its own, and one loss is there already."""
    assert isinstance(model, problems.Heads)
    inputs, targets = batch
    encoded = model.encoder(inputs)

    def head(k: int, features: Tensor) -> Tensor:
        return (model.heads[k](features).squeeze(-1) - targets[:, k]).square().mean()

    return {
        "a": lambda: head(0, encoded),
        "b": head(1, encoded),
        "c": lambda: 3 * head(2, model.encoder(inputs.flip(0))),
        "d": lambda: 0.1 * head(0, encoded.tanh()),
    }


def evaluated(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
    return {name: loss if isinstance(loss, Tensor) else loss() for name, loss in mixture(model, batch).items()}


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_mixtures(method: str, micro_batches: int) -> None:
    def trained(losses: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = problems.Heads()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        objective = eq.Objective(model, losses, batches=problems.further_batches(model))
        mtl = eq.MultiTaskOptimizer(objective, optimizer, problems.balancer_of(method, tasks=4))
        for step in range(4):
            mtl.step(*(problems.batch(seed=10 * step + part) for part in range(micro_batches)))
        return problems.parameters_of(model)

    assert problems.same(trained(mixture), trained(evaluated), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["ls", "si", "mgda"])
def test_mixtures_in_the_drop_in(method: str) -> None:
    def trained(losses: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = problems.Heads()
        optimizer, balancer = torch.optim.SGD(model.parameters(), lr=0.01), eq.balancer(method)
        for step in range(4):
            optimizer.zero_grad()
            eq.backward(losses(model, problems.batch(seed=step)), balancer)
            optimizer.step()
        return problems.parameters_of(model)

    assert problems.same(trained(mixture), trained(evaluated), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["uw", "si", "famo"])
def test_mixtures_with_dropout_draw_the_same_masks_in_rehearsal_and_performance(method: str) -> None:
    """Also in the first step, when it is not known yet that there will be a rehearsal."""
    torch.manual_seed(0)
    model = problems.Heads(dropout=0.5)
    drawn: list[Tensor] = []

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Any]:
        assert isinstance(model, problems.Heads)
        features = model.encoder(batch[0])
        drawn.append(features.detach().clone())

        def late() -> Tensor:
            again = model.encoder(batch[0])
            drawn.append(again.detach().clone())
            return model.heads[1](again).square().mean()

        return {"now": model.heads[0](features).square().mean(), "late": late}

    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.0), method)
    for _ in range(2):
        drawn.clear()
        mtl.step(problems.batch())
        # Evaluations of the eager part and of the late one alternate or not, but each kind always meets the same masks.
        kinds = {tuple(features.flatten().tolist()) for features in drawn}
        assert len(kinds) == 2
