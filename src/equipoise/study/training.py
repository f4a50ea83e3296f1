"""One run, from its seed to its record. Single-task baselines go through the same loop with one task."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from equipoise.errors import InputError, near_misses
from equipoise.metrics import ConflictTally, Metric
from equipoise.metrics.metric import mean
from equipoise.objective import LossFunction
from equipoise.optimizer import MultiTaskOptimizer
from equipoise.step.report import StepReport
from equipoise.store import rounded
from equipoise.study.plan import Run
from equipoise.study.problem import Problem, Splits
from equipoise.study.records import SCHEMA, Points, Record, describe, peak_memory_mb, seed_process, versions
from equipoise.study.trainers import Stage, Trained, Trainer
from equipoise.tasks import as_losses

__all__ = ["GRAMIANS", "train"]

GRAMIANS = 6
"""Gramians per epoch for methods that form none, unless it is said how often: few enough to be cheap, enough for a share."""


def train(
    problem: Problem,
    run: Run,
    *,
    epochs: int,
    gramian_every: int | None,
    finished_epoch: Callable[[int, Mapping[str, float] | None], None] = lambda epoch, validation: None,
) -> Record:
    """Trains one method (or one task alone) and records what happened. Seeds the process's global generators.

    Args:
        problem: what is trained.
        run: with which method, or on which task, and from which seed.
        epochs: passes over the training data.
        gramian_every: for methods that form no Gramian, one is formed for the conflict statistics every so many steps,
            outside of the timing; 0 for never, ``None`` for about :data:`GRAMIANS` times per epoch.
        finished_epoch: told the number of each finished epoch, counted from 1, and its metrics on the validation split
            (``None`` without one).

    Raises:
        InputError: an empty loader, or an evaluation that lacks one of the metrics.
    """
    began = time.time()
    base = peak_memory_mb()
    seed_process(run.seed)
    splits = Splits(*problem.data(run.seed))
    for split in ("validation", "test"):
        _refuse_empty(getattr(splits, split), split, problem)
    seed_process(run.seed)
    model, losses, *rest = problem.build(run.seed)
    optimizer = rest[0] if rest else problem.optimizer(model)
    if run.lr is not None:
        _set_rate(optimizer, run.lr)
    schedule = problem.schedule(optimizer) if problem.schedule else None
    tasks = problem.tasks if run.task is None else (run.task,)
    metrics = problem.metrics if run.task is None else problem.metrics_of(run.task)
    watched = losses if run.task is None else _only(run.task, losses, problem.tasks)
    stage = Stage(problem, model, watched, tasks, optimizer, splits.train, run.seed)
    mtl, batches = run.method.trained(stage) if run.method else _alone(stage)
    seed_process(run.seed)
    if run.task is not None:
        gramian_every = 0
    steps = len(batches) if isinstance(batches, Sized) else 10 * GRAMIANS  # of a first epoch whose length nobody knows
    watch = _Watch(mtl, max(1, steps // GRAMIANS) if gramian_every is None else gramian_every)

    history = []
    for epoch in range(epochs):
        tally = _epoch(mtl, model, batches, epoch, tasks, watch)
        if not tally.steps:
            raise InputError(
                f'the training loader of problem "{problem.name}" gave no batch in epoch {epoch + 1}; it must give at '
                f"least one" + (f' that holds task "{run.task}"' if run.task else "")
            )
        if gramian_every is None:
            watch.gramian_every = max(1, tally.steps // GRAMIANS)
        watch.memory = watch.memory or peak_memory_mb()  # before the first evaluation, for methods that need no probe
        plateau = schedule if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau) else None
        if schedule is not None and plateau is None:
            schedule.step()
        evaluated = {
            split: None if loader is None else _evaluated(problem, model, loader, metrics)
            for split, loader in (("validation", splits.validation), ("test", splits.test))
        }
        if plateau is not None:
            plateau.step(_scored(problem, evaluated["validation"]))
        history.append({"epoch": epoch + 1, **tally.summary(), "seconds": tally.seconds, **evaluated})
        if problem.recorded is not None:
            with torch.no_grad():
                history[-1]["recorded"] = {name: float(value) for name, value in problem.recorded(model).items()}
        finished_epoch(epoch + 1, evaluated["validation"])
    for entry in history[:-1]:
        if entry["conflicts"] is not None:
            del entry["conflicts"]["cosines"]  # K² numbers: of the last epoch they are enough

    return {
        "schema": SCHEMA,
        "run": describe(run),
        "problem": problem.name,
        "epochs": epochs,
        "final": problem.reported.final(history, problem.score),
        "seconds_a_step": watch.summary(),
        "memory_mb": {"base": base, "training": watch.memory, "process": peak_memory_mb()}
        | ({"cuda": torch.cuda.max_memory_allocated() / 1e6} if torch.cuda.is_initialized() else {}),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "wall_seconds": time.time() - began,
        "began": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(began)),
        "versions": versions(),
        "history": history,
        "points": watch.points.summary(),
        "teleports": rounded([report.as_dict() for report in getattr(mtl.teleport, "attempts", [])]),
        "audits": rounded([asdict(audit) for audit in watch.audits]),
        "waits": dict(getattr(mtl.teleport, "waits", {})),
        "complete": True,
    }


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives the first group this rate; others keep their ratio to it."""
    first = float(optimizer.param_groups[0]["lr"])
    for group in optimizer.param_groups:
        rate = lr * (float(group["lr"]) / first if first else 1.0)
        group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], torch.Tensor) else rate


def _scored(problem: Problem, validation: Mapping[str, float] | None) -> float:
    """What a scheduler that waits for a plateau is told."""
    if problem.score is None or validation is None:
        raise InputError(
            f'the schedule of problem "{problem.name}" waits for a plateau of the validation split, and the problem has no '
            f"{'score' if problem.score is None else 'validation split'}; give it one"
        )
    return problem.score(validation)


def _alone(stage: Stage) -> Trained:
    """The run of a single-task baseline: of one task, nothing is shared."""
    trainer = MultiTaskOptimizer(stage.objective(), stage.optimizer, balancer="ls", **stage.stepping)
    return Trained(trainer, stage.loader)


class _Absent(Exception):
    """A batch without the one task that a baseline trains."""


def _only(task: str, losses: LossFunction, tasks: tuple[str, ...]) -> LossFunction:
    """The loss function of a single-task baseline; the other tasks' callables are never called."""

    def single(model: Any, batch: Any) -> Mapping[str, Any]:
        named = as_losses(losses(model, batch), tasks)
        if task not in named:
            raise _Absent
        return {task: named[task]}

    return single


class _Watch:
    """Times the steps and probes the Gramian where the method forms none."""

    def __init__(self, mtl: Trainer, gramian_every: int) -> None:
        self.mtl = mtl
        self.gramian_every = gramian_every
        self.steps = 0
        self.seconds: list[float] = []
        self.memory: float | None = None
        self.points = Points()
        self.audits: list[Any] = []
        self._forms_gramian = False

    @property
    def report(self) -> StepReport:
        """What happened in the last step."""
        assert self.mtl.last is not None
        return self.mtl.last

    def step(self, batch: Any) -> tuple[dict[str, float], Any]:
        """One step: the losses, and the Gramian if there is one to count."""
        # The last step of every stretch, so that the memory of plain training is known before the first probe.
        due = self.gramian_every and self.steps % self.gramian_every == self.gramian_every - 1
        probed = None
        if due and not self._forms_gramian:
            self.memory = self.memory or peak_memory_mb()
            probed = self.mtl.gramian(batch)
        start = time.perf_counter()
        losses = self.mtl.step(batch)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - start)
        self.steps += 1
        if self.report.audit is not None:
            self.audits.append(self.report.audit)
        formed = self.report.gramian if self.gramian_every else None
        self._forms_gramian = formed is not None
        return {task: float(loss) for task, loss in losses.items()}, probed if formed is None else formed

    def summary(self) -> dict[str, float | int]:
        return {"median": statistics.median(self.seconds), "mean": mean(self.seconds), "steps": self.steps}


class _Tally:
    """Means over the steps of one epoch; a task counts in the steps in which it was seen."""

    def __init__(self, tasks: tuple[str, ...]) -> None:
        self.steps = 0
        self.seconds = 0.0
        self.losses: dict[str, list[float]] = {task: [] for task in tasks}
        self.weights: dict[str, list[float]] = {task: [] for task in tasks}
        self.conflicts = ConflictTally(tasks)

    def summary(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "losses": _means(self.losses),
            "weights": _means(self.weights) or None,
            "conflicts": self.conflicts.summary(),
        }


def _means(values: Mapping[str, list[float]]) -> dict[str, float]:
    return {task: mean(own) for task, own in values.items() if own}


def _epoch(mtl: Trainer, model: nn.Module, loader: Iterable[Any], epoch: int, tasks: tuple[str, ...], watch: _Watch) -> _Tally:
    for teller in (loader, getattr(loader, "sampler", None)):
        set_epoch = getattr(teller, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
    model.train()
    tally = _Tally(tasks)
    for batch in loader:
        try:
            losses, gramian = watch.step(batch)
        except _Absent:
            continue
        tally.steps += 1
        tally.seconds += watch.seconds[-1]
        watch.points.see(losses)
        for task, loss in losses.items():
            tally.losses[task].append(loss)
        report = watch.report
        if report.weights is not None:
            for task, weight in zip(report.tasks, report.weights.tolist(), strict=True):
                tally.weights[task].append(weight)
        if gramian is not None:
            tally.conflicts.add(gramian.numpy(), report.tasks)
            watch.points.add(report.step, epoch + 1, losses, gramian.numpy())
    mtl.end_epoch()
    return tally


def _evaluated(problem: Problem, model: nn.Module, loader: Iterable[Any], metrics: tuple[Metric, ...]) -> dict[str, float]:
    model.eval()
    try:
        with torch.no_grad():
            values = problem.evaluate(model, loader)
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
        # Metrics that themselves differentiate, such as errors of forces, need the graphs that others are spared.
        with torch.enable_grad():
            values = problem.evaluate(model, loader)
    for metric in metrics:
        if metric.name not in values:
            raise InputError(
                f'evaluate of problem "{problem.name}" returned no "{metric.name}".{near_misses(metric.name, values)} '
                f"It returned: {', '.join(values) or 'nothing'}"
            )
    numbers = {metric.name: values[metric.name] for metric in metrics}
    return {name: float(value.detach() if isinstance(value, torch.Tensor) else value) for name, value in numbers.items()}


def _refuse_empty(loader: Iterable[Any] | None, split: str, problem: Problem) -> None:
    if isinstance(loader, Sized) and len(loader) == 0:
        raise InputError(f'the {split} loader of problem "{problem.name}" is empty; it must give at least one batch')
