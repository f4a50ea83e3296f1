"""The inner optimisation: trains the factors of Δθ towards equal losses on a sharper (or more agreeing) spot."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.engine.reals import flat
from equipoise.errors import InputError
from equipoise.modes import differentiable_twice, lacks_second_derivative, without_autocast
from equipoise.modules import evaluating
from equipoise.objective import Objective
from equipoise.randomness import RandomState
from equipoise.teleport.checks import check_number, check_whole
from equipoise.teleport.deltas import Adaptation
from equipoise.teleport.formulations import Formulation, FormulationLike, Terms, as_formulation
from equipoise.teleport.measure import Array, JointLosses, evaluated

__all__ = ["Agreement", "InnerOptimizer", "Search", "Searched", "agreement"]

_NOTHING = np.zeros(0)
InnerOptimizer: TypeAlias = Callable[..., torch.optim.Optimizer]
Agreement: TypeAlias = Literal["mean", "smallest", "pairwise"]


@dataclass
class Searched:
    """What an inner optimisation ended with.

    Attributes:
        deltas: Δθ by name; ``None`` if something stopped being finite.
        invariance: L_t before each inner step.
        reward: L_g, or the agreement, before each inner step.
        failure: what stopped being finite, in words.
    """

    deltas: dict[str, Tensor] | None = None
    invariance: list[float] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    failure: str = ""


@dataclass(frozen=True)
class _Probe:
    batch: Any
    random_state: RandomState
    reference: Array
    present: Array


@dataclass(frozen=True)
class Search:
    """The inner optimisation: what is sought at the other point, and how.

    Args:
        formulation: what is sought: ``"pareto"`` (no loss may rise, the neglected tasks' are to fall), ``"paper"`` (eq. 7 to
            11 of the COST paper), ``"released"``, or a :class:`~equipoise.teleport.Formulation`, such as
            ``PaperFormulation(gamma=0.2)``.
        samples: ñ of eq. 9, perturbations per inner step.
        seek: ``"sharpness"`` (eq. 9), or reward agreement of the task gradients instead, by second derivatives: the ``"mean"``
            cosine with the mean gradient, the ``"smallest"`` of these, or the mean ``"pairwise"`` cosine.
        steps: inner steps.
        passes: instead of ``steps``: how many times the search goes through its batches, an inner step on each.
        lr: step size of the inner optimizer; ``"training"`` for that with which the training began.
        optimizer: makes the inner optimizer; called as ``optimizer(factors, lr=lr)``.
        scaling: ``"relative"`` divides each loss by its size before eq. 7 to 11, so that γ means the same for all tasks;
            ``"none"`` takes losses as they are. Left out, what the formulation prefers: ``"none"`` for the released one, else
            ``"relative"``.

    Raises:
        InputError: an option that cannot be used.

    Example:
        >>> search = Search(formulation="paper", steps=5)
        >>> search.sought, search.relative
        (PaperFormulation(gamma=0.1, radius=0.1, invariance=1.0, pooled_reference=False), True)
    """

    formulation: FormulationLike = "pareto"
    samples: int = 5
    seek: Literal["sharpness"] | Agreement = "sharpness"
    steps: int = 20
    passes: int | None = None
    lr: float | Literal["training"] = 0.003
    optimizer: InnerOptimizer = torch.optim.Adam
    scaling: Literal["relative", "none"] | None = None

    def __post_init__(self) -> None:
        # Kept as an object, so that "paper" and PaperFormulation() make equal searches.
        object.__setattr__(self, "formulation", as_formulation(self.formulation))
        check_whole("samples", self.samples, 1)
        check_whole("steps", self.steps, 1)
        if self.passes is not None:
            check_whole("passes", self.passes, 1)
        if self.lr != "training":
            check_number("lr", self.lr, 'a positive step size of the inner optimizer, or "training"')
        if not callable(self.optimizer) or self.optimizer is torch.optim.LBFGS:
            raise InputError(
                f"optimizer must make a torch optimizer from factors and lr, as torch.optim.Adam; got {self.optimizer!r}"
                f"{' (which needs a closure)' if callable(self.optimizer) else ''}"
            )
        if self.scaling not in (None, "relative", "none"):
            raise InputError(f'scaling must be "relative" or "none"; got {self.scaling!r}')
        if self.seek not in ("sharpness", *get_args(Agreement)):
            raise InputError(f"seek must be one of sharpness, {', '.join(get_args(Agreement))}; got {self.seek!r}")
        if self.seek != "sharpness" and self.sought.gamma == 0:
            raise InputError(
                f'seek="{self.seek}" is rewarded with the factor gamma, which is 0; give the formulation a positive gamma'
            )

    @property
    def sought(self) -> Formulation:
        """The formulation."""
        assert isinstance(self.formulation, Formulation)
        return self.formulation

    @property
    def relative(self) -> bool:
        """Whether losses are divided by their sizes."""
        return self.sought.relative if self.scaling is None else self.scaling == "relative"

    def inner_steps(self, batches: int) -> int:
        """How many inner steps a search on so many batches takes."""
        return self.steps if self.passes is None else self.passes * batches

    def cost(self, tasks: int, batches: int) -> float:
        """Evaluations that a search on so many batches needs, a backward pass counted as two."""
        steps = self.inner_steps(batches)
        if self.seek != "sharpness":
            # K first derivatives, and as many second ones at about twice the price.
            return steps * (3.0 + 6.0 * tasks)
        samples = self.perturbations
        differentiated = self.sought.differentiated(samples, tasks)
        # All perturbations without a graph (a single one that matters has one at once), then those that turn out to matter.
        sampled = 3.0 * samples if samples < 2 and differentiated else samples + 3.0 * differentiated
        return steps * (3.0 + sampled + 3.0 * (self.sought.on_trigger and samples > 0))

    @property
    def perturbations(self) -> int:
        """Perturbations per inner step that are needed."""
        return 0 if self.seek != "sharpness" or self.sought.gamma == 0 else self.samples

    def run(
        self,
        objective: Objective,
        adaptation: Adaptation,
        shared: Mapping[str, Tensor],
        batches: Collection[Any],
        joint: JointLosses,
        *,
        triggering: Sequence[Any],
        training_lr: float,
        gramian: Array,
        tasks: Sequence[str],
        sizes: Callable[[Array], Array],
        judged: Array,
        generator: torch.Generator,
        loss_scale: float = 1.0,
    ) -> Searched:
        """Searches.

        Args:
            objective: the losses; evaluated by substitution only.
            adaptation: the factors, which end where the search ends.
            shared: all shared parameters by name; they are perturbed, adapted or not.
            batches: taken in turn, one per inner step; a sequence, or what draws others whenever it is gone through.
            joint: averages losses over processes.
            triggering: the batches of the step that asked for the teleport.
            training_lr: the step size with which the training began.
            gramian: Gramian of the task gradients ``[k, k]``, for R.
            tasks: names of its tasks.
            sizes: from losses ``[K]`` to what they are divided by.
            judged: losses ``[K]`` on the batches that a landing is judged on, for tasks that the search's batches lack.
            generator: for the perturbations.
            loss_scale: of a gradient scaler.
        """
        inner = self.optimizer(adaptation.factors, lr=training_lr if self.lr == "training" else self.lr)
        with evaluating(objective.model) if self.sought.evaluation_mode else nullcontext():
            held = isinstance(batches, Sequence)
            seen = (_probe(objective, batch, joint) for batch in batches)
            probes = [probe if held else replace(probe, batch=None) for probe in seen]  # a whole training set is not held
            pooled = _pooled(probes)
            scales = sizes(np.where(_anywhere(probes), pooled, judged))
            balance = np.zeros(len(joint.tasks))
            norms = np.sqrt(np.diagonal(gramian).clip(min=0.0))
            positions = joint.tasks.positions(tasks)
            balance[positions] = self.sought.balance(norms / scales[positions])
            perturbed = dict(objective.model.named_parameters()) if self.sought.perturbs_all else shared
            frozen = {name: tensor.detach() for name, tensor in perturbed.items()}
            course = _Course(self, objective, adaptation, shared, frozen, joint, balance, scales, generator, loss_scale)
            triggers = [_probe(objective, batch, None) for batch in triggering] if self.sought.on_trigger else []

            pools = self.sought.pooled_reference

            def in_turn() -> Iterator[_Probe]:
                while True:
                    # Other batches have another L*; the model itself stays at θ, so that can be had at any time.
                    yield from probes if held else (_probe(objective, batch, None if pools else joint) for batch in batches)

            for step, probe in enumerate(islice(in_turn(), self.inner_steps(len(batches)))):
                reference = pooled if pools else probe.reference
                gradients = course.gradients(probe, reference, triggers[step % len(triggers)] if triggers else None)
                if gradients is None:
                    return course.found
                for factor, gradient in zip(adaptation.factors, gradients, strict=True):
                    factor.grad = gradient
                inner.step()
        with torch.no_grad():
            course.found.deltas = {name: delta.detach() for name, delta in adaptation.deltas().items()}
        return course.found


@dataclass(frozen=True)
class _Course:
    """A search under way: what all of its inner steps have in common."""

    search: Search
    objective: Objective
    adaptation: Adaptation
    shared: Mapping[str, Tensor]
    perturbed: Mapping[str, Tensor]
    joint: JointLosses
    balance: Array
    sizes: Array
    generator: torch.Generator
    loss_scale: float
    found: Searched = field(default_factory=Searched)

    def gradients(self, probe: _Probe, reference: Array, trigger: _Probe | None) -> list[Tensor] | None:
        """Gradients of the factors in one inner step; ``None`` if something is not finite.

        Args:
            probe: the batch on which losses are to be kept.
            reference: L_i* ``[K]``.
            trigger: where L_g is taken on another batch, that one.
        """
        point = self.adaptation.elsewhere()
        samples = self.search.perturbations
        noises = [self.search.sought.noise(self.perturbed, self.generator) for _ in range(samples)]
        with nullcontext() if self.search.seek == "sharpness" else differentiable_twice():
            losses = self.objective.at(point, probe.batch, random_state=probe.random_state)
        part = self._part(point, losses, probe, noises if trigger is None else [], reference)
        if part is None:
            return None
        total, terms = part
        reward = terms.reward
        if trigger is not None and samples:
            there = self.objective.at(point, trigger.batch, random_state=trigger.random_state)
            part = self._part(point, there, trigger, noises)
            if part is None:
                return None
            total, reward = total + part[0], part[1].reward
        if self.search.seek != "sharpness":
            named = self.objective.model.named_parameters()
            others = [tensor for name, tensor in named if name in self.shared and name not in point]
            measure = agreement(losses, [*point.values(), *others], self.search.seek)
            agreed = self.joint.processes.sum(measure.detach().double().clone()) / self.joint.processes.count
            reward = float(agreed)
            total = total - self.search.sought.gamma * measure / self.joint.processes.count
        self.found.invariance.append(terms.invariance)
        self.found.reward.append(reward)
        factors = self.adaptation.factors
        try:
            with without_autocast(total.device):
                gradients = torch.autograd.grad(total * self.loss_scale, factors, allow_unused=True)
        except RuntimeError as error:
            if not lacks_second_derivative(error):
                raise
            raise InputError(
                f'seek="{self.search.seek}" differentiates the losses twice, and one of the layers can be differentiated '
                f'once only ({str(error).partition(chr(10))[0]}); take seek="sharpness", which needs first derivatives'
            ) from error
        filled = [
            torch.zeros_like(factor) if gradient is None else gradient / self.loss_scale
            for factor, gradient in zip(factors, gradients, strict=True)
        ]
        filled = self.joint.processes.sum_all(filled, "gradients of a teleport's search")
        if not bool(torch.isfinite(torch.stack([norm.double() for norm in torch._foreach_norm(filled)])).all()):
            self.found.failure = "the gradient of the search became non-finite"
            return None
        return filled

    def _part(
        self,
        point: Mapping[str, Tensor],
        losses: Mapping[str, Tensor],
        probe: _Probe,
        noises: Sequence[Mapping[str, Tensor]],
        reference: Array | None = None,
    ) -> tuple[Tensor, Terms] | None:
        """The objective on one batch, this process's share of it; without a reference, there is no L_t in it."""
        sought, joint = self.search.sought, self.joint

        def perturbed(noise: Mapping[str, Tensor], evaluate: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
            moved = {name: point.get(name, tensor) + noise[name] for name, tensor in self.perturbed.items()}
            return evaluate(moved, probe.batch, random_state=probe.random_state)

        # With several perturbations only the largest rise needs a graph, if any: the others are evaluated without.
        single = len(noises) == 1 and sought.differentiated(1, len(losses)) > 0
        tried = [perturbed(noise, self.objective.at if single else self.objective.values) for noise in noises]
        values, counts = joint.means([losses, *tried])
        if not np.isfinite(values).all():
            fine = np.isfinite(values.sum(0))
            bad = [name for name, is_fine in zip(joint.tasks.names, fine, strict=True) if not is_fine]
            self.found.failure = f"the loss of {', '.join(bad)} became non-finite"
            return None
        present = counts > 0
        scaled = values[:, present] / self.sizes[present]
        kept = scaled[0] if reference is None else reference[present] / self.sizes[present]
        terms = sought.terms(scaled[0], scaled[1:], kept, self.balance[present])
        total = self._weighted(losses, terms.at_point, present, counts)
        for number, row in enumerate(terms.at_samples):
            if row.any():
                sample = tried[number] if single else perturbed(noises[number], self.objective.at)
                total = total + self._weighted(sample, row, present, counts)
        return total, terms

    def _weighted(self, losses: Mapping[str, Tensor], coefficients: Array, present: NDArray[np.bool_], counts: Array) -> Tensor:
        """Σ_i c_i L_i / (s_i · number of processes that have task i): this process's share of the objective."""
        full = np.zeros(len(counts))
        full[present] = coefficients / self.sizes[present] / counts[present]
        names = list(losses)
        own = full[self.joint.tasks.positions(names)].tolist()
        parts = [losses[name] * coefficient for name, coefficient in zip(names, own, strict=True)]
        total: Tensor = functools.reduce(torch.add, parts)
        return total


def agreement(losses: Mapping[str, Tensor], parameters: Sequence[Tensor], kind: Agreement) -> Tensor:
    """How well the task gradients agree, differentiable once more.

    Sharpness is a stand-in for the gradient norm that needs first derivatives only. What a teleport is for is less conflict,
    and that can be rewarded directly, for second derivatives of the losses.

    Args:
        losses: task → loss, with their graphs.
        parameters: with respect to which the losses are differentiated: the shared ones.
        kind: ``"mean"`` cosine of the tasks with the mean gradient, the ``"smallest"`` of these cosines, or the mean
            ``"pairwise"`` cosine.

    Returns:
        A scalar from -1 to 1.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> losses = {"a": (x**2).sum(), "b": (x**3).sum()}
        >>> round(float(agreement(losses, [x], "pairwise").detach()), 3)
        0.976
    """
    rows = []
    for loss in losses.values():
        gradients = torch.autograd.grad(loss, list(parameters), create_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    flat(torch.zeros_like(parameter) if gradient is None else gradient.to_dense())
                    for gradient, parameter in zip(gradients, parameters, strict=True)
                ]
            )
        )
    stacked = torch.stack(rows)
    gramian = stacked @ stacked.T
    # The root of a vanishing square has no derivative; such a task agrees with nobody.
    norms = gramian.diagonal().clamp(min=1e-30).sqrt()
    if kind == "pairwise":
        cosines = gramian / torch.outer(norms, norms)
        tasks = len(rows)
        return (cosines.sum() - cosines.diagonal().sum()) / max(tasks * (tasks - 1), 1)
    cosines = gramian.mean(1) / (norms * gramian.mean().clamp(min=1e-30).sqrt())
    return cosines.min() if kind == "smallest" else cosines.mean()


def _probe(objective: Objective, batch: Any, joint: JointLosses | None) -> _Probe:
    # Every evaluation of this batch draws the same dropout masks, and training's random state stays put.
    random_state = objective.random_state()
    if joint is None:  # its losses at θ are not asked for
        return _Probe(batch, random_state, _NOTHING, _NOTHING)
    values, counts = joint.means([evaluated(objective, batch, random_state)])
    return _Probe(batch, random_state, values[0], counts)


def _anywhere(probes: Sequence[_Probe]) -> NDArray[np.bool_]:
    """Which tasks any of the batches holds, ``[K]``."""
    held: NDArray[np.bool_] = np.stack([probe.present for probe in probes]).sum(0) > 0
    return held


def _pooled(probes: Sequence[_Probe]) -> Array:
    """Mean losses over the batches that hold the task, ``[K]``."""
    present = np.stack([probe.present for probe in probes]).clip(max=1.0)
    sums: Array = (np.stack([probe.reference for probe in probes]) * present).sum(0)
    means: Array = sums / present.sum(0).clip(min=1.0)
    return means
