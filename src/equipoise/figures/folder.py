"""The folder that a figure writes to."""

from __future__ import annotations

from pathlib import Path

from equipoise.errors import InputError

__all__ = ["made_folder"]


def made_folder(folder: Path) -> None:
    """Makes a folder, unless it is there.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made ({error.strerror}); choose another with --output") from None
