"""Features of Office-31's and Office-Home's images, as tasks of prompt tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.prompts.cache import cached_features
from equipoise.blackbox.prompts.clip import Clip
from equipoise.blackbox.prompts.images import read_image
from equipoise.blackbox.prompts.tasks import PromptTask
from equipoise.data.office.sources import ImageSource, read_office

__all__ = ["ImageSource", "office_tasks", "read_office"]


def office_tasks(
    sources: Sequence[ImageSource],
    clip: Clip,
    *,
    cache: str | Path | None,
    size: int = 224,
    told: Callable[[str], object] | None = None,
) -> list[PromptTask]:
    """Encodes the images of all sources, once; afterwards the features come from the cache.

    Args:
        sources: from :func:`read_office`.
        clip: with the class names in the sources' order, underscores replaced by spaces as one likes.
        cache: folder of the features; ``None`` to keep none.
        size: pixels of an edge that the model takes.
        told: takes a line before a split is encoded.
    """
    fingerprint = clip.fingerprint()
    tasks = []
    for source in sources:
        features = {}
        for split, paths in source.paths.items():

            def encode(paths: tuple[Path, ...] = paths, what: str = f"{source.name}, {split}") -> NDArray[np.float32]:
                if told is not None:
                    told(f"encoding {len(paths)} images of {what}")
                parts = [paths[start : start + 256] for start in range(0, len(paths), 256)]
                return np.concatenate([clip.image_features(np.stack([read_image(p, size) for p in part])) for part in parts])

            features[split] = cached_features(encode, cache, [fingerprint, size, *paths])
        tasks.append(PromptTask(source.name, features, source.labels))
    return tasks
