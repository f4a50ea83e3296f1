"""What stands before the ``+`` of a method: from ``"cost(gamma=0.2)"`` to a maker of teleports."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from equipoise.errors import InputError, UnknownMethodError, near_misses
from equipoise.study.options import read_options, split_outside, written
from equipoise.teleport.text import cost_of, options_of, shortest

__all__ = ["ParsedTeleport", "divide", "parse_teleport"]

_NAME = "cost"


@dataclass(frozen=True)
class ParsedTeleport:
    """A teleport that was read from text.

    Attributes:
        label: the text in its shortest form: options equal to their defaults are left out.
        options: all options with the values in force, as JSON values.
        make: ``make(seed)`` gives a fresh teleport for the run of that seed.
    """

    label: str
    options: Mapping[str, Any]
    make: Callable[[int], Any] = field(compare=False, repr=False)


def divide(text: str) -> tuple[str, str]:
    """Divides a method into what stands before its ``+`` and the balancer; the first is empty where there is no ``+``.

    Example:
        >>> divide("cost(gamma=0.2)+fairgrad:alpha=2"), divide("ls"), divide("mine:limit=1e+3")
        (('cost(gamma=0.2)', 'fairgrad:alpha=2'), ('', 'ls'), ('', 'mine:limit=1e+3'))
    """
    first, *others = split_outside(text, "+")
    # A plus sign behind the colon belongs to a balancer's option.
    if not others or len(split_outside(first, ":")) > 1:
        return "", text
    return first.strip(), "+".join(others).strip()


def parse_teleport(text: str) -> ParsedTeleport:
    """Reads ``cost`` or ``cost(option=value,option=value)``.

    The options are those of :func:`equipoise.teleport.text.cost_of`. COST's ``seed`` is the run's own, unless the text sets
    one.

    Raises:
        UnknownMethodError: something else than ``cost``.
        UnknownOptionError: there is no such option; near misses are suggested.
        InputError: not of this form, or a value that COST refuses.

    Example:
        >>> parse_teleport("cost(delta=oft, blocks=2, stop=none)").label
        'cost(delta=oft,blocks=2)'
    """
    match = re.fullmatch(r"\s*([^()]*?)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    if match is None:
        raise InputError(f'"{text}" cannot be read; write "cost" or "cost(option=value,option=value)" before the "+"')
    if match[1].lower() != _NAME:
        raise UnknownMethodError(
            f'there is no teleport "{match[1]}".{near_misses(match[1], [_NAME])} Only "{_NAME}" can stand before a "+", '
            f'as in "{_NAME}+fairgrad"'
        )
    given = read_options(match[2] or "", text)
    cost = cost_of(given)  # refuses bad values now, before anything runs
    options = options_of(cost)
    if "seed" not in given:
        del options["seed"]
    changed = shortest(given).items()

    def make(seed: int) -> Any:
        return cost.fresh(given.get("seed", seed))

    return ParsedTeleport(_NAME + (f"({written(changed)})" if changed else ""), options, make)
