"""What is swept: which dimensions, by default or as asked for, and from parameters to a method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.distributions import BaseDistribution

from equipoise.errors import InputError, UnknownOptionError, near_misses, refuse_unknown_options
from equipoise.method import MethodSpec, Nested, make_teleport, written
from equipoise.study.methods import Method, parse_method
from equipoise.study.task_weights import Entry, find
from equipoise.sweep.dimensions import Choices, Dimension, Range, Weights, read_dimension, read_sweep, read_weights
from equipoise.teleport.text import options_of

__all__ = ["Space", "default_dimension", "swept_by_default"]

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
    ("famo", "lr"): (0.001, 0.1, True),
    ("famo", "weight_decay"): (1e-4, 0.1, True),
    ("uw", "lr"): (1e-4, 0.1, True),
    # Within what its authors search.
    ("relobralo", "temperature"): (0.01, 100.0, True),
    ("relobralo", "alpha"): (0.9, 0.999, False),
    # The thesis searches ρ and the step size of the lower level (section 3.7.3).
    ("forum", "rho"): (0.02, 1.0, True),
    ("forum", "lower_lr"): (0.005, 0.5, True),
    ("bome", "rho"): (0.1, 0.9, False),
    ("bome", "lower_lr"): (0.005, 0.5, True),
    ("bvfim", "barrier"): (0.05, 1.0, True),
    ("bvfim", "lower_lr"): (0.005, 0.5, True),
    ("moml", "lr"): (1e-4, 0.1, True),
    ("moml", "lower_lr"): (0.005, 0.5, True),
    ("auto-lambda", "lr"): (1e-4, 0.1, True),
    ("moco-bilevel", "lr"): (1e-4, 0.1, True),
    ("moco-bilevel", "gamma"): (0.01, 10.0, True),
}
_OPTIMIZER, _TELEPORT, _PROXY = "optimizer", "cost", "proxy"
_RATE = f"{_OPTIMIZER}.lr"
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
    """The range of an option for which none was given. Raises InputError: its default says nothing about a sensible range."""
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
        if 0.9 <= default < 1:
            # What is left of an average after a step: a decade of what is lost, both ways.
            return Range(option, 1 - 10 * (1 - default), 1 - (1 - default) / 10, log=False)
    raise InputError(f'there is no default range for option "{option}" of "{info.name}"; give one, as in "{option}=low:high"')


def _accepted(info: Entry, option: str, value: float) -> bool:
    try:
        info.make(**{option: value})
    except InputError:
        return False
    return True


def _positive(default: Any) -> bool:
    return isinstance(default, float) and default > 0


class Space:
    """What a sweep searches.

    Args:
        method: as in a study, ``"ls"``, ``"cagrad:rescale=True"`` or ``"cost+ls"``: options written there are fixed. Or
            ``(label, function)`` of one's own, which takes the swept options as keywords and returns a balancer.
        tasks: the problem's tasks, in order.
        sweep: option → what it is swept over, see :func:`~equipoise.sweep.dimensions.read_dimension`; also as one text
            ``"c=0:1,rescale=true|false"``. For ``weights``: ``"log"``, ``"0.01:1:log"`` or ``"dirichlet"``. Left out, the
            weights of a method that has them, or its options with their default ranges. Beside the balancer's options there
            are ``optimizer.lr``, the learning rate of a run, ``cost.gamma`` and all others of the teleport, and
            ``proxy.memory`` and all others of the proxy.

    Raises:
        UnknownMethodError: there is no such method.
        UnknownOptionError: the method has no such option; near misses are suggested.
        InputError: a range that cannot be, or whose ends the method refuses.

    Example:
        >>> Space("cagrad", ("left", "ink"), "c=0:0.9").method({"c": 0.123456}).label
        'cagrad:c=0.1235'
        >>> Space("ls", ("left", "ink")).method({"weights.left": 0.01, "weights.ink": 0.03}).label
        'ls:weights=[0.5, 1.5]'
    """

    def __init__(
        self,
        method: str | MethodSpec | tuple[str, Callable[..., Any]],
        tasks: Sequence[str],
        sweep: str | Sequence[str] | Mapping[str, Any] | None = None,
    ) -> None:
        given = read_sweep(sweep)
        self._make: Callable[..., Any] | None = None
        self._fixed: dict[str, Any] = {}
        self._spec: MethodSpec | None = None
        self.weights: Weights | None = None
        if isinstance(method, str | MethodSpec):
            options, given = self._of_registry(method, given)
        else:
            options = self._of_the_user(method, given)
        if "weights" in given and (self._spec is not None or _is_weights(given["weights"])):
            self.weights = read_weights(given.pop("weights"), tuple(tasks))
        self.dimensions: tuple[Dimension, ...] = tuple(
            read_dimension(name, own, options.get(name)) for name, own in given.items()
        )
        self._options = options
        self._try_ends()

    def _of_registry(self, method: str | MethodSpec, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        self._spec = MethodSpec.parse(method)
        self.label = parse_method(self._spec).label  # refuses what is wrong with it
        info = find(self._spec.name)
        self._fixed = dict(self._spec.options)
        refuse_unknown_options(info.name, [option for option in given if not _elsewhere(option)], info.options)
        parts = self._of_parts([option for option in given if _elsewhere(option)])
        for option in given:
            if option in self._fixed:
                raise InputError(f'option "{option}" is fixed in "{method}" and swept as well; leave one out')
        if not given:
            given = {
                option: "log" if option == "weights" else default_dimension(info, option)
                for option in swept_by_default(info, frozenset(self._fixed))
            }
        return dict(info.options) | parts, given

    def _of_parts(self, names: Sequence[str]) -> dict[str, Any]:
        """The values in force of what is swept beside the balancer's options: of the optimizer, the teleport or the proxy."""
        assert self._spec is not None
        known: dict[str, Any] = {}
        for name in names:
            part, _, option = name.partition(".")
            nested = {_TELEPORT: self._spec.teleport, _PROXY: self._spec.proxy}.get(part)
            if part == _OPTIMIZER:
                if option != "lr":
                    raise UnknownOptionError(f'of the optimizer only its learning rate can be swept, "{_RATE}"; got "{name}"')
                continue
            if nested is None:
                how = "cost+fairgrad" if part == _TELEPORT else "fairgrad@last"
                raise InputError(
                    f'"{name}" is swept, and the method "{self._spec}" has no such part; sweep one such as "{how}"'
                )
            if option in nested.options:
                raise InputError(f'option "{option}" is fixed in "{nested}" and swept as "{name}"; leave one out')
            if part == _TELEPORT:
                known[name] = options_of(make_teleport(nested)).get(option)
        return known

    def _of_the_user(self, method: tuple[str, Callable[..., Any]], given: Mapping[str, Any]) -> dict[str, Any]:
        if not (isinstance(method, tuple) and len(method) == 2 and isinstance(method[0], str) and callable(method[1])):
            raise InputError(
                f'the method of a sweep is a text such as "ls", or (label, function of the options); got {method!r}'
            )
        self.label, self._make = method
        if not given:
            raise InputError(f'say which options of "{self.label}" are swept, as in sweep={{"alpha": (0.1, 10, "log")}}')
        parameters = inspect.signature(self._make).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            for option in given:
                if option not in parameters and option != _RATE:
                    raise UnknownOptionError(
                        f'"{self.label}" takes no option "{option}".{near_misses(option, parameters)} '
                        f"It takes: {', '.join(parameters) or 'nothing'}"
                    )
        return {name: own.default for name, own in parameters.items() if own.default is not own.empty}

    def _try_ends(self) -> None:
        """Has the method made at every end of every range, so that what it refuses is refused now."""
        middle = self._middle()
        for dimension in self.dimensions:
            for value in dimension.ends():
                try:
                    self.method({**middle, dimension.name: value}).make(0)
                except InputError as error:
                    raise InputError(f'"{dimension.name}" cannot be swept over {dimension}: {error}') from error

    def _middle(self) -> dict[str, Any]:
        values = {own.name: own.ends()[0] for own in self.dimensions}
        values |= {own.name: self._options[own.name] for own in self.dimensions if own.holds(self._options.get(own.name))}
        return {**values, **(self.weights.equal() if self.weights else {})}

    def distributions(self) -> dict[str, BaseDistribution]:
        """Parameter → distribution, as Optuna knows it."""
        own = {dimension.name: dimension.distribution for dimension in self.dimensions}
        return own | (self.weights.distributions() if self.weights else {})

    def default(self) -> dict[str, Any] | None:
        """The point that stands for the method as it is without a sweep; ``None`` if it lies outside."""
        if any(not own.holds(self._options.get(own.name)) for own in self.dimensions):
            return None
        return self._middle()

    def method(self, parameters: Mapping[str, Any]) -> Method:
        """The method that a point stands for; for equal weights that without weights."""
        swept = {own.name: own.shown(parameters[own.name]) for own in self.dimensions}
        parts: dict[str, dict[str, Any]] = {_OPTIMIZER: {}, _TELEPORT: {}, _PROXY: {}}
        for name in [name for name in swept if _elsewhere(name)]:
            part, _, option = name.partition(".")
            parts[part][option] = swept.pop(name)
        options = dict(self._fixed) | swept
        if self.weights:
            values = self.weights.values(parameters)
            if any(value != 1 for value in values) or self._make is not None:
                options["weights"] = values
        if self._spec is not None:
            nested = {"teleport": self._spec.teleport, "proxy": self._spec.proxy}
            changed: dict[str, Any] = {
                what: own and Nested(own.name, {**own.options, **parts[part]})
                for (what, own), part in zip(nested.items(), (_TELEPORT, _PROXY), strict=True)
            }
            method = parse_method(replace(self._spec, options=options, **changed))
        else:
            make = self._make
            assert make is not None
            method = Method(f"{self.label}:{written(options.items())}", "", options, lambda seed: make(**options))
        lr = parts[_OPTIMIZER].get("lr")
        return method if lr is None else replace(method, label=f"{method.label}, lr={lr:g}", lr=lr)

    def describe(self) -> dict[str, Any]:
        """What two sweeps must have in common to be one, as JSON values."""
        swept = {own.name: str(own) for own in self.dimensions}
        return {"method": self.label, "swept": swept | ({"weights": str(self.weights)} if self.weights else {})}


def _elsewhere(name: str) -> bool:
    """Whether an option is none of the balancer's own."""
    return name.partition(".")[0] in (_OPTIMIZER, _TELEPORT, _PROXY) and "." in name


def _is_weights(given: Any) -> bool:
    return isinstance(given, Weights) or given in ("log", "dirichlet")
