"""The ask/tell optimizers, and the names that ``minimize`` and the figures know them by."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from equipoise.blackbox.optimizers.asmg import ASMG
from equipoise.blackbox.optimizers.base import Optimizer
from equipoise.blackbox.optimizers.cmaes import CMAES
from equipoise.blackbox.optimizers.es import BES, ES
from equipoise.blackbox.optimizers.mmes import MMES
from equipoise.errors import refuse_unknown_options
from equipoise.registry import Registry, folded

__all__ = ["ASMG", "BES", "CMAES", "ES", "MMES", "OPTIMIZERS", "Optimizer", "make_optimizer"]

OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry("black-box optimizer")
"""What makes an optimizer from its mean and its options, by name."""

OPTIMIZERS.add("asmg", ASMG)
OPTIMIZERS.add("asmg-ew", partial(ASMG, weights="equal"))
OPTIMIZERS.add("es", ES)
OPTIMIZERS.add("bes", BES)
OPTIMIZERS.add("cma-es", CMAES)
OPTIMIZERS.add("mmes", MMES)


def make_optimizer(name: str, mean: object, **options: Any) -> Optimizer:
    """Makes an optimizer by its name.

    Raises:
        UnknownMethodError: there is none of that name.
        UnknownOptionError: it has no such option.

    Example:
        >>> type(make_optimizer("asmg", [0.0, 0.0], samples=10)).__name__
        'ASMG'
    """
    made = OPTIMIZERS.find(name)
    refuse_unknown_options(folded(name), options, {own: None for own in inspect.signature(made).parameters if own != "mean"})
    return made(mean, **options)
