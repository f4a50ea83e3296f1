"""The command: ``python -m benchmarks [FAMILY …] [--budget 1.0] [--write]``; ``--help`` lists the families."""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import torch

from benchmarks import (
    bilevel,
    blackbox,
    hypergradients,
    hyperparameters,
    imports,
    memory,
    methods,
    peers,
    price,
    reading,
    solvers,
    steps,
    teleports,
)

__all__ = ["main"]

_README = Path(__file__).with_name("README.md")
_START, _END = "<!-- start of the run -->\n", "<!-- end of the run -->\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmarks named, or all of them."""
    families: dict[str, Callable[[Callable[[str], None], float], None]] = {
        "bilevel": lambda say, budget: bilevel.run(say, budget=budget),
        "blackbox": lambda say, budget: blackbox.run(say, budget=budget),
        "hypergradients": lambda say, _: hypergradients.run(say),
        "hyperparameters": lambda say, budget: hyperparameters.run(say, budget=budget),
        "imports": lambda say, _: imports.run(say),
        "losses": lambda say, budget: steps.loss_based(say, budget=budget),
        "memory": lambda say, _: memory.run(say),
        "price": lambda say, budget: price.run(say, budget=budget),
        "reading": lambda say, budget: reading.run(say, budget=budget),
        "methods": lambda say, budget: methods.run(say, budget=budget),
        "solvers": lambda say, budget: solvers.run(say, budget=budget),
        "steps": lambda say, budget: steps.run(say, budget=budget),
        "teleports": lambda say, budget: teleports.run(say, budget=budget),
    }
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Benchmarks of equipoise, side by side with its peers."
    )
    parser.add_argument("families", nargs="*", help=f"which to run: {', '.join(families)}; all of them if left out")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds to spend, relative to the usual (default 1)")
    parser.add_argument(
        "--write", action="store_true", help="put the tables into benchmarks/README.md in place of the last run's"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.families if name not in families]
    if unknown:
        parser.error(f"there is no family {', '.join(unknown)}; there are {', '.join(families)}")
    torch.set_num_threads(1)
    # CVXPY's remarks on how TorchJD states its problems.
    warnings.filterwarnings("ignore", category=UserWarning, module="torchjd")
    said: list[str] = []

    def say(text: str) -> None:
        print(text, end="\n\n", flush=True)
        said.append(text)

    start = perf_counter()
    say(_setting())
    for line in peers.absent():
        say(line)
    for name in options.families or families:
        families[name](say, options.budget)
    say(f"All of this took {(perf_counter() - start) / 60:.0f} minutes.")
    if options.write:
        before, _, rest = _README.read_text().partition(_START)
        _, _, after = rest.partition(_END)
        _README.write_text(before + _START + "\n" + "\n\n".join(said) + "\n\n" + _END + after)


def _setting() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    packages = ("torch", "numpy", "torchjd", "LibMTL", "cvxpy", "scipy", "cma")
    versions = ", ".join(f"{name} {peers.version_of(name)}" for name in packages)
    return f"{platform.machine()}, {capability}, one thread. Python {platform.python_version()}, {versions}."


if __name__ == "__main__":
    main()
