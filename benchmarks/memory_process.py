"""One trainer's peak resident memory, on standard output as JSON: ``python -m benchmarks.memory_process <trainer> <K>``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import equipoise as eq
from benchmarks.networks import Problem
from benchmarks.trainers import Step, equipoise_step, libmtl_step, plain_step, torchjd_step
from equipoise.teleport import Probes, Schedule

__all__ = ["SHARED", "TRAINERS"]

STEPS = 2


def _encoder() -> nn.Module:
    return nn.Sequential(
        nn.Linear(512, 2048),
        nn.ReLU(),
        nn.Linear(2048, 2048),
        nn.ReLU(),
        nn.Linear(2048, 2048),
        nn.ReLU(),
        nn.Linear(2048, 2048),
        nn.ReLU(),
    )


PROBLEM = Problem("MLP", 64, (512,), 2048, _encoder)
SHARED = 512 * 2048 + 3 * 2048 * 2048 + 4 * 2048


# The step's own batch, so that held batches do not count, and no waiting.
_AT_ONCE: dict[str, Any] = {"probes": Probes(probe="current"), "schedule": Schedule(budget=None)}


def _always(gramian: object) -> bool:
    return True


TRAINERS: dict[str, Callable[[int], Step | None]] = {
    "plain": lambda tasks: plain_step(PROBLEM, tasks),
    "ours": lambda tasks: equipoise_step(PROBLEM, tasks, "mgda"),
    "ours, COST": lambda tasks: equipoise_step(PROBLEM, tasks, "mgda", teleport=eq.COST(_always, **_AT_ONCE)),
    "ours, COST, paper": lambda tasks: equipoise_step(PROBLEM, tasks, "mgda", teleport=eq.COST.paper(_always, **_AT_ONCE)),
    "ours, proxy": lambda tasks: equipoise_step(PROBLEM, tasks, "mgda", proxy=eq.Proxy("last", audit=0)),
    "ours, streamed": lambda tasks: equipoise_step(PROBLEM, tasks, "mgda", memory="streamed"),
    "ours, uw": lambda tasks: equipoise_step(PROBLEM, tasks, "uw"),
    "TorchJD": lambda tasks: torchjd_step(PROBLEM, tasks, "mgda"),
    "LibMTL": lambda tasks: libmtl_step(PROBLEM, tasks, "mgda"),
}


def _resident(what: str) -> int:
    """``VmRSS`` or ``VmHWM`` in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {what}; memory can be measured on Linux only")


def main() -> None:
    """Measures the trainer named on the command line."""
    torch.set_num_threads(1)
    before = _resident("VmRSS")
    step = TRAINERS[sys.argv[1]](int(sys.argv[2]))
    assert step is not None
    for turn in range(STEPS):
        step(turn)
    json.dump({"peak": _resident("VmHWM") - before}, sys.stdout)


if __name__ == "__main__":
    main()
