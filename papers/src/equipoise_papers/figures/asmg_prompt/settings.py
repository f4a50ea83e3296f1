"""What is tuned for the figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equipoise.errors import InputError
from equipoise_papers.figures import figure

__all__ = ["GRIDS", "ASMGPromptSettings"]

_PRINTED = {"covariance": "printed", "scaling": "none"}
# As many for each method; of those without a step size, the first standard deviation. BES' is the thesis'; the others lie
# around what earlier grids ended at.
GRIDS: dict[str, tuple[dict[str, Any], ...]] = {
    "asmg": tuple({"lr": value} for value in (0.5, 1.0, 2.0)),
    "asmg-ew": tuple({"lr": value} for value in (0.5, 1.0, 2.0)),
    "asmg-printed": tuple({"lr": value, **_PRINTED} for value in (0.25, 0.5, 1.0)),
    "cma-es": tuple({"std": value} for value in (0.1, 0.3, 1.0)),
    "mmes": tuple({"std": value} for value in (0.3, 1.0, 3.0)),
    "es": tuple({"lr": value} for value in (0.03, 0.1, 0.3)),
    "bes": tuple({"lr": value} for value in (0.5, 0.1, 0.01)),
}


@figure("Section 4.6.2 of the thesis: a prompt for three tasks, tuned by queries alone, on a small CLIP trained on the way.")
@dataclass(frozen=True)
class ASMGPromptSettings:
    """What is tuned, as in section 4.6.2 with Office-31, but for the model and the images.

    Attributes:
        methods: which (``asmg-printed`` is Algorithm 3 with A.2.5 to the letter); the step size of each, or its first standard
            deviation, is chosen of three.
        seeds: of A, mini-batches and samples; judged on the test split.
        tuning_seeds: others, by whose average accuracy on the validation split the choice is made.
        iterations: "epochs" of the thesis, one mini-batch per task each.
        samples: N.
        dim: d.
        tokens: of the prompt.
        batch_size: images per task.
        pretraining_steps: of the CLIP.

    Raises:
        InputError: settings that leave nothing to do, or that choose and judge by the same seeds.
    """

    methods: tuple[str, ...] = ("asmg", "asmg-ew", "asmg-printed", "cma-es", "mmes", "es", "bes")
    seeds: tuple[int, ...] = tuple(range(10))
    tuning_seeds: tuple[int, ...] = (100, 101)
    iterations: int = 200
    samples: int = 20
    dim: int = 256
    tokens: int = 4
    batch_size: int = 64
    pretraining_steps: int = 800

    def __post_init__(self) -> None:
        if not (self.methods and self.seeds and self.tuning_seeds) or self.iterations < 1:
            raise InputError("at least one method, seed, tuning seed and iteration is needed")
        if set(self.seeds) & set(self.tuning_seeds):
            raise InputError(
                f"seeds {self.seeds} and tuning_seeds {self.tuning_seeds} overlap; the seeds that choose must not judge"
            )
        for method in self.methods:
            if method not in GRIDS:
                raise InputError(f'there is no black-box optimizer "{method}" in this figure; there are {", ".join(GRIDS)}')
