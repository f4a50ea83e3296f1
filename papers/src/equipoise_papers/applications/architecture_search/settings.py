"""The numbers of the architecture search."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.errors import InputError
from equipoise_papers.applications import example

__all__ = ["ArchitectureSearchSettings"]


@example(
    "Architecture search (thesis, eq. 3.35 to 3.37) on digits: accuracy, robustness and number of parameters.",
    quick={"seeds": (0,), "sizes": (300, 1000), "nodes": 3, "steps": 60},
)
@dataclass(frozen=True)
class ArchitectureSearchSettings:
    """Which searches, and the numbers of each.

    Attributes:
        methods: some of darts (validation loss alone), moml, forum.
        sizes: L, numbers of parameters that the cell is to have.
        seeds: of split, weights and batches.
        channels: of every node.
        nodes: of the cell, its input among them; n nodes have n (n − 1) / 2 edges.
        steps: outer steps.
        lower_steps: T.
        lower_lr: of the weights in the lower level.
        logits_lr: of Adam on the logits.
        weights_lr: of gradient descent on the weights where the method moves them by an optimizer (FORUM).
        rho: ρ of FORUM.
        batch_size: images per batch, on both levels.
        radius: ε of the attacks, in units of pixel values.
        test_attack_steps: of PGD in the evaluation; the search itself uses one step (FGSM).
        training_steps: in which the network found is trained from scratch, by Adam.

    Raises:
        InputError: a number that cannot be used.
    """

    methods: tuple[str, ...] = ("darts", "moml", "forum")
    sizes: tuple[int, ...] = (300, 1000, 2500)
    seeds: tuple[int, ...] = (0, 1, 2)
    channels: int = 8
    nodes: int = 4
    steps: int = 200
    lower_steps: int = 1
    lower_lr: float = 0.2
    logits_lr: float = 0.1
    weights_lr: float = 0.2
    rho: float = 0.5
    batch_size: int = 32
    radius: float = 0.05
    test_attack_steps: int = 10
    training_steps: int = 300

    def __post_init__(self) -> None:
        for name, least in (
            ("channels", 1),
            ("nodes", 2),
            ("steps", 1),
            ("lower_steps", 1),
            ("batch_size", 1),
            ("training_steps", 1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be a whole number of at least {least}; got {getattr(self, name)}")
        for name in ("lower_lr", "logits_lr", "weights_lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be positive and finite; got {getattr(self, name)}")
