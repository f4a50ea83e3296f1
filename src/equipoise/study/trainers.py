"""What takes the steps of a run: a method makes it for a model, and may divide the training data for itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from equipoise.balance.base import Balancer
from equipoise.balance.double_sampling import further_batches
from equipoise.balance.mixins import OnFeatures
from equipoise.groups import as_groups
from equipoise.method import Nested
from equipoise.objective import LossFunction, Objective
from equipoise.optimizer import MultiTaskOptimizer, Teleport
from equipoise.proxy import as_proxy
from equipoise.step.report import StepReport
from equipoise.study.problem import Problem

__all__ = ["Made", "RunRecipe", "Stage", "Trained", "Trainer", "trained"]


class Trainer(Protocol):
    """What a run trains with, such as a :class:`~equipoise.MultiTaskOptimizer`."""

    last: StepReport | None

    @property
    def teleport(self) -> Any:
        """What moves the parameters between steps, if anything does."""

    def step(self, batch: Any, /) -> Mapping[str, Tensor]:
        """Takes a step and gives the losses before it."""

    def gramian(self, batch: Any, /) -> Tensor:
        """The Gramian of the task gradients, without a trace."""

    def end_epoch(self) -> None:
        """Says that a pass over the training data is over."""


class Stage(NamedTuple):
    """What there is before a method comes in."""

    problem: Problem
    model: nn.Module
    losses: LossFunction
    tasks: tuple[str, ...]
    optimizer: torch.optim.Optimizer
    loader: Iterable[Any]
    seed: int

    def objective(self, batches: Iterable[Any] | None = None) -> Objective:
        """The model with its losses."""
        return Objective(self.model, self.losses, tasks=self.tasks, batches=batches)

    @property
    def stepping(self) -> Mapping[str, Any]:
        """The problem's further arguments of a :class:`~equipoise.MultiTaskOptimizer`."""
        return self.problem.stepping(self.model) if self.problem.stepping else {}

    @property
    def shared(self) -> Any:
        """The shared parameters, if the problem says which they are."""
        return self.problem.shared(self.model) if self.problem.shared else None


class Trained(NamedTuple):
    """What a run goes through.

    Attributes:
        trainer: takes the steps.
        loader: gives the batches; all of the training data, or what the method left of them.
    """

    trainer: Trainer
    loader: Iterable[Any]


@runtime_checkable
class RunRecipe(Protocol):
    """Makes a run with a trainer of its own, such as :class:`~equipoise.study.task_weights.TaskWeights`."""

    def trained(self, stage: Stage) -> Trained:
        """What a run trains with: a recipe's own choice, or the balancer on all of the training data. ``made`` is fresh."""


Made: TypeAlias = Balancer | nn.Module | RunRecipe
"""What a method makes for a run of a seed: a balancer, an aggregator of TorchJD, or a recipe for another kind of trainer."""


def trained(
    made: Made,
    teleport: Callable[[int], Teleport] | None,
    stage: Stage,
    proxy: Nested | None = None,
    groups: Nested | None = None,
) -> Trained:
    """What a run trains with: a recipe's own choice, or the balancer on all of the training data.

    Args:
        made: fresh, for this run; a balancer is told of the model's parts if it asks for them.
        teleport: makes a fresh teleport for the run's seed.
        stage: what it meets.
        proxy: where the Gramian is taken; ``None`` for the exact one.
        groups: the schedule of groups of tasks, if they take turns.
    """
    if isinstance(made, RunRecipe):
        return made.trained(stage)
    problem = stage.problem
    if problem.parts is not None and isinstance(made, OnFeatures) and made.lacks_parts:
        targets = {"targets": problem.targets} if made.needs_targets else {}
        made.take_parts(**problem.parts(stage.model), **targets)
    moving = None if teleport is None else teleport(stage.seed)
    # A loader of its own with the same data: passes over it leave those of the training alone.
    draws = further_batches(made) or getattr(getattr(moving, "probes", None), "probe", None) == "training"
    further = copy.copy(stage.loader) if draws else None
    trainer = MultiTaskOptimizer(
        stage.objective(further),
        stage.optimizer,
        balancer=made,
        shared=stage.shared,
        teleport=moving,
        proxy=as_proxy(proxy),
        groups=as_groups(groups, stage.seed),
        **stage.stepping,
    )
    return Trained(trainer, stage.loader)
