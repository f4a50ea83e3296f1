"""Problems small enough for tests; loaded from this file as a user's own would be."""

import os
import signal
from pathlib import Path

import torch

from equipoise.data import TensorBatches
from equipoise.metrics import Metric
from equipoise.study import Problem, Splits

_generator = torch.Generator().manual_seed(7)
_x = torch.randn(48, 3, generator=_generator)
_rows = {"x": _x, "y": _x @ torch.randn(3, 2, generator=_generator)}


def build(seed):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(4, 2))
    return model, losses


def losses(model, batch):
    errors = (model(batch["x"]) - batch["y"]).square().mean(0)
    return {"near": errors[0], "far": 10 * errors[1]}


def data(seed):
    rows = TensorBatches(_rows, 48)
    return Splits(TensorBatches(_rows, 16, shuffle=True, seed=seed), rows, rows)


def evaluate(model, loader):
    near, far = torch.cat([model(batch["x"]) - batch["y"] for batch in loader]).abs().mean(0).tolist()
    return {"near error": near, "far error": far}


def tiny(**changes):
    metrics = [Metric(f"{task} error", task, higher_is_better=False) for task in ("near", "far")]
    arguments = {"build": build, "data": data, "evaluate": evaluate, "epochs": 3} | changes
    return Problem(name="tiny", tasks=("near", "far"), metrics=metrics, **arguments)


problem = tiny()


def gated():
    """Runs wait until they are let on, see ``tests/gates.py``; they leave the number of their process in TINY_PROCESSES."""

    def waiting(model, loader):
        if "GATE" in os.environ:  # elsewhere this file may be imported by scripts that know no tests
            from tests.gates import wait_at_the_gate

            wait_at_the_gate()
        return evaluate(model, loader)

    def named_build(seed):
        if "TINY_PROCESSES" in os.environ:
            (Path(os.environ["TINY_PROCESSES"]) / str(os.getpid())).touch()
        return build(seed)

    return tiny(build=named_build, evaluate=waiting)


def failing():
    """Seed 1 fails with an exception; seed 2 is killed, as the kernel does when memory runs out; all of them print."""

    def broken_build(seed):
        print("seed", seed, flush=True)
        if seed == 1:
            raise RuntimeError("the disk with the data is gone")
        if seed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return build(seed)

    return tiny(build=broken_build)


def not_a_problem():
    return 3
