"""What ``import equipoise`` adds to ``import torch``."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable

from benchmarks.tables import duration, table

__all__ = ["run"]

ROUNDS = 5
Say = Callable[[str], None]

_PROGRAM = """
from time import process_time
start = process_time()
import torch
middle = process_time()
import {module}
print(middle - start, process_time() - middle)
"""


def run(say: Say) -> None:
    """Prints the table."""
    modules = ("equipoise", "torchjd.autojac")
    seconds: dict[str, list[float]] = {"torch": []}
    for _ in range(ROUNDS):
        for module in modules:
            measured = _seconds(module)
            if measured is not None:
                seconds["torch"].append(measured[0])
                seconds.setdefault(module, []).append(measured[1])
    rows = [
        [
            f"`import {name}`" if name == "torch" else f"`import {name}` after that",
            duration(statistics.median(taken)),
            duration(min(taken)),
        ]
        for name, taken in seconds.items()
    ]
    say(
        f"## Import\n\nProcessor time in fresh processes, {ROUNDS} rounds, files and bytecode in the cache.\n\n"
        + table(["statement", "median", "least"], rows)
    )


def _seconds(module: str) -> tuple[float, float] | None:
    # Installed packages have their bytecode; so shall this one, after the first round.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", _PROGRAM.format(module=module)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    torch_alone, added = done.stdout.split()
    return float(torch_alone), float(added)
