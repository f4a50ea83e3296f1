"""Peak memory of a step beyond plain training, as a share of K·P·4 bytes, each trainer in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from benchmarks import peers
from benchmarks.memory_process import SHARED, TRAINERS
from benchmarks.tables import table

__all__ = ["peak", "run"]

TASKS = (2, 4, 8)
Say = Callable[[str], None]


def run(say: Say) -> None:
    """Prints the table."""
    trainers = [name for name in TRAINERS if peers.torchjd() or not name.startswith("TorchJD")]
    # These have tables of their own.
    trainers = [name for name in trainers if not any(word in name for word in ("COST", "proxy", "streamed"))]
    trainers = [name for name in trainers if peers.libmtl() is not None or name != "LibMTL"]
    rows = []
    for tasks in TASKS:
        peaks = {name: peak(name, tasks) for name in trainers}
        buffer = tasks * SHARED * 4
        extra = [f"{(peaks[name] - peaks['plain']) / buffer:.2f}" for name in trainers if name != "plain"]
        rows.append([str(tasks), f"{peaks['plain'] / 2**20:.0f} MiB", f"{buffer / 2**20:.0f} MiB", *extra])
    head = ["K", "plain training", "K·P·4 bytes", *(name for name in trainers if name != "plain")]
    say(
        f"## Memory\n\nPeak resident memory in steps of an MLP with P = {SHARED:,} shared parameters, batch 64, Adam, each "
        "trainer in a fresh process. Plain training's peak counts from before the model is made; the other columns are peaks "
        "*beyond* plain training's, in units of K·P·4 bytes: 1 is one copy of the task gradients.\n\n" + table(head, rows)
    )


def peak(trainer: str, tasks: int) -> int:
    """Bytes that a trainer of :mod:`benchmarks.memory_process` needs.

    Its process gives freed memory back at once, so that its peak is what was in use.
    """
    environment = dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="0")
    command = [sys.executable, "-m", "benchmarks.memory_process", trainer, str(tasks)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the memory of {trainer} with {tasks} tasks could not be measured:\n{done.stderr}")
    return int(json.loads(done.stdout)["peak"])
