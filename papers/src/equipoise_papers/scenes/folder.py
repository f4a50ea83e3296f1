"""Many scenes on disk, in the layouts in which NYUv2 and Cityscapes are read; folders that are made on first use."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.errors import InputError
from equipoise.store import cache_folder, locked, replacing
from equipoise_papers.scenes.scene import KINDS, SPLITS, Scene, check_size, make_scene
from equipoise_papers.scenes.shapes import Array

__all__ = ["VERSION", "arrays_of", "cached_scenes", "write_scenes"]

VERSION = 1
"""Counts up when scenes of the same seed come to look different, so that no folder holds scenes of two makes."""

Told = Callable[[int, int], object]
_ABOUT = "scenes.json"


def arrays_of(scene: Scene, kind: str) -> dict[str, Array]:
    """What is written of a scene: folder → array.

    Of rooms ``image`` [H, W, 3], ``label`` [H, W], ``depth`` [H, W, 1] in metres and ``normal`` [H, W, 3], as MTAN's NYUv2; of
    streets ``image``, ``label`` and ``depth`` [H, W, 1], an inverse depth in 1/metres, 0 in the sky, as MTAN's Cityscapes.
    """
    depth = scene.depth if kind == "rooms" else scene.inverse_depth
    arrays = {"image": scene.image, "label": scene.label.astype(np.int8), "depth": depth[..., None]}
    return arrays | {"normal": scene.normal} if kind == "rooms" else arrays


def write_scenes(
    root: str | os.PathLike[str],
    kind: str = "rooms",
    size: tuple[int, int] = (288, 384),
    *,
    train: int = 200,
    val: int = 50,
    test: int = 0,
    seed: int = 0,
    jobs: int = 1,
    told: Told = lambda done, wanted: None,
) -> Path:
    """Writes ``root/train/image/0.npy`` and so on, for :class:`~equipoise.data.NYUv2` or :class:`~equipoise.data.Cityscapes`.

    Scenes that are there are kept, so an interrupted call goes on where it was, and a later one with larger numbers adds
    scenes. Files are whole or not there.

    Args:
        root: the folder; made if need be.
        kind: ``"rooms"`` or ``"streets"``.
        size: height and width, pixels.
        train: scenes in ``train``.
        val: scenes in ``val``; 0 for no such folder.
        test: scenes in ``test``; 0 for no such folder. Readers test on it where it is there, on ``val`` otherwise.
        seed: of all of them. Scene i of a seed is the same however many there are.
        jobs: processes that render.
        told: called with the number of scenes done and wanted, first for those that were there.

    Returns:
        The folder.

    Raises:
        InputError: an unknown kind, no scenes, a bad size, or a folder that holds something else.

    Example:
        >>> from tempfile import mkdtemp
        >>> from equipoise.data import NYUv2
        >>> row = NYUv2(write_scenes(mkdtemp(), size=(24, 32), train=2, val=1), "train")[0]
        >>> {name: tuple(array.shape) for name, array in row.items()}
        {'image': (3, 24, 32), 'label': (24, 32), 'depth': (1, 24, 32), 'normal': (3, 24, 32)}
    """
    folder = Path(root).expanduser()
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    if min(counts.values()) < 0 or train < 1:
        raise InputError(f"train is {train}, val {val} and test {test}; train must be at least 1, val and test at least 0")
    if jobs < 1:
        raise InputError(f"jobs is {jobs}; it must be at least 1")
    if kind not in KINDS:
        make_scene(kind)  # says so
    _claim(folder, {"kind": kind, "size": list(check_size(size)), "seed": seed, "version": VERSION})
    wanted = [(split, number) for split, count in counts.items() for number in range(count)]
    names = ("image", "label", "depth", "normal") if kind == "rooms" else ("image", "label", "depth")
    missing = [
        (split, number)
        for split, number in wanted
        if not all((folder / split / name / f"{number}.npy").exists() for name in names)
    ]
    done = len(wanted) - len(missing)
    told(done, len(wanted))
    for _ in _written(folder, kind, size, seed, missing, jobs):
        done += 1
        told(done, len(wanted))
    return folder


def _written(
    folder: Path, kind: str, size: tuple[int, int], seed: int, missing: list[tuple[str, int]], jobs: int
) -> Iterator[None]:
    if jobs == 1 or len(missing) < 2:
        for split, number in missing:
            _write(folder, kind, size, seed, split, number)
            yield
        return
    from equipoise.study.processes.calls import calls

    work = [(folder, kind, size, seed, split, number) for split, number in missing]
    for _ in calls(_write, work, min(jobs, len(missing)), preload=(__name__,)):
        yield


def _write(folder: Path, kind: str, size: tuple[int, int], seed: int, split: str, number: int) -> None:
    scene = make_scene(kind, size, seed=seed, split=split, number=number)
    for name, array in arrays_of(scene, kind).items():
        content = BytesIO()
        np.save(content, array)
        _whole(folder / split / name / f"{number}.npy", content.getvalue())


def _whole(path: Path, content: bytes) -> None:
    try:
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another folder, or make room") from None


def _claim(folder: Path, about: dict[str, Any]) -> None:
    """Remembers what the folder holds, or refuses one that holds something else."""
    note = folder / _ABOUT
    if note.exists():
        try:
            before = json.loads(note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        if before != about:
            told = ", ".join(
                f"{name} {before.get(name)!r} there, {about[name]!r} now" for name in about if before.get(name) != about[name]
            )
            raise InputError(f"{folder} holds other scenes ({told}); choose another folder, or delete that one")
    elif folder.is_dir() and any((folder / split).exists() for split in SPLITS):
        raise InputError(f"{folder} holds data that was not generated here; choose another folder")
    else:
        _whole(note, (json.dumps(about) + "\n").encode())


def cached_scenes(
    kind: str = "rooms",
    size: tuple[int, int] = (64, 96),
    *,
    train: int,
    val: int,
    test: int,
    seed: int = 0,
    told: Told = lambda done, wanted: None,
) -> Path:
    """The folder of the wanted scenes under the cache (:func:`~equipoise.store.cache_folder`), rendered if they are not there.

    Of several processes that ask at the same time, one renders and the others wait.

    Args:
        kind: as for :func:`~equipoise_papers.scenes.write_scenes`, and so are the others.
        size: height and width, pixels.
        train: scenes to train on.
        val: scenes to validate on.
        test: scenes to test on.
        seed: of all of them.
        told: called with the number of scenes done and wanted.

    Raises:
        InputError: as ``write_scenes``, or the cache's folder cannot be made.
    """
    # The counts belong to the name: a reader takes every scene that it finds, and two askers may want different numbers.
    name = f"{kind}-{size[0]}x{size[1]}-{train}-{val}-{test}-seed{seed}-v{VERSION}"
    folder = cache_folder() / "scenes" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); name another cache with EQUIPOISE_CACHE") from None
    with locked(folder / ".lock"):
        return write_scenes(folder, kind, size, train=train, val=val, test=test, seed=seed, told=told)
