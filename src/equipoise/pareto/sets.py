"""A model that stands for a whole front: one member per preference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from equipoise.errors import InputError, refuse_unknown_options
from equipoise.method import read_options, settled
from equipoise.metrics import Metric
from equipoise.modules import evaluating
from equipoise.objective import LossFunction, played
from equipoise.options import checked, kinds_of
from equipoise.pareto.families import FAMILIES, Family
from equipoise.pareto.indicators import hypervolume, nondominated
from equipoise.pareto.preferences import grid
from equipoise.tasks import LazyLoss, as_losses, scalar

__all__ = ["Front", "ParetoSet", "check_family", "mean_losses"]

T = TypeVar("T")
Evaluation = Callable[[Any, Iterable[Any]], Mapping[str, float]]


@dataclass(frozen=True)
class Front:
    """Members of a set, evaluated.

    Attributes:
        preferences: ``[n, K]``.
        values: what each preference's member was judged by, in the preferences' order.
    """

    preferences: Tensor
    values: tuple[Mapping[str, float], ...]

    def points(self, metrics: Sequence[str | Metric]) -> np.ndarray:
        """``[n, len(metrics)]``, lower is better in every entry: metrics of which higher is better are turned round."""
        signs = [own.sign if isinstance(own, Metric) else 1.0 for own in metrics]
        names = [own.name if isinstance(own, Metric) else own for own in metrics]
        rows = [[sign * float(one[name]) for sign, name in zip(signs, names, strict=True)] for one in self.values]
        return np.array(rows, dtype=np.float64).reshape(-1, len(names))

    def best(self, metrics: Sequence[str | Metric]) -> list[int]:
        """Positions of the members that no other dominates."""
        return nondominated(self.points(metrics))

    def hypervolume(self, metrics: Sequence[str | Metric], reference: Sequence[float]) -> float:
        """The volume up to a reference point, which is in the units and signs of :meth:`points`."""
        return hypervolume(self.points(metrics), reference)


class ParetoSet(nn.Module):
    r"""One model for all preferences: yours, with parameters that depend on how much each task counts.

    Your model stays what it is. A set holds it beside further parameters, and runs it with what a preference makes of both;
    called as your model is, it answers as the member of ``preference``. All of its parameters are trained together, with one
    preference per step (:class:`~equipoise.pareto.ParetoTraining`); afterwards any preference can be had, also those that
    training never drew.

    ===========  ========================================================  ==========================================
    family       what a preference changes                                  further parameters
    ===========  ========================================================  ==========================================
    ``phn``      all parameters, by a hypernetwork (PHN)                    about 100 times the model's
    ``cosmos``   the input of the first layer (COSMOS)                      K per output of that layer
    ``film``     scale and shift of layers' outputs (FiLM, YOTO)            about 130 per channel
    ``palora``   a low-rank update per task on every matrix (PaLoRA)        K·r·(inputs + outputs) per matrix
    ``lorpman``  the same, orthogonal; the model is frozen in between       the same
    ``pamal``    the mix of K models (PaMaL)                                K − 1 times the model's
    ===========  ========================================================  ==========================================

    Args:
        model: your model. It need not know of any of this.
        tasks: names of the tasks, in the order of a preference's entries.
        family: its name, with options: ``"palora:rank=8"``; or a :class:`~equipoise.pareto.Family`.
        seed: of the start of the further parameters.

    Attributes:
        model: yours.
        family: the further parameters.
        preference: ``[K]``, whose member the set is at present; the centre at first. It is no part of a state.

    Raises:
        InputError: fewer than two tasks or one twice, no such family or option, or a model that it does not fit.

    Example:
        >>> from equipoise.pareto import ParetoSet
        >>> network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> pareto = ParetoSet(network, ["near", "far"], "palora:rank=1")
        >>> sum(own.numel() for own in pareto.family.parameters())  # 2 tasks × rank 1 × (3 + 8 and 8 + 2)
        42
        >>> pareto.prefer([0.9, 0.1])(torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """

    preference: Tensor
    frozen: bool = False
    """Whether the model's own parameters have no gradient at present; a :class:`~equipoise.pareto.ParetoTraining` says so."""

    def __init__(self, model: nn.Module, tasks: Sequence[str], family: str | Family = "palora", *, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError(f"model must be a torch.nn.Module; got {type(model).__name__}")
        self.tasks = tuple(tasks)
        if isinstance(tasks, str) or len(self.tasks) < 2 or len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"tasks must be at least two different names; got {tasks!r}")
        self.model = model
        like = next((own for own in model.parameters() if own.is_floating_point()), torch.empty(0, device="cpu"))
        self.family = family if isinstance(family, Family) else _family(family, model, len(self.tasks), seed).to(like)
        centre = torch.full((len(self.tasks),), 1 / len(self.tasks), device="cpu").to(like)
        self.register_buffer("preference", centre, persistent=False)

    def prefer(self, preference: Sequence[float] | Tensor | Mapping[str, float]) -> ParetoSet:
        """Makes the set stand for another preference, and returns it.

        Args:
            preference: K numbers of at least 0 in the tasks' order or by name, which are divided by their sum.

        Raises:
            InputError: other numbers.
        """
        if isinstance(preference, Mapping):
            if set(preference) != set(self.tasks):
                raise InputError(
                    f"a preference by name must name {', '.join(self.tasks)}; got {', '.join(map(str, preference))}"
                )
            preference = [float(preference[task]) for task in self.tasks]
        row = torch.as_tensor(preference, dtype=torch.float64, device="cpu")
        count = len(self.tasks)
        if row.shape != (count,) or not bool(torch.isfinite(row).all()) or float(row.min()) < 0 or not float(row.sum()) > 0:
            raise InputError(f"a preference must be {count} finite numbers of at least 0, not all 0; got {row.tolist()}")
        self.preference.copy_(row / row.sum())
        return self

    def play(self, act: Callable[[nn.Module], T]) -> T:
        """What ``act(model)`` gives, where the model is the member of the present preference.

        Everything that touches the model meanwhile meets its member; afterwards it is what it was. Gradients flow to the
        model's own parameters and the family's. The member's tensors are made once per call.
        """
        own: dict[str, Tensor] = dict(self.model.named_parameters())
        if self.frozen:
            own = {name: tensor.detach() for name, tensor in own.items()}
        tensors = {**(own if self.frozen else {}), **self.family.tensors(self.preference, own)}
        with ExitStack() as stack:
            for name, hook in self.family.hooks(self.preference):
                handle = self.model.get_submodule(name).register_forward_hook(hook)
                stack.callback(handle.remove)
            found: T = played(self.model, tensors, act)
        return found

    def forward(self, *given: Any, **named: Any) -> Any:
        """Calls the model as its member of the present preference."""
        return self.play(lambda model: model(*given, **named))

    def losses(self, losses: LossFunction) -> LossFunction:
        """A loss function of the set from one of the model: ``losses(model, batch)`` meets the present member."""

        def of_the_member(own: Any, batch: Any) -> Any:
            given = as_losses(own.play(lambda model: losses(model, batch)), self.tasks, some=False)

            def postponed(loss: LazyLoss) -> LazyLoss:
                return lambda: own.play(lambda _: loss())

            return {name: loss if isinstance(loss, Tensor) else postponed(loss) for name, loss in given.items()}

        return of_the_member

    def front(
        self,
        loader: Iterable[Any],
        count: int = 11,
        evaluate: Evaluation | None = None,
        *,
        losses: LossFunction | None = None,
        preferences: Tensor | Sequence[Sequence[float]] | None = None,
    ) -> Front:
        """Evaluates evenly spaced members, in evaluation mode and without gradients; the present preference stays.

        Args:
            loader: what is gone over once per member.
            count: how many members, about; see :func:`~equipoise.pareto.grid`.
            evaluate: ``evaluate(model, loader) -> {metric: value}``.
            losses: in its place, ``losses(model, batch)``, whose means over batches are the values, by task.
            preferences: ``[n, K]``, in place of the count.

        Raises:
            InputError: neither ``evaluate`` nor ``losses``, or both; or preferences that are none.
        """
        if evaluate is None and losses is not None:
            judge: Evaluation = mean_losses(losses, self.tasks)
        elif evaluate is not None and losses is None:
            judge = evaluate
        else:
            raise InputError("front() takes evaluate= or losses=; give one of the two")
        rows = (
            grid(count, len(self.tasks))
            if preferences is None
            else torch.as_tensor(preferences, dtype=torch.float64, device="cpu")
        )
        before = self.preference.clone()
        values = []
        try:
            with evaluating(self), torch.no_grad():
                for row in rows:
                    found = self.prefer(row).play(lambda model: judge(model, loader))
                    values.append({name: float(value) for name, value in found.items()})
        finally:
            self.preference.copy_(before)
        return Front(rows, tuple(values))

    def member(self, preference: Sequence[float] | Tensor | Mapping[str, float]) -> nn.Module:
        """A model of its own for one preference: a copy of yours with the member's parameters, which needs the set no longer.

        Where the family acts on layers' outputs, the copy's layers keep hooks that do so.
        """
        before = self.preference.clone()
        copied = copy.deepcopy(self.model)
        try:
            with torch.no_grad():
                self.prefer(preference)
                own = dict(copied.named_parameters())
                for name, tensor in self.family.tensors(self.preference, dict(self.model.named_parameters())).items():
                    own[name].copy_(tensor)
                for name, hook in self.family.hooks(self.preference.clone()):
                    copied.get_submodule(name).register_forward_hook(hook)
        finally:
            self.preference.copy_(before)
        return copied

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups for an optimizer: the model's parameters at ``lr``, the family's faster where published settings do so."""
        return [
            {"params": list(self.model.parameters()), "lr": lr},
            {"params": list(self.family.parameters()), "lr": lr * self.family.lr_factor},
        ]


def check_family(text: str) -> tuple[Callable[..., Family], dict[str, Any]]:
    """What makes the family that a text names, and its options.

    Raises:
        InputError: there is no such family, or it has no such option.
    """
    name, _, rest = text.partition(":")
    make = FAMILIES.find(name)
    known = {option: kind for option, kind in kinds_of(make).items() if option not in ("model", "tasks", "generator")}
    options = settled(read_options(rest, text, "family"))
    refuse_unknown_options(name, options, known, "family")
    return make, checked(known, options, f'family "{name}"')


def _family(text: str, model: nn.Module, tasks: int, seed: int) -> Family:
    make, options = check_family(text)
    return make(model, tasks, **options, generator=torch.Generator().manual_seed(seed))


def mean_losses(losses: LossFunction, tasks: tuple[str, ...]) -> Evaluation:
    """What evaluates a model by the means of its losses over batches, by task."""

    def evaluate(model: Any, loader: Iterable[Any]) -> dict[str, float]:
        sums, counts = dict.fromkeys(tasks, 0.0), dict.fromkeys(tasks, 0)
        for batch in loader:
            for name, loss in as_losses(losses(model, batch), tasks).items():
                sums[name] += float(scalar(name, loss, differentiable=False))
                counts[name] += 1
        return {task: sums[task] / max(1, counts[task]) for task in tasks}

    return evaluate
