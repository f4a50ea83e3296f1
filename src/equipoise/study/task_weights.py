"""Methods that learn task weights on validation data put aside, as a study runs them; and finding methods of all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from equipoise.balance.registry import REGISTRY, MethodInfo
from equipoise.bilevel.weighting import TaskWeighting, WeightingInfo, hold_out, weightings
from equipoise.errors import InputError, UnknownMethodError, near_misses, refuse_unknown_options
from equipoise.options import checked, kinds_of
from equipoise.registry import folded
from equipoise.study.trainers import Stage, Trained

__all__ = ["Entry", "TaskWeights", "TaskWeightsInfo", "find", "task_weights"]

_OWN = {"holdout": 0.2, "lr": 0.001}
"""Options of every one of these methods, before the solver's own."""


@dataclass(frozen=True)
class TaskWeights:
    """A recipe for :class:`~equipoise.bilevel.TaskWeighting`.

    Args:
        method: name of the solver.
        holdout: which part of the *training* data is put aside for the weights; the problem's own validation and test
            splits are never used. ``None`` cuts every training batch in two instead.
        lr: of the weights.
        options: of the solver.

    Raises:
        UnknownOptionError: the solver has no such option.
        InputError: a value is out of range.
    """

    method: str
    holdout: float | None = _OWN["holdout"]
    lr: float = _OWN["lr"]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.holdout is not None and (isinstance(self.holdout, bool | str) or not 0 < self.holdout < 1):
            raise InputError(
                f"holdout must lie between 0 and 1, the part of the training data put aside, or be None, to cut every batch in "
                f"two; got {self.holdout}"
            )
        TaskWeighting.check(self.method, self.lr, **self.options)

    def trained(self, stage: Stage) -> Trained:
        """A run: of the problem's arguments of the step those that say how to form task gradients have no meaning here."""
        loader, validation = stage.loader, None
        if self.holdout is not None:
            loader, validation = hold_out(stage.loader, self.holdout, stage.seed)
        stepping = {name: value for name, value in stage.stepping.items() if name in ("clip", "scaler")}
        trainer = TaskWeighting(
            stage.objective(),
            stage.optimizer,
            self.method,
            validation=validation,
            lr=self.lr,
            shared=stage.shared,
            **stepping,
            **self.options,
        )
        return Trained(trainer, loader)


@dataclass(frozen=True)
class TaskWeightsInfo:
    """An entry of the registry, as the registry of balancers has them."""

    weighting: WeightingInfo
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the method is called on the command line."""
        return self.weighting.name

    @property
    def summary(self) -> str:
        """One line on what it does."""
        return self.weighting.summary

    @property
    def paper(self) -> str:
        """Authors, title and year."""
        return self.weighting.paper

    @property
    def cost(self) -> str:
        """``"bilevel"``."""
        return self.weighting.cost

    def make(self, **options: Any) -> TaskWeights:
        """A recipe with these options.

        Raises:
            UnknownOptionError: the method has no such option; near misses are suggested.
            InputError: an option's value is out of range.
        """
        refuse_unknown_options(self.name, options, self.options)
        whose = f'method "{self.name}"'
        options = checked({**kinds_of(TaskWeights), **self.weighting.kinds}, options, whose)
        own = {name: options.pop(name) for name in _OWN if name in options}
        return TaskWeights(self.name, options=options, **own)


def task_weights() -> tuple[TaskWeightsInfo, ...]:
    """The entries of all these methods, by name.

    Example:
        >>> [info.name for info in task_weights()]
        ['auto-lambda', 'bome', 'bvfim', 'forum', 'moco-bilevel', 'moml']
    """
    return tuple(TaskWeightsInfo(info, {**_OWN, **info.options}) for info in weightings())


Entry: TypeAlias = MethodInfo | TaskWeightsInfo
"""What is known of the methods of both kinds: balancers, and those that learn task weights on validation data."""


def find(name: str) -> Entry:
    """Looks a method up by its name or an alias; case, ``-`` and ``_`` do not matter.

    Raises:
        UnknownMethodError: there is no such method; near misses are suggested.

    Example:
        >>> find("forum").cost, find("FairGrad").cost
        ('bilevel', 'gramian')
    """
    own = {info.name: info for info in task_weights()}
    key = folded(name)
    if key in own:
        return own[key]
    try:
        return REGISTRY.find(name)
    except UnknownMethodError as error:
        also = f"Methods that learn on validation data: {', '.join(sorted(own))}"
        raise UnknownMethodError(f"{error}{near_misses(key, own)} {also}") from None
