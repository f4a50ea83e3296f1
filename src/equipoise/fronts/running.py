"""One run of a comparison of fronts: a Pareto set, or fixed weights one after the other, from a seed to points."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from equipoise.balance import LS
from equipoise.errors import InputError, near_misses, refuse_unknown_options
from equipoise.method import MethodSpec
from equipoise.objective import LossFunction, Objective
from equipoise.optimizer import MultiTaskOptimizer
from equipoise.pareto import ParetoSet, ParetoTraining, grid
from equipoise.study.problem import Built, Problem, Splits
from equipoise.study.records import seed_process, versions
from equipoise.tasks import as_losses

__all__ = ["SWEEP", "Point", "front_run", "narrowed", "next_weights", "sweep_times"]

SWEEP = "sweep"
"""The method that trains one model per vector of fixed weights; ``sweep:times=5`` trains each five times as long."""
Point: TypeAlias = dict[str, Any]
"""``preference``, and ``validation`` and ``test``: metric → value."""
INSET = 0.1
"""How far the corners of evaluated preferences are moved to the centre: a task of weight 0 would not be learned at all."""


def narrowed(problem: Problem, tasks: Sequence[str]) -> Problem:
    """A problem with some of its tasks, and the metrics of these; the model is the same.

    Raises:
        InputError: fewer than two, one twice, or a task that it does not have.

    Example:
        >>> from equipoise.study import find_problem
        >>> [metric.name for metric in narrowed(find_problem("digits"), ["left", "ink"]).metrics]
        ['left', 'ink']
    """
    for task in tasks:
        if task not in problem.tasks:
            raise InputError(
                f'problem "{problem.name}" has no task "{task}".{near_misses(task, problem.tasks)} '
                f"Its tasks: {', '.join(problem.tasks)}"
            )
    if len(set(tasks)) < len(tasks) or len(tasks) < 2:
        raise InputError(f"a front is of two or more different tasks; got {', '.join(tasks) or 'none'}")
    chosen = tuple(task for task in problem.tasks if task in tasks)
    if chosen == problem.tasks:
        return problem
    return replace(
        problem,
        tasks=chosen,
        metrics=tuple(metric for metric in problem.metrics if metric.task in chosen),
        build=partial(_built, problem.build, problem.tasks, chosen),
        options={**problem.options, "tasks": ", ".join(chosen)},
    )


def _built(build: Callable[[int], Built], tasks: tuple[str, ...], chosen: tuple[str, ...], seed: int) -> Built:
    model, losses, *rest = build(seed)

    def some(model: Any, batch: Any) -> Mapping[str, Any]:
        return {name: loss for name, loss in as_losses(losses(model, batch), tasks).items() if name in chosen}

    return (model, some, rest[0]) if rest else (model, some)


def sweep_times(text: str) -> int:
    """How many times longer than at equal cost each model of a sweep is trained; 0 for what is no sweep.

    Raises:
        InputError: another option, or no whole number from 1 on.

    Example:
        >>> sweep_times("sweep"), sweep_times("sweep:times=5"), sweep_times("palora:rank=8")
        (1, 5, 0)
    """
    spec = MethodSpec.parse(text)
    if spec.name != SWEEP:
        return 0
    refuse_unknown_options(SWEEP, spec.options, {"times": 1})
    times = spec.options.get("times", 1)
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise InputError(f"the option times of the sweep is {times}; it must be a whole number, at least 1")
    return times


def next_weights(tried: Sequence[Sequence[float]], points: np.ndarray) -> list[float]:
    """The fixed weights of two tasks to try after these: equal ones, the ends, then the middle of the widest gap.

    Args:
        tried: weights so far, which add up to 1.
        points: what they gave ``[n, 2]``, lower is better.

    Example:
        >>> next_weights([], np.zeros((0, 2)))
        [0.5, 0.5]
        >>> next_weights([[0.5, 0.5], [0.95, 0.05], [0.05, 0.95]], np.array([[1.0, 1.0], [0.9, 5.0], [3.0, 0.9]]))
        [0.725, 0.275]
    """
    if len(tried) < 3:
        first = ([0.5, 0.5], [1 - INSET / 2, INSET / 2], [INSET / 2, 1 - INSET / 2])
        return first[len(tried)]
    order = np.argsort([weights[0] for weights in tried])
    own = points[order]
    known = own[np.isfinite(own).all(axis=1)]
    extent = known.max(axis=0) - known.min(axis=0) if len(known) else np.ones(2)
    gaps = np.linalg.norm(np.diff(own, axis=0) / np.where(extent > 0, extent, 1.0), axis=1)
    # Beside what is not finite there is no distance, and nothing is looked for.
    place = int(np.argmax(np.where(np.isfinite(gaps), gaps, -1.0)))
    first_weight = (tried[order[place]][0] + tried[order[place + 1]][0]) / 2
    return [round(first_weight, 6), round(1 - first_weight, 6)]


@dataclass(frozen=True)
class _Setting:
    """What a run is made of, as for :func:`front_run`."""

    problem: Problem
    method: str
    seed: int
    epochs: int
    models: int
    members: int
    balancer: str


def front_run(
    problem: Problem, method: str, seed: int, epochs: int, models: int, members: int, balancer: str
) -> dict[str, Any]:
    """Trains a set for ``models · epochs`` epochs, or ``models`` models of fixed weights for ``epochs`` each.

    Both are looked at after every ``epochs`` epochs. Losses are divided by those of the first batch before training, for all
    alike. The process's generators are seeded and put back.

    Args:
        problem: what is trained, with a validation split.
        method: ``"sweep"``, ``"sweep:times=5"``, or a family of sets with its options.
        seed: of data, model, batches and preferences.
        epochs: of one model.
        models: how many trainings of one model may be spent.
        members: how many members of a set are evaluated.
        balancer: what trains sets; empty for what the family's paper has.

    Returns:
        The record: ``fronts``, one entry per ``epochs`` epochs with ``points`` and what they cost so far.
    """
    setting = _Setting(problem, method, seed, epochs, models, members, balancer)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    began = time.perf_counter()
    try:
        fronts, parameters = (_sweep if sweep_times(method) else _set)(setting)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
    return {
        "method": method,
        "seed": seed,
        "fronts": fronts,
        "parameters": parameters,
        "wall_seconds": time.perf_counter() - began,
        "versions": versions(),
    }


def _set(setting: _Setting) -> tuple[list[dict[str, Any]], int]:
    problem = setting.problem
    splits, model, losses, optimizer = _begun(setting)
    pareto = ParetoSet(model, problem.tasks, setting.method, seed=setting.seed)
    # Further parameters learn at the rate of the model's, as published settings multiply it.
    rate = float(optimizer.param_groups[0]["lr"]) * pareto.family.lr_factor
    optimizer.add_param_group({"params": list(pareto.family.parameters()), "lr": rate})
    schedule = _schedule(problem, optimizer)
    count = len(splits.train) if isinstance(splits.train, Sized) else sum(1 for _ in splits.train)
    seed_process(setting.seed)  # a pass over a loader may have drawn
    steps = count * setting.epochs * setting.models
    assert splits.validation is not None
    balancer = setting.balancer or pareto.family.balancer
    training = ParetoTraining(pareto, losses, optimizer, balancer, steps=steps, seed=setting.seed, **_stepping(problem, model))
    clock, fronts = _Clock(), []
    preferences = grid(setting.members, len(problem.tasks), inset=INSET)
    for part in range(setting.models):
        for epoch in range(setting.epochs):
            _pass(splits.train, part * setting.epochs + epoch, pareto, training, clock)
            # A schedule is that of one model's training, stretched.
            if schedule is not None and (part * setting.epochs + epoch + 1) % setting.models == 0:
                schedule.step()
        own = {
            split: pareto.front(loader, evaluate=problem.evaluate, preferences=preferences).values
            for split, loader in (("validation", splits.validation), ("test", splits.test))
        }
        points = [
            {"preference": row.tolist(), **{split: _numbers(problem, values[place]) for split, values in own.items()}}
            for place, row in enumerate(preferences)
        ]
        fronts.append(clock.told(points, (part + 1) * setting.epochs))
    return fronts, sum(own.numel() for own in pareto.parameters())


def _sweep(setting: _Setting) -> tuple[list[dict[str, Any]], int]:
    problem = setting.problem
    clock, fronts = _Clock(), []
    points: list[Point] = []
    parameters = 0
    epochs = setting.epochs * sweep_times(setting.method)
    metrics = [problem.metrics_of(task)[0] for task in problem.tasks]
    lattice = grid(max(2, setting.models), len(problem.tasks), inset=INSET).tolist()
    for number in range(setting.models):
        if len(problem.tasks) == 2:
            found = np.array([[metric.sign * point["validation"][metric.name] for metric in metrics] for point in points])
            weights = next_weights([point["preference"] for point in points], found.reshape(-1, 2))
        else:
            weights = lattice[number % len(lattice)]
        splits, model, losses, optimizer = _begun(setting)
        schedule = _schedule(problem, optimizer)
        objective = Objective(model, losses, problem.tasks)
        mtl = MultiTaskOptimizer(objective, optimizer, LS(preference=weights), **_stepping(problem, model))
        for epoch in range(epochs):
            _pass(splits.train, epoch, model, mtl, clock)
            # A schedule is that of one model's usual training, stretched.
            if schedule is not None and (epoch + 1) % (epochs // setting.epochs) == 0:
                schedule.step()
        model.eval()
        with torch.no_grad():
            own = {split: problem.evaluate(model, getattr(splits, split)) for split in ("validation", "test")}
        points.append({"preference": list(weights), **{split: _numbers(problem, values) for split, values in own.items()}})
        parameters += sum(own.numel() for own in model.parameters())
        fronts.append(clock.told(list(points), (number + 1) * epochs))
    return fronts, parameters


def _begun(setting: _Setting) -> tuple[Splits, nn.Module, LossFunction, torch.optim.Optimizer]:
    """Data and a fresh model of the run's seed, its losses brought to the size of 1."""
    problem = setting.problem
    seed_process(setting.seed)
    splits = Splits(*problem.data(setting.seed))
    if splits.validation is None:
        raise InputError(f'problem "{problem.name}" has no validation split, on which weights and members are chosen')
    seed_process(setting.seed)
    model, losses, *rest = problem.build(setting.seed)
    optimizer = rest[0] if rest else problem.optimizer(model)
    batch = next(iter(splits.train))
    first = {
        name: abs(float(loss.detach())) or 1.0 for name, loss in Objective(model, losses, problem.tasks).at({}, batch).items()
    }
    model.train()
    seed_process(setting.seed)

    def scaled(own: Any, batch: Any) -> dict[str, Any]:
        return {name: _call(loss) / first.get(name, 1.0) for name, loss in as_losses(losses(own, batch), problem.tasks).items()}

    return splits, model, scaled, optimizer


def _schedule(problem: Problem, optimizer: torch.optim.Optimizer) -> Any:
    schedule = problem.schedule(optimizer) if problem.schedule else None
    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise InputError(f'the schedule of problem "{problem.name}" waits for a plateau, and a set has none; give it another')
    return schedule


def _call(loss: Any) -> Any:
    return loss() if callable(loss) else loss


def _stepping(problem: Problem, model: nn.Module) -> Mapping[str, Any]:
    given = problem.stepping(model) if problem.stepping else {}
    return {name: value for name, value in given.items() if name == "clip"}


class _Clock:
    """Counts steps and what they take."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = 0

    def told(self, points: list[Point], epochs: int) -> dict[str, Any]:
        return {"epochs": epochs, "steps": self.steps, "seconds": round(self.seconds, 3), "points": points}


def _pass(loader: Iterable[Any], epoch: int, model: nn.Module, training: Any, clock: _Clock) -> None:
    for teller in (loader, getattr(loader, "sampler", None)):
        set_epoch = getattr(teller, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
    model.train()
    for batch in loader:
        # Of the process and not of the clock on the wall, for runs have company.
        start = time.process_time()
        training.step(batch)
        clock.seconds += time.process_time() - start
        clock.steps += 1
    training.end_epoch()


def _numbers(problem: Problem, values: Mapping[str, float]) -> dict[str, float]:
    return {metric.name: float(values[metric.name]) for metric in problem.metrics}
