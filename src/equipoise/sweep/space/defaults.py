"""Ranges for those who give none: around what the papers tried, or a decade to both sides of an option's default."""

from __future__ import annotations

from typing import Any

from equipoise.errors import InputError
from equipoise.study.shelf import Entry
from equipoise.sweep.space.dimensions import Choices, Dimension, Range

__all__ = ["default_dimension", "swept_by_default"]

_RANGES = {
    # The CAGrad paper's ablation goes from 0 to 1; at 1 the direction may vanish.
    ("cagrad", "c"): (0.05, 0.95, False),
    # FairGrad's α: 1 is proportional fairness, large values approach max-min fairness.
    ("fairgrad", "alpha"): (0.25, 8.0, True),
    # The LDC-MTL paper's λ: it finds 0.02 to 0.1 to do well, its released code's formulation wants larger ones.
    ("ldc-mtl", "penalty"): (0.01, 10.0, True),
    ("gradnorm", "alpha"): (0.25, 3.0, False),
    ("gradvac", "beta"): (0.001, 0.5, True),
    ("graddrop", "leak"): (0.0, 1.0, False),
    ("moco", "gamma"): (0.01, 1.0, True),
    ("sdmgrad", "lam"): (0.03, 3.0, True),
    ("dwa", "temperature"): (0.5, 10.0, True),
    ("famo", "learning_rate"): (0.001, 0.1, True),
    ("famo", "weight_decay"): (1e-4, 0.1, True),
    ("uw", "learning_rate"): (1e-4, 0.1, True),
    # The thesis searches ρ and the step size of the lower level (section 3.7.3).
    ("forum", "rho"): (0.02, 1.0, True),
    ("forum", "lower_step_size"): (0.005, 0.5, True),
    ("bome", "rho"): (0.1, 0.9, False),
    ("bome", "lower_step_size"): (0.005, 0.5, True),
    ("bvfim", "barrier"): (0.05, 1.0, True),
    ("bvfim", "lower_step_size"): (0.005, 0.5, True),
    ("moml", "learning_rate"): (1e-4, 0.1, True),
    ("moml", "lower_step_size"): (0.005, 0.5, True),
    ("moco-bilevel", "learning_rate"): (1e-4, 0.1, True),
    ("moco-bilevel", "gamma"): (0.01, 10.0, True),
}
_NOT_TUNED = ("seed", "epsilon", "steps_per_epoch", "update_every")
"""Options that guard numbers, count steps or seed; swept only if one asks for them."""


def swept_by_default(info: Entry, fixed: frozenset[str]) -> tuple[str, ...]:
    """The options of a method that are swept if the user names none.

    Raises:
        InputError: there is none with a range to start from.
    """
    if "weights" in info.options and "weights" not in fixed:
        return ("weights",)
    own = [option for (method, option) in _RANGES if method == info.name and option not in fixed]
    if not own:
        own = [
            option
            for option, default in info.options.items()
            if option not in fixed and option not in _NOT_TUNED and _positive(default)
        ]
    if not own:
        has = f"its options: {', '.join(info.options)}" if info.options else "it has no options"
        raise InputError(f'method "{info.name}" has nothing to sweep by default ({has}); say what, as in "option=low:high"')
    return tuple(own)


def default_dimension(info: Entry, option: str) -> Dimension:
    """The range of an option for which none was given.

    Raises:
        InputError: its default says nothing about a sensible range.
    """
    if (info.name, option) in _RANGES:
        low, high, log = _RANGES[info.name, option]
        return Range(option, low, high, log)
    default: Any = info.options[option]
    if isinstance(default, bool):
        return Choices(option, (False, True))
    if _positive(default):
        # A share must not leave (0, 1), whatever the decade.
        for high in (default * 10, 1.0, 0.99):
            if high > default and _accepted(info, option, high):
                return Range(option, default / 10, high, log=True)
    raise InputError(f'there is no default range for option "{option}" of "{info.name}"; give one, as in "{option}=low:high"')


def _accepted(info: Entry, option: str, value: float) -> bool:
    try:
        info.make(**{option: value})
    except InputError:
        return False
    return True


def _positive(default: Any) -> bool:
    return isinstance(default, float) and default > 0
