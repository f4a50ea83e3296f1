"""The methods of a study: from ``"cagrad:c=0.2"``, ``"cost+fairgrad"``, a balancer, or a function that makes one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from torch import nn

from equipoise import balance
from equipoise.errors import InputError
from equipoise.study.options import read_options, split_outside, written
from equipoise.study.shelf import Kind, find
from equipoise.study.teleports import divide, parse_teleport
from equipoise.study.trainers import Made, Stage, Trained, balanced

__all__ = ["Method", "MethodLike", "parse_method", "parse_methods"]


@dataclass(frozen=True)
class Method:
    """One method of a study.

    Attributes:
        label: what it is called in tables and pictures, and what tells it from the others of a folder.
        name: name in the registry; empty for a user's own balancer.
        options: all options with the values in force; empty for a user's own balancer. A method that teleports has one
            more, ``teleport``: COST's options with the values in force, or ``"own"`` for a user's own teleport.
        make: ``make(seed)`` gives a fresh balancer, or what else runs are made of, for the run of that seed.
        teleport: ``teleport(seed)`` gives a fresh teleport for it; ``None`` if the method does not teleport.
        kind: turns what was made into a run.
    """

    label: str
    name: str
    options: Mapping[str, Any]
    make: Callable[[int], Made] = field(compare=False, repr=False)
    teleport: Callable[[int], Any] | None = field(default=None, compare=False, repr=False)
    kind: Kind = field(default=balanced, compare=False, repr=False)

    def trained(self, stage: Stage) -> Trained:
        """What a run trains with, and on which batches."""
        return self.kind(self.make(stage.seed), self.teleport, stage)


MethodLike: TypeAlias = "str | Method | balance.Balancer | tuple[str, Any] | tuple[str, Any, Any]"


def parse_method(text: str) -> Method:
    """Reads ``name`` or ``name:option=value,option=value``, either with ``cost+`` or ``cost(option=value)+`` before it.

    A method that has an option ``seed`` gets the run's own seed, unless the text sets one. Options equal to their
    defaults are left out of the label: ``cagrad:c=0.4`` and ``cagrad`` are one method.

    Args:
        text: as on the command line. Values are Python literals; anything else is taken as a string. The options of
            ``cost`` are those of :func:`equipoise.study.teleports.parse_teleport`.

    Raises:
        UnknownMethodError: there is no such method; near misses are suggested.
        UnknownOptionError: the method has no such option; near misses are suggested.
        InputError: not of the form ``option=value``, or a value that the method refuses.

    Example:
        >>> parse_method("FairGrad:alpha=2").label
        'fairgrad:alpha=2'
        >>> parse_method("COST(gamma=0.2)+FairGrad:alpha=2").label
        'cost(gamma=0.2)+fairgrad:alpha=2'
    """
    before, balancer = divide(text.strip())
    if balancer.partition("(")[0].strip().lower() in ("cost", ""):
        raise InputError(f'"{text}": COST goes on top of a method; write "cost+fairgrad" or "cost(gamma=0.2)+fairgrad"')
    if not before:
        return _balancer(balancer)
    teleport, method = parse_teleport(before), _balancer(balancer)
    _refuse_teleport(method)
    options = {**method.options, "teleport": dict(teleport.options)}
    return Method(f"{teleport.label}+{method.label}", method.name, options, method.make, teleport.make)


def parse_methods(methods: str | Iterable[MethodLike] | Mapping[str, Any]) -> tuple[Method, ...]:
    """Reads the methods of a study; the same method given twice counts once.

    Args:
        methods: ``"ls,cagrad:c=0.2,cost+si"``; or a sequence of such texts, of balancers (each run gets a copy), of
            ``(label, balancer or function that makes one)``, of ``(label, balancer, teleport)`` and of :class:`Method`;
            or a mapping label → balancer or function, or label → (balancer, teleport). A function may take the run's
            seed, or nothing. A teleport is a :class:`~equipoise.teleport.COST` (each run gets a copy, with the seed it
            has), a function that makes one, or a text such as ``"cost(gamma=0.2)"``.

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
        entries = [(label, *(own if isinstance(own, tuple) else (own,))) for label, own in methods.items()]
    else:
        entries = list(methods)
    read: dict[str, Method] = {}
    for entry in entries:
        for method in [parse_method(text) for text in _listed(entry)] if isinstance(entry, str) else [_own(entry)]:
            read.setdefault(method.label, method)
    if not read:
        raise InputError('a study needs at least one method, such as "ls,fairgrad"')
    return tuple(read.values())


def _balancer(text: str) -> Method:
    """A method of the registry, without a teleport."""
    name, _, rest = text.partition(":")
    info, kind, _ = find(name)
    given = read_options(rest, text)
    own_seed = "seed" in info.options and "seed" not in given

    def make(seed: int) -> Any:
        return info.make(**given, **({"seed": seed} if own_seed else {}))

    make(0)  # refuses bad values now, before anything runs
    changed = [(key, given[key]) for key in info.options if key in given and given[key] != info.options[key]]
    label = info.name + (":" + written(changed) if changed else "")
    options = {key: given.get(key, default) for key, default in info.options.items() if not (own_seed and key == "seed")}
    return Method(label, info.name, options, make, kind=kind)


def _refuse_teleport(method: Method) -> None:
    if method.name and not find(method.name).teleports:
        raise InputError(
            f'COST cannot go on top of "{method.label}", which learns task weights on validation data: it looks for points of '
            f"equal training losses, and the weights would be learned for another model"
        )


def _own(entry: Any) -> Method:
    if isinstance(entry, Method):
        return entry
    if isinstance(entry, balance.Balancer):
        return _own((repr(entry), entry))
    if not (isinstance(entry, tuple) and len(entry) in (2, 3) and isinstance(entry[0], str)):
        raise InputError(
            'a method is a text such as "cagrad:c=0.2", a balancer, (label, function that makes one) or '
            f"(label, balancer, teleport); got {entry!r}"
        )
    label, source, *teleport = entry
    if label.startswith("stl"):
        raise InputError(f'the label "{label}" is taken: names that begin with "stl" are those of the single-task baselines')
    method = _labelled(label, source)
    if not teleport or teleport[0] is None:
        return method
    _refuse_teleport(method)
    if method.teleport is not None:
        raise InputError(f'method "{label}" has two teleports: that of "{source}" and {teleport[0]!r}; give one')
    options, make = _own_teleport(label, teleport[0])
    return Method(label, method.name, {**method.options, "teleport": options}, method.make, make)


def _labelled(label: str, source: Any) -> Method:
    if isinstance(source, str):
        parsed = parse_method(source)
        return replace(parsed, label=label)
    if isinstance(source, balance.Balancer | nn.Module):  # a module: an aggregator or weighting of TorchJD
        return Method(label, "", {}, lambda seed: copy.deepcopy(source))
    if not callable(source):
        raise InputError(f'method "{label}" is a {type(source).__name__}; expected a balancer or a function that makes one')
    return Method(label, "", {}, lambda seed: _called(source, seed))


def _own_teleport(label: str, source: Any) -> tuple[Any, Callable[[int], Any]]:
    """What the folder remembers of a teleport, and what makes it."""
    if isinstance(source, str):
        parsed = parse_teleport(source)
        return dict(parsed.options), parsed.make
    if hasattr(source, "after_step") and not isinstance(source, type):
        return "own", lambda seed: copy.deepcopy(source)
    if not callable(source):
        raise InputError(
            f'the teleport of method "{label}" is a {type(source).__name__}; expected a COST, a function that makes one, or '
            'a text such as "cost(gamma=0.2)"'
        )
    return "own", lambda seed: _called(source, seed)


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
    for part in filter(None, (part.strip() for part in split_outside(text, ","))):
        option, *value = split_outside(part, "=")
        if entries and value and len(split_outside(option, ":")) == 1:
            entries[-1] += ("," if len(split_outside(entries[-1], ":")) > 1 else ":") + part
        else:
            entries.append(part)
    return entries
