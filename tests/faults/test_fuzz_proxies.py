"""Steps with proxy Gramians on models of every make: whatever the proxy, gradients are those that plain autograd computes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import equipoise as eq
from tests.faults import test_fuzz as plain
from tests.faults.test_fuzz import MAKES, TASKS, Expected, Make, close, drawn

TWISTS = (
    "chain",
    "sum",
    "vector",
    "stack",
    "skip",
    "tied",
    "in place",
    "custom",
    "checkpoint",
    "forces",
    "flat",
    "same",
    "packed",
)


class Several(torch.autograd.Function):
    """Takes what needs no gradient and what is no tensor, and hands a gradient on in another shape and precision."""

    @staticmethod
    def forward(ctx: Any, number: float, fixed: Tensor, taken: Tensor, bias: Tensor) -> Tensor:
        ctx.number, ctx.shape = number, bias.shape
        return taken * number + fixed + bias

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, gradient * ctx.number, gradient


class Twisted(plain.Model):
    """Heads that build on each other, tied weights, changes in place, and what else there is."""

    def __init__(self, make: Make, twists: frozenset[str]) -> None:
        super().__init__(make)
        self.twists = twists
        self.exact = False
        self.bias = nn.Parameter(torch.randn(plain.WIDTH, dtype=torch.float64))

    def losses(self, batch: tuple[Tensor, Tensor, frozenset[str]]) -> dict[str, Any]:
        inputs, targets, present = batch
        twists, make = self.twists, self.make
        encoder = self.encoder
        features = checkpoint(encoder, inputs, use_reentrant=False) if "checkpoint" in twists else encoder(inputs)
        joined = {"one": lambda: features, "twice": lambda: features[0] * 2, "maps": lambda: features[0] + features[1].exp()}
        shared = joined[make.output]()
        views: dict[str, Tensor] = {}
        if "in place" in twists:
            buffer = shared * 1.0
            views = {task: buffer[:, place] for place, task in enumerate(TASKS)}
            buffer.mul_(1.5)
            shared = torch.relu_(buffer * 1.0) + buffer
        found: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}
        for task in sorted(TASKS, key=lambda task: task == "b"):
            given = shared
            if self.adapter is not None and task in "ab":
                given = given * self.adapter
            if "skip" in twists and task == "c":
                given = given + encoder.first(inputs).sum(-1, keepdim=True)
            if "tied" in twists and task in "cd":
                given = given @ encoder.second.weight @ encoder.second.weight.T
            if "custom" in twists and task != "d":
                given = Several.apply(2.0, given.detach()[:1], given, self.bias)
            if "chain" in twists and task == "b":
                given = given + outputs["a"].unsqueeze(-1)
            if views:
                given = given * views[task].unsqueeze(-1)
            outputs[task] = self.heads[task](given).squeeze(-1)
        for place, task in enumerate(TASKS):
            errors = outputs[task] - targets[:, place]
            found[task] = (make.scale if task == "a" else 1.0) * errors.square().mean() + 0.1
        if "forces" in twists:
            (slope,) = torch.autograd.grad(outputs["c"].sum(), shared, create_graph=True, allow_unused=True)
            if slope is not None and slope.requires_grad:
                found["c"] = found["c"] + slope.square().mean()
        if "flat" in twists:
            found["c"] = found["c"] * 0.0 + 1.0
        if "sum" in twists:
            found["d"] = found["d"] + found["a"] + 0.5 * found["b"]
        if "same" in twists:
            found["d"] = found["b"]
        found = {task: found[task] for task in TASKS if task in present}
        if "vector" in twists:
            vector = torch.stack(list(found.values())) * 1.0
            found = {task: vector[place] for place, task in enumerate(found)}
        elif "stack" in twists and not self.exact:
            found = dict(zip(found, torch.stack(list(found.values())).unbind(), strict=True))
        return found


def evaluated(model: Twisted, batch: Any) -> dict[str, Any]:
    if "packed" in model.twists:
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor):
            found = model.losses(batch)
    else:
        found = model.losses(batch)
    return {
        task: (lambda task=task: model.losses(batch)[task]) if task in model.make.callables else loss
        for task, loss in found.items()
    }


class Truth(Expected):
    def __init__(self, model: Twisted, batches: list[Any]) -> None:
        # An entry of a stack reaches what was stacked: plain autograd would say that it reaches all of it, with zeros.
        kept, plain.losses, model.exact = plain.losses, evaluated, True  # type: ignore[assignment]
        try:
            super().__init__(model, batches)  # type: ignore[arg-type]
        finally:
            plain.losses, model.exact = kept, False


def step(model: Twisted, batches: list[Any], proxy: str, balancer: str) -> tuple[eq.step.StepReport, list[Tensor], bool]:
    """One step of MultiTaskOptimizer, the drop-in or the balanced loss; whether heads get weighted gradients."""
    make = model.make
    where: Any = [model.encoder.second.weight, *model.encoder.first.parameters()] if proxy == "named" else proxy
    if make.route in ("step", "declared"):
        shared = [*model.encoder.parameters(), *([] if model.adapter is None else [model.adapter])]
        objective = eq.Objective(model, evaluated, tasks=TASKS)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        options: Any = {"shared": shared} if make.route == "declared" else {}
        audit = eq.Proxy(where, audit=1, at_least=-1.0) if make.scale == 1.0 else eq.Proxy(where, audit=0)
        mtl = eq.MultiTaskOptimizer(objective, optimizer, balancer, proxy=audit, **options)
        mtl.step(*batches)
        assert mtl.last is not None
        return mtl.last, mtl.shared, False
    kept = eq.balancer(balancer)
    audit = eq.Proxy(where, audit=0)
    if make.route == "drop-in":
        report = eq.backward(evaluated(model, batches[0]), kept, tasks=TASKS, proxy=audit)
        return report, plain._known[id(kept)].context.shared.parameters, False
    heads = "own" if make.route == "own" else "weighted"
    values = evaluated(model, batches[0])
    # Heads of a batch that lacks tasks are told from what is shared by a batch that does not.
    if heads == "own" and len(values) < len(TASKS):
        eq.balanced_loss(evaluated(model, (*batches[0][:2], frozenset(TASKS))), kept, audit, heads="own", tasks=TASKS)
    loss = eq.balanced_loss(values, kept, audit, tasks=TASKS, heads=heads)
    assert all(parameter.grad is None for parameter in model.parameters())
    (2.0 * loss + (0.0 if loss.requires_grad else 1.0)).backward(retain_graph=True)
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad = parameter.grad / 2.0
    # What is differentiated further is as it would be without.
    for task, value in values.items():
        leaves = [parameter for parameter in model.parameters() if parameter.requires_grad]
        again = evaluated(model, batches[0])[task]
        for ours, theirs in zip(plain.gradients(value, leaves), plain.gradients(again, leaves), strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or close(ours, theirs)
    return loss.report, [], heads == "weighted"


ROUTES = ("step", "declared", "drop-in", "weighted", "own")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("proxy", ["last", "features", "named"])
@settings(max_examples=12, deadline=None, derandomize=True, database=None, phases=(Phase.generate,))
@given(
    make=MAKES,
    twists=st.frozensets(st.sampled_from(TWISTS), max_size=4),
    balancer=st.sampled_from(["fairgrad", "imtl-g", "pcgrad", "nash-mtl", "upgrad"]),
)
def test_whatever_the_proxy_the_gradients_are_right(route: str, proxy: str, make: Make, twists: Any, balancer: str) -> None:
    changes: dict[str, Any] = {"route": route, "frozen": "nothing" if make.frozen == "all" else make.frozen}
    if make.frozen == "a part" and proxy == "named" and make.sparse:
        changes["frozen"] = "nothing"
    if route not in ("step", "declared"):
        changes["batches"] = make.batches[:1]
    if route in ("weighted", "own"):
        changes["callables"] = frozenset()
    make = Make(**{**vars(make), **changes})
    note(f"{make} {sorted(twists)} {balancer}")
    torch.manual_seed(0)
    model = Twisted(make, twists)
    batches = [drawn(make, seed, present) for seed, present in enumerate(make.batches)]
    expected = Truth(model, batches)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report, shared, weighted = step(model, batches, proxy, balancer)
    if not shared:
        full = (*batches[0][:2], frozenset(TASKS))
        shared = Truth(model, [full]).shared if route == "own" else expected.shared
    if route == "step":
        assert {id(p) for p in shared} == {id(p) for p in expected.shared}
    assert report.tasks == expected.tasks
    assert close(report.losses.double(), expected.losses)
    balanced = dict(zip(report.tasks, report.weights.tolist(), strict=True))
    leaf = batches[0][0]
    if make.inputs and not make.sparse and route == "drop-in":
        values = {task: loss() if callable(loss) else loss for task, loss in evaluated(model, batches[0]).items()}
        assert close(leaf.grad, sum(plain.gradients(value, [leaf])[0] for value in values.values()))
    elif route in ("step", "declared"):
        assert leaf.grad is None
    ids = {id(parameter) for parameter in shared}
    own = balanced if weighted else dict.fromkeys(expected.tasks, 1.0)
    places = [
        parameter.grad.data_ptr()
        for parameter in model.parameters()
        if parameter.grad is not None and not parameter.grad.is_sparse
    ]
    assert len(places) == len(set(places))
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None
            continue
        right = expected.combined(parameter, balanced if id(parameter) in ids else own)
        if right is None:
            assert parameter.grad is None
            continue
        assert parameter.grad is not None, name
        assert close(parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad, right), name
