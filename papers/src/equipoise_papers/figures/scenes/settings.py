"""What the pictures of scenes show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from equipoise.errors import InputError
from equipoise_papers.figures import figure

__all__ = ["ScenesFigureSettings"]


@figure("Rendered rooms and streets with their classes, depth and normals, and what a trained network says about rooms.")
@dataclass(frozen=True)
class ScenesFigureSettings:
    """Which scenes, and how the network for predictions is trained.

    Attributes:
        rooms: rows of rooms.
        streets: rows of streets.
        seed: of scenes, network and training.
        predict: whether to train a network and show what it predicts.
        method: the balancing method that it is trained with, as in studies.
        epochs: passes over the training scenes.
        network: that is trained.
        width: channels of its first level.

    Raises:
        InputError: no rows, or no epochs.
    """

    rooms: int = 4
    streets: int = 3
    seed: int = 0
    predict: bool = False
    method: str = "fairgrad"
    epochs: int = 20
    network: Literal["segnet", "segnet-mtan"] = "segnet"
    width: int = 8

    def __post_init__(self) -> None:
        if self.rooms < 1 or self.streets < 1:
            raise InputError(f"rooms is {self.rooms} and streets {self.streets}; at least one row of each is needed")
        if self.epochs < 1:
            raise InputError(f"epochs is {self.epochs}; it must be at least 1")
