"""A step of learned task weights, next to LibMTL's trainer: FORUM with T = 5 lower steps, MOML with T = 1.

LibMTL's trainer is driven as it stands: its own methods take the step, on the CPU, on the same network, batches, step sizes
and optimizers (Adam for the model and for the weights). Only its constructor, which wants a CUDA device, is gone round,
and its running metrics are given nothing to count. Its MOML takes the ordinary step at the end on a batch of its own; here
that is the training batch, as in ours.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import equipoise as eq
from benchmarks import peers
from benchmarks.networks import PROBLEMS, Network, Problem, losses_of
from benchmarks.tables import table
from benchmarks.timing import race

__all__ = ["run"]

TASKS = (2, 4, 11)
SETTINGS: dict[str, dict[str, Any]] = {
    "forum": {"lower_steps": 5, "lower_lr": 1e-3, "rho": 0.1, "normalize": True},
    "forum, streamed": {"lower_steps": 5, "lower_lr": 1e-3, "rho": 0.1, "normalize": True, "memory": "streamed"},
    "moml": {"lower_steps": 1, "lower_lr": 1e-3},
    "moml, ls": {"lower_steps": 1, "lower_lr": 1e-3, "balancer": "ls"},
}


def large() -> nn.Module:
    """Four layers, 128 → 1024 → 1024 → 1024 → 512: 2.8 M parameters."""
    widths = [128, 1024, 1024, 1024, 512]
    return nn.Sequential(*(layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())))


LARGE = Problem("MLP, 3 M parameters, batch 128", 128, (128,), 512, large)
Step = Callable[[int], object]


def run(say: Callable[[str], None], *, budget: float) -> None:
    """Prints the table."""
    trainer = _trainer()
    if trainer is None:
        say("LibMTL's trainer with MOML and FORUM cannot be imported (its repository has it): its column is left out.")
    cases = [(problem, tasks, method) for problem in PROBLEMS for tasks in TASKS for method in SETTINGS]
    cases = [(LARGE, 11, method) for method in SETTINGS] + cases
    rows = []
    for problem, tasks, method in cases:
        runs: dict[str, Step] = {"ours": _ours(problem, tasks, method), "pass": _pass(problem, tasks, together=True)}
        runs["objectives"] = _pass(problem, tasks, together=False)
        if trainer is not None:
            runs["LibMTL"] = _theirs(trainer, problem, tasks, method)
        times = race(runs, seconds=budget * 200 / len(cases), limit=60.0)
        peer = [f"{times.ratio('LibMTL', 'ours'):.2f}"] if trainer is not None else []
        one = times.median("pass")
        beyond = (times.median("ours") - times.median("objectives")) / one
        numbers = [f"{times.median('ours') * 1e3:.1f}", f"{times.ratio('ours', 'pass'):.1f}", f"{beyond:.1f}"]
        rows.append([problem.name, str(tasks), method, *numbers, *peer])
    head = ["network", "K", "method", "ours, ms", "in passes", "beyond the objectives"]
    head += ["LibMTL over ours"] if trainer is not None else []
    say(
        "## Learned task weights\n\nA step of `TaskWeighting`: a training and a validation batch, Adam. `forum` with T = 5 and "
        "unit gradients, `moml` with T = 1, as LibMTL has them. Processor time; above 1 ours is faster. A *pass* is one "
        "forward and backward pass of the sum of the losses; the *objectives* are one forward pass and K backward passes.\n\n"
        + table(head, rows)
    )


def _pass(problem: Problem, tasks: int, *, together: bool) -> Step:
    """A forward and a backward pass of the sum of the losses, or one forward pass and a backward pass per task."""
    network, (inputs, targets) = problem.network(tasks), problem.batch(tasks, 0)
    parameters = list(network.parameters())

    def step(_: int) -> object:
        losses = list(losses_of(network(inputs), targets).values())
        starts = [torch.stack(losses).sum()] if together else losses
        return [torch.autograd.grad(start, parameters, retain_graph=True, allow_unused=True) for start in starts]

    return step


def _ours(problem: Problem, tasks: int, method: str) -> Step:
    network = problem.network(tasks)
    training, validation = problem.batch(tasks, 0), problem.batch(tasks, 1)

    def losses(model: Network, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return losses_of(model(batch[0]), batch[1])

    objective = eq.Objective(network, losses)
    name = method.partition(",")[0]
    options = SETTINGS[method] | ({"careful": False} if name == "forum" else {})
    weighting = eq.bilevel.TaskWeighting(objective, torch.optim.Adam(network.parameters(), 1e-3), name, **options)
    return lambda _: weighting.step(training, validation)


def _trainer() -> Any | None:
    """LibMTL's trainer class, if it is there and knows the bilevel methods."""
    if peers.libmtl() is None:
        return None
    # What the trainer's module imports beside what is used here.
    for name in ("LibMTL._record",):
        sys.modules.setdefault(name, ModuleType(name))
        sys.modules[name]._PerformanceMeter = None  # type: ignore[attr-defined]
    try:
        trainer = importlib.import_module("LibMTL.trainer").Trainer
    except (ImportError, AttributeError):
        return None
    return trainer if hasattr(trainer, "bacth_forward_FORUM") else None


class _Meter:
    """Counts nothing."""

    def update(self, *_: Any) -> None: ...


def _theirs(trainer: Any, problem: Problem, tasks: int, method: str) -> Step:
    network = problem.network(tasks)
    names = list(network.heads)

    class Driven(trainer):  # type: ignore[misc]
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.device = torch.device("cpu")
            self.task_num, self.task_name, self.multi_input = tasks, names, False
            self.model = network
            self.optimizer = torch.optim.Adam(network.parameters(), 1e-3)
            self.scheduler = None
            own = SETTINGS[method]
            self.kwargs = {
                "weight_args": {"inner_step": own["lower_steps"], "inner_lr": own["lower_lr"], "FORUM_phi": own.get("rho", 0.0)}
            }
            self.meter = _Meter()
            self._prepare_tw(1e-3)

        def _compute_loss(self, preds: dict[str, Tensor], gts: dict[str, Tensor], task_name: Any = None) -> Tensor:
            losses = torch.zeros(tasks)
            for place, name in enumerate(names):
                losses[place] = nn.functional.mse_loss(preds[name].squeeze(1), gts[name])
            return losses

    driven = Driven()

    def named(number: int) -> tuple[Tensor, dict[str, Tensor]]:
        inputs, targets = problem.batch(tasks, number)
        return inputs, {name: targets[:, place].contiguous() for place, name in enumerate(names)}

    (inner, inner_targets), (outer, outer_targets) = named(0), named(1)
    multipliers = np.zeros([tasks])

    class Endless:
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return inner, dict(inner_targets)

    def step(turn: int) -> object:
        nonlocal multipliers
        if method.startswith("moml"):
            return driven.bacth_forward_MOML(inner, inner_targets, outer, outer_targets, [Endless(), iter(Endless())])
        multipliers = driven.bacth_forward_FORUM(inner, inner_targets, outer, outer_targets, multipliers, turn)
        return multipliers

    return step
