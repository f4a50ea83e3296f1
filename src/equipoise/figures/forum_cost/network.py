"""The network of the hyper-cleaning experiment, and random batches for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equipoise.bilevel import BilevelProblem

__all__ = ["TASKS", "cleaning_problem", "network"]

TASKS = ("first", "second")
_INPUTS, _CLASSES = 784, 10


def network(layers: int) -> nn.ModuleDict:
    """784-512-256 shared, with further layers of 512 units, and a linear head a data set."""
    hidden: list[nn.Module] = [nn.Linear(_INPUTS, 512), nn.ReLU()]
    for _ in range(layers):
        hidden += [nn.Linear(512, 512), nn.ReLU()]
    shared = nn.Sequential(*hidden, nn.Linear(512, 256), nn.ReLU())
    return nn.ModuleDict({"shared": shared, **{task: nn.Linear(256, _CLASSES) for task in TASKS}})


def cleaning_problem(
    model: nn.Module, samples: int, batch_size: int, device: str
) -> tuple[dict[str, Tensor], BilevelProblem, list[dict[str, Tensor]]]:
    """Weights of ``samples`` training samples a task, the problem, and some random batches."""
    weights = {task: torch.zeros(samples, device=device) for task in TASKS}

    def loss(model: nn.ModuleDict, batch: dict[str, Tensor], task: str) -> Tensor:
        logits = model[task](model["shared"](batch[f"{task} images"]))
        return nn.functional.cross_entropy(logits, batch[f"{task} labels"], reduction="none")

    def lower(weights: dict[str, Tensor], model: nn.ModuleDict, batch: dict[str, Tensor]) -> Tensor:
        own = [(torch.sigmoid(weights[task][batch["rows"]]) * loss(model, batch, task)).mean() for task in TASKS]
        return own[0] + own[1]

    def upper(weights: dict[str, Tensor], model: nn.ModuleDict, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {task: loss(model, batch, task).mean() for task in TASKS}

    batches = []
    for _ in range(4):
        batch = {"rows": torch.randint(samples, (batch_size,), device=device)}
        for task in TASKS:
            batch[f"{task} images"] = torch.rand(batch_size, _INPUTS, device=device)
            batch[f"{task} labels"] = torch.randint(_CLASSES, (batch_size,), device=device)
        batches.append(batch)
    return weights, BilevelProblem(lower, upper, (weights, model), objectives=TASKS), batches
