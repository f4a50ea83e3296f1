"""What is run for the figures, and which runs that makes."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.errors import InputError
from equipoise_papers.figures import figure

__all__ = ["PROBLEMS", "ASMGCell", "ASMGRun", "ASMGSettings"]

PROBLEMS = ("shift-l1", "shift-half", "mixed")
"""Names of problems (4.21) to (4.23)."""


@dataclass(frozen=True, order=True)
class ASMGCell:
    """One panel: a problem, its dimension, the number of samples."""

    problem: str
    dimension: int
    samples: int

    def __str__(self) -> str:
        return f"{self.problem}, d = {self.dimension}, N = {self.samples}"


@dataclass(frozen=True)
class ASMGRun:
    """One method from one seed in one panel."""

    cell: ASMGCell
    method: str
    seed: int

    @property
    def key(self) -> str:
        """The name of its file."""
        return f"{self.cell.problem}-d{self.cell.dimension}-n{self.cell.samples}-{self.method}-seed{self.seed}"


@figure("Figures 4.1 to 4.4 of the thesis: ASMG and its peers on problems (4.21) to (4.23).")
@dataclass(frozen=True)
class ASMGSettings:
    """Figures 4.1 to 4.4.

    Attributes:
        methods: which.
        seeds: of mean, samples and updates; one run each.
        iterations: the most of a run.
        seconds: of processor time, after which a run is stopped where it is.
        target: ℰ at which a run has arrived and is not continued.
        samples: N of the figures with ``dimension``.
        dimension: d of those.
        dimensions: d of Figure 4.4, with the largest N and the first problem.
        problems: which.

    Raises:
        InputError: a number that is out of range, or an unknown method.
    """

    methods: tuple[str, ...] = ("asmg", "cma-es", "mmes", "es", "bes")
    seeds: tuple[int, ...] = (0, 1, 2)
    iterations: int = 10_000
    seconds: float = 20.0
    target: float = 1e-6
    samples: tuple[int, ...] = (10, 50, 100)
    dimension: int = 100
    dimensions: tuple[int, ...] = (200, 500, 1000)
    problems: tuple[str, ...] = PROBLEMS

    def __post_init__(self) -> None:
        from equipoise.blackbox import OPTIMIZERS  # with torch, for which a list of options need not wait

        for method in self.methods:
            OPTIMIZERS.find(method)  # refuses unknown names
        if self.iterations < 1 or self.seconds <= 0 or not self.seeds:
            raise InputError(
                f"iterations is {self.iterations}, seconds {self.seconds}, {len(self.seeds)} seeds; all must be positive"
            )
        for name in ("samples", "dimensions"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise InputError(f"{name} must be whole numbers of at least 1; got {getattr(self, name)}")

    def by_samples(self) -> list[ASMGCell]:
        """The panels of Figures 4.1 to 4.3."""
        return [ASMGCell(name, self.dimension, samples) for samples in self.samples for name in self.problems]

    def by_dimension(self) -> list[ASMGCell]:
        """The panels of Figure 4.4."""
        return [ASMGCell(self.problems[0], dimension, max(self.samples)) for dimension in self.dimensions]

    def runs(self) -> list[ASMGRun]:
        """All runs, seed by seed, so that an interrupted figure has something in every panel."""
        cells = self.by_samples() + self.by_dimension()
        return [ASMGRun(cell, method, seed) for seed in self.seeds for cell in cells for method in self.methods]
