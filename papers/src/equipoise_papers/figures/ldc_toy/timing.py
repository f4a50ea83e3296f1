"""What a step of real training costs with each method, side by side."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from equipoise.objective import Objective
from equipoise.optimizer import MultiTaskOptimizer
from equipoise.study.methods import parse_method
from equipoise_papers.figures.ldc_toy.run import shifted
from equipoise_papers.figures.ldc_toy.settings import Settings

__all__ = ["seconds_a_step"]


class _Point(nn.Module):
    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(start, dtype=torch.float64))


def seconds_a_step(settings: Settings) -> dict[str, float]:
    """Median over the repeats of the mean seconds a step, by method.

    The methods take turns, so that whatever else the machine does falls on all of them.
    """
    taken: dict[str, list[float]] = {method: [] for method in settings.methods}
    for repeat in range(settings.repeats + 1):
        for method in settings.methods:
            seconds = _run(settings, method)
            if repeat:  # the first round warms up
                taken[method].append(seconds)
    return {method: statistics.median(own) for method, own in taken.items()}


def _run(settings: Settings, method: str) -> float:
    model, problem = _Point(settings.starts[0]), settings.problem

    def losses(model: nn.Module, batch: None) -> Tensor:
        return shifted(problem.losses(model.at))  # type: ignore[arg-type]

    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
    mtl = MultiTaskOptimizer(Objective(model, losses), optimizer, parse_method(method).make(0), shared=model)
    began = time.perf_counter()
    for _ in range(settings.timed_steps):
        mtl.step(None)
    return (time.perf_counter() - began) / settings.timed_steps
