"""The methods of a study: from ``"cagrad:c=0.2"``, a balancer, or a function that makes one."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import nn

from equipoise import balance
from equipoise.balance.registry import method as method_info
from equipoise.errors import InputError, UnknownOptionError, near_misses

__all__ = ["Method", "MethodLike", "parse_method", "parse_methods"]


@dataclass(frozen=True)
class Method:
    """One method of a study.

    Attributes:
        label: what it is called in tables and pictures, and what tells it from the others of a folder.
        name: name in the registry; empty for a user's own balancer.
        options: all options with the values in force; empty for a user's own balancer.
        make: ``make(seed)`` gives a fresh balancer for the run of that seed.
        teleport: ``teleport(seed)`` gives a fresh teleport for it; ``None`` if the method does not teleport.
    """

    label: str
    name: str
    options: Mapping[str, Any]
    make: Callable[[int], Any] = field(compare=False, repr=False)
    teleport: Callable[[int], Any] | None = field(default=None, compare=False, repr=False)


MethodLike: TypeAlias = "str | Method | balance.Balancer | tuple[str, Any]"


def parse_method(text: str) -> Method:
    """Reads ``name`` or ``name:option=value,option=value`` and checks it against the registry.

    A method that has an option ``seed`` gets the run's own seed, unless the text sets one. Options equal to their
    defaults are left out of the label: ``cagrad:c=0.4`` and ``cagrad`` are one method.

    Args:
        text: as on the command line. Values are Python literals; anything else is taken as a string.

    Raises:
        UnknownMethodError: there is no such method; near misses are suggested.
        UnknownOptionError: the method has no such option; near misses are suggested.
        InputError: not of the form ``option=value``, or a value that the method refuses.

    Example:
        >>> parse_method("FairGrad:alpha=2").label
        'fairgrad:alpha=2'
    """
    name, _, rest = text.strip().partition(":")
    info = method_info(name)
    given: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in _split(rest, ","))):
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not option or not equals or not value:
            raise InputError(f'"{part}" in the method "{text}" is not of the form option=value')
        if option not in info.options:
            has = f"Its options: {', '.join(info.options)}" if info.options else "It has none"
            raise UnknownOptionError(f'method "{info.name}" has no option "{option}".{near_misses(option, info.options)} {has}')
        given[option] = _value(value)
    own_seed = "seed" in info.options and "seed" not in given

    def make(seed: int) -> Any:
        return balance.balancer(info.name, **given, **({"seed": seed} if own_seed else {}))

    make(0)  # refuses bad values now, before anything runs
    changed = {key: given[key] for key in info.options if key in given and given[key] != info.options[key]}
    label = info.name + (":" + ",".join(f"{key}={value}" for key, value in changed.items()) if changed else "")
    options = {key: given.get(key, default) for key, default in info.options.items() if not (own_seed and key == "seed")}
    return Method(label, info.name, options, make)


def parse_methods(methods: str | Iterable[MethodLike] | Mapping[str, Any]) -> tuple[Method, ...]:
    """Reads the methods of a study; the same method given twice counts once.

    Args:
        methods: ``"ls,cagrad:c=0.2,si"``; or a sequence of such texts, of balancers (each run gets a copy), of
            ``(label, balancer or function that makes one)`` and of :class:`Method`; or a mapping label → balancer or
            function. A function may take the run's seed, or nothing.

    Raises:
        InputError: nothing given, or something that is no method; see also :func:`parse_method`.

    Example:
        >>> [method.label for method in parse_methods("ls, fairgrad:alpha=2, si")]
        ['ls', 'fairgrad:alpha=2', 'si']
        >>> parse_methods("ls, fairgrad:beta=2")
        Traceback (most recent call last):
            ...
        equipoise.errors.UnknownOptionError: method "fairgrad" has no option "beta". Its options: alpha
    """
    if isinstance(methods, str):
        entries: list[Any] = _listed(methods)
    elif isinstance(methods, Mapping):
        entries = list(methods.items())
    else:
        entries = list(methods)
    read: dict[str, Method] = {}
    for entry in entries:
        for method in [parse_method(text) for text in _listed(entry)] if isinstance(entry, str) else [_own(entry)]:
            read.setdefault(method.label, method)
    if not read:
        raise InputError('a study needs at least one method, such as "ls,fairgrad"')
    return tuple(read.values())


def _own(entry: Any) -> Method:
    if isinstance(entry, Method):
        return entry
    if isinstance(entry, balance.Balancer):
        return _own((repr(entry), entry))
    if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)):
        raise InputError(
            f'a method is a text such as "cagrad:c=0.2", a balancer, or (label, function that makes one); got {entry!r}'
        )
    label, source = entry
    if label.startswith("stl"):
        raise InputError(f'the label "{label}" is taken: names that begin with "stl" are those of the single-task baselines')
    if isinstance(source, str):
        parsed = parse_method(source)
        return Method(label, parsed.name, parsed.options, parsed.make)
    if isinstance(source, balance.Balancer | nn.Module):  # a module: an aggregator or weighting of TorchJD
        return Method(label, "", {}, lambda seed: copy.deepcopy(source))
    if not callable(source):
        raise InputError(f'method "{label}" is a {type(source).__name__}; expected a balancer or a function that makes one')
    return Method(label, "", {}, lambda seed: _called(source, seed))


def _called(make: Callable[..., Any], seed: int) -> Any:
    import inspect

    # A class counts as a function without arguments: its first option need not be a seed.
    takes_seed = not isinstance(make, type) and any(
        parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        for parameter in inspect.signature(make).parameters.values()
    )
    return make(seed) if takes_seed else make()


def _listed(text: str) -> list[str]:
    """Splits ``"ls,cagrad:c=0.2,x=1,si"`` into methods: a part ``option=value`` belongs to the method before it."""
    entries: list[str] = []
    for part in filter(None, (part.strip() for part in _split(text, ","))):
        if entries and "=" in part and ":" not in part.partition("=")[0]:
            entries[-1] += ("," if ":" in entries[-1] else ":") + part
        else:
            entries.append(part)
    return entries


def _split(text: str, separator: str) -> list[str]:
    """Splits at separators outside brackets, so that a value may be a list."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
