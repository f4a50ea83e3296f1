"""One attempt to teleport: search, move, look, and stay there or come back."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equipoise.engine.reals import flat
from equipoise.errors import InputError
from equipoise.states import Form, Listed, Number, Switch, Text, Whole, read_state
from equipoise.teleport.deltas import Delta
from equipoise.teleport.guard import Guard
from equipoise.teleport.history import similarity
from equipoise.teleport.measure import Array, JointLosses, LossSizes, View, look
from equipoise.teleport.probes import HeldBatches
from equipoise.teleport.search import Search, Searched
from equipoise.teleport.triggers import Trigger, mean_cosines, norms

if TYPE_CHECKING:
    from equipoise.optimizer import MultiTaskOptimizer

__all__ = [
    "Landing",
    "TeleportAttempt",
    "TeleportReport",
    "attempt_cost",
    "gradient_similarity",
    "move",
    "optimized",
    "restore",
    "shared_by_name",
]


@dataclass(frozen=True)
class TeleportReport:
    """One attempt. Vectors have one entry per task, in the order of ``tasks``.

    What is called *before* and *after* was measured at θ and at θ + Δθ on the held-out batches, or on the step's own where
    none are held out; what begins with *batch*, on the step's own in any case: those that the trigger saw, and from which the
    step is taken. With a proxy, the step's own Gramians are the proxy's.

    Attributes:
        step: index of the step in which it was made.
        epoch: counted from 0.
        trigger: name of the condition that asked for it.
        tasks: names of the tasks that the batches hold.
        accepted: whether the parameters were moved.
        reason: why, in words.
        sigma: cos(Δθ, g') of eq. 12, with the combined gradient of the step's batches at θ.
        distance: ‖Δθ‖.
        cosines_before: cosine of each task gradient with the mean gradient.
        cosines_after: the same at θ + Δθ; empty if the search failed.
        norms_before: norm of each task gradient.
        norms_after: the same at θ + Δθ.
        losses_before: each task's loss.
        losses_after: the same at θ + Δθ.
        measure_before: the trigger's measure of conflict; above zero is conflict.
        measure_after: the same at θ + Δθ.
        invariance: L_t before each inner step.
        reward: L_g (or the agreement that was sought) before each inner step.
        seconds: wall time of the attempt.
        batch_tasks: names of the tasks that the step's batches hold; the next entries are theirs.
        batch_cosines_before: as ``cosines_before``, on the step's batches.
        batch_cosines_after: the same at θ + Δθ; empty where the guard refused before the step was evaluated there.
        batch_norms_before: as ``norms_before``, on the step's batches.
        batch_norms_after: the same at θ + Δθ.
        batch_losses_before: as ``losses_before``, on the step's batches.
        batch_losses_after: the same at θ + Δθ.
    """

    step: int
    epoch: int
    trigger: str
    tasks: tuple[str, ...]
    accepted: bool
    reason: str
    sigma: float
    distance: float
    cosines_before: tuple[float, ...]
    cosines_after: tuple[float, ...]
    norms_before: tuple[float, ...]
    norms_after: tuple[float, ...]
    losses_before: tuple[float, ...]
    losses_after: tuple[float, ...]
    measure_before: float
    measure_after: float
    invariance: tuple[float, ...]
    reward: tuple[float, ...]
    seconds: float
    batch_tasks: tuple[str, ...] = ()
    batch_cosines_before: tuple[float, ...] = ()
    batch_cosines_after: tuple[float, ...] = ()
    batch_norms_before: tuple[float, ...] = ()
    batch_norms_after: tuple[float, ...] = ()
    batch_losses_before: tuple[float, ...] = ()
    batch_losses_after: tuple[float, ...] = ()

    @property
    def changes(self) -> tuple[float, ...]:
        """Relative change of each loss, (after - before) / |before|; empty if the search failed."""
        return tuple(
            (after - before) / max(abs(before), 1e-30)
            for before, after in zip(self.losses_before, self.losses_after, strict=False)
        )

    @property
    def growth(self) -> float:
        """What the task gradients' norms were multiplied by, the geometric mean over tasks; ``nan`` where one is not known.

        Eq. 6 seeks more than 1.
        """
        pairs = list(zip(self.norms_before, self.norms_after, strict=False))
        if not pairs or min(map(min, pairs)) <= 0:
            return math.nan
        return math.exp(sum(math.log(after / before) for before, after in pairs) / len(pairs))

    def as_dict(self) -> dict[str, Any]:
        """As plain lists and numbers, for a record or a saved state."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> TeleportReport:
        """The report that :meth:`as_dict` came from. Raises InputError: these are the entries of none."""
        of_type: dict[str, Form] = {"int": Whole(), "str": Text(), "bool": Switch(), "float": Number(finite=False)}
        of_type |= {f"tuple[{name}, ...]": Listed(kind) for name, kind in of_type.items()}
        kinds = {field.name: of_type[str(field.type)] for field in fields(cls)}
        left_out = {field.name: field.default for field in fields(cls) if field.default is not MISSING}
        return cls(**read_state("COST's attempts", left_out | entries if isinstance(entries, dict) else entries, kinds))


_NOT_FINITE = "a loss or gradient is not finite"


@dataclass(frozen=True)
class Landing:
    """How an attempt stands.

    Attributes:
        report: what happened.
        moved: the parameters that were moved, by name, with their values before; empty where none was.
        failure: what stopped being finite during the search, in words; empty if nothing did.
    """

    report: TeleportReport
    moved: Mapping[str, tuple[Tensor, Tensor]]
    failure: str = ""

    def taken_back(self, reason: str) -> Landing:
        """The parameters are where they were; says why."""
        restore({name: own for name, (own, _) in self.moved.items()}, {name: value for name, (_, value) in self.moved.items()})
        return Landing(replace(self.report, accepted=False, reason=reason), {}, self.failure)


def attempt_cost(search: Search, probes: HeldBatches, tasks: int) -> float:
    """Evaluations that an attempt needs, a backward pass counted as two; without those of the step at the new point."""
    searched, judged = probes.sizes
    return search.cost(tasks, searched) + searched + 2.0 * judged * (2.0 + 2.0 * tasks)


@dataclass(frozen=True)
class TeleportAttempt:
    """Everything an attempt consists of.

    Attributes:
        delta: the directions in which to search.
        search: how to search there.
        guard: whether to land; ``None`` to land wherever everything is finite.
        probes: batches to search on and to judge on.
        sizes: what losses are divided by.
        trigger: the condition that asked for it.
    """

    delta: Delta
    search: Search
    guard: Guard | None
    probes: HeldBatches
    sizes: LossSizes
    trigger: Trigger

    def make(self, mtl: MultiTaskOptimizer, seen: View, batches: Sequence[Any], step: int, seed: int, epoch: int) -> Landing:
        """Makes the attempt; the parameters are at θ + Δθ afterwards, or to the bit where they were.

        Args:
            mtl: whose ``.grad`` is the combined gradient at θ.
            seen: losses and Gramian of the step's batches at θ.
            batches: those.
            step: which step it is.
            seed: of the factors and the perturbations.
            epoch: which epoch it is.

        Raises:
            InputError: nothing to adapt, or probe batches that do not fit.
        """
        began = time.perf_counter()
        search_batches, judge_batches = self.probes.batches()
        device = next(mtl.objective.model.parameters()).device
        joint = JointLosses(mtl.objective.tasks, mtl.processes, device)
        before = look(mtl, judge_batches, joint) if judge_batches else seen
        shared = shared_by_name(mtl)
        after: View | None = None
        found = Searched()
        sigma = distance = 0.0
        backup: dict[str, Tensor] = {}
        if before.gramian is None or seen.gramian is None:
            found.failure = objection = f"{_NOT_FINITE} on the probe batches"
        else:
            generator = torch.Generator(next(iter(shared.values())).device).manual_seed(seed)
            found = self.search.run(
                mtl.objective,
                self.delta.adapt(shared, generator),
                shared,
                search_batches,
                joint,
                triggering=batches,
                training_lr=_training_lr(mtl, shared),
                gramian=seen.gramian,
                tasks=seen.names,
                sizes=self.sizes,
                judged=before.all_losses if before.names != seen.names else seen.all_losses,
                generator=generator,
                loss_scale=1.0 if mtl.scaler is None else mtl.scaler.get_scale(),
            )
            objection = found.failure
        if found.deltas is not None:
            sigma = gradient_similarity(shared, found.deltas)
            distance = math.sqrt(sum(float(flat(delta).double().square().sum()) for delta in found.deltas.values()))
            backup = {name: shared[name].detach().clone() for name in found.deltas}
            try:
                move(shared, found.deltas)
                if judge_batches:
                    after = look(mtl, judge_batches, joint)
                    objection = self._objection(before, after, mtl.objective.tasks.positions(before.names))
            except BaseException:
                restore(shared, backup)
                raise
            if objection:
                restore(shared, backup)
        torch.clear_autocast_cache()
        report = TeleportReport(
            step=step,
            epoch=epoch,
            trigger=self.trigger.name,
            tasks=before.names,
            accepted=not objection,
            reason=objection or ("all checks passed" if self.guard else "not guarded"),
            sigma=sigma,
            distance=distance,
            invariance=tuple(found.invariance),
            reward=tuple(found.reward),
            **_seen("before", before, self.trigger),
            **_seen("after", after, self.trigger),
            seconds=time.perf_counter() - began,
            batch_tasks=seen.names,
            **_seen("before", seen),
        )
        landed = () if objection or found.deltas is None else tuple(found.deltas)
        return Landing(report, {name: (shared[name], backup[name]) for name in landed}, found.failure)

    def arrive(self, mtl: MultiTaskOptimizer, landing: Landing, seen: View, there: View | None) -> Landing:
        """What became of it once the step's batches were evaluated at θ + Δθ; takes it back where they object.

        Args:
            mtl: whose tasks they are.
            landing: from :meth:`make`.
            seen: losses and Gramian of the step's batches at θ.
            there: the same at θ + Δθ; ``None`` where something is not finite.
        """
        report = landing.report
        if there is not None:
            report = replace(report, **_seen("after", there))
        if not self.probes.held_out:
            report = replace(report, **_seen("after", there, self.trigger))
            objection = self._objection(seen, there, mtl.objective.tasks.positions(seen.names))
        else:
            objection = "" if there is not None and there.gramian is not None else f"{_NOT_FINITE} there"
        landing = Landing(report, landing.moved, landing.failure)
        return landing.taken_back(objection) if objection else landing

    def _objection(self, before: View, after: View | None, positions: list[int]) -> str:
        # Whatever the user wants, the model does not go where nothing is finite.
        if after is None or after.gramian is None or before.gramian is None:
            return f"{_NOT_FINITE} there"
        if self.guard is None:
            return ""
        # A change is relative even where the search takes the losses as they are.
        sizes = self.sizes.of(before.all_losses)[positions]
        measures = float(self.trigger.measure(before.gramian)), float(self.trigger.measure(after.gramian))
        return self.guard.objection(before.losses, after.losses, sizes, *measures, self.search.sought)


def _seen(when: str, view: View | None, trigger: Trigger | None = None) -> dict[str, Any]:
    """The part of a report that tells of one look: with the trigger's measure, or on the step's own batches."""
    losses: Array | Sequence[float] = () if view is None else view.losses
    gramian = None if view is None else view.gramian
    of = "batch_" if trigger is None else ""
    told: dict[str, Any] = {
        f"{of}losses_{when}": _tuple(losses),
        f"{of}cosines_{when}": () if gramian is None else _tuple(mean_cosines(gramian)),
        f"{of}norms_{when}": () if gramian is None else _tuple(norms(gramian)),
    }
    if trigger is not None:
        told[f"measure_{when}"] = math.nan if gramian is None else float(trigger.measure(gramian))
    return told


def _tuple(values: Array | Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def optimized(mtl: MultiTaskOptimizer) -> list[Tensor]:
    """All that the torch optimizers hold."""
    return [p for optimizer in mtl.optimizers for group in optimizer.param_groups for p in group["params"]]


def shared_by_name(mtl: MultiTaskOptimizer) -> dict[str, Tensor]:
    """The shared parameters that are trained, by their names in the model.

    One that the torch optimizer does not hold has been frozen that way, and is not teleported either.

    Raises:
        InputError: there are none.
    """
    ids = {id(parameter) for parameter in mtl.shared if parameter.requires_grad} & set(map(id, optimized(mtl)))
    named = mtl.objective.model.named_parameters()
    found: dict[str, Tensor] = {name: parameter for name, parameter in named if id(parameter) in ids}
    if not found:
        raise InputError(
            "none of the shared parameters belongs to the objective's model and is trained, so there is nothing to teleport; "
            "make the objective with the module that holds them"
        )
    return found


def _training_lr(mtl: MultiTaskOptimizer, shared: Mapping[str, Tensor]) -> float:
    """The step size with which the training of the shared parameters began; that of now where no schedule keeps it."""
    some = next(iter(shared.values()))
    groups = (group for optimizer in mtl.optimizers for group in optimizer.param_groups)
    group = next(group for group in groups if any(some is parameter for parameter in group["params"]))
    return float(group.get("initial_lr", group["lr"]))


@torch.no_grad()
def move(shared: Mapping[str, Tensor], deltas: Mapping[str, Tensor]) -> None:
    """Adds Δθ in place."""
    for name, delta in deltas.items():
        shared[name].add_(delta)
    torch.clear_autocast_cache()  # casts made of other values must not be met again


@torch.no_grad()
def restore(shared: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Puts values back, to the bit."""
    for name, value in values.items():
        shared[name].copy_(value)
    torch.clear_autocast_cache()


def gradient_similarity(shared: Mapping[str, Tensor], deltas: Mapping[str, Tensor]) -> float:
    """σ of eq. 12 over all shared parameters; one that is not adapted has moved by zero."""
    grads = {name: parameter.grad for name, parameter in shared.items() if parameter.grad is not None}
    return similarity(
        (deltas[name] if name in deltas else grad.new_zeros(()).expand(grad.shape), grad) for name, grad in grads.items()
    )
