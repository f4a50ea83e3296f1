"""Office-31 and Office-Home as they lie on disk: a folder a source, in it a folder a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.prompts.cache import cached_features
from equipoise.blackbox.prompts.clip import Clip
from equipoise.blackbox.prompts.images import read_image
from equipoise.blackbox.prompts.tasks import SPLITS, PromptTask, split_indices
from equipoise.errors import InputError

__all__ = ["ImageSource", "office_tasks", "read_office"]

_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp"}


@dataclass(frozen=True)
class ImageSource:
    """The images of one source.

    Attributes:
        name: of its folder.
        paths: split → files.
        labels: split → class numbers [n].
        classes: names, in the order of the numbers, the same for all sources.
    """

    name: str
    paths: Mapping[str, tuple[Path, ...]]
    labels: Mapping[str, NDArray[np.int64]]
    classes: tuple[str, ...]


def read_office(
    root: str | Path,
    sources: Sequence[str] | None = None,
    *,
    seed: int = 0,
    lists: Mapping[str, Mapping[str, str | Path]] | None = None,
) -> list[ImageSource]:
    """Finds the images of all sources, split 60/20/20 at random with a fixed seed, or by the user's lists.

    Args:
        root: holds ``amazon``, ``dslr``, ``webcam`` (Office-31; ``amazon/images/<class>`` is understood, too), or ``Art``,
            ``Clipart``, ``Product``, ``Real World`` (Office-Home), or sources of the user's own.
        sources: which folders; all if left out.
        seed: of the splits.
        lists: source → split → a text file with a line an image: its path, relative to ``root`` or to the list's folder, and
            its class number, separated by a space.

    Returns:
        The sources, in the order asked for, or by name.

    Raises:
        InputError: a folder or file is missing, sources differ in their classes, or a list cannot be read.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the one that holds a folder for each source")
    names = list(sources) if sources is not None else sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not names:
        raise InputError(f"{folder} holds no folders; give the one that holds a folder for each source")
    found: list[ImageSource] = []
    for name in names:
        own = folder / name
        if not own.is_dir():
            raise InputError(f'{folder} has no source "{name}"; it has {", ".join(sorted(p.name for p in folder.iterdir()))}')
        # Office-31 as it is distributed has one folder more.
        own = own / "images" if (own / "images").is_dir() else own
        classes = tuple(sorted(entry.name for entry in own.iterdir() if entry.is_dir()))
        if found and classes != found[0].classes:
            odd = sorted(set(classes) ^ set(found[0].classes))
            raise InputError(f'sources "{found[0].name}" and "{name}" differ in their classes: {", ".join(odd)}')
        if lists is not None:
            if name not in lists:
                raise InputError(f'lists has no entry for source "{name}"; it has {", ".join(lists)}')
            found.append(_by_lists(name, classes, folder, lists[name]))
        else:
            found.append(_by_split(name, classes, own, seed))
    return found


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


def _by_split(name: str, classes: tuple[str, ...], folder: Path, seed: int) -> ImageSource:
    paths = []
    labels = []
    for number, label in enumerate(classes):
        files = sorted(path for path in (folder / label).iterdir() if path.suffix.lower() in _ENDINGS)
        paths += files
        labels += [number] * len(files)
    rows = split_indices(len(paths), seed)
    truth = np.array(labels, dtype=np.int64)
    return ImageSource(
        name,
        {split: tuple(paths[row] for row in own) for split, own in rows.items()},
        {split: truth[own] for split, own in rows.items()},
        classes,
    )


def _by_lists(name: str, classes: tuple[str, ...], root: Path, lists: Mapping[str, str | Path]) -> ImageSource:
    paths: dict[str, tuple[Path, ...]] = {}
    labels: dict[str, NDArray[np.int64]] = {}
    for split, file in lists.items():
        if split not in SPLITS:
            raise InputError(f'lists has a split "{split}" of source "{name}"; expected {", ".join(SPLITS)}')
        if not Path(file).is_file():
            raise InputError(f'the list {file} of source "{name}" does not exist')
        own: list[Path] = []
        truth: list[int] = []
        for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition(" ")
            if not path or not label.isdigit() or (classes and int(label) >= len(classes)):
                raise InputError(f'line {number} of {file} is "{line}"; expected a path, a space, and a class number')
            where = next((base / path for base in (root, Path(file).parent) if (base / path).is_file()), None)
            if where is None:
                raise InputError(f"line {number} of {file} names {path}, which is neither in {root} nor beside the list")
            own.append(where)
            truth.append(int(label))
        paths[split], labels[split] = tuple(own), np.array(truth, dtype=np.int64)
    return ImageSource(name, paths, labels, classes)
