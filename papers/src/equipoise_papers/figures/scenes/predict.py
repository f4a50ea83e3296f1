"""Trains the network of the study on scenes, and asks it about scenes that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from equipoise.balance.mixins import OnFeatures
from equipoise.data.loading import TensorBatches
from equipoise.objective import Objective
from equipoise.optimizer import MultiTaskOptimizer
from equipoise.study.methods import parse_methods
from equipoise.study.problem import Problem
from equipoise.study.records import seed_process
from equipoise_papers.commands import Told
from equipoise_papers.figures.scenes.make import SceneRow
from equipoise_papers.figures.scenes.settings import ScenesFigureSettings
from equipoise_papers.problems.scenes import scenes_problem

__all__ = ["predictions"]


def predictions(
    settings: ScenesFigureSettings, rows: int, told: Told, problem: Problem | None = None
) -> tuple[list[SceneRow], dict[str, float]]:
    """Rows with predictions for the first test scenes of the problem, and the metrics over all of them.

    Args:
        settings: how to train.
        rows: how many scenes to show.
        told: takes a line on each epoch.
        problem: rooms to train on; those of the study by default.
    """
    if problem is None:
        problem = scenes_problem(network=settings.network, width=settings.width, epochs=settings.epochs)
    model, test = _trained(problem, settings, told)
    with torch.no_grad():
        metrics = dict(problem.evaluate(model, test))
        batch = {name: tensor[:rows] for name, tensor in test.tensors.items()}
        out = model(batch["image"])
    both = {
        "label": (batch["label"], out["semantic"].argmax(1)),
        "depth": (batch["depth"][:, 0], out["depth"][:, 0]),
        "normal": (batch["normal"].movedim(1, -1), out["normal"].movedim(1, -1)),
    }
    shown = []
    for number in range(rows):
        pairs: dict[str, Sequence[Any]] = {name: [array[number].numpy() for array in pair] for name, pair in both.items()}
        shown.append(SceneRow(batch["image"][number].movedim(0, -1).numpy(), **pairs))
    return shown, metrics


def _trained(problem: Problem, settings: ScenesFigureSettings, told: Told) -> tuple[nn.Module, TensorBatches]:
    seed_process(settings.seed)
    told("training scenes: found in the cache, or rendered now")
    train, _, test = problem.data(settings.seed)
    assert isinstance(train, TensorBatches)
    assert isinstance(test, TensorBatches)
    model, losses, *_ = problem.build(settings.seed)
    (method,) = parse_methods(settings.method)
    made = method.make(settings.seed)
    if problem.parts is not None and isinstance(made, OnFeatures) and made.lacks_parts:
        made.take_parts(**problem.parts(model))
    objective = Objective(model, losses, tasks=problem.tasks)
    mtl = MultiTaskOptimizer(objective, problem.optimizer(model), balancer=made)
    for epoch in range(settings.epochs):
        model.train()
        train.set_epoch(epoch)
        sums = dict.fromkeys(problem.tasks, 0.0)
        for batch in train:
            for task, loss in mtl.step(batch).items():
                sums[task] += float(loss) / len(train)
        mtl.end_epoch()
        told(f"epoch {epoch + 1} of {settings.epochs}: " + ", ".join(f"{task} {mean:.3f}" for task, mean in sums.items()))
    model.eval()
    return model, test
