"""COST from options as they are written in text, and back: ``cost(delta=oft(blocks=2),start=3,history=keep)``.

The options of :class:`Search`, :class:`Guard`, :class:`Schedule` and :class:`Probes` are written flat: a name is found in the
group that has it. What is chosen by name (trigger, delta, formulation, history) has options of its own, which are
written flat as well, or in brackets behind the name: ``delta=oft,blocks=2`` and ``delta=oft(blocks=2)`` are the same. A
``preset``, ``paper`` or ``released(epochs=60)``, is one of COST's ready settings, of which the other options change some.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from equipoise.errors import InputError, UnknownOptionError, near_misses
from equipoise.method import Nested, read_value
from equipoise.options import checked, kinds_of
from equipoise.registry import Registry
from equipoise.teleport.cost import COST
from equipoise.teleport.deltas import DELTAS, LowRank
from equipoise.teleport.formulations import FORMULATIONS
from equipoise.teleport.guard import Guard
from equipoise.teleport.history import HISTORIES
from equipoise.teleport.probes import Probes
from equipoise.teleport.schedule import Schedule
from equipoise.teleport.search import InnerOptimizer, Search
from equipoise.teleport.triggers import TRIGGERS

__all__ = ["KINDS", "cost_of", "options_of", "shortest"]

KINDS: dict[str, Registry[Any]] = {"trigger": TRIGGERS, "delta": DELTAS, "formulation": FORMULATIONS, "history": HISTORIES}


def _fields(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


_SEARCH = tuple(name for name in _fields(Search) if name != "formulation")
_SCHEDULE, _PROBES = _fields(Schedule), _fields(Probes)
_DELTA, _FORMULATION = "lowrank", "pareto"  # COST's own
_FLAT = frozenset((*_SEARCH, *_SCHEDULE, *_PROBES, "tolerance")) - {"optimizer", "scaling"}
"""Options that are of the kind that the annotation says; the others are words for something."""
_OPTIONS = ("preset", *KINDS, *_SEARCH, "guard", "tolerance", *_SCHEDULE, *_PROBES, "seed")
_PRESETS = {"paper": (COST.paper, ()), "released": (COST.released, ("epochs",))}


def cost_of(options: Mapping[str, Any]) -> COST:
    """Makes a COST.

    Args:
        options: values by the options' names: plain values, words, and :class:`~equipoise.method.Nested` ones. ``guard`` is
            ``"losses"``, ``"conflict"`` (or ``True``: the conflict counts as well) or ``None`` (or ``False``). ``optimizer`` is
            the name of one of torch's, such as ``sgd(momentum=0.9)``. ``preset`` is ``"paper"`` or ``"released"``, the latter
            with an option ``epochs``: :meth:`COST.paper` and :meth:`COST.released`.

    Raises:
        UnknownOptionError: there is no such option; near misses are suggested.
        InputError: a value that cannot be used.

    Example:
        >>> cost = cost_of({"delta": "oft", "blocks": 2, "start": 3, "gamma": 0.1})
        >>> cost.delta, cost.schedule.start, cost.search.sought.gamma
        (OFT(blocks=2, vectors=False, targets=None), 3, 0.1)
    """
    given = _preset(options)
    known, made = list(_OPTIONS), {}
    for kind in KINDS:
        made[kind], own = _taken(kind, given, known)
        known += own
    _refuse_rest(given, known)
    for part in (Search, Guard, Schedule, Probes):
        kinds = {name: kind for name, kind in kinds_of(part).items() if name in _FLAT}
        given |= checked(kinds, {name: given[name] for name in kinds if name in given}, "COST")
    given |= checked({"seed": int}, {name: given[name] for name in ("seed",) if name in given}, "COST")
    search = {name: given[name] for name in _SEARCH if name in given}
    if "optimizer" in search:
        search["optimizer"] = _optimizer(search["optimizer"])
    if "scaling" in search and search["scaling"] is None:
        search["scaling"] = "none"  # here the word is meant, not the absence of one
    if made["formulation"] is not None:
        search["formulation"] = made["formulation"]
    return COST(
        made["trigger"],
        # The default adapts its rank to the weights, also where somebody writes it out.
        delta=None if made["delta"] == LowRank() else made["delta"],
        search=Search(**search),
        guard=_guard(given),
        schedule=Schedule(**{name: given[name] for name in _SCHEDULE if name in given}),
        probes=Probes(**{name: given[name] for name in _PROBES if name in given}),
        history=made["history"],
        seed=given.get("seed", 0),
    )


def options_of(cost: COST) -> dict[str, Any]:
    """All options of a COST with the values in force, flat, as JSON values: what :func:`cost_of` makes an equal one of.

    Raises:
        InputError: it has a part that cannot be written in text, such as a function for a trigger.

    Example:
        >>> options = options_of(COST(search=Search(steps=5)))
        >>> options["steps"], options["delta"], options["rank"], options["tolerance"]
        (5, 'lowrank', 5, 0.02)
    """
    written: dict[str, Any] = {}
    chosen = {"trigger": cost.trigger, "delta": cost.delta, "formulation": cost.search.sought, "history": cost.history}
    for kind, thing in chosen.items():
        written[kind] = None if thing is None else _name_of(kind, thing)
        if thing is not None:
            written |= {name: _plain(name, getattr(thing, name)) for name in _fields(thing)}
    written |= {name: getattr(cost.search, name) for name in _SEARCH}
    written["scaling"] = "relative" if cost.search.relative else "none"
    written["optimizer"] = _optimizer_name(cost.search.optimizer)
    written["guard"] = None if cost.guard is None else "conflict" if cost.guard.conflict else "losses"
    if cost.guard is not None:
        written["tolerance"] = cost.guard.tolerance_for(cost.search.sought)
    written |= {name: getattr(cost.schedule, name) for name in _SCHEDULE}
    written |= {name: getattr(cost.probes, name) for name in _PROBES}
    if not isinstance(cost.probes.probe, str):
        raise InputError("a COST whose probe is a loader cannot be written in text")
    written["seed"] = cost.seed
    return written


def shortest(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without those that say what would hold anyway, flat, in the order in which they were given.

    A ``seed`` stays: left out, it is that of the run.

    Example:
        >>> shortest({"delta": "oft", "blocks": 5, "steps": 20, "formulation": "released", "history": "released", "stop": None})
        {'delta': 'oft', 'formulation': 'released'}
    """
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= {name: value.name, **value.options} if name in KINDS and isinstance(value, Nested) else {name: value}
    in_force = options_of(cost_of(options))
    # What an option is by default depends on what is chosen by name, and that on the formulation; all of it on the preset.
    ready = {name: flat[name] for name in ("preset",) if flat.get(name) is not None}
    named = {kind: flat[kind] for kind in KINDS if flat.get(kind) is not None}
    base = options_of(cost_of(ready | named))
    base["formulation"] = options_of(cost_of(ready))["formulation"]
    by_formulation = options_of(cost_of(ready | {"formulation": in_force["formulation"]}))
    base |= {kind: by_formulation[kind] for kind in ("trigger", "delta", "history")}
    changed = [name for name in flat if name in ("seed", *ready) or (name != "preset" and in_force[name] != base[name])]
    in_force |= ready
    return {name: flat[name] if isinstance(flat[name], Nested) else in_force[name] for name in changed}


def _preset(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those of the preset that they do not change."""
    given = dict(options)
    value = given.pop("preset", None)
    if value is None:
        return given
    name, own = (value.name, dict(value.options)) if isinstance(value, Nested) else (value, {})
    if not isinstance(name, str) or name.lower() not in _PRESETS:
        raise InputError(f"the option preset of COST is one of {', '.join(_PRESETS)}; got {name!r}")
    make, known = _PRESETS[name.lower()]
    for option in own:
        _refuse(option, known, f'the preset "{name}"')
    ready = options_of(make(**checked(dict.fromkeys(known, int), own, f'the preset "{name}"')))
    flat = set(given) | {option for kind in KINDS if isinstance(given.get(kind), Nested) for option in given[kind].options}
    for kind, kinds in KINDS.items():
        if given.get(kind) is not None and ready[kind] is not None:
            # What is chosen anew brings options of its own.
            for option in (kind, *_fields(kinds.find(ready[kind]))):
                ready.pop(option, None)
    if given.get("guard", "losses") in (None, False, "none"):
        ready.pop("tolerance", None)
    return {option: value for option, value in ready.items() if option not in flat and option != "seed"} | given


def _taken(kind: str, given: dict[str, Any], known: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """What is chosen by name, made with its own options, all of which are taken out of ``given``, and their names.

    ``None`` in its place if nothing is said.
    """
    kinds = KINDS[kind]
    value = given.pop(kind, None)
    name, nested = (value.name, dict(value.options)) if isinstance(value, Nested) else (value, {})
    if name is None:
        name = {"delta": _DELTA, "formulation": _FORMULATION}.get(kind)
        if name is None:
            return None, ()
    chosen = kinds.find(name)
    own = _fields(chosen)
    for option in own:
        if option in known:
            raise InputError(f'the {kind} "{name}" has an option "{option}", which COST has too; give it another name')
        if option in nested and option in given:
            raise InputError(f'the option "{option}" of the {kind} "{name}" is given twice')
    for option in nested:
        _refuse(option, own, f'the {kind} "{name}"')
    nested |= {option: given.pop(option) for option in own if option in given}
    if value is None and not nested:
        return None, own
    try:
        return chosen(**checked(kinds_of(chosen), nested, f'the {kind} "{name}"')), own
    except TypeError as error:
        raise InputError(f'the {kind} "{name}" cannot be made: {error}') from error


def _guard(given: Mapping[str, Any]) -> Guard | None:
    value = given.get("guard", "losses")
    if value in (None, False, "none"):
        if given.get("tolerance") is not None:
            raise InputError("tolerance belongs to the guard, and guard=none; leave out one of them")
        return None
    if value not in (True, "losses", "conflict"):
        raise InputError(f"guard must be losses, conflict or none; got {value!r}")
    return Guard(given.get("tolerance"), conflict=value in (True, "conflict"))


def _optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Those of torch that step without a closure."""
    kinds = [kind for kind in vars(torch.optim).values() if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)]
    return {kind.__name__.lower(): kind for kind in kinds if kind not in (torch.optim.Optimizer, torch.optim.LBFGS)}


def _optimizer(value: Any) -> InnerOptimizer:
    value = read_value(value) if isinstance(value, str) else value
    name, options = (value.name, dict(value.options)) if isinstance(value, Nested) else (value, {})
    known = _optimizers()
    if not isinstance(name, str):
        raise InputError(f"the option optimizer of COST is the name of one of torch's, such as adam; got {name!r}")
    if name.lower() not in known:
        raise InputError(f'torch has no optimizer "{name}".{near_misses(name, known)} Known: {", ".join(known)}')
    kind: InnerOptimizer = known[name.lower()]
    if not options:
        return kind
    made: InnerOptimizer = functools.partial(kind, **options)
    try:
        made([torch.zeros(1, requires_grad=True, device="cpu")], lr=1e-3)
    except (TypeError, ValueError) as error:
        raise InputError(f'the optimizer "{name}" cannot be made: {error}') from error
    return made


def _optimizer_name(optimizer: InnerOptimizer) -> str:
    kind, options = (optimizer.func, optimizer.keywords) if isinstance(optimizer, functools.partial) else (optimizer, {})
    for name, known in _optimizers().items():
        if kind is known:
            return str(Nested(name, options))
    raise InputError(f"a COST whose inner optimizer is {optimizer!r} cannot be written in text")


def _name_of(kind: str, thing: Any) -> str:
    for name in KINDS[kind].names():
        if type(thing) is KINDS[kind].find(name):
            return name
    raise InputError(f"a COST whose {kind} is {thing!r} cannot be written in text")


def _plain(name: str, value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    if not all(isinstance(one, str) for one in value):
        raise InputError(f"a COST whose {name} are modules cannot be written in text; name them")
    return list(value)


def _refuse_rest(given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuses what belongs to nothing that was chosen."""
    for option in given:
        if option in _OPTIONS:
            continue
        for kind, kinds in KINDS.items():
            owners = [name for name in kinds.names() if option in _fields(kinds.find(name))]
            if owners:
                belongs = " and ".join(f"{kind}={name}" for name in owners)
                raise UnknownOptionError(f'the option "{option}" belongs to {belongs}, which is not chosen here')
        _refuse(option, known, "COST")


def _refuse(option: str, known: Sequence[str], whose: str) -> None:
    if option not in known:
        has = f"Its options: {', '.join(known)}" if known else "It has none"
        raise UnknownOptionError(f'{whose} has no option "{option}".{near_misses(option, known)} {has}')
