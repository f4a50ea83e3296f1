"""Training a set of models: one preference per step, which set and balancer are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from equipoise.balance.base import Balancer
from equipoise.balance.per_task import Preferring
from equipoise.balance.registry import methods
from equipoise.errors import InputError
from equipoise.method import MethodSpec, proxy_of, resolved
from equipoise.objective import LossFunction, Objective
from equipoise.optimizer import MultiTaskOptimizer
from equipoise.pareto.preferences import Preferences
from equipoise.pareto.sets import ParetoSet
from equipoise.states import Anything, read_state
from equipoise.step.report import StepReport

__all__ = ["ParetoTraining", "preferring_of"]

_PENALTY = "pareto penalty"
_SMALLEST = 1e-3
"""What counts as no preference at all, where one is divided by it."""


class ParetoTraining:
    """Trains a :class:`~equipoise.pareto.ParetoSet`: draws a preference per step, and takes a balanced step of its member.

    The balancer is told every step's preference, and keeps its memory. What a preference means is the balancer's to say: the
    weights of ``ls``, the weights inside of the maximum of ``stch``. Weighted sums reach the convex parts of a front alone;
    ``stch`` with a small μ reaches all of it.

    Args:
        pareto: the set.
        losses: ``losses(model, batch)`` of your model, as for :class:`~equipoise.Objective`.
        optimizer: a torch optimizer of ``pareto.parameters()``, or of ``pareto.groups(lr)``.
        balancer: one that takes a preference, or a method by name with options that does; where that is a ray of losses,
            1/p is told.
        preferences: draws them; left out, as the family's published setting does, with ``seed``.
        steps: how many there will be, for schedules of preferences and families that freeze.
        seed: of the preferences, where they are left out.
        given: further arguments of :class:`~equipoise.MultiTaskOptimizer`, such as ``clip``.

    Attributes:
        mtl: the optimizer that takes the steps.
        preference: that of the last step.

    Raises:
        InputError: a balancer that takes no preference, steps that a schedule or the family would have to know, or see
            :class:`~equipoise.MultiTaskOptimizer`.

    Example:
        >>> from equipoise.pareto import ParetoSet, ParetoTraining
        >>> network = torch.nn.Linear(3, 2)
        >>> def losses(model, batch):
        ...     inputs, targets = batch
        ...     errors = (model(inputs) - targets).square().mean(0)
        ...     return {"near": errors[0], "far": errors[1]}
        >>> pareto = ParetoSet(network, ["near", "far"], "cosmos")
        >>> training = ParetoTraining(pareto, losses, torch.optim.Adam(pareto.parameters(), 1e-2), "ls")
        >>> batch = torch.randn(16, 3), torch.randn(16, 2)
        >>> for _ in range(3):
        ...     values = training.step(batch)
        >>> front = pareto.front([batch], 5, losses=losses)
        >>> front.points(["near", "far"]).shape
        (5, 2)
    """

    def __init__(
        self,
        pareto: ParetoSet,
        losses: LossFunction,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        balancer: str | MethodSpec | Balancer = "ls",
        *,
        preferences: Preferences | None = None,
        steps: int | None = None,
        seed: int = 0,
        **given: Any,
    ) -> None:
        if not isinstance(pareto, ParetoSet):
            raise InputError(f"pareto must be an equipoise.pareto.ParetoSet; got {type(pareto).__name__}")
        family = pareto.family
        if preferences is None:
            # A schedule needs to know how long training is; where nobody says, chance has to do.
            draw = family.draw if steps is not None else "dirichlet"
            preferences = Preferences(len(pareto.tasks), draw, alpha=family.alpha, steps=steps, seed=seed)
        if preferences.tasks != len(pareto.tasks):
            raise InputError(f"the preferences are of {preferences.tasks} tasks, and the set is of {len(pareto.tasks)}")
        if family.freeze is not None and steps is None:
            raise InputError("this family freezes the model after a share of training; give the number of steps, steps=")
        self.pareto, self.preferences = pareto, preferences
        self.preference = torch.full((len(pareto.tasks),), 1 / len(pareto.tasks), dtype=torch.float64, device="cpu")
        self._freezes = None if family.freeze is None or steps is None else round(family.freeze * steps)
        self._preferring, self._ray = preferring_of(balancer)
        own = pareto.losses(losses)
        penalized = family.penalty() is not None

        def with_penalty(model: Any, batch: Any) -> Any:
            return {**dict(own(model, batch)), _PENALTY: model.family.penalty()}  # type: ignore[arg-type]

        objective = Objective(
            pareto, with_penalty if penalized else own, pareto.tasks, fixed={_PENALTY: 1.0} if penalized else None
        )
        self.mtl = MultiTaskOptimizer(objective, optimizer, self._preferring, **given)

    @property
    def last(self) -> StepReport | None:
        """What happened in the last step."""
        return self.mtl.last

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self.mtl.steps

    def step(self, *batches: Any) -> dict[str, Tensor]:
        """Draws a preference and takes a step of its member.

        Args:
            batches: a batch, or micro-batches; see :meth:`equipoise.MultiTaskOptimizer.step`.

        Returns:
            The losses before the step, by task.

        Raises:
            InputError: see there, as for ``NonFiniteError``. Then the preference counts as not drawn.
        """
        before, present = self.preferences.state_dict(), self.pareto.preference.clone()
        options, drawn, frozen = self._preferring.preference, self.preference, self.pareto.frozen
        try:
            self.preference = self.preferences.draw()
            self.pareto.prefer(self.preference)
            self.pareto.frozen = self._freezes is not None and self.mtl.steps >= self._freezes
            # Of a ray of losses, a smaller number is for a task that matters more.
            told = 1 / self.preference.clamp(min=_SMALLEST) if self._ray else self.preference
            self._preferring.prefer((told / told.sum()).tolist())
            losses = self.mtl.step(*batches)
        except BaseException:
            self.preferences.load_state_dict(before)
            self.pareto.preference.copy_(present)
            self._preferring.preference = options
            self.preference, self.pareto.frozen = drawn, frozen
            raise
        losses.pop(_PENALTY, None)
        return losses

    def end_epoch(self) -> None:
        """Says that a pass over the data is over."""
        self.mtl.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how training continues: the set, optimizer, balancer, and which preferences come next."""
        return {"mtl": self.mtl.state_dict(), "preferences": self.preferences.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state.

        Raises:
            InputError: it is of another set, optimizer or balancer.
        """
        read = read_state("a ParetoTraining", state, {"mtl": Anything(), "preferences": Anything()})
        self.preferences.read_state(read["preferences"])
        self.mtl.load_state_dict(read["mtl"])
        self.preferences.load_state_dict(read["preferences"])

    def __repr__(self) -> str:
        return f"ParetoTraining({type(self.pareto.family).__name__}, {self.preferences!r}, {self.mtl.steps} steps taken)"


def preferring_of(balancer: str | MethodSpec | Balancer) -> tuple[Any, bool]:
    """A balancer that can be told a preference, and whether that is a ray of losses."""
    made, teleport = resolved(balancer)
    if teleport is not None or proxy_of(balancer) is not None:
        raise InputError(f'"{balancer}" has a teleport or a proxy, and a set is trained by a balancer alone; leave it out')
    if not isinstance(made, Preferring):
        raise InputError(f"{made!r} takes no preference, by which the members of a set differ; take ls or stch")
    return made, any(info.cls is type(made) and info.ray for info in methods())
