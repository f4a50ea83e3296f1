"""What is run: the thesis' setting on MNIST and FashionMNIST, and the same scaled to the bundled digits."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.errors import InputError, near_misses

__all__ = ["DIGITS", "METHODS", "MNIST", "Settings"]

METHODS = {
    "noisy": "training on the noisy labels",
    "moml": "MOML",
    "moco": "MoCo",
    "forum": "FORUM",
    "bome": "BOME",
    "bvfim": "BVFIM",
}


@dataclass(frozen=True)
class Settings:
    """The numbers of one experiment; those of the class are the thesis'.

    Attributes:
        methods: which.
        seeds: of data, corruption, parameters and order.
        samples: training, first validation, second validation and test samples of each data set.
        corrupted: share of training labels that are replaced by another class.
        sizes: pixels, and widths of the two shared layers.
        batch_size: samples of each data set in a batch, of both levels.
        steps: K, outer steps.
        lower_steps: T.
        lower_step_size: η, SGD of the lower level.
        weights_step_size: SGD of α.
        model_step_size: SGD of ω in the outer step, for methods that have one.
        rho: ρ of FORUM and BOME.
        constraint_batches: lower batches over which FORUM, BOME and BVFIM take their constraint.
        start: of the lower level's steps.
        evaluate_every: outer steps between two looks at the second validation set, by which the model is chosen.

    Raises:
        InputError: a number that is out of range, or an unknown method.
    """

    methods: tuple[str, ...] = ("noisy", "moml", "moco", "forum")
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: tuple[int, int, int, int] = (5000, 1000, 1000, 5000)
    corrupted: float = 0.5
    sizes: tuple[int, int, int] = (784, 512, 256)
    batch_size: int = 100
    steps: int = 1200
    lower_steps: int = 64
    lower_step_size: float = 0.3
    weights_step_size: float = 10.0
    model_step_size: float = 0.3
    rho: float = 0.5
    constraint_batches: int = 1
    start: str = "warm"
    evaluate_every: int = 10

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise InputError(f'unknown method "{method}".{near_misses(method, METHODS)} There are {", ".join(METHODS)}')
        for name in ("batch_size", "steps", "lower_steps", "constraint_batches", "evaluate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number from 1 on; got {getattr(self, name)}")
        for name in ("lower_step_size", "weights_step_size", "model_step_size"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be a positive step size; got {getattr(self, name)}")
        if not 0 <= self.corrupted < 1:
            raise InputError(f"corrupted must be a share from 0 to below 1; got {self.corrupted}")
        if min(self.samples) < 1:
            raise InputError(f"samples must be whole numbers from 1 on; got {self.samples}")


MNIST = Settings()
DIGITS = Settings(
    samples=(900, 200, 200, 497),
    sizes=(64, 128, 64),
    batch_size=50,
    steps=400,
    lower_steps=16,
)
