"""The registry of balancing methods: what each is called, what it costs, where it comes from, and how to make one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, get_args

from equipoise.balance.base import Balancer, GramianBalancer, Need
from equipoise.errors import EquipoiseError, InputError, UnknownMethodError, refuse_unknown_options
from equipoise.method import MethodSpec, Nested, settled
from equipoise.options import self_checking
from equipoise.registry import Registry

__all__ = ["REGISTRY", "MethodInfo", "balancer", "classes", "method", "methods", "register"]

_B = TypeVar("_B", bound=type[Balancer])


@dataclass(frozen=True)
class MethodInfo:
    """An entry of the registry.

    Attributes:
        name: what the method is called on the command line.
        cls: the balancer's class.
        summary: one line on what it does.
        paper: authors, title and year.
        cost: what it looks at, and so what a step costs: ``"losses"`` (one backward), ``"gramian"`` or ``"gradients"``
            (one backward pass per task).
        aliases: other names it answers to.
        options: the constructor's options with their defaults.
        price: what a step costs, in words.
        promise: what it promises.
        serves: when to use it.
        caveats: when not to, and what to mind.
        adds_up_to: what its weights add up to.
        checked: what the implementation is checked against.
        same_as: pairs of options and another method: with these, and the others equal, both take the same direction.
        preference: what its option ``preference`` means, after ``"weights: "`` (a larger number is for a task that matters
            more) or ``"ray: "`` (the losses are to be in these proportions); empty where there is no such option.
    """

    name: str
    cls: type[Balancer]
    summary: str
    paper: str
    cost: Need
    aliases: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    price: str = ""
    promise: str = ""
    serves: str = ""
    caveats: str = ""
    adds_up_to: str = ""
    checked: str = ""
    same_as: tuple[tuple[Mapping[str, Any], str], ...] = ()
    preference: str = ""

    @property
    def ray(self) -> bool:
        """Whether its preference is a ray of losses, so that a *smaller* number is for a task that matters more."""
        return self.preference.startswith("ray: ")

    @property
    def positive_losses(self) -> bool:
        """Whether its losses must be positive, as its caveats say."""
        return "losses must be positive" in self.caveats

    @property
    def takes_metric(self) -> bool:
        """Whether there is a further option ``metric``, as of every method on the Gramian; see
        :class:`~equipoise.balance.GramianBalancer`.
        """
        return issubclass(self.cls, GramianBalancer) and "metric" not in self.options

    def make(self, **options: Any) -> Balancer:
        """A fresh balancer with these options; one with options of its own, ``word(option=value)``, is a balancer as well.

        Raises:
            UnknownOptionError: the method has no such option; near misses are suggested.
            InputError: an option's value is out of range.
        """
        given = dict(options)
        metric = given.pop("metric", None) if self.takes_metric else None
        if metric not in (None, "optimizer"):
            raise InputError(f'the option "metric" of method "{self.name}" must be optimizer or none; got {metric!r}')
        refuse_unknown_options(self.name, given, {**self.options, "metric": None} if self.takes_metric else self.options)
        made = {
            key: balancer(value.name, **value.options) if isinstance(value, Nested) else value for key, value in given.items()
        }
        whose = f'method "{self.name}"'
        try:
            found = self.cls(**made)
            if metric is not None:
                found.metric = metric  # type: ignore[attr-defined]
            return found
        except EquipoiseError:
            raise
        except (TypeError, ValueError, OverflowError) as error:  # such as NumPy's, of a seed below zero
            raise InputError(f"{whose} cannot be made of these options: {error}") from error


def _fill() -> None:
    """Imports every file of this folder, its parts included: each registers what it defines."""
    package = importlib.import_module("equipoise.balance")
    for module in pkgutil.walk_packages(package.__path__, "equipoise.balance."):
        importlib.import_module(module.name)


REGISTRY: Registry[MethodInfo] = Registry(
    "method",
    fill=_fill,
    group="equipoise.methods",
    owner=lambda info: f"{info.cls.__module__}.{info.cls.__qualname__}",
    error=UnknownMethodError,
)


def register(
    name: str,
    *,
    summary: str,
    paper: str,
    aliases: tuple[str, ...] = (),
    price: str = "",
    promise: str = "",
    serves: str = "",
    caveats: str = "",
    adds_up_to: str = "",
    checked: str = "",
    same_as: tuple[tuple[Mapping[str, Any], str], ...] = (),
    preference: str = "",
) -> Callable[[_B], _B]:
    """Class decorator that registers a balancer, so that studies and the command line know it by name.

    Every file of ``equipoise/balance`` is imported when a method is first looked for, and so are modules that other
    distributions name as entry points of the group ``equipoise.methods``.

    Args:
        name: lower case, words joined by hyphens.
        summary: one line on what it does.
        paper: authors, title and year.
        aliases: other names it answers to.
        price: what a step costs, in words; the documentation's tables are made from this and from what follows.
        promise: what it promises.
        serves: when to use it.
        caveats: when not to, and what to mind.
        adds_up_to: what its weights add up to.
        checked: what the implementation is checked against.
        same_as: pairs of options and another method's name: with these options, and the others equal, both take the same
            direction, so that a study need not pay for both.
        preference: what an option ``preference`` means, see :class:`MethodInfo`.

    Raises:
        InputError: the name is taken by another class.
    """

    def put(cls: _B) -> _B:
        options = {
            option.name: option.default
            for option in inspect.signature(cls).parameters.values()
            if option.kind in (option.POSITIONAL_OR_KEYWORD, option.KEYWORD_ONLY)
        }
        # Where the need changes from step to step it is a property; what it costs is what the base class says.
        costs = [value for base in cls.__mro__ if isinstance(value := vars(base).get("needs"), str)]
        cost = cast(Need, costs[0])
        facts = (price, promise, serves, caveats, adds_up_to, checked, same_as, preference)
        self_checking(cls, f'method "{name}"')
        if not cls.__module__.startswith("equipoise.balance."):
            REGISTRY.fill()  # or a user's class could take a name that the library's own has not taken yet
        REGISTRY.add(name, MethodInfo(name, cls, summary, paper, cost, aliases, options, *facts), aliases=aliases)
        return cls

    return put


def methods() -> tuple[MethodInfo, ...]:
    """All registered methods, the cheap ones first and those of equal cost by name."""
    order = get_args(Need)
    return tuple(sorted(REGISTRY, key=lambda info: (order.index(info.cost), info.name)))


def method(name: str) -> MethodInfo:
    """Looks a method up by its name or an alias; case, ``-`` and ``_`` do not matter.

    Raises:
        UnknownMethodError: there is no such method; near misses are suggested.

    Example:
        >>> method("Nash_MTL").cost
        'gramian'
    """
    return REGISTRY.find(name)


def classes() -> dict[str, type[Balancer]]:
    """The library's own balancers by the names of their classes, which are those of the methods without hyphens."""
    REGISTRY.fill()
    return {info.cls.__name__: info.cls for info in REGISTRY.own() if info.cls.__module__.startswith("equipoise.balance.")}


def balancer(method: str | MethodSpec, /, **options: Any) -> Balancer:
    """Makes a balancer.

    Args:
        method: its name, as ``equipoise methods`` lists it, with options or without: ``"fairgrad:alpha=2"``.
        options: passed to the balancer's constructor.

    Raises:
        UnknownMethodError: there is no such method.
        UnknownOptionError: the method has no such option; near misses are suggested.
        InputError: an option's value is out of range or given twice, or there is a teleport, which needs steps.

    Example:
        >>> balancer("fairgrad", alpha=2.0), balancer("fairgrad:alpha=2")
        (FairGrad(alpha=2.0), FairGrad(alpha=2.0))
    """
    spec = MethodSpec.parse(method)
    if spec.teleport is not None:
        raise InputError(
            f'"{spec}" has a teleport, which takes more than a balancer: name the method to MultiTaskOptimizer, '
            f'or leave out "{spec.teleport}+"'
        )
    if spec.groups is not None:
        raise InputError(f'"{spec}" has groups that take turns, which takes steps: name the method to MultiTaskOptimizer')
    if spec.proxy is not None:
        raise InputError(f'"{spec}" has a proxy, which is no part of a balancer: name it beside, proxy="{spec.proxy}"')
    for option in options:
        if option in spec.options:
            raise InputError(f'the option "{option}" is given twice: in "{spec}" and as {option}={options[option]!r}')
    return REGISTRY.find(spec.name).make(**settled(spec.options), **options)
