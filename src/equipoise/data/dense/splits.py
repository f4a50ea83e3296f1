"""Loaders for data sets that come as ``train`` and ``val``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from equipoise.data.dense.augmentation import ZoomAndFlip
from equipoise.data.dense.scenes import SceneDataset
from equipoise.data.loading import DatasetBatches, held_out

__all__ = ["Loaders", "scene_loaders"]

Loaders = tuple[DatasetBatches, DatasetBatches | None, DatasetBatches]


def scene_loaders(
    open_split: Callable[[str, ZoomAndFlip | None], SceneDataset],
    root: str | Path,
    batch_size: int,
    *,
    augmentation: ZoomAndFlip | None,
    validation: float,
    seed: int,
    split_seed: int,
    workers: int,
    pin_memory: bool,
    drop_last: bool,
) -> Loaders:
    """Loaders for training, validation and test; see :func:`~equipoise.data.nyuv2_loaders`."""
    train = open_split("train", augmentation)
    own_test = (Path(root).expanduser() / "test").is_dir()
    test = open_split("test" if own_test else "val", None)
    rows, kept = held_out(len(train), 0.0 if own_test else validation, split_seed)
    validating = None
    if own_test:
        validating = DatasetBatches(open_split("val", None), batch_size, workers=workers, pin_memory=pin_memory)
    elif len(kept):
        validating = DatasetBatches(open_split("train", None), batch_size, rows=kept, workers=workers, pin_memory=pin_memory)
    return (
        DatasetBatches(
            train, batch_size, rows=rows, shuffle=True, seed=seed, drop_last=drop_last, workers=workers, pin_memory=pin_memory
        ),
        validating,
        DatasetBatches(test, batch_size, workers=workers, pin_memory=pin_memory),
    )
