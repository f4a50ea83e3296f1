"""Checks of options that several optimizers share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from equipoise.errors import InputError

__all__ = ["check_positive"]


def check_positive(value: Any, name: str) -> float:
    """The value, if it is a finite number greater than 0. Raises InputError: it is not."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value!r}; expected a finite number greater than 0")
    return float(value)
