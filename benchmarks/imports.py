"""What ``import equipoise``, and using it, add to ``import torch``; and what ``equipoise --help`` takes."""

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
import torch, numpy
middle = process_time()
{statement}
print(middle - start, process_time() - middle)
"""
_USE = "import equipoise as eq; eq.Objective, eq.MultiTaskOptimizer, eq.FairGrad()"
_HELP = """
import sys
from time import process_time
from equipoise.cli import main
main(["--help"])
print(process_time(), file=sys.stderr)
"""


def run(say: Say) -> None:
    """Prints the table."""
    statements = ("import equipoise", _USE, "import torchjd.autojac")
    seconds: dict[str, list[float]] = {"import torch, numpy": []}
    for _ in range(ROUNDS):
        for statement in statements:
            measured = _seconds(_PROGRAM.format(statement=statement))
            if measured is not None:
                torch_alone, added = map(float, measured.stdout.split())
                seconds["import torch, numpy"].append(torch_alone)
                seconds.setdefault(f"{statement}` after that", []).append(added)
        measured = _seconds(_HELP)
        if measured is not None:
            seconds.setdefault("equipoise --help` in all", []).append(float(measured.stderr.split()[-1]))
    rows = [
        [f"`{name}" + "`" * (name.count("`") == 0), duration(statistics.median(taken)), duration(min(taken))]
        for name, taken in seconds.items()
    ]
    say(
        f"## Import\n\nProcessor time in fresh processes, {ROUNDS} rounds, files and bytecode in the cache.\n\n"
        + table(["statement", "median", "least"], rows)
    )


def _seconds(program: str) -> subprocess.CompletedProcess[str] | None:
    # Installed packages have their bytecode; so shall this one, after the first round.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    return None if done.returncode else done
