"""Populations: several models at once that spread over the front, by hypervolume or by repulsion."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equipoise.engine.reals import flat, shaped
from equipoise.errors import InputError, NonFiniteError, UnknownMethodError, near_misses, refuse_unknown_options
from equipoise.method import as_teleport, settled
from equipoise.modules import RunningStatistics, evaluating
from equipoise.objective import LossFunction, Objective
from equipoise.options import checked, kinds_of
from equipoise.pareto.sets import Evaluation, Front, mean_losses
from equipoise.randomness import RandomState
from equipoise.solvers import hypervolume_weights, minimum_norm_point, ranks
from equipoise.states import Anything, Listed, Maybe, Number, Text, Whole, read_model, read_optimizer, read_state

__all__ = ["MOOSVGD", "POPULATIONS", "HVGrad", "Population"]


@dataclass
class HVGrad:
    """Hypervolume gradients (Deist et al., EMO 2023, arXiv 2102.04523): all models together dominate as much as they can.

    Model i descends Σ_k w_ik ∇L_ik with w_ik = -∂HV/∂L_ik, scaled to length 1 over k. Dominated models would have no weights:
    each front of equal rank has the hypervolume of its own. The reference point is moved out to where 1.1 times the largest
    losses are, so that none is beyond it. One backward pass per step, of all models' weighted losses. The paper's text could
    not be had beyond its abstract; this follows the released code, which does not scale weights below 1e-8 and has none where a
    coordinate is shared.

    Args:
        reference: ``[K]``, in the tasks' order; left out, 1.1 times the largest losses of the first step.
    """

    reference: Sequence[float] | None = None

    def descend(self, losses: Tensor, parameters: Sequence[Sequence[nn.Parameter]]) -> None:
        """Fills ``.grad`` of all models' parameters; losses ``[n, K]`` with their graphs."""
        (losses * torch.from_numpy(self.weights(losses.detach().double().cpu().numpy())).to(losses)).sum().backward()

    def weights(self, points: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """W ``[n, K]``; the first call sets a reference that was left out."""
        top = points.max(axis=0)
        top = top + 0.1 * np.abs(top)
        if self.reference is None:
            self.reference = top.tolist()
        if len(self.reference) != points.shape[1]:
            raise InputError(f"the reference of hvgrad has {len(self.reference)} numbers for {points.shape[1]} tasks")
        corner, rank, found = np.maximum(self.reference, top), ranks(points), np.zeros_like(points)
        for front in range(rank.max() + 1):
            found[rank == front] = hypervolume_weights(points[rank == front], corner)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return found / np.where(lengths > 0, lengths, 1.0)


@dataclass
class MOOSVGD:
    """MOO-SVGD (Liu, Tong and Liu, NeurIPS 2021): all models descend by MGDA, and push each other away.

        θ_i ← θ_i - η/n Σ_j (κ_ij g*_j + ρ ∂κ_ij/∂θ_i),   κ_ij = exp(-‖L_i - L_j‖²/h),

    g*_j being the point of smallest norm among model j's task gradients, and h = median ‖L_i - L_j‖² / log n. One backward pass
    per task and model. The paper's text could not be had; this follows the released code, whose exponent -h‖·‖²/5e-6 lets
    models act on each other at a touch only. Much repulsion keeps models off the front: on the concave toy of the tests, whose
    losses are below 1, ρ = 0.03 and h = 0.04 reach it, and ρ = 1 does not.

    Args:
        bandwidth: h, above 0; the median's if left out.
        repulsion: ρ, not negative.
    """

    bandwidth: float | None = None
    repulsion: float = 1.0

    def __post_init__(self) -> None:
        if (self.bandwidth is not None and not self.bandwidth > 0) or not 0 <= self.repulsion < math.inf:
            raise InputError(f"moo-svgd takes a bandwidth above 0 and a repulsion from 0 on; got {self}")

    def descend(self, losses: Tensor, parameters: Sequence[Sequence[nn.Parameter]]) -> None:
        """Fills ``.grad`` of all models' parameters, which must agree in shape; losses ``[n, K]`` with their graphs."""
        rows = torch.stack([torch.stack([_row(loss, own) for loss in of]) for of, own in zip(losses, parameters, strict=True)])
        points = losses.detach().to(rows)
        apart = points[:, None] - points
        squares = apart.square().sum(2)
        width = self.bandwidth or float(squares.flatten().quantile(0.5)) / math.log(len(points)) or 1.0
        kernel = torch.exp(-squares / width)
        steepest = []
        for own in rows:
            w = minimum_norm_point((own.double() @ own.double().T).cpu().numpy())
            steepest.append(torch.from_numpy(w).to(own) @ own)
        pushes = -2 / width * (kernel[:, :, None] * apart).sum(1)  # Σ_j ∂κ_ij/∂L_i
        total = kernel @ torch.stack(steepest) + self.repulsion * torch.einsum("nk,nkp->np", pushes, rows)
        for own, direction in zip(parameters, total / len(points), strict=True):
            for parameter, piece in zip(own, direction.split([flat(p).numel() for p in own]), strict=True):
                parameter.grad = shaped(parameter, piece).to(parameter).clone()


POPULATIONS: Mapping[str, Callable[..., HVGrad | MOOSVGD]] = {"hvgrad": HVGrad, "moo-svgd": MOOSVGD}
"""What moves a population, by name."""


class Population:
    """Several models of the same tasks, trained together so that they spread over the front; no preferences are needed.

    Args:
        models: at least two, started apart: equal ones stay equal.
        losses: ``losses(model, batch)``, as for :class:`~equipoise.Objective`; every batch must hold all tasks.
        optimizer: a torch optimizer of all their parameters.
        method: ``"hvgrad"``, ``"moo-svgd(bandwidth=0.1)"`` or such an object.

    Attributes:
        models: as given.
        tasks: names, from the first step on.
        steps: taken so far.

    Raises:
        InputError: fewer than two models, parameters that are shared or, for ``moo-svgd``, of other shapes, or no such method.

    Example:
        >>> models = [nn.Linear(2, 1, bias=False) for _ in range(3)]
        >>> def losses(model, x):
        ...     return {"one": (model(x) - 1).square().mean(), "other": (model(x) + 1).square().mean()}
        >>> optimizer = torch.optim.SGD([p for model in models for p in model.parameters()], 0.05)
        >>> population = Population(models, losses, optimizer)
        >>> for _ in range(3):
        ...     _ = population.step(torch.eye(2))
        >>> population.front([torch.eye(2)]).points(population.tasks).shape
        (3, 2)
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        losses: LossFunction,
        optimizer: torch.optim.Optimizer,
        method: str | HVGrad | MOOSVGD = "hvgrad",
    ) -> None:
        self.models = list(models)
        if isinstance(method, str):
            named = as_teleport(method)
            make = POPULATIONS.get(named.name)
            if make is None:
                raise UnknownMethodError(f'no population is moved by "{named.name}".{near_misses(named.name, POPULATIONS)}')
            refuse_unknown_options(named.name, named.options, inspect.signature(make).parameters)
            method = make(**checked(kinds_of(make), settled(named.options), f'method "{named.name}"'))
        self.method, self.optimizer = method, optimizer
        self._parameters = [[p for p in model.parameters() if p.requires_grad] for model in self.models]
        every = [id(p) for own in self._parameters for p in own]
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if len(self.models) < 2 or len(set(every)) < len(every) or not all(self._parameters) or not set(every) <= held:
            raise InputError(
                f"a population needs two models or more, each with parameters of its own in the optimizer; got "
                f"{len(self.models)} models, {len(every)} parameters, {len(set(every))} different, {len(held)} in the optimizer"
            )
        if isinstance(method, MOOSVGD) and len({tuple(p.shape for p in own) for own in self._parameters}) > 1:
            raise InputError("moo-svgd adds the models' gradients up, so their parameters must agree in shape")
        self._objectives = [Objective(model, losses) for model in self.models]
        self._losses = losses
        self._statistics = [RunningStatistics(model) for model in self.models]
        self.tasks: tuple[str, ...] = ()
        self.steps = 0

    def step(self, batch: Any) -> Tensor:
        """One step of all models on one batch; the graphs of all of them live until it is taken.

        Returns:
            The losses before it, ``[n, K]``, detached.

        Raises:
            InputError: a batch that lacks tasks.
            NonFiniteError: a loss or gradient is not finite. Nothing has changed then, the random state included.
        """
        random = RandomState.capture(p for own in self._parameters for p in own)
        before = getattr(self.method, "reference", None)
        for statistics in self._statistics:
            statistics.keep()
        self.optimizer.zero_grad(set_to_none=True)
        try:
            found = [objective(batch) for objective in self._objectives]
            names = self.tasks or tuple(found[0])
            for one in found:
                if set(one) != set(names):
                    raise InputError(f"a population needs all tasks in each batch ({', '.join(names)}); got {', '.join(one)}")
            losses = torch.stack([torch.stack([one[name] for name in names]) for one in found])
            _check(losses, names, self.steps, "loss")
            self.method.descend(losses, self._parameters)
            gradients = [[flat(p.grad) for p in own if p.grad is not None] for own in self._parameters]
            sizes = torch.stack([torch.cat(own).abs().sum() if own else losses.new_zeros(()) for own in gradients])
            _check(sizes[:, None].expand_as(losses), names, self.steps, "gradient")
        except BaseException:
            for statistics in self._statistics:
                statistics.restore()
            self.optimizer.zero_grad(set_to_none=True)
            random.restore()
            if isinstance(self.method, HVGrad):
                self.method.reference = before
            raise
        self.optimizer.step()
        self.tasks, self.steps = names, self.steps + 1
        return losses.detach()

    def front(self, loader: Iterable[Any], evaluate: Evaluation | None = None) -> Front:
        """Evaluates all models, in evaluation mode and without gradients.

        Args:
            loader: what ``evaluate`` goes over, once per model.
            evaluate: ``evaluate(model, loader) -> {metric: value}``; left out, the mean losses over batches by task.

        Returns:
            Their values, in order; the ``preferences`` of a population are not numbers.
        """
        judge = evaluate or mean_losses(self._losses, self.tasks)
        values = []
        for model in self.models:
            with evaluating(model), torch.no_grad():
                values.append({name: float(value) for name, value in judge(model, loader).items()})
        return Front(
            torch.full((len(values), max(1, len(self.tasks))), math.nan, dtype=torch.float64, device="cpu"), tuple(values)
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how training continues."""
        return {
            "models": [model.state_dict() for model in self.models],
            "optimizer": self.optimizer.state_dict(),
            "reference": getattr(self.method, "reference", None),
            "tasks": list(self.tasks),
            "steps": self.steps,
        }

    def load_state_dict(self, state: Any) -> None:
        """Continues from a saved state. Raises InputError: it is of another population; nothing has changed."""
        kinds = {
            "models": Listed(Anything(), len(self.models)),
            "optimizer": Anything(),
            "reference": Maybe(Listed(Number())),
            "tasks": Listed(Text()),
            "steps": Whole(),
        }
        read = read_state("a Population", state, kinds)
        models = read["models"]
        for place, (model, own) in enumerate(zip(self.models, models, strict=True)):
            read_model(f"model {place}", own, model.state_dict())
        read_optimizer("the optimizer", read["optimizer"], self.optimizer)
        for model, own in zip(self.models, models, strict=True):
            model.load_state_dict(own)
        self.optimizer.load_state_dict(read["optimizer"])
        self.tasks, self.steps = tuple(read["tasks"]), read["steps"]
        if isinstance(self.method, HVGrad):
            self.method.reference = read["reference"]


def _row(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(parameters, found, strict=True)
    return torch.cat([flat(torch.zeros_like(own) if gradient is None else gradient) for own, gradient in pairs])


def _check(values: Tensor, names: tuple[str, ...], step: int, what: str) -> None:
    """Refuses losses or gradients ``[n, K]`` that are not finite."""
    bad = ~values.isfinite()
    if bool(bad.any()):
        tasks = tuple(name for name, wrong in zip(names, bad.any(0).tolist(), strict=True) if wrong)
        models = ", ".join(str(place) for place, wrong in enumerate(bad.any(1).tolist()) if wrong)
        raise NonFiniteError(
            f"the {what} of {', '.join(tasks)} is not finite in step {step} for model {models}; nothing has changed",
            tasks=tasks,
            step=step,
            what=what,
        )
