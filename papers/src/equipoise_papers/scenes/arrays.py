"""The one name for arrays in this package. Points, directions and colours are ``[3, N]``: the components lie apart."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "dot"]

Array: TypeAlias = NDArray[Any]


def dot(a: Array, b: Array) -> Array:
    """Inner products of the columns of two ``[3, N]`` arrays, ``[N]``."""
    products: Array = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return np.asarray(products)
