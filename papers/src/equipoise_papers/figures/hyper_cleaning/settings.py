"""What is run: the thesis' setting on MNIST and FashionMNIST, and the same scaled to the bundled digits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from equipoise.errors import InputError, near_misses
from equipoise_papers.figures import figure

__all__ = ["DIGITS", "METHODS", "MNIST", "CleaningSource", "HyperCleaningSettings"]

METHODS = {
    "noisy": "training on the noisy labels",
    "moml": "MOML",
    "moco": "MoCo",
    "forum": "FORUM",
    "bome": "BOME",
    "bvfim": "BVFIM",
}
CleaningSource: TypeAlias = Literal["digits", "mnist"]

# What follows from the size of the data; for MNIST the thesis' numbers.
_OWN: dict[str, dict[str, Any]] = {
    "mnist": {
        "samples": (5000, 1000, 1000, 5000),
        "sizes": (784, 512, 256),
        "batch_size": 100,
        "steps": 1200,
        "lower_steps": 64,
        "formulation": "printed",
    },
    "digits": {
        "samples": (900, 200, 200, 497),
        "sizes": (64, 128, 64),
        "batch_size": 50,
        "steps": 400,
        "lower_steps": 16,
        "formulation": "optimal",
    },
}


@figure("Section 3.7.1 of the thesis: half of the training labels are wrong; a weight per sample is learned on clean ones.")
@dataclass(frozen=True)
class HyperCleaningSettings:
    """The numbers of one experiment; those that depend on the data are the data's own unless they are given.

    Attributes:
        data: the bundled ``digits``, upright and turned, or ``mnist`` together with FashionMNIST.
        folder: where the folders ``MNIST`` and ``FashionMNIST`` with their IDX files are.
        methods: some of noisy, moml, moco, forum, bome, bvfim.
        seeds: of data, corruption, parameters and order.
        samples: training, first validation, second validation and test samples of each data set; the data's
            own if left out, and so are the next ones without a default.
        corrupted: share of training labels that are replaced by another class.
        sizes: pixels, and widths of the two shared layers.
        batch_size: samples of each data set in a batch, of both levels.
        steps: K, outer steps.
        lower_steps: T, steps of the lower level.
        lower_lr: η, SGD of the lower level.
        weights_lr: SGD of α.
        model_lr: SGD of ω in the outer step, for methods that have one.
        rho: ρ of FORUM and BOME.
        formulation: FORUM's; the thesis' print for its own data, ``"optimal"`` for the digits, if left out.
        constraint_batches: lower batches over which FORUM, BOME and BVFIM take their constraint.
        start: of the lower level's steps.
        evaluate_every: outer steps between two looks at the second validation set, by which the model is chosen.
        jobs: processes beside each other.

    Raises:
        InputError: a number that is out of range, or an unknown method.
    """

    data: CleaningSource = "digits"
    folder: Path | None = None
    methods: tuple[str, ...] = ("noisy", "moml", "moco", "forum")
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: tuple[int, int, int, int] = None  # type: ignore[assignment]  # the data's own
    corrupted: float = 0.5
    sizes: tuple[int, int, int] = None  # type: ignore[assignment]
    batch_size: int = None  # type: ignore[assignment]
    steps: int = None  # type: ignore[assignment]
    lower_steps: int = None  # type: ignore[assignment]
    lower_lr: float = 0.3
    weights_lr: float = 10.0
    model_lr: float = 0.3
    rho: float = 0.5
    formulation: Literal["optimal", "printed"] = None  # type: ignore[assignment]
    constraint_batches: int = 1
    start: Literal["warm", "cold"] = "warm"
    evaluate_every: int = 10
    jobs: int = 1

    def __post_init__(self) -> None:
        if self.data not in _OWN:
            raise InputError(f'unknown data "{self.data}"; expected one of {", ".join(sorted(_OWN))}')
        for name, value in _OWN[self.data].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for method in self.methods:
            if method not in METHODS:
                raise InputError(f'unknown method "{method}".{near_misses(method, METHODS)} There are {", ".join(METHODS)}')
        for name in ("batch_size", "steps", "lower_steps", "constraint_batches", "evaluate_every", "jobs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)}")
        for name in ("lower_lr", "weights_lr", "model_lr"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be a positive step size; got {getattr(self, name)}")
        if not 0 <= self.corrupted < 1:
            raise InputError(f"corrupted must be a share from 0 to below 1; got {self.corrupted}")
        if len(self.samples) != 4 or min(self.samples) < 1:
            raise InputError(f"samples must be four whole numbers of at least 1; got {self.samples}")

    def identity(self) -> dict[str, Any]:
        """What runs in one folder must have in common."""
        return {name: value for name, value in asdict(self).items() if name not in ("methods", "seeds", "folder", "jobs")}


DIGITS = HyperCleaningSettings()
MNIST = HyperCleaningSettings(data="mnist")
