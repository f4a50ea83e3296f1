"""Optimizers by the names that ``minimize`` and the figures know them by."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from equipoise.blackbox.optimizers.asmg import ASMG
from equipoise.blackbox.optimizers.base import Optimizer
from equipoise.blackbox.optimizers.bes import BES
from equipoise.blackbox.optimizers.cmaes import CMAES
from equipoise.blackbox.optimizers.es import ES
from equipoise.blackbox.optimizers.mmes import MMES
from equipoise.errors import UnknownMethodError, UnknownOptionError, near_misses

__all__ = ["OPTIMIZERS", "make_optimizer"]

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "asmg": ASMG,
    "asmg-ew": partial(ASMG, weights="equal"),
    "es": ES,
    "bes": BES,
    "cma-es": CMAES,
    "mmes": MMES,
}


def make_optimizer(name: str, mean: object, **options: Any) -> Optimizer:
    """Makes an optimizer by its name.

    Raises:
        UnknownMethodError: there is none of that name.
        UnknownOptionError: it has no such option.

    Example:
        >>> type(make_optimizer("asmg", [0.0, 0.0], samples=10)).__name__
        'ASMG'
    """
    key = name.lower().replace("_", "-")
    if key not in OPTIMIZERS:
        raise UnknownMethodError(
            f'there is no black-box optimizer "{name}"; there are {", ".join(OPTIMIZERS)}.{near_misses(key, OPTIMIZERS)}'
        )
    cls = OPTIMIZERS[key]
    known = [option for option in inspect.signature(cls).parameters if option != "mean"]
    for option in options:
        if option not in known:
            raise UnknownOptionError(f'{key} has no option "{option}"; it has {", ".join(known)}')
    return cls(mean, **options)
