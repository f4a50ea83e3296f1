"""One measurement, in a process of its own, on standard output as JSON.

``python -m equipoise_papers.figures.forum_cost.measure METHOD T LAYERS BATCH_SIZE REPEATS DEVICE``
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.bilevel import FORUM, MOML, BilevelProblem, BilevelSolver, MoCoBilevel
from equipoise.nets import CleaningNet

__all__ = ["TASKS", "cleaning_problem", "measured"]

TASKS = ("first", "second")
_PIXELS, _CLASSES = 784, 10


def cleaning_problem(
    model: nn.Module, samples: int, batch_size: int, device: str
) -> tuple[dict[str, Tensor], BilevelProblem, list[dict[str, dict[str, Tensor]]]]:
    """Weights of ``samples`` training samples per task, the problem, and some random batches: task → images, labels, rows."""
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


_SAMPLES = 5000


def measured(method: str, lower_steps: int, layers: int, batch_size: int, repeats: int, device: str) -> dict[str, float]:
    """Median seconds of a step, bytes that it needs beyond what was there before, and p."""
    torch.manual_seed(0)
    model = CleaningNet(TASKS, further=layers).to(device)
    weights, problem, batches = cleaning_problem(model, _SAMPLES, batch_size, device)
    solver: BilevelSolver
    options = {"lower_steps": lower_steps, "lower_lr": 0.01}
    upper = torch.optim.SGD(weights.values(), 10.0)
    if method == "forum":
        solver = FORUM(problem, [upper, torch.optim.SGD(model.parameters(), 0.01)], **options)  # type: ignore[arg-type]
    elif method == "moco":
        solver = MoCoBilevel(problem, upper, **options)
    else:
        memory = "checkpointed" if method == "moml-checkpointed" else "plain"
        solver = MOML(problem, upper, memory=memory, **options)  # type: ignore[arg-type]
    # What the first backward pass of a process sets up is not the step's.
    problem.lower_at(problem.here(), batches[0]).backward()
    for parameter in [*model.parameters(), *weights.values()]:
        parameter.grad = None
    before = _used(device)
    seconds = []
    for repeat in range(repeats + 1):
        started = time.perf_counter()
        solver.step(itertools.cycle(batches), batches[-1])
        if device == "cuda":
            torch.cuda.synchronize()
        if repeat:
            seconds.append(time.perf_counter() - started)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"seconds": statistics.median(seconds), "bytes": _peak(device) - before, "parameters": parameters}


def _used(device: str) -> int:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return _resident("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")


def _resident(what: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {what}; memory can be measured on Linux only")


if __name__ == "__main__":
    torch.set_num_threads(1)
    _method, *_numbers, _device = sys.argv[1:]
    _lower_steps, _layers, _batch_size, _repeats = map(int, _numbers)
    json.dump(measured(_method, _lower_steps, _layers, _batch_size, _repeats, _device), sys.stdout)
