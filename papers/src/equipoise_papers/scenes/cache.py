"""Folders of scenes that are made on first use, and found again afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from equipoise.errors import InputError
from equipoise_papers.scenes.folder import VERSION, Told, write_scenes

__all__ = ["cache_folder", "cached_scenes"]


def cache_folder() -> Path:
    """``$EQUIPOISE_CACHE`` if that is set, otherwise ``equipoise`` in the user's folder of caches."""
    own = os.environ.get("EQUIPOISE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "equipoise"


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
    """The folder of the wanted scenes under the cache (see :func:`cache_folder`), rendered if they are not there.

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
    with _alone(folder):
        return write_scenes(folder, kind, size, train=train, val=val, test=test, seed=seed, told=told)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process is in here; where files cannot be locked, several may render the same scenes."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
