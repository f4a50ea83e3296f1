"""What users give, read and checked: NumPy arrays in double precision from NumPy, torch on any device or lists; numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError
from equipoise.reading import one_line

__all__ = ["Array", "check_positive", "read_array", "read_vector"]

Array = NDArray[np.float64]


def read_array(value: Any, name: str) -> Array:
    """The value as a float64 array; torch tensors, also in lists, are detached and brought to the CPU first.

    Masked entries are not a number. What would lose something on the way is refused: texts, complex numbers, objects.

    Raises:
        InputError: it is no array of real numbers.
    """
    try:
        given = np.asanyarray(_detached(value))
        if given.dtype.kind == "O" and None not in given.ravel().tolist():
            given = np.array(given.tolist() if given.ndim == 0 else [float(entry) for entry in given.ravel()]).reshape(
                given.shape
            )
        if given.dtype.kind not in "fiub":
            raise TypeError(f"it holds {'None' if value is None else given.dtype}")
        if isinstance(given, np.ma.MaskedArray):
            given = np.ma.filled(given.astype(np.float64), np.nan)
        return np.asarray(given, dtype=np.float64)
    except Exception as error:  # what an object's own conversion raises
        said = one_line(error)
        raise InputError(f"{name} is no array of numbers ({said}); give a NumPy array, a torch tensor or lists") from error


def _detached(value: Any) -> Any:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return value.double().numpy() if value.is_floating_point() else value.numpy()
    if isinstance(value, list | tuple):
        return [_detached(entry) for entry in value]
    return value


def read_vector(value: Any, name: str) -> Array:
    """The value as a finite float64 vector with at least one entry.

    Raises:
        InputError: it has another shape, no entry, or one that is not finite.
    """
    vector = read_array(value, name)
    if vector.ndim != 1 or vector.size == 0:
        raise InputError(f"{name} has shape {vector.shape}; expected a vector [d] with d ≥ 1")
    if not np.isfinite(vector).all():
        raise InputError(f"{name} has an entry that is infinite or not a number; start the search at a finite point")
    return vector


def check_positive(value: Any, name: str) -> float:
    """The value, if it is a finite number greater than 0. Raises InputError: it is not."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value!r}; expected a finite number greater than 0")
    return float(value)
