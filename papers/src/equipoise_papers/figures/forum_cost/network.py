"""The hyper-cleaning problem on random batches, for measurements."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.bilevel import BilevelProblem

__all__ = ["TASKS", "cleaning_problem"]

TASKS = ("first", "second")
_PIXELS, _CLASSES = 784, 10


def cleaning_problem(
    model: nn.Module, samples: int, batch_size: int, device: str
) -> tuple[dict[str, Tensor], BilevelProblem, list[dict[str, dict[str, Tensor]]]]:
    """Weights of ``samples`` training samples a task, the problem, and some random batches: task → images, labels, rows."""
    weights = {task: torch.zeros(samples, device=device) for task in TASKS}

    def losses(model: nn.Module, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        logits = model({task: own["images"] for task, own in batch.items()})
        return {task: F.cross_entropy(out, batch[task]["labels"], reduction="none") for task, out in logits.items()}

    def lower(weights: dict[str, Tensor], model: nn.Module, batch: dict[str, dict[str, Tensor]]) -> Tensor:
        own = losses(model, batch)
        return torch.stack([(torch.sigmoid(weights[task][batch[task]["rows"]]) * own[task]).mean() for task in own]).sum()

    def upper(weights: dict[str, Tensor], model: nn.Module, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        return {task: own.mean() for task, own in losses(model, batch).items()}

    batches = [
        {
            task: {
                "images": torch.rand(batch_size, _PIXELS, device=device),
                "labels": torch.randint(_CLASSES, (batch_size,), device=device),
                "rows": torch.randint(samples, (batch_size,), device=device),
            }
            for task in TASKS
        }
        for _ in range(4)
    ]
    return weights, BilevelProblem(lower, upper, (weights, model), objectives=TASKS), batches
