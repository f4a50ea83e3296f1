"""CelebA in small, in each of the layouts it is found in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from equipoise.data.celeba import ATTRIBUTES
from equipoise.errors import InputError
from equipoise_papers.samples.photographs import write_photograph

__all__ = ["write_celeba_sample"]

_LAYOUTS = {  # images, attributes, partition
    "flat": ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"),
    "page": ("Img/img_align_celeba", "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"),
    "kaggle": ("img_align_celeba/img_align_celeba", "list_attr_celeba.csv", "list_eval_partition.csv"),
}


def write_celeba_sample(
    root: str | Path,
    *,
    images: int = 12,
    size: tuple[int, int] = (218, 178),
    layout: Literal["flat", "page", "kaggle"] = "flat",
    seed: int = 0,
) -> Path:
    """Writes images and lists as :class:`~equipoise.data.CelebA` reads them: half training, a quarter each of the others.

    Args:
        root: where everything goes.
        images: how many, at least 4.
        size: height and width; real ones have 218 and 178 pixels.
        layout: ``"flat"``, all in one folder; ``"page"``, the project page's folders; ``"kaggle"``, with lists as ``.csv``.
        seed: of the content.

    Raises:
        InputError: fewer than 4 images, or another layout.
        MissingExtraError: Pillow is not installed.
    """
    if images < 4:
        raise InputError(f"images is {images}; at least 4 are needed for three splits")
    if layout not in _LAYOUTS:
        raise InputError(f'layout is "{layout}"; expected one of {", ".join(_LAYOUTS)}')
    folder = Path(root)
    where, attributes, partition = (folder / part for part in _LAYOUTS[layout])
    rng = np.random.default_rng(seed)
    names = [f"{number:06d}.jpg" for number in range(1, images + 1)]
    has = rng.random((images, len(ATTRIBUTES))) < 0.5
    parts = [0] * (images - 2 * (images // 4)) + [1] * (images // 4) + [2] * (images // 4)
    for name, own in zip(names, has, strict=True):
        write_photograph(where / name, rng, size, float(own.mean()))
    rows = [[name, *("1" if one else "-1" for one in own)] for name, own in zip(names, has, strict=True)]
    for path in (attributes, partition):
        path.parent.mkdir(parents=True, exist_ok=True)
    pairs = [(name, str(part)) for name, part in zip(names, parts, strict=True)]
    if layout == "kaggle":
        attributes.write_text(_lines([["image_id", *ATTRIBUTES], *rows], ","), encoding="utf-8")
        partition.write_text(_lines([("image_id", "partition"), *pairs], ","), encoding="utf-8")
    else:
        attributes.write_text(f"{images}\n{' '.join(ATTRIBUTES)} \n{_lines(rows, ' ')}", encoding="utf-8")
        partition.write_text(_lines(pairs, " "), encoding="utf-8")
    return folder


def _lines(rows: list[list[str]] | list[tuple[str, str]], between: str) -> str:
    return "".join(f"{between.join(row)}\n" for row in rows)
