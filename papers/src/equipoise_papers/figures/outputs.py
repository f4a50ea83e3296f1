"""What figures share: the folder that one writes to, and how one tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.errors import InputError
from equipoise.store import RunStore, write_json, write_whole
from equipoise_papers.commands import Told

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["KeptRuns", "made_folder", "parts_told", "write_outputs"]

_DPI = 150
_PARTS = 5


def parts_told(told: Told, steps: int) -> Callable[[int], None]:
    """A function that takes the number of steps done and tells each fifth of all of them.

    Args:
        told: takes the line.
        steps: how many there are.
    """
    before = 0

    def tell(done: int) -> None:
        nonlocal before
        part = done * _PARTS // steps
        if part > before:
            before = part
            told(f"{done:,} of {steps:,} steps")

    return tell


def made_folder(folder: Path) -> None:
    """Makes a folder, unless it is there.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made ({error.strerror}); choose another with --output") from None


class KeptRuns(RunStore):
    """The finished runs of a figure in its folder, a file for each, so that an interrupted figure goes on where it was.

    Args:
        folder: of the figure; made if it does not exist.
        identity: what all runs in one folder must have in common, by name.

    Raises:
        InputError: the folder cannot be made, or holds runs of other settings.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        made_folder(folder)
        super().__init__(folder, what="figure")
        self.claim(identity, shared=True, advice="choose another folder with --output")


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
    write_whole(folder / f"{name}.md", text)
    write_json(folder / f"{name}.json", numbers)
