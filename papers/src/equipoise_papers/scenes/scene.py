"""One scene by its number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equipoise.errors import InputError, near_misses
from equipoise_papers.scenes.camera import Camera, photograph
from equipoise_papers.scenes.classes import VOID, Street
from equipoise_papers.scenes.rendering import render
from equipoise_papers.scenes.rooms import room
from equipoise_papers.scenes.shapes import Array
from equipoise_papers.scenes.streets import street

__all__ = ["KINDS", "SPLITS", "Scene", "check_size", "make_scene"]

KINDS = {"rooms": room, "streets": street}
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Scene:
    """An image and what is exactly true about each of its pixels' centers.

    Attributes:
        image: ``[H, W, 3]`` float32, 0 to 1.
        label: ``[H, W]`` int64: of rooms 0 to 12 in the order of :data:`~equipoise_papers.scenes.ROOM_CLASSES`, of streets 0 to
            6 in that of :data:`~equipoise_papers.scenes.STREET_CLASSES`; −1 for void.
        depth: ``[H, W]`` float32, metres along the line of sight of the image's middle (planar depth, as a depth camera gives
            it, not the distance); 0 in the sky.
        normal: ``[H, W, 3]`` float32, unit length, pointing out of the surface, in the camera's frame: x to the right, y
            upwards, z towards the viewer. What faces the camera has (0, 0, 1). (0, 0, 0) in the sky.
        camera: where it was taken from.
    """

    image: Array
    label: Array
    depth: Array
    normal: Array
    camera: Camera

    @property
    def inverse_depth(self) -> Array:
        """``[H, W]`` float32, 1/depth in 1/metres; 0 in the sky, which is infinitely far away."""
        inverse: Array = np.divide(1, self.depth, out=np.zeros_like(self.depth), where=self.depth > 0)
        return inverse


def make_scene(
    kind: str = "rooms", size: tuple[int, int] = (288, 384), *, seed: int = 0, split: str = "train", number: int = 0
) -> Scene:
    """Draws and renders a scene, which is a function of the arguments alone.

    What is in a scene does not depend on the size, so a small image shows the same room as a large one.

    Args:
        kind: ``"rooms"`` (13 classes) or ``"streets"`` (7 classes).
        size: height and width, pixels; 8 at least.
        seed: of a whole data set.
        split: ``"train"``, ``"val"`` or ``"test"``; they have nothing in common.
        number: which scene of the split, from 0.

    Raises:
        InputError: another kind or split, a negative seed or number, a size below 8.

    Example:
        >>> scene = make_scene("rooms", (24, 32), seed=0, number=3)
        >>> scene.image.shape, scene.label.shape, bool(scene.depth.min() > 0)
        ((24, 32, 3), (24, 32), True)
        >>> scene.normal[..., 2].max() <= 1  # towards the viewer
        np.True_
    """
    if kind not in KINDS:
        raise InputError(f'there is no kind of scene "{kind}".{near_misses(kind, KINDS)} Known: {", ".join(KINDS)}')
    if split not in SPLITS:
        raise InputError(f'there is no split "{split}"; expected one of {", ".join(SPLITS)}')
    if seed < 0 or number < 0:
        raise InputError(f"seed is {seed} and number {number}; neither may be negative")
    height, width = check_size(size)
    entropy = (seed, list(KINDS).index(kind), SPLITS.index(split), number)
    # Apart from each other, so that the noise of a larger image does not shift what is drawn for the scene.
    content, sensor = (np.random.default_rng(part) for part in np.random.SeedSequence(entropy).spawn(2))
    setting = KINDS[kind](content)
    rendered = render(setting.solids, setting.camera, setting.lights, setting.around, height, width)
    seen = rendered.seen
    labels = np.array([solid.label for solid in setting.solids] + [Street.SKY if kind == "streets" else VOID])
    normal = (setting.camera.axes @ seen.normals).reshape(3, height, width)
    return Scene(
        image=photograph(rendered.radiance, sensor, height, width, key=0.2 if kind == "rooms" else 0.26),
        label=labels[seen.solid],
        depth=np.where(np.isfinite(seen.depth), seen.depth, 0).astype(np.float32),
        normal=np.ascontiguousarray(normal.transpose(1, 2, 0), dtype=np.float32),
        camera=setting.camera,
    )


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size, if it is one.

    Raises:
        InputError: below 8 in one direction.
    """
    if min(size) < 8:
        raise InputError(f"size is {size[0]}x{size[1]}; height and width must be at least 8 pixels")
    return size
