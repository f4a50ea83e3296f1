"""Office-31 and Office-Home in small."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from equipoise.errors import InputError
from equipoise_papers.samples.photographs import write_photograph

__all__ = ["write_office31_sample", "write_office_home_sample"]


def write_office31_sample(
    root: str | Path,
    *,
    images: int = 5,
    classes: Sequence[str] = ("back_pack", "bike"),
    size: tuple[int, int] = (40, 40),
    seed: int = 0,
) -> Path:
    """Writes the sources amazon, dslr and webcam as :class:`~equipoise.data.Office` reads them.

    Args:
        root: where the sources' folders go.
        images: of each class in each source.
        classes: names of the classes; the real set has 31.
        size: height and width.
        seed: of the content.

    Raises:
        InputError: no images or classes.
        MissingExtraError: Pillow is not installed.
    """
    places = [f"{source}/images" for source in ("amazon", "dslr", "webcam")]
    return _write(Path(root), places, "frame_{:04d}.jpg", images, classes, size, seed)


def write_office_home_sample(
    root: str | Path,
    *,
    images: int = 5,
    classes: Sequence[str] = ("Alarm_Clock", "Backpack"),
    size: tuple[int, int] = (40, 40),
    seed: int = 0,
) -> Path:
    """Writes the sources Art, Clipart, Product and Real World as :class:`~equipoise.data.Office` reads them.

    Args:
        root: where the sources' folders go.
        images: of each class in each source.
        classes: names of the classes; the real set has 65.
        size: height and width.
        seed: of the content.

    Raises:
        InputError: no images or classes.
        MissingExtraError: Pillow is not installed.
    """
    return _write(Path(root), ["Art", "Clipart", "Product", "Real World"], "{:05d}.jpg", images, classes, size, seed)


def _write(
    root: Path, places: Sequence[str], name: str, images: int, classes: Sequence[str], size: tuple[int, int], seed: int
) -> Path:
    if images < 1 or not classes:
        raise InputError(f"images is {images} and classes {tuple(classes)}; at least one of each is needed")
    rng = np.random.default_rng(seed)
    for place in places:
        for number, label in enumerate(classes):
            for image in range(1, images + 1):
                write_photograph(root / place / label / name.format(image), rng, size, number / max(len(classes) - 1, 1))
    return root
