"""The folder that a figure writes to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["made_folder", "write_outputs"]

_DPI = 150


def made_folder(folder: Path) -> None:
    """Makes a folder, unless it is there.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made ({error.strerror}); choose another with --output") from None


def write_outputs(folder: Path, name: str, pictures: Mapping[str, Figure], text: str, numbers: Mapping[str, Any]) -> None:
    """Writes a figure's pictures as ``<name><suffix>.png``, its table as ``<name>.md`` and its numbers as ``<name>.json``.

    Args:
        folder: where; it is there.
        name: of the figure.
        pictures: suffix → picture; the suffix of the first is usually empty.
        text: Markdown.
        numbers: JSON values.
    """
    for suffix, picture in pictures.items():
        picture.savefig(folder / f"{name}{suffix}.png", dpi=_DPI)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
