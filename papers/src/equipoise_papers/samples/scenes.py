"""NYUv2 and Cityscapes in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError
from equipoise_papers.samples.patches import patches

__all__ = ["write_cityscapes_sample", "write_nyuv2_sample"]


def write_nyuv2_sample(
    root: str | Path, *, images: int = 4, test_images: int = 2, size: tuple[int, int] = (32, 48), seed: int = 0
) -> Path:
    """Writes scenes as :class:`~equipoise.data.NYUv2` reads them: image, label, depth and normal.

    Args:
        root: where ``train`` and ``val`` are made.
        images: in ``train``.
        test_images: in ``val``.
        size: height and width.
        seed: of the content.

    Raises:
        InputError: no images, or a size below 1.
    """
    folder = Path(root)
    rng = np.random.default_rng(seed)
    for split, count in _counts(images, test_images, size):
        for number in range(count):
            classes, depth, image = _scene(rng, size, 13)
            normal = np.stack([patches(rng, size) - 0.5, patches(rng, size) - 0.5, patches(rng, size) + 0.5], axis=-1)
            normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
            normal[depth == 0] = 0
            arrays = {"image": image, "label": classes, "depth": depth[..., None], "normal": normal}
            _save(folder / split, number, arrays)
    return folder


def write_cityscapes_sample(
    root: str | Path,
    *,
    images: int = 4,
    test_images: int = 2,
    size: tuple[int, int] = (32, 64),
    classes: int = 7,
    seed: int = 0,
) -> Path:
    """Writes scenes as :class:`~equipoise.data.Cityscapes` reads them: image, label and inverse depth.

    Args:
        root: where ``train`` and ``val`` are made.
        images: in ``train``.
        test_images: in ``val``.
        size: height and width.
        classes: of the label, which lies in ``label_7``, for instance.
        seed: of the content.

    Raises:
        InputError: no images, or a size below 1.
    """
    folder = Path(root)
    rng = np.random.default_rng(seed)
    for split, count in _counts(images, test_images, size):
        for number in range(count):
            label, depth, image = _scene(rng, size, classes)
            inverse = np.where(depth > 0, 0.05 / np.maximum(depth, 0.1), 0)
            _save(folder / split, number, {"image": image, f"label_{classes}": label, "depth": inverse[..., None]})
    return folder


def _counts(images: int, test_images: int, size: tuple[int, int]) -> list[tuple[str, int]]:
    if images < 1 or test_images < 1 or min(size) < 1:
        raise InputError(f"images is {images}, test_images {test_images}, size {size}; all of these must be at least 1")
    return [("train", images), ("val", test_images)]


def _scene(
    rng: np.random.Generator, size: tuple[int, int], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Label (a tenth of it void), depth from 1 to 9 (a tenth of it unknown), and an image that shows both."""
    field, depth = patches(rng, size), 1 + 8 * patches(rng, size)
    label = np.floor(field * classes)
    noise = rng.random((*size, 3)) * 0.1
    image = np.stack([field, depth / 10, (field + depth / 10) / 2], axis=-1) * 0.9 + noise
    label[patches(rng, size) < 0.1] = -1
    depth[patches(rng, size) < 0.1] = 0
    return label, depth, image


def _save(folder: Path, number: int, arrays: dict[str, NDArray[np.float64]]) -> None:
    for name, array in arrays.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        np.save(folder / name / f"{number}.npy", array.astype(np.float32))
