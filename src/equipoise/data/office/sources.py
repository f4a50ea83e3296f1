"""Office-31 and Office-Home as they lie on disk: a folder a source, in it a folder a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.data.office.split import SPLITS, split_indices
from equipoise.errors import DataSetError

__all__ = ["ImageSource", "read_office"]

_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp"}
_SOURCE = (
    "the project pages faculty.cc.gatech.edu/~judy/domainadapt (Office-31) "
    "and hemanthdv.github.io/officehome-dataset (Office-Home)"
)


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
        lists: source → split (``train``, ``validation``, ``test``) → a text file with a line an image: its path, relative to
            ``root`` or to the list's folder, and its class number, separated by a space. Where the image lies in the folder of
            a class, its label is that class's place among the folders in alphabetical order, and the list's number only has
            to go with the same folder throughout: published lists number the classes in an order of their own.

    Returns:
        The sources, in the order asked for, or by name.

    Raises:
        DataSetError: a folder or file is missing, sources differ in their classes, or a list cannot be read.
    """
    folder = Path(root).expanduser()
    there = _folders(folder) if folder.is_dir() else []
    names = list(sources) if sources is not None else there
    if not there or not names:
        raise DataSetError(
            f"{folder} holds no folders; give the one that holds a folder for each source, such as amazon or Art; "
            f"to get them: {_SOURCE}"
        )
    found: list[ImageSource] = []
    for name in names:
        own = folder / name
        if not own.is_dir():
            raise DataSetError(f'{folder} has no source "{name}"; it has {", ".join(there)}; to get it: {_SOURCE}')
        # Office-31 as it is distributed has one folder more.
        own = own / "images" if (own / "images").is_dir() else own
        classes = tuple(_folders(own))
        if found and classes != found[0].classes:
            odd = sorted(set(classes) ^ set(found[0].classes))
            raise DataSetError(f'sources "{found[0].name}" and "{name}" differ in their classes: {", ".join(odd)}')
        if lists is not None:
            if name not in lists:
                raise DataSetError(f'lists has no entry for source "{name}"; it has {", ".join(lists)}')
            found.append(_by_lists(name, classes, folder, lists[name]))
        else:
            found.append(_by_split(name, classes, own, seed))
    return found


def _folders(where: Path) -> list[str]:
    return sorted(entry.name for entry in where.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _by_split(name: str, classes: tuple[str, ...], folder: Path, seed: int) -> ImageSource:
    paths = []
    labels = []
    for number, label in enumerate(classes):
        files = sorted(path for path in (folder / label).iterdir() if path.suffix.lower() in _ENDINGS)
        paths += files
        labels += [number] * len(files)
    if len(paths) < 5:
        raise DataSetError(
            f"{folder} holds {len(paths)} images in folders of classes; at least 5 are needed for three splits; "
            f"to get them: {_SOURCE}"
        )
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
    called: dict[str, str] = {}
    for split, file in lists.items():
        if split not in SPLITS:
            raise DataSetError(f'lists has a split "{split}" of source "{name}"; expected {", ".join(SPLITS)}')
        if not Path(file).is_file():
            raise DataSetError(f'the list {file} of source "{name}" does not exist')
        own: list[Path] = []
        truth: list[int] = []
        for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition(" ")
            if not path or not label.isdecimal() or (classes and int(label) >= len(classes)):
                raise DataSetError(f'line {number} of {file} is "{line}"; expected a path, a space, and a class number')
            where = next((base / path for base in (root, Path(file).parent) if (base / path).is_file()), None)
            if where is None:
                raise DataSetError(f"line {number} of {file} names {path}, which is neither in {root} nor beside the list")
            own.append(where)
            kind = where.parent.name
            if kind not in classes:
                truth.append(int(label))
                continue
            if called.setdefault(label, kind) != kind:
                raise DataSetError(f'line {number} of {file} gives "{kind}" the number {label}, which "{called[label]}" has')
            truth.append(classes.index(kind))
        if not own:
            raise DataSetError(f'the list {file} of source "{name}" is empty')
        paths[split], labels[split] = tuple(own), np.array(truth, dtype=np.int64)
    return ImageSource(name, paths, labels, classes)
