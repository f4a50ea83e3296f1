"""The numbers of the few-shot example."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.errors import InputError
from equipoise_papers.applications import example

__all__ = ["FewShotSettings"]


@example(
    "Robust few-shot learning (thesis, eq. 3.34) on rendered characters: clean against PGD-perturbed query loss, by MOML.",
    quick={"seeds": (0,), "steps": 20, "test_episodes": 5},
)
@dataclass(frozen=True)
class FewShotSettings:
    """Which runs, and the numbers of each.

    Attributes:
        methods: some of untrained, clean, robust, both-ls, both-mgda.
        seeds: of class split, encoder and episodes.
        characters: how many classes are drawn, in the layout of Omniglot.
        ways: N, classes of an episode.
        shots: k, support images of a class.
        queries: query images of a class.
        base_classes: how many of the characters are learned from; the others are the novel ones.
        channels: of each of the encoder's four convolutions; 64 in the published one.
        steps: meta-training episodes.
        lower_steps: T, steps of the head.
        lower_lr: step size of the head.
        decay: of the head, ½·decay·‖ω‖² in the lower level, which makes it strongly convex in ω.
        lr: of Adam on the encoder.
        radius: ε of the attacks, in units of pixel values (0 to 1).
        attack_steps: of PGD in training.
        test_attack_steps: of PGD in evaluation.
        test_episodes: episodes of novel classes in the evaluation.

    Raises:
        InputError: a number that cannot be used.
    """

    methods: tuple[str, ...] = ("untrained", "clean", "robust", "both-ls", "both-mgda")
    seeds: tuple[int, ...] = (0, 1, 2)
    characters: int = 80
    ways: int = 5
    shots: int = 1
    queries: int = 8
    base_classes: int = 60
    channels: int = 16
    steps: int = 100
    lower_steps: int = 5
    lower_lr: float = 0.3
    decay: float = 1e-2
    lr: float = 3e-3
    radius: float = 0.1
    attack_steps: int = 3
    test_attack_steps: int = 10
    test_episodes: int = 30

    def __post_init__(self) -> None:
        for name in ("channels", "shots", "queries", "steps", "lower_steps", "test_episodes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)}")
        novel = self.characters - self.base_classes
        if not 2 <= self.ways <= min(self.base_classes, novel):
            raise InputError(
                f"ways must be from 2 to the number of classes on either side ({self.base_classes} base, {novel} novel); got "
                f"{self.ways}"
            )
        if not 0 <= self.decay < float("inf"):
            raise InputError(f"decay must be finite and at least 0; got {self.decay}")
        if not 0 < self.lr < float("inf"):
            raise InputError(f"lr must be positive and finite; got {self.lr}")
