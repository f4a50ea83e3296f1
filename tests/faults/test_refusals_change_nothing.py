"""A refused step changes nothing: no parameter, buffer, state, task or random number; what follows is as if it had not been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.double_sampling import DoubleSampling
from equipoise.errors import UnknownTaskError
from tests import problems
from tests.states import assert_same_state, kept

Batch = tuple[problems.Batch, str]
METHODS = ["ls", "uw", "famo", "si", "rlw", "mgda", "pcgrad", "nash-mtl", "graddrop", "moco", "modo"]


class Moving(nn.Module):
    """A model in which everything moves as it runs: dropout, batch norm, a spectral norm, a count, a buffer made anew."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 8))
        self.encoder = nn.Sequential(first, nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3))
        self.heads = nn.ModuleList(nn.Linear(8, 1) for _ in range(3))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("late", None)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        features = self.encoder(inputs)
        if self.training:
            self.seen += 1
            self.mean = 0.9 * self.mean + 0.1 * features.detach().mean(0)
            self.late = torch.ones(2) if self.late is None else self.late + 1
        return [head(features).squeeze(-1) for head in self.heads]


def losses(model: nn.Module, batch: Batch) -> dict[str, Any]:
    found: dict[str, Any] = dict(problems.losses(model, batch[0]))
    t1 = found["t1"]
    if batch[1] == "loss":
        found["t1"] = t1 * float("nan")
    if batch[1] == "gradient":
        found["t1"] = t1 + (t1 - t1).sqrt()
    if batch[1] == "unknown task":
        found["other"] = t1
    if batch[1] == "shape":
        found["t1"] = torch.stack([t1, t1])
    if batch[1] == "detached":
        found["t1"] = t1.detach()
    if batch[1] == "callable":

        def broken() -> Tensor:
            torch.rand(3)
            raise ValueError("on demand")

        found["t1"] = broken
    return found


HOW = ["loss", "gradient", "unknown task", "shape", "detached", "callable"]


def made(method: str, **options: Any) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = Moving()
    balancer = problems.balancer_of(method)
    further = [(batch, "") for batch in problems.further_batches(problems.Heads())]
    objective = eq.Objective(model, losses, batches=further if isinstance(balancer, DoubleSampling) else None)
    torch.manual_seed(1)
    return eq.MultiTaskOptimizer(objective, torch.optim.Adam(model.parameters(), lr=0.01), balancer, **options)


def everything(mtl: eq.MultiTaskOptimizer) -> dict[str, Any]:
    state = mtl.state_dict()
    state.pop("further", None)  # drawn batches count as used
    buffers = dict(mtl.objective.model.named_buffers())
    return kept({**state, "random": torch.get_rng_state(), "buffers": buffers})


@pytest.mark.parametrize(  # what is not finite is looked for only with check_finite
    ("steps", "how", "check_finite"),
    [(steps, how, True) for steps in (0, 2) for how in HOW]
    + [(2 * (place % 2), how, False) for place, how in enumerate(HOW) if how not in ("loss", "gradient")],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_refused_step_changes_nothing(steps: int, method: str, how: str, check_finite: bool) -> None:
    mtl = made(method, check_finite=check_finite)
    for seed in range(steps):
        mtl.step((problems.batch(seed=seed), ""))
    before = everything(mtl)
    micro_batches = [(problems.batch(seed=8), ""), (problems.batch(seed=9), how)]
    with pytest.raises((eq.EquipoiseError, ValueError)):
        mtl.step(*micro_batches)
    assert_same_state(everything(mtl), before)
    if steps or how != "unknown task":
        with pytest.raises((eq.EquipoiseError, ValueError)):
            mtl.step((problems.batch(seed=9), "detached"))
    assert_same_state(everything(mtl), before)


@pytest.mark.parametrize("how", ["loss", "gradient", "shape", "detached", "callable"])
@pytest.mark.parametrize("method", ["uw", "mgda"])
def test_a_refused_first_step_fixes_no_tasks(method: str, how: str) -> None:
    """Those of the first step that is taken are the tasks, and their order."""

    def some(model: nn.Module, batch: tuple[Batch, tuple[str, ...]]) -> dict[str, Any]:
        found = losses(model, batch[0])
        return {name: found[name] for name in batch[1]}

    model = problems.Heads()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, some), torch.optim.SGD(model.parameters(), lr=0.01), method)
    with pytest.raises((eq.EquipoiseError, ValueError)):
        mtl.step(((problems.batch(), how), ("t1",)))
    assert not mtl.objective.tasks.known
    assert mtl.shared == []
    mtl.step(((problems.batch(), ""), ("t2", "t0", "t1")))
    assert mtl.objective.tasks.names == ("t2", "t0", "t1")
    with pytest.raises(UnknownTaskError):
        mtl.step(((problems.batch(), "unknown task"), ("t0", "other")))


def test_the_example_of_the_issue() -> None:
    model = nn.Linear(3, 2)

    def of(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        out = model(torch.ones(2, 3)).square().mean(0)
        return {"a": out[0] * float("nan")} if batch == "bad" else {"a": out[0], "b": out[1]}

    mtl = eq.MultiTaskOptimizer(eq.Objective(model, of), torch.optim.SGD(model.parameters(), lr=0.1), "mgda")
    with pytest.raises(eq.NonFiniteError):
        mtl.step("bad")
    assert set(mtl.step("good")) == {"a", "b"}


def test_a_look_fixes_no_tasks() -> None:
    def some(model: nn.Module, batch: tuple[problems.Batch, tuple[str, ...]]) -> dict[str, Tensor]:
        found = problems.losses(model, batch[0])
        return {name: found[name] for name in batch[1]}

    model = problems.Heads()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, some), torch.optim.SGD(model.parameters(), lr=0.01), "mgda")
    assert mtl.gramian((problems.batch(), ("t1",))).shape == (1, 1)
    assert set(mtl.step((problems.batch(), ("t0", "t1")))) == {"t0", "t1"}


@pytest.mark.parametrize("how", ["loss", "detached", "callable"])
@pytest.mark.parametrize("declared", [None, ("t0", "t1", "t2"), ("t1",)])
@pytest.mark.parametrize("method", ["uw", "mgda"])
def test_a_refused_first_call_of_the_dropin(method: str, declared: tuple[str, ...] | None, how: str) -> None:
    model, balancer = problems.Heads(), eq.balancer(method)
    before = kept(balancer.state_dict())
    bad = losses(model, (problems.batch(), how))
    random = torch.get_rng_state()
    with pytest.raises((eq.EquipoiseError, ValueError)):
        eq.backward({"t1": bad["t1"]}, balancer, tasks=declared)
    assert torch.equal(torch.get_rng_state(), random)
    assert_same_state(balancer.state_dict(), before)
    report = eq.backward(problems.losses(model, problems.batch()), balancer, tasks=("t2", "t1", "t0"))
    assert set(report.tasks) == {"t0", "t1", "t2"}


class Failing(torch.optim.SGD):
    """Draws a random number and then fails."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        torch.rand(2)
        raise RuntimeError("on demand")


def test_an_optimizer_that_fails_changes_nothing() -> None:
    mtl = made("uw")
    mtl = eq.MultiTaskOptimizer(mtl.objective, Failing(mtl.objective.model.parameters(), lr=0.1), "uw")
    before = everything(mtl)
    with pytest.raises(RuntimeError, match="on demand"):
        mtl.step((problems.batch(), ""))
    assert_same_state(everything(mtl), before)
    assert not mtl.objective.tasks.known


@pytest.mark.parametrize("prepare", [lambda mtl: None, lambda mtl: mtl.objective.model.eval()])
def test_what_follows_a_refused_step_is_as_if_it_had_not_been(prepare: Callable[[eq.MultiTaskOptimizer], Any]) -> None:
    def trained(refused: bool) -> dict[str, Any]:
        mtl = made("pcgrad")
        prepare(mtl)
        for seed in range(4):
            if refused:
                with pytest.raises(eq.NonFiniteError):
                    mtl.step((problems.batch(seed=seed + 20), "gradient"))
            mtl.step((problems.batch(seed=seed), ""))
        return everything(mtl)

    assert_same_state(trained(True), trained(False))
