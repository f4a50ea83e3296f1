"""CelebA's two lists, attributes and partition, as text (the project page's) or as comma-separated values (Kaggle's)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import DataSetError

__all__ = ["ATTRIBUTES", "SOURCE", "read_attributes", "read_partition"]

SOURCE = "the project page mmlab.ie.cuhk.edu.hk/projects/CelebA.html (aligned and cropped images, attributes, partitions)"

# In the order of the file's own header, which is also alphabetical.
ATTRIBUTES: tuple[str, ...] = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)


_VALUES = frozenset(("1", "-1", "0"))


def read_attributes(path: Path) -> tuple[list[str], NDArray[np.uint8]]:
    """File names, and for each of them the forty attributes as 0 and 1, in the order of :data:`ATTRIBUTES`.

    Raises:
        DataSetError: not the forty names, a line with another number of values, or a value other than 1, −1 and 0.
    """
    lines = _lines(path)
    first = 0
    if lines[0].strip().isdecimal():  # the project page's file starts with the number of images
        first = 1
    if first == len(lines):
        raise _wrong(path, 1, "there is nothing after the first line")
    names = _fields(lines[first])
    if names[0] == "image_id":
        names = names[1:]
    if tuple(names) != ATTRIBUTES:
        odd = sorted(set(names) ^ set(ATTRIBUTES))
        raise _wrong(
            path, first + 1, f"expected the forty names of attributes, but these differ: {', '.join(odd[:5]) or 'order'}"
        )
    files: list[str] = []
    values = bytearray()  # a list of eight million strings would take half a gigabyte
    for number, line in enumerate(lines[first + 1 :], first + 2):
        file, *own = _fields(line)
        if len(own) != len(ATTRIBUTES):
            raise _wrong(path, number, f"expected a file name and 40 values, but found {len(own)} values")
        if not _VALUES.issuperset(own):
            raise _wrong(path, number, f'"{min(set(own) - _VALUES)}" is neither 1 nor −1')
        files.append(file)
        values.extend([value == "1" for value in own])
    return files, np.frombuffer(values, dtype=np.uint8).reshape(-1, len(ATTRIBUTES))


def read_partition(path: Path) -> dict[str, int]:
    """File name → 0 (training), 1 (validation) or 2 (test).

    Raises:
        DataSetError: a line that is no file name and one of these numbers.
    """
    lines = _lines(path)
    first = 1 if _fields(lines[0])[0] == "image_id" else 0
    parts: dict[str, int] = {}
    for number, line in enumerate(lines[first:], first + 1):
        fields = _fields(line)
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise _wrong(path, number, f'expected a file name and 0, 1 or 2, but found "{line.strip()}"')
        parts[fields[0]] = int(fields[1])
    return parts


def _lines(path: Path) -> Sequence[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataSetError(f"{path} cannot be read as text ({error}); get it anew from {SOURCE}") from error
    if not lines:
        raise DataSetError(f"{path} is empty; get it anew from {SOURCE}")
    return lines


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.split(",")] if "," in line else line.split() or [""]


def _wrong(path: Path, number: int, what: str) -> DataSetError:
    return DataSetError(f"line {number} of {path}: {what}; get the file anew from {SOURCE}")
