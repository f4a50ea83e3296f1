"""MNIST and Fashion-MNIST in small."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError

__all__ = ["write_fashion_mnist_sample", "write_mnist_sample"]


def write_mnist_sample(
    root: str | Path, *, images: int = 60, test_images: int = 20, packed: bool = True, seed: int = 0
) -> Path:
    """Writes the four IDX files as :class:`~equipoise.data.MNIST` reads them.

    Args:
        root: where they go.
        images: in the training files.
        test_images: in the test files.
        packed: whether by gzip, with the ending ``.gz``.
        seed: of the content.

    Raises:
        InputError: no images.
    """
    return _write(Path(root), images, test_images, packed, np.random.default_rng([seed, 0]))


def write_fashion_mnist_sample(
    root: str | Path, *, images: int = 60, test_images: int = 20, packed: bool = True, seed: int = 0
) -> Path:
    """Writes the four IDX files as :class:`~equipoise.data.FashionMNIST` reads them; they are named as MNIST's.

    Args:
        root: where they go.
        images: in the training files.
        test_images: in the test files.
        packed: whether by gzip, with the ending ``.gz``.
        seed: of the content.

    Raises:
        InputError: no images.
    """
    return _write(Path(root), images, test_images, packed, np.random.default_rng([seed, 1]))


def _write(root: Path, images: int, test_images: int, packed: bool, rng: np.random.Generator) -> Path:
    if images < 1 or test_images < 1:
        raise InputError(f"images is {images} and test_images {test_images}; at least one of each is needed")
    root.mkdir(parents=True, exist_ok=True)
    prototypes = rng.integers(0, 206, (10, 28, 28))
    for split, count in (("train", images), ("t10k", test_images)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        pixels = (prototypes[labels] + rng.integers(0, 50, (count, 28, 28))).astype(np.uint8)
        for name, array in ((f"{split}-images-idx3-ubyte", pixels), (f"{split}-labels-idx1-ubyte", labels)):
            content = _idx(array)
            path = root / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return root


def _idx(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()
