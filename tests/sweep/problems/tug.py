"""A problem whose Pareto front is known: one point p in the plane, pulled to (1, 0) by one task and to (−1, 0) by the other.

For weights w the sum of the losses is least at p = ((w₁ − w₂) / (w₁ + w₂), 0), so fixed weights reach every point of the front,
on which the two metrics, 0.1 + the distance from either end, add up to 2.2.
"""

import os
import time

import torch

from equipoise.data import TensorBatches
from equipoise.metrics import Metric
from equipoise.study import Problem, Splits

ENDS = {"near": (1.0, 0.0), "far": (-1.0, 0.0)}
STEPS = 20


class Point(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.p = torch.nn.Parameter(torch.tensor([0.2, 3.0]) + 0.1 * torch.rand(2))


def losses(model, batch):
    return {task: (model.p - torch.tensor(end)).square().sum() for task, end in ENDS.items()}


def build(seed):
    model = Point()
    return model, losses, torch.optim.SGD(model.parameters(), lr=0.1)


def data(seed):
    rows = {"x": torch.zeros(STEPS, 1)}
    return Splits(TensorBatches(rows, 1), TensorBatches(rows, STEPS), TensorBatches(rows, STEPS))


def evaluate(model, loader):
    return {task: 0.1 + float((model.p - torch.tensor(end)).norm()) for task, end in ENDS.items()}


def tug(**changes):
    metrics = [Metric(task, task, higher_is_better=False, label=f"{task} error") for task in ENDS]
    arguments = {"build": build, "data": data, "evaluate": evaluate, "epochs": 2} | changes
    return Problem(name="tug", tasks=tuple(ENDS), metrics=metrics, **arguments)


problem = tug()


def slow(pause=0.1, epochs=3):
    """Takes its time over every epoch."""

    def patient(model, loader):
        time.sleep(pause / 2)  # validation and test
        return evaluate(model, loader)

    return tug(evaluate=patient, epochs=epochs)


def gated():
    """Runs wait until they are let on; see ``tests/gates.py``."""

    def waiting(model, loader):
        if "GATE" in os.environ:  # elsewhere this file may be imported by scripts that know no tests
            from tests.gates import wait_at_the_gate

            wait_at_the_gate()
        return evaluate(model, loader)

    return tug(evaluate=waiting)


def without_validation():
    def no_validation(seed):
        train, _, test = data(seed)
        return Splits(train, None, test)

    return tug(data=no_validation)
