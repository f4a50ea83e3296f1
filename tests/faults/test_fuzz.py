"""One step of every method, on models of every make, compared with gradients that plain autograd computes task by task."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.double_sampling import DoubleSampling
from equipoise.balance.mixins import PullsHeads
from equipoise.dropin import _known
from equipoise.engine.reals import flat
from tests import problems

SAMPLES, WIDTH = 6, 5
TASKS = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Make:
    """What a model is made of, and what is asked of it.

    Attributes:
        output: what the encoder gives: one tensor, one tensor twice, or maps of two stages.
        spectrum: a layer of complex weights in the encoder.
        sparse: the encoder begins with a table whose gradients are sparse.
        frozen: how much of the encoder is not trained.
        adapter: parameters that the first two tasks share, above the encoder.
        callables: tasks whose losses are given as callables.
        batches: for each micro-batch the tasks that it holds.
        route: which way in.
        inputs: the inputs require grad.
        scale: of the first task's loss.
    """

    output: str
    spectrum: bool
    sparse: bool
    frozen: str
    adapter: bool
    callables: frozenset[str]
    batches: tuple[frozenset[str], ...]
    route: str
    inputs: bool
    scale: float


_SOME = st.frozensets(st.sampled_from(TASKS), min_size=1)
MAKES = st.builds(
    Make,
    output=st.sampled_from(["one", "twice", "maps"]),
    spectrum=st.booleans(),
    sparse=st.booleans(),
    frozen=st.sampled_from(["nothing", "nothing", "a part", "all"]),
    adapter=st.booleans(),
    callables=st.one_of(st.just(frozenset()), st.frozensets(st.sampled_from(TASKS))),
    batches=st.one_of(
        st.just((frozenset(TASKS),)),
        st.just((frozenset(TASKS), frozenset("ab"))),
        st.lists(_SOME, min_size=1, max_size=2).map(tuple),
    ),
    route=st.sampled_from(["step", "declared", "batched", "drop-in", "features"]),
    inputs=st.booleans(),
    scale=st.sampled_from([1.0, 1e-4, 1e3]),
)


class Encoder(nn.Module):
    def __init__(self, make: Make) -> None:
        super().__init__()
        self.make = make
        self.first = nn.Embedding(7, 4, sparse=True) if make.sparse else nn.Linear(4, 4)
        self.second = nn.Linear(4, WIDTH)
        if make.spectrum:
            self.spectrum = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=torch.complex128))
        self.double()

    def forward(self, inputs: Tensor) -> Any:
        low = torch.tanh(self.second(self.first(inputs)))
        high = low.sin()
        if self.make.spectrum:
            high = (high.to(torch.complex128) @ self.spectrum).abs()
        return {"one": high, "twice": (high, {"again": high}), "maps": [low, high]}[self.make.output]


class Model(nn.Module):
    def __init__(self, make: Make) -> None:
        super().__init__()
        self.make = make
        self.encoder = Encoder(make)
        self.adapter = nn.Parameter(torch.randn(WIDTH, dtype=torch.float64)) if make.adapter else None
        self.heads = nn.ModuleDict({task: nn.Linear(WIDTH, 1).double() for task in TASKS})
        frozen = {"nothing": [], "a part": [self.encoder.second], "all": [self.encoder]}[make.frozen]
        for part in frozen:
            part.requires_grad_(False)

    def loss(self, task: str, features: Any, targets: Tensor) -> Tensor:
        given = {
            "one": lambda: features,
            "twice": lambda: features[1]["again"] + features[0].exp(),
            "maps": lambda: features[0] if task == "a" else features[0] * features[1],
        }[self.make.output]()
        if self.adapter is not None and task in "ab":
            given = given * self.adapter
        errors = self.heads[task](given).squeeze(-1) - targets[:, TASKS.index(task)]
        return (self.make.scale if task == "a" else 1.0) * errors.square().mean() + 0.1


def losses(model: Model, batch: tuple[Tensor, Tensor, frozenset[str]]) -> dict[str, Any]:
    inputs, targets, present = batch
    features = model.encoder(inputs)
    found: dict[str, Any] = {}
    for task in TASKS:
        if task not in present:
            continue
        if task in model.make.callables:
            found[task] = lambda task=task: model.loss(task, model.encoder(inputs), targets)
        else:
            found[task] = model.loss(task, features, targets)
    return found


def drawn(make: Make, seed: int, present: frozenset[str]) -> tuple[Tensor, Tensor, frozenset[str]]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randn(SAMPLES, len(TASKS), dtype=torch.float64, generator=generator)
    if make.sparse:
        return torch.randint(7, (SAMPLES,), generator=generator), targets, present
    inputs = torch.randn(SAMPLES, 4, dtype=torch.float64, generator=generator)
    return inputs.requires_grad_(make.inputs), targets, present


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor | None]:
    """By plain autograd, dense."""
    found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    return [gradient.to_dense() if gradient is not None and gradient.is_sparse else gradient for gradient in found]


class Expected:
    """Mean losses and gradients of the tasks present, by plain autograd."""

    def __init__(self, model: Model, batches: list[Any]) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        sums: dict[str, list[Any]] = {}
        for batch in batches:
            for task, loss in losses(model, batch).items():
                value = loss() if callable(loss) else loss
                entry = sums.setdefault(task, [0, 0.0, [None] * len(self.parameters)])
                entry[0] += 1
                entry[1] = entry[1] + value.detach()
                entry[2] = [
                    before if gradient is None else gradient + (0 if before is None else before)
                    for before, gradient in zip(entry[2], gradients(value, self.parameters), strict=True)
                ]
        self.tasks = tuple(task for task in TASKS if task in sums)
        self.losses = torch.stack([sums[task][1] / sums[task][0] for task in self.tasks])
        self.gradients = {
            task: [None if gradient is None else gradient / sums[task][0] for gradient in sums[task][2]] for task in self.tasks
        }
        reached = [sum(self.gradients[task][place] is not None for task in self.tasks) for place in range(len(self.parameters))]
        least = 2 if len(self.tasks) > 1 else 1
        self.shared = [parameter for parameter, count in zip(self.parameters, reached, strict=True) if count >= least]

    def of(self, task: str, parameter: Tensor) -> Tensor | None:
        place = next(place for place, other in enumerate(self.parameters) if other is parameter)
        return self.gradients[task][place]

    def rows(self, parameters: list[Tensor]) -> Tensor:
        """G ``[k, P]`` of some parameters."""

        def entry(task: str, parameter: Tensor) -> Tensor:
            gradient = self.of(task, parameter)
            return flat(torch.zeros_like(parameter) if gradient is None else gradient).detach()

        return torch.stack([torch.cat([entry(task, parameter) for parameter in parameters]) for task in self.tasks])

    def combined(self, parameter: Tensor, weights: dict[str, float]) -> Tensor | None:
        """Σ_k w_k g_k of one parameter; ``None`` where no task reaches it."""
        parts = [(weights[task], self.of(task, parameter)) for task in self.tasks]
        found = [weight * gradient for weight, gradient in parts if gradient is not None]
        return sum(found) if found else None  # type: ignore[return-value]


def features_gramian(model: Model, batch: Any) -> Tensor:
    """Of the gradients by the encoder's distinct outputs, cut off from it."""
    leaves: dict[int, Tensor] = {}

    def cut(output: Any) -> Any:
        if isinstance(output, Tensor):
            return leaves.setdefault(id(output), output.detach().requires_grad_())
        if isinstance(output, dict):
            return {name: cut(part) for name, part in output.items()}
        return [cut(part) for part in output]

    inputs, targets, present = batch
    features = cut(model.encoder(inputs))
    rows = []
    for task in TASKS:
        if task in present:
            found = gradients(model.loss(task, features, targets), list(leaves.values()))
            pairs = zip(found, leaves.values(), strict=True)
            rows.append(torch.cat([flat(torch.zeros_like(leaf) if g is None else g) for g, leaf in pairs]))
    stacked = torch.stack(rows)
    return stacked @ stacked.T


def close(got: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(got, expected, rtol=1e-7, atol=1e-9 * scale + 1e-300)


def adapted(make: Make, balancer: Any) -> Make:
    """The nearest that this balancer serves; what it refuses has tests of its own."""
    changes: dict[str, Any] = {}
    route = make.route
    served = balancer.needs == "gramian" and not isinstance(balancer, DoubleSampling | PullsHeads)
    if route == "features" and (not served or (make.frozen == "all" and make.adapter)):
        route = "step"
    if route == "batched" and make.sparse:
        route = "step"  # vmap makes no sparse gradients
    if route == "features":
        changes |= {"callables": frozenset(), "batches": make.batches[:1]}
    elif route == "drop-in":
        # Under a frozen encoder inputs cannot be told from parameters that are plain tensors.
        changes |= {"batches": make.batches[:1], "inputs": make.inputs and make.frozen != "all"}
    return Make(**{**vars(make), "route": route, **changes})


def taken(make: Make, model: Model, balancer: Any, batches: list[Any]) -> tuple[eq.step.StepReport, list[Tensor]]:
    """One step, and what it found shared, in its order."""
    further = [drawn(make, 100 + place, frozenset(TASKS)) for place in range(6)]
    if make.route == "drop-in":
        looked_at = [losses(model, batch) for batch in further[:2]] if isinstance(balancer, DoubleSampling) else None
        report = eq.backward(losses(model, batches[0]), balancer, tasks=TASKS, further=looked_at)
        return report, _known[id(balancer)].context.shared.parameters
    options: dict[str, Any] = {
        "declared": {"shared": [*model.encoder.parameters(), *([] if model.adapter is None else [model.adapter])]},
        "batched": {"batched": 0},
        "features": {"features": "encoder"},
    }
    objective = eq.Objective(model, losses, tasks=TASKS, batches=further)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.0), balancer, **options.get(make.route, {}))
    mtl.step(*batches)
    assert mtl.last is not None
    return mtl.last, mtl.shared


@pytest.mark.parametrize("method", [*problems.METHODS, *problems.SAMPLING])
@settings(max_examples=8, deadline=None, derandomize=True, database=None, phases=(Phase.generate,))
@given(make=MAKES)
def test_a_step_is_what_plain_autograd_says(method: str, make: Make) -> None:
    balancer, fresh = eq.balancer(method), eq.balancer(method)
    make = adapted(make, balancer)
    note(str(make))
    torch.manual_seed(0)
    model = Model(make)
    batches = [drawn(make, seed, present) for seed, present in enumerate(make.batches)]
    expected = Expected(model, batches)
    gramian = features_gramian(model, batches[0]) if make.route == "features" else None
    # Further batches hold all tasks, and may tell more of what is shared.
    everything = [drawn(make, 0, frozenset(TASKS))]
    shared = Expected(model, everything).shared if isinstance(balancer, DoubleSampling) else expected.shared
    if make.route == "declared":
        ids = {id(parameter) for parameter in (*model.encoder.parameters(), model.adapter)}
        shared = [parameter for parameter in expected.parameters if id(parameter) in ids]
    if make.route == "features" and make.frozen == "all":
        shared = []
    nothing = not shared and not isinstance(balancer, LossBalancer)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        report, found = taken(make, model, balancer, batches)
    assert [str(warning.message)[:38] for warning in said] == ["no parameter that the tasks share is t"] * nothing

    if found:
        assert {id(parameter) for parameter in found} == {id(parameter) for parameter in shared}
        shared = found
    assert report.tasks == expected.tasks
    assert close(report.losses.double(), expected.losses)
    if nothing:
        assert report.weights is None
        assert report.gramian is None
    elif report.gramian is not None:
        rows = expected.rows(shared)
        assert close(report.gramian, rows @ rows.T if gramian is None else gramian)
    balanced = dict.fromkeys(expected.tasks, 1.0)
    if report.weights is not None:
        balanced = dict(zip(report.tasks, report.weights.tolist(), strict=True))
    own = balanced if isinstance(balancer, LossBalancer) else dict.fromkeys(expected.tasks, 1.0)
    ids = {id(parameter) for parameter in shared}
    for parameter in expected.parameters:
        if id(parameter) in ids and report.weights is None:
            continue
        if id(parameter) not in ids and isinstance(balancer, PullsHeads):
            continue  # second derivatives come on top
        right = expected.combined(parameter, balanced if id(parameter) in ids else own)
        if right is None:
            assert parameter.grad is None
            continue
        assert parameter.grad is not None
        assert close(parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad, right)
    if report.weights is None and not nothing:
        positions = tuple(TASKS.index(task) for task in expected.tasks)
        rows = expected.rows(shared)
        direction = fresh.decide(Observation(TASKS, positions, expected.losses, gradients=rows))
        start = 0
        for parameter in shared:
            right = direction[start : start + flat(parameter).numel()]
            start += len(right)
            if expected.combined(parameter, own) is not None:
                got = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
                assert close(flat(got), right) or close(flat(got) / direction.abs().max(), right / direction.abs().max())
    if make.inputs and not make.sparse and make.route == "drop-in":
        leaf = batches[0][0]
        values = {task: loss() if callable(loss) else loss for task, loss in losses(model, batches[0]).items()}
        assert close(leaf.grad, sum(own[task] * gradients(value, [leaf])[0] for task, value in values.items()))
