"""The methods of a study, from text, balancers or functions that make them, and which problem can serve which."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from torch import nn

from equipoise import balance
from equipoise.balance.mixins import OnFeatures
from equipoise.balance.registry import methods
from equipoise.errors import InputError, UnknownMethodError
from equipoise.groups import as_groups
from equipoise.method import MethodSpec, Nested, as_teleport, make_teleport, seeded, settled, written
from equipoise.optimizer import Teleport
from equipoise.proxy import as_proxy
from equipoise.step.by_proxy import check_proxied
from equipoise.study.problem import Problem
from equipoise.study.task_weights import TaskWeightsInfo, find
from equipoise.study.trainers import Made, Stage, Trained, trained
from equipoise.teleport.text import options_of, shortest

__all__ = ["Method", "MethodLike", "alike", "parse_method", "parse_methods", "served", "serves"]


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
        proxy: where the Gramian is taken; ``None`` for the exact one.
        groups: the schedule of groups of tasks that take turns; ``None`` where all train together.
        lr: of the optimizer; ``None`` for the problem's own.
        spec: the method as a value, options equal to their defaults left out; ``None`` for a user's own balancer or teleport.
    """

    label: str
    name: str
    options: Mapping[str, Any]
    make: Callable[[int], Made] = field(compare=False, repr=False)
    teleport: Callable[[int], Teleport] | None = field(default=None, compare=False, repr=False)
    spec: MethodSpec | None = field(default=None, compare=False)
    proxy: Nested | None = field(default=None, compare=False, repr=False)
    lr: float | None = None
    groups: Nested | None = field(default=None, compare=False, repr=False)

    def trained(self, stage: Stage) -> Trained:
        """What a run trains with, and on which batches."""
        return trained(self.make(stage.seed), self.teleport, stage, self.proxy, self.groups)


MethodLike: TypeAlias = "str | MethodSpec | Method | balance.Balancer | tuple[str, Any] | tuple[str, Any, Any]"


def parse_method(method: str | MethodSpec) -> Method:
    """Reads ``name`` or ``name:option=value,option=value``, with ``cost+``, ``conflict-groups+`` … before it or not.

    A method that has an option ``seed`` gets the run's own seed, unless the text sets one. Options equal to their
    defaults are left out of the label: ``cagrad:c=0.4`` and ``cagrad`` are one method.

    Args:
        method: as :meth:`equipoise.method.MethodSpec.parse` reads it, or such a value. Beside the balancers there are the
            methods that learn task weights on validation data. The options of ``cost`` are those of
            :func:`equipoise.teleport.text.cost_of`.

    Raises:
        UnknownMethodError: there is no such method; near misses are suggested.
        UnknownOptionError: the method has no such option; near misses are suggested.
        InputError: text of another form, or a value that the method refuses.

    Example:
        >>> parse_method("FairGrad:alpha=2").label
        'fairgrad:alpha=2'
        >>> parse_method("COST(gamma=0.2)+FairGrad:alpha=2").label
        'cost(gamma=0.2)+fairgrad:alpha=2'
    """
    spec = MethodSpec.parse(method)
    info, given = find(spec.name), settled(spec.options)

    def make(seed: int) -> Made:
        return info.make(**seeded(given, info.options, seed))

    make(0)  # refuses bad values now, before anything runs
    # The default of a seed stands for the run's own, so that a seed is never one that could be left out.
    # A common option is one of the folder's only where it is asked for, so that folders of before it go on.
    asked = getattr(info, "takes_metric", False) and given.get("metric") is not None
    own = {**info.options, "metric": None} if asked else info.options
    changed = {key: given[key] for key in own if key in given and (key == "seed" or given[key] != own[key])}
    options = {
        key: str(value) if isinstance(value := given.get(key, default), Nested) else value
        for key, default in own.items()
        if key != "seed" or key in given
    }
    if spec.proxy is not None:
        as_proxy(spec.proxy)
        check_proxied(make(0), f"@{spec.proxy.name}")
        options = {**options, "proxy": str(spec.proxy)}
    if spec.groups is not None:
        as_groups(spec.groups, 0)
        if isinstance(info, TaskWeightsInfo):
            raise InputError(f'"{spec}": "{info.name}" learns the weights of all tasks in each step; leave out the groups')
        options = {**options, "groups": str(spec.groups)}
    if spec.teleport is None:
        short = MethodSpec(info.name, changed, proxy=spec.proxy, groups=spec.groups)
        return Method(str(short), info.name, options, make, spec=short, proxy=spec.proxy, groups=spec.groups)
    teleport, in_force, make_one = _teleport(spec.teleport)
    short = MethodSpec(info.name, changed, teleport, spec.proxy)
    _refuse_teleport(info.name, str(short.balancer))
    return Method(str(short), info.name, {**options, "teleport": in_force}, make, make_one, short, spec.proxy)


def parse_methods(methods: str | Iterable[MethodLike] | Mapping[str, Any]) -> tuple[Method, ...]:
    """Reads the methods of a study; the same method given twice counts once.

    Args:
        methods: ``"ls,cagrad:c=0.2,cost+si"``; or a sequence of such texts, of balancers (each run gets a copy), of
            ``(label, balancer or function that makes one)``, of ``(label, balancer, teleport)``, of
            :class:`~equipoise.MethodSpec` and of :class:`Method`; or a mapping label → balancer or function, or
            label → (balancer, teleport). A function may take the run's seed, or nothing. A teleport is a
            :class:`~equipoise.teleport.COST` (each run gets a copy, with the seed it has), a function that makes one, or a
            text such as ``"cost(gamma=0.2)"``.

    Raises:
        InputError: nothing given, or something that is no method; see also :func:`parse_method`.

    Example:
        >>> [method.label for method in parse_methods("ls, fairgrad:alpha=2, si")]
        ['ls', 'fairgrad:alpha=2', 'si']
        >>> parse_methods("ls, fairgrad:beta=2")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        equipoise.errors.UnknownOptionError: method "fairgrad" has no option "beta". Its options: alpha, max_norm, ...
    """
    if isinstance(methods, str):
        entries: list[Any] = list(MethodSpec.parse_all(methods))
    elif isinstance(methods, Mapping):
        entries = [(label, *(own if isinstance(own, tuple) else (own,))) for label, own in methods.items()]
    else:
        entries = list(methods)
    read: dict[str, Method] = {}
    for entry in entries:
        for one in MethodSpec.parse_all(entry) if isinstance(entry, str) else [entry]:
            method = _own(one)
            read.setdefault(method.label, method)
    if not read:
        raise InputError('a study needs at least one method, such as "ls,fairgrad"')
    return tuple(read.values())


def _teleport(teleport: Nested) -> tuple[Nested, dict[str, Any], Callable[[int], Teleport]]:
    """The shortest form, all options with the values in force, and what makes it for the run of a seed."""
    cost = make_teleport(teleport)  # refuses bad values now, before anything runs
    given = settled(teleport.options)
    in_force = options_of(cost)
    if "seed" not in given:
        del in_force["seed"]
    # From this one, and not from its text: what a user registered is not known in the processes that runs are carried out in.
    return Nested(teleport.name, shortest(given)), in_force, lambda seed: cost.fresh(given.get("seed", seed))


def _refuse_teleport(name: str, label: str) -> None:
    if name and isinstance(find(name), TaskWeightsInfo):
        raise InputError(
            f'COST cannot go on top of "{label}", which learns task weights on validation data: it looks for points of '
            f"equal training losses, and the weights would be learned for another model"
        )


def _own(entry: Any) -> Method:
    if isinstance(entry, Method):
        return entry
    if isinstance(entry, MethodSpec):
        return parse_method(entry)
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
    _refuse_teleport(method.name, method.label)
    if method.teleport is not None:
        raise InputError(f'method "{label}" has two teleports: that of "{source}" and {teleport[0]!r}; give one')
    options, make = _own_teleport(label, teleport[0])
    if method.groups is not None:
        raise InputError(f'method "{label}" has groups of tasks, which go with no teleport; leave out one')
    return Method(label, method.name, {**method.options, "teleport": options}, method.make, make, proxy=method.proxy)


def _labelled(label: str, source: Any) -> Method:
    if isinstance(source, str | MethodSpec):
        return replace(parse_method(source), label=label)
    if isinstance(source, balance.Balancer | nn.Module):  # a module: an aggregator or weighting of TorchJD
        return Method(label, "", {}, lambda seed: copy.deepcopy(source))
    if not callable(source):
        raise InputError(f'method "{label}" is a {type(source).__name__}; expected a balancer or a function that makes one')
    return Method(label, "", {}, lambda seed: _called(source, seed))


def _own_teleport(label: str, source: Any) -> tuple[Any, Callable[[int], Any]]:
    """What the folder remembers of a teleport, and what makes it."""
    if isinstance(source, str | Nested):
        return _teleport(as_teleport(source))[1:]
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


def serves(problem: Problem, method: Method) -> str | None:
    """Why a problem cannot be trained with a method; ``None`` if it can.

    What a method needs beyond losses is the model's parts, or its heads' targets, which the problem has to name. Further
    batches come from the problem's training data, and a teleport needs nothing more of it. A balancer of one's own is taken as
    it is: it may have been told already.
    """
    made = method.make(0) if method.name else None
    if not isinstance(made, OnFeatures) or not made.lacks_parts:
        return None
    if problem.parts is None:
        return (
            f'method "{method.label}" acts on parts of the model, and problem "{problem.name}" does not say which they are; '
            'give it parts=lambda model: {"features": module, "heads": {task: module}}'
        )
    if made.needs_targets and problem.targets is None:
        return (
            f'method "{method.label}" applies to linear heads whose targets it knows, and problem "{problem.name}" does not '
            "give them; if its heads are nn.Linear on the features, give it targets=lambda batch: {task: tensor}"
        )
    return None


def served(problem: Problem) -> tuple[Method, ...]:
    """All balancers, with their default options, that a problem can be trained with."""
    everyone = (parse_method(info.name) for info in methods())
    return tuple(method for method in everyone if serves(problem, method) is None)


def alike(described: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Methods that take one direction under two labels, in a sentence each: what the registry knows, without a run.

    Args:
        described: label → ``name`` and ``options``, the values in force, as a study's folder has them.

    Example:
        >>> methods = parse_methods("ls,fairgrad,fairgrad:alpha=2,nash-mtl")
        >>> len(alike({method.label: {"name": method.name, "options": method.options} for method in methods}))
        1
    """
    seen: dict[str, tuple[str, str]] = {}
    said = []
    for label, method in described.items():
        try:
            key, why = _direction(method["name"], method["options"])
        except UnknownMethodError:
            continue  # of a distribution that is not here
        if key and key in seen:
            first, because = seen[key]
            because = because or why
            said.append(
                f"{first} and {label} take the same direction{because and f' ({because})'}: under Adam their results are equal "
                "up to rounding, and the runs of one of them tell nothing new"
            )
        seen.setdefault(key, (label, why))
    return tuple(said)


def _direction(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """What methods of one direction have in common; empty for a user's own, of which nothing is known."""
    if not name:
        return "", ""
    info = find(name)
    for given, other in getattr(info, "same_as", ()):
        theirs = find(other).options
        rest = {option: value for option, value in options.items() if option not in given}
        kept = {
            option: value for option, value in rest.items() if option in theirs or option in ("teleport", "proxy", "groups")
        }
        usual = all(rest[option] == info.options.get(option) for option in rest.keys() - kept.keys())
        if usual and all(options.get(option) == value for option, value in given.items()):
            return _key(other, {**theirs, **kept}), f"{name} with {written(given.items())} is {other}"
    return _key(name, options), ""


def _key(name: str, options: Mapping[str, Any]) -> str:
    return f"{name} {sorted((option, str(value)) for option, value in options.items() if option != 'seed')}"
