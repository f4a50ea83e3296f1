"""The numbers of the few-shot example."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.errors import InputError

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What decides a run, beside method and seed.

    Args:
        ways: N, classes of an episode.
        shots: k, support images of a class.
        queries: query images of a class.
        base_classes: how many of the ten digits are learned from; the others are the novel ones.
        steps: meta-training episodes.
        lower_steps: T, steps of the head.
        lower_step_size: their step size.
        decay: of the head, ½·decay·‖ω‖² in the lower level, which makes it strongly convex in ω.
        learning_rate: of Adam on the encoder.
        radius: ε of the attacks, in units of pixel values (0 to 1).
        attack_steps: of PGD in training.
        test_attack_steps: of PGD in evaluation.
        test_episodes: of novel classes in evaluation.

    Raises:
        InputError: a number that cannot be used.
    """

    ways: int = 3
    shots: int = 5
    queries: int = 10
    base_classes: int = 6
    steps: int = 300
    lower_steps: int = 5
    lower_step_size: float = 0.1
    decay: float = 1e-2
    learning_rate: float = 3e-3
    radius: float = 0.1
    attack_steps: int = 3
    test_attack_steps: int = 10
    test_episodes: int = 60

    def __post_init__(self) -> None:
        for name in ("shots", "queries", "steps", "lower_steps", "test_episodes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number from 1 on; got {getattr(self, name)}")
        if not 2 <= self.ways <= min(self.base_classes, 10 - self.base_classes):
            raise InputError(
                f"ways must be from 2 to the number of classes on either side ({self.base_classes} base, "
                f"{10 - self.base_classes} novel); got {self.ways}"
            )
        if not 0 <= self.decay < float("inf"):
            raise InputError(f"decay must be finite and at least 0; got {self.decay}")
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"learning_rate must be positive and finite; got {self.learning_rate}")
