"""What is run for the figure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from equipoise.errors import InputError, near_misses
from equipoise_papers.figures import figure

__all__ = ["NETWORKS", "NormalDigitsRun", "NormalDigitsSettings"]

NETWORKS = {
    "hps": "hard parameter sharing",
    "normal": "NORMAL",
    "equal": "constant and identical positions",
    "different": "constant but different positions",
    "positive": "positive positions, p = exp(v)",
    "first-order": "first-order flow",
    "shared-layers": "added task-shared layers",
    "task-layers": "added task-specific layers",
}
"""Short name → what it is."""


@dataclass(frozen=True)
class NormalDigitsRun:
    """One training.

    Attributes:
        network: which, of :data:`~equipoise_papers.figures.normal_digits.settings.NETWORKS`.
        seed: of parameters and order of the data.
        positions: where tasks are fixed at different positions, these.
    """

    network: str
    seed: int
    positions: tuple[float, ...] | None = None

    @property
    def key(self) -> str:
        """Names its file."""
        at = "" if self.positions is None else "-at-" + "-".join(f"{position:g}" for position in self.positions)
        return f"{self.network}{at}-seed-{self.seed}"


@figure("Section 5.5 of the thesis, on digits: NORMAL, its ablations (Table 5.4), and positions over training (Figure 5.2).")
@dataclass(frozen=True)
class NormalDigitsSettings:
    """The networks of Table 5.4 on ``digits``.

    Attributes:
        networks: which; ``hps`` is what the others are compared with.
        seeds: of the reported runs.
        epochs: passes over the training data.
        method: the balancer, by its name with options; the thesis adds the losses up (``ls``).
        position_lr: η, Adam's learning rate for positions.
        xi: ξ.
        start: where learned positions start.
        step_size: of Euler's method.
        fixed: the values that different constant positions are made of.
        orders: how many of their orders are tried, of 24; the best by validation is taken, as in the thesis.
        selection_seed: of the runs that choose the order; none of ``seeds``.

    Raises:
        InputError: a value that cannot be used.
    """

    networks: tuple[str, ...] = tuple(NETWORKS)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: int = 20
    method: str = "ls"
    position_lr: float = 0.1
    xi: float = 0.0
    start: float = 1.0
    step_size: float = 0.5
    fixed: tuple[float, ...] = (1.0, 1.25, 1.5, 1.75)
    orders: int = 24
    selection_seed: int = 1000

    def __post_init__(self) -> None:
        from equipoise.nets import Solver  # with torch, for which a list of options need not wait
        from equipoise.study.methods import parse_method

        for network in self.networks:
            if network not in NETWORKS:
                raise InputError(
                    f'there is no network "{network}".{near_misses(network, NETWORKS)} There are: {", ".join(NETWORKS)}'
                )
        if "hps" not in self.networks:
            raise InputError("hps must be among the networks: the others are compared with it")
        if not self.seeds or self.epochs < 1 or not 1 <= self.orders <= math.factorial(len(self.fixed)):
            raise InputError("seeds must not be empty, epochs at least 1, and orders between 1 and 24")
        if self.selection_seed in self.seeds:
            raise InputError(f"seed {self.selection_seed} chooses constant positions and cannot be reported on as well")
        if not self.position_lr > 0:
            raise InputError(f"position_lr must be a positive step size; got {self.position_lr}")
        parse_method(self.method)
        Solver(step_size=self.step_size)

    def identity(self) -> dict[str, object]:
        """What runs in one folder must have in common."""
        names = ("epochs", "method", "position_lr", "xi", "start", "step_size", "fixed", "selection_seed")
        return {name: getattr(self, name) for name in names}
