"""The networks that are compared, and one training of one of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from equipoise.engine.gramian import gramian
from equipoise.metrics import ConflictTally
from equipoise.nets import (
    NORMAL,
    DigitsNet,
    FixedPositions,
    LearnedPositions,
    PositivePositions,
    Solver,
    TaskFlow,
    position_groups,
)
from equipoise.objective import Objective
from equipoise.optimizer import MultiTaskOptimizer
from equipoise.study.methods import parse_method
from equipoise.study.problem import Splits
from equipoise.study.problems import find_problem
from equipoise_papers.figures.normal_digits.settings import NormalDigitsRun, NormalDigitsSettings

__all__ = ["build", "train"]


_SIZE = 50  # units of the encoder's output


def build(
    base: DigitsNet, network: str, *, positions: Sequence[float] | None, start: float, xi: float, step_size: float
) -> nn.Module:
    """Builds a variant of the network of ``digits``.

    All variants have as many parameters as NORMAL, to half a percent: u and g are 10,200 in two maps of 50 – 50 – 50 units;
    the first-order flow has one of 50 – 100 – 50; the last two have four more layers of 50 units, one after the other behind
    the encoder, or one in front of each head.

    Args:
        base: the network, whose encoder and heads become the variant's own.
        network: which variant.
        positions: for ``different``: where the tasks sit.
        start: where learned positions start, and where ``equal`` ones sit.
        xi: ξ.
        step_size: of Euler's method.
    """
    if network == "hps":
        return base
    if network == "shared-layers":
        more = [layer for _ in range(4) for layer in (nn.Linear(_SIZE, _SIZE), nn.LeakyReLU())]
        base.encoder = nn.Sequential(*base.encoder, *more)
        return base
    if network == "task-layers":
        for task, head in base.heads.items():
            assert isinstance(head, nn.Sequential)
            base.heads[task] = nn.Sequential(nn.Linear(_SIZE, _SIZE), nn.LeakyReLU(), *head)
        return base
    tasks = list(base.heads)
    made = {
        "equal": lambda: FixedPositions(tasks, start),
        "different": lambda: FixedPositions(tasks, positions or ()),
        "positive": lambda: PositivePositions(tasks, start),
    }.get(network, lambda: LearnedPositions(tasks, start))
    first_order = network == "first-order"
    flow = TaskFlow.for_vectors(
        tasks,
        _SIZE,
        hidden=2 * _SIZE if first_order else None,
        xi=0.0 if first_order else xi,
        first_order=first_order,
        positions=made(),
        solver=Solver(step_size=step_size),
    )
    # Numbers come as [N, 1] from a head, and as [N] from the network of digits.
    heads = {task: nn.Sequential(head, nn.Flatten(0)) if task in ("sum", "ink") else head for task, head in base.heads.items()}
    return NORMAL(base.encoder, flow, heads)


_EVERY = 5  # steps from one record of the positions to the next


def train(run: NormalDigitsRun, settings: NormalDigitsSettings) -> dict[str, Any]:
    """Trains a network on ``digits``.

    Returns:
        ``test`` and ``validation``: metrics after the last epoch, by name. ``steps``: at which positions were recorded, and
        ``positions``: by task, there. ``gamma``: γ after the last step. ``cosines``: mean cosines of the tasks' gradients by
        the encoder's parameters over a last pass of the training data, in which nothing is trained. ``parameters``: how many.
        ``seconds``: of processor time per step.
    """
    problem = find_problem("digits")
    torch.manual_seed(run.seed)
    splits = Splits(*problem.data(run.seed))
    base, losses, *_ = problem.build(run.seed)
    assert isinstance(base, DigitsNet)
    model = build(
        base, run.network, positions=run.positions, start=settings.start, xi=settings.xi, step_size=settings.step_size
    )
    flowing = isinstance(model, NORMAL)
    groups: Any = position_groups(model, settings.position_lr) if flowing else model.parameters()
    optimizer = torch.optim.Adam(groups, lr=1e-3, fused=True)
    objective = Objective(model, losses, tasks=problem.tasks)
    mtl = MultiTaskOptimizer(objective, optimizer, parse_method(settings.method).make(run.seed))
    steps: list[int] = []
    positions: dict[str, list[float]] = {task: [] for task in problem.tasks}

    def record() -> None:
        if isinstance(model, NORMAL):
            steps.append(mtl.steps)
            for task, value in model.flow.positions.values().items():
                positions[task].append(value)

    record()
    seconds = 0.0
    for epoch in range(settings.epochs):
        model.train()
        if hasattr(splits.train, "set_epoch"):
            splits.train.set_epoch(epoch)
        for batch in splits.train:
            began = time.process_time()
            mtl.step(batch)
            seconds += time.process_time() - began
            if mtl.steps % _EVERY == 0:
                record()
        mtl.end_epoch()
    model.eval()
    result: dict[str, Any] = {}
    assert splits.validation is not None
    with torch.no_grad():
        for name, loader in (("test", splits.test), ("validation", splits.validation)):
            result[name] = {metric: float(value) for metric, value in problem.evaluate(model, loader).items()}
    return result | {
        "steps": steps,
        "positions": positions if steps else {},
        "gamma": _gamma(model),
        "cosines": _cosines(objective, splits),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": seconds / mtl.steps,
    }


def _gamma(model: nn.Module) -> float | None:
    damping = getattr(model.flow.dynamics, "damping", None) if isinstance(model, NORMAL) else None
    return None if damping is None else float(damping.detach())


def _cosines(objective: Objective, splits: Splits) -> list[list[float]]:
    """Mean cosine of each pair of task gradients by the parameters of the encoder, over one pass."""
    encoder = list(objective.model.encoder.parameters())  # type: ignore[union-attr]
    tally = ConflictTally(objective.tasks.names)
    for batch in splits.train:
        values = list(objective(batch).values())
        rows = [
            torch.cat([part.reshape(-1) for part in torch.autograd.grad(value, encoder, retain_graph=value is not values[-1])])
            for value in values
        ]
        tally.add(gramian(torch.stack(rows)).numpy())
    summary = tally.summary()
    assert summary is not None
    cosines: list[list[float]] = summary["cosines"]
    return cosines
