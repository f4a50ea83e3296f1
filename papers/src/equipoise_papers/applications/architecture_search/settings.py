"""The numbers of the architecture search."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.errors import InputError

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What decides a search, beside method, L and seed.

    Args:
        channels: of every node.
        nodes: of the cell, its input among them; n nodes have n (n − 1) / 2 edges.
        steps: outer steps.
        lower_steps: T.
        lower_step_size: of the weights in the lower level.
        logits_step_size: of Adam on the logits.
        weights_step_size: of gradient descent on the weights where the method moves them by an optimizer (FORUM).
        rho: ρ of FORUM.
        batch_size: images a batch, on both levels.
        radius: ε of the attacks, in units of pixel values.
        test_attack_steps: of PGD in the evaluation; the search itself uses one step (FGSM).
        training_steps: in which the network found is trained from scratch, by Adam.

    Raises:
        InputError: a number that cannot be used.
    """

    channels: int = 8
    nodes: int = 4
    steps: int = 200
    lower_steps: int = 1
    lower_step_size: float = 0.2
    logits_step_size: float = 0.1
    weights_step_size: float = 0.2
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
                raise InputError(f"{name} must be a whole number from {least} on; got {getattr(self, name)}")
        for name in ("lower_step_size", "logits_step_size", "weights_step_size"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be positive and finite; got {getattr(self, name)}")
