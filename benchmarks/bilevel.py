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
    "moml": {"lower_steps": 1, "lower_lr": 1e-3},
}
Step = Callable[[int], object]


def run(say: Callable[[str], None], *, budget: float) -> None:
    """Prints the table."""
    trainer = _trainer()
    if trainer is None:
        say("LibMTL's trainer with MOML and FORUM cannot be imported (its repository has it): its column is left out.")
    cases = [(problem, tasks, method) for problem in PROBLEMS for tasks in TASKS for method in SETTINGS]
    rows = []
    for problem, tasks, method in cases:
        runs: dict[str, Step] = {"ours": _ours(problem, tasks, method)}
        if trainer is not None:
            runs["LibMTL"] = _theirs(trainer, problem, tasks, method)
        times = race(runs, seconds=budget * 200 / len(cases), limit=60.0)
        peer = [f"{times.ratio('LibMTL', 'ours'):.2f}"] if trainer is not None else []
        rows.append([problem.name, str(problem.batch_size), str(tasks), method, f"{times.median('ours') * 1e3:.1f}", *peer])
    head = ["network", "batch", "K", "method", "ours, ms"] + (["LibMTL over ours"] if trainer is not None else [])
    say(
        "## Learned task weights\n\nA step of `TaskWeighting`: a training and a validation batch, Adam. `forum` with T = 5 and "
        "unit gradients, `moml` with T = 1, as LibMTL has them. Processor time; above 1 ours is faster.\n\n" + table(head, rows)
    )


def _ours(problem: Problem, tasks: int, method: str) -> Step:
    network = problem.network(tasks)
    training, validation = problem.batch(tasks, 0), problem.batch(tasks, 1)

    def losses(model: Network, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return losses_of(model(batch[0]), batch[1])

    objective = eq.Objective(network, losses)
    options = SETTINGS[method] | ({"careful": False} if method == "forum" else {})
    weighting = eq.bilevel.TaskWeighting(objective, torch.optim.Adam(network.parameters(), 1e-3), method, **options)
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
        if method == "moml":
            return driven.bacth_forward_MOML(inner, inner_targets, outer, outer_targets, [Endless(), iter(Endless())])
        multipliers = driven.bacth_forward_FORUM(inner, inner_targets, outer, outer_targets, multipliers, turn)
        return multipliers

    return step
