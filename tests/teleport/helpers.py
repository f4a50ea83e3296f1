"""What the tests of the teleport room share: a COST that attempts whenever it can, and runs with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.teleport import COST, Guard, Probes, Schedule, Search, TeleportReport
from equipoise.teleport.formulations import as_formulation
from tests import problems


def always(gramian: Any) -> bool:
    """A condition that is met in every step."""
    return True


def cost_with(trigger: Any = None, **options: Any) -> COST:
    """A COST from flat options, each of which goes to the group that has it; ``guard`` and ``formulation`` as in text."""
    own = {name: options.pop(name) for name in ("delta", "history", "seed") if name in options}
    formulation = options.pop("formulation", "pareto")
    sought = {name: options.pop(name) for name in ("gamma", "radius", "invariance", "descent") if name in options}
    if isinstance(formulation, str):
        formulation = dataclasses.replace(as_formulation(formulation), **sought)  # type: ignore[type-var]
    guard = options.pop("guard", "losses")
    tolerance = options.pop("tolerance", None)
    options["formulation"] = formulation
    groups: dict[str, Any] = {"guard": Guard(tolerance, conflict=guard is True) if guard else None}
    for name, kind in (("search", Search), ("schedule", Schedule), ("probes", Probes)):
        fields = [field.name for field in dataclasses.fields(kind) if field.name in options]
        groups[name] = kind(**{field: options.pop(field) for field in fields})
    assert not options, options
    return COST(trigger, **groups, **own)


def eager_cost(trigger: Any = always, **options: Any) -> COST:
    """A COST that attempts after every step from the second one on, and lands wherever it gets to."""
    settings: dict[str, Any] = {
        "formulation": "paper",
        "samples": 2,
        "steps": 3,
        "lr": 0.02,
        "probe": "recent",
        "probe_batches": 1,
        "held_out_batches": 1,
        "guard": False,
        "history": "keep",
        "cooldown": 1,
        "budget": None,
        "check_every": 1,
        "seed": 0,
    }
    return cost_with(trigger, **(settings | options))


def train(mtl: eq.MultiTaskOptimizer, steps: Iterable[int] = range(6), micro_batches: int = 1, tasks: int = 3) -> None:
    """Steps on batches that are told apart by their seeds."""
    for step in steps:
        mtl.step(*(problems.batch(tasks=tasks, seed=10 * step + part) for part in range(micro_batches)))


def optimizer_with(
    cost: COST | None,
    balancer: Any = "mgda",
    model: nn.Module | None = None,
    losses: Callable[..., Any] = problems.losses,
    *,
    make: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    lr: float = 0.02,
    tasks: Sequence[str] | None = None,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> eq.MultiTaskOptimizer:
    """A MultiTaskOptimizer on :class:`tests.problems.Heads` with a teleport."""
    if model is None:
        torch.manual_seed(0)
        model = problems.Heads()
    objective = eq.Objective(model, losses, tasks=tasks)
    return eq.MultiTaskOptimizer(
        objective, make(model.parameters(), lr=lr, **(settings or {})), balancer, teleport=cost, **options
    )


def shared_names(mtl: eq.MultiTaskOptimizer) -> list[str]:
    """Names of the shared parameters."""
    ids = {id(parameter) for parameter in mtl.shared}
    return [name for name, parameter in mtl.objective.model.named_parameters() if id(parameter) in ids]


def timeless(attempts: Iterable[TeleportReport]) -> str:
    """Attempts without what differs from run to run; as text, for NaN is not equal to itself."""
    return repr([{name: entry for name, entry in report.as_dict().items() if name != "seconds"} for report in attempts])


def task_gradients(losses: dict[str, Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """A row per task, ``[K, P]`` in float64, by plain differentiation."""
    rows = []
    for loss in losses.values():
        gradients = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
        filled = [
            torch.zeros_like(parameter) if gradient is None else gradient
            for gradient, parameter in zip(gradients, parameters, strict=True)
        ]
        rows.append(torch.cat([gradient.double().flatten() for gradient in filled]))
    return torch.stack(rows)
