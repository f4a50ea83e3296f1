"""Both loops on a problem, from the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from equipoise.balance.ldc import LDCMTL
from equipoise.objective import Objective
from equipoise.optimizer import MultiTaskOptimizer
from equipoise.study.problem import Splits
from equipoise.study.problems import find_problem
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.ldc_gradient_norms.settings import LDCGradientNormsSettings

__all__ = ["Norms", "run"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Norms:
    """What came out; one entry per step.

    Attributes:
        settings: what was asked for.
        tasks: their names.
        here: ‖∇_W g(W, x)‖ in the double loop, ``[T]``.
        there: ‖∇_W g(W, z_N)‖, ``[T]``.
        shares: σ(W) ``[2, T, K]``: single loop, double loop.
        weights: of the losses ``[2, T, K]``.
        metrics: test metrics of both at the end.
        seconds: of both, per step.
    """

    settings: LDCGradientNormsSettings
    tasks: tuple[str, ...]
    here: Array
    there: Array
    shares: Array
    weights: Array
    metrics: tuple[dict[str, float], dict[str, float]]
    seconds: tuple[float, float]

    @property
    def ratios(self) -> Array:
        """‖∇_W g(W, x)‖ / ‖∇_W g(W, z_N)‖, ``[T]``."""
        ratios: Array = self.here / np.maximum(self.there, np.finfo(np.float64).tiny)
        return ratios


def run(settings: LDCGradientNormsSettings, told: Told = silent) -> Norms:
    """Trains the single and the double loop.

    Args:
        settings: what to run.
        told: takes a line now and then.
    """
    single = _train(settings, False, told)
    double = _train(settings, True, told)
    return Norms(
        settings,
        find_problem(settings.problem).tasks,
        double.here,
        double.there,
        np.stack((single.shares, double.shares)),
        np.stack((single.weights, double.weights)),
        (single.metrics, double.metrics),
        (single.seconds, double.seconds),
    )


@dataclass(frozen=True)
class _Training:
    here: Array
    there: Array
    shares: Array
    weights: Array
    metrics: dict[str, float]
    seconds: float


def _train(settings: LDCGradientNormsSettings, double: bool, told: Told) -> _Training:
    import time

    problem = find_problem(settings.problem)
    torch.manual_seed(settings.seed)
    splits = Splits(*problem.data(settings.seed))
    model, losses, *rest = problem.build(settings.seed)
    loop = {"double_loop": True, "inner_steps": settings.inner_steps, "inner_lr": settings.inner_lr} if double else {}
    balancer = LDCMTL(**{**settings.options, **loop})
    optimizer = rest[0] if rest else problem.optimizer(model)
    schedule = problem.schedule(optimizer) if problem.schedule else None
    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        schedule = None  # nothing is validated here
    mtl = MultiTaskOptimizer(Objective(model, losses, tasks=problem.tasks), optimizer, balancer)
    here, there, shares, weights = [], [], [], []
    began = time.perf_counter()
    for epoch in range(settings.epochs):
        model.train()
        for batch in splits.train:
            mtl.step(batch)
            assert mtl.last is not None
            assert mtl.last.weights is not None
            report = balancer.report
            assert report is not None
            shares.append(report.shares.numpy())
            weights.append(mtl.last.weights.numpy())
            if report.router_gradient is not None and report.router_gradient_at_solution is not None:
                here.append(float(report.router_gradient))
                there.append(float(report.router_gradient_at_solution))
        mtl.end_epoch()
        if schedule is not None:
            schedule.step()
        told(f"{'double' if double else 'single'} loop: epoch {epoch + 1} of {settings.epochs}")
    seconds = (time.perf_counter() - began) / mtl.steps
    model.eval()
    with torch.no_grad():
        metrics = {name: float(value) for name, value in problem.evaluate(model, splits.test).items()}
    return _Training(np.asarray(here), np.asarray(there), np.stack(shares), np.stack(weights), metrics, seconds)
