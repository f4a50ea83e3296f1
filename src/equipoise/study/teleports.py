"""What stands before the ``+`` of a method: from ``"cost(gamma=0.2)"`` to a maker of teleports."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from equipoise.errors import InputError, UnknownMethodError, UnknownOptionError, near_misses
from equipoise.study.options import read_options, split_outside, written
from equipoise.teleport import COST, OFT, Delta, Dense, LoHa, LowRank

__all__ = ["ParsedTeleport", "divide", "parse_teleport"]

_NAME = "cost"
_DELTAS: dict[str, type[Delta]] = {"lowrank": LowRank, "loha": LoHa, "oft": OFT, "dense": Dense}
# Everything that COST takes and that can be written as one word or number.
_PARAMETERS = {name: own for name, own in inspect.signature(COST).parameters.items() if name not in ("delta", "optimizer")}
_SIGNATURE = {name: parameter.default for name, parameter in _PARAMETERS.items()}


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

    The options are COST's keyword arguments that are numbers or words, ``delta=lowrank``, ``loha``, ``oft`` or ``dense``, and
    the arguments of that delta (``rank``, ``blocks``, ``vectors`` …). COST's ``seed`` is the run's own, unless the text
    sets one.

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
    if "scaling" in given and given["scaling"] is None:
        given["scaling"] = "none"  # here the word is meant, not the absence of one
    delta = _delta(given)
    arguments = {key: value for key, value in given.items() if key in _SIGNATURE}
    # What an option is by default may depend on the formulation.
    formulation = arguments.get("formulation", _SIGNATURE["formulation"])
    _check("formulation", formulation, _SIGNATURE["formulation"])
    plain = COST(formulation=formulation)
    base = {**_in_force(plain, {}), "formulation": _SIGNATURE["formulation"], "delta": _delta_name(plain.delta)}
    base |= _fields(type(delta)() if "delta" in given else plain.delta)
    for key, value in arguments.items():
        _check(key, value, base[key])

    def make(seed: int) -> Any:
        chosen: dict[str, Any] = {"delta": delta, "seed": seed} | arguments
        return COST(**chosen)

    try:
        made = make(0)  # refuses bad values now, before anything runs
    except TypeError as error:
        raise InputError(f'"{text}" cannot be used: {error}') from error
    options = {**_in_force(made, arguments), "delta": _delta_name(delta), **_fields(delta)}
    # A seed stands for something else than COST's default of 0, which is the run's own here.
    changed = [(key, options[key]) for key in given if options[key] != base[key] or key == "seed"]
    if "seed" not in given:
        del options["seed"]
    return ParsedTeleport(_NAME + (f"({written(changed)})" if changed else ""), options, make)


def _delta(given: Mapping[str, Any]) -> Delta:
    """The delta that the options ask for, checked against its own arguments."""
    default = COST().delta
    name = str(given.get("delta", _delta_name(default))).lower()
    if name not in _DELTAS:
        raise InputError(f'there is no delta "{name}".{near_misses(name, _DELTAS)} Known: {", ".join(_DELTAS)}')
    own = _fields(_DELTAS[name]())
    for key in given:
        if key in _SIGNATURE or key in own or key == "delta":
            continue
        elsewhere = [other for other, kind in _DELTAS.items() if key in _fields(kind())]
        if elsewhere:
            has = f"it has {', '.join(own)}" if own else "it has none"
            raise UnknownOptionError(
                f'the delta "{name}" has no option "{key}": {has}; "{key}" belongs to delta={" and delta=".join(elsewhere)}'
            )
        known = (*_SIGNATURE, "delta", *own)
        raise UnknownOptionError(f'COST has no option "{key}".{near_misses(key, known)} Its options: {", ".join(known)}')
    for key in own.keys() & given.keys():
        _check(key, given[key], own[key])
    start = {} if "delta" in given else _fields(default)
    return _DELTAS[name](**start | {key: given[key] for key in own if key in given})


def _delta_name(delta: Delta) -> str:
    return next(name for name, kind in _DELTAS.items() if type(delta) is kind)


def _fields(delta: Delta) -> dict[str, Any]:
    assert dataclasses.is_dataclass(delta)
    return {entry.name: getattr(delta, entry.name) for entry in dataclasses.fields(delta)}


def _in_force(cost: COST, given: Mapping[str, Any]) -> dict[str, Any]:
    """All of COST's options as they are: what is left to COST is asked of it, so that records do not depend on its defaults."""
    formulation = cost.search.formulation
    settled = {
        "trigger": cost.trigger.name if cost.trigger else None,  # None: the number of tasks decides
        "gamma": formulation.gamma,
        "radius": formulation.radius,
        "invariance": getattr(formulation, "invariance", None),
        "descent": getattr(formulation, "descent", None),
        "tolerance": cost.tolerance,
        "history": cost.history_policy,
        "scaling": cost.scaling,
    }
    return {**_SIGNATURE, **given, **settled}


def _check(key: str, value: Any, default: Any) -> None:
    """Refuses a word for a number and a number for a switch, which COST would say less clearly or not at all.

    Args:
        key: the option.
        value: what was given.
        default: the value in force where nothing is given; its kind is what is expected.
    """
    if value is None and key in _PARAMETERS and "None" in str(_PARAMETERS[key].annotation):
        return
    if key == "guard":
        return  # True, False or a word, which COST checks itself
    for kind, word in ((bool, "True or False"), (int | float, "a number"), (str, "a word")):
        if isinstance(default, kind):
            if not isinstance(value, kind) or isinstance(value, bool) != isinstance(default, bool):
                raise InputError(f'the option "{key}" of COST is {word}; got {value!r}')
            return
