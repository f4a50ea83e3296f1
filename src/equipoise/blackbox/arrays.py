"""What users give, read and checked: NumPy arrays in double precision from NumPy, torch on any device or lists; numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InputError

__all__ = ["Array", "check_positive", "read_array", "read_vector"]

Array = NDArray[np.float64]


def read_array(value: Any, name: str) -> Array:
    """The value as a float64 array; torch tensors are detached and brought to the CPU first.

    Raises:
        InputError: it is no array of numbers.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is no array of numbers ({error}); give a NumPy array, a torch tensor or lists") from error


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
