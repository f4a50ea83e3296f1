"""COST: when tasks conflict, move the shared parameters to a point of equal losses and less conflict, then go on."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise.teleport.agreement import Agreement, check_agreement
from equipoise.teleport.deltas import Delta, LowRank
from equipoise.teleport.formulation import Formulation, formulation_named
from equipoise.teleport.guard import Guard
from equipoise.teleport.history import blend, discount, reset, similarity
from equipoise.teleport.joint import Array, JointLosses
from equipoise.teleport.probe import ProbeLike, Probes
from equipoise.teleport.report import TeleportReport
from equipoise.teleport.schedule import Limits, Schedule
from equipoise.teleport.search import InnerOptimizer, Search
from equipoise.teleport.triggers import Trigger, TriggerLike, as_trigger, default_trigger, mean_cosines, norms

if TYPE_CHECKING:
    from equipoise.optimizer import MultiTaskOptimizer

__all__ = ["COST", "History"]

History = Literal["reuse", "mass", "reset", "keep", "released"]

_SMALLEST_SIZE = 1e-3
"""A loss close to zero is divided by this share of the largest it ever was, not by itself."""


class COST:
    def __init__(
        self,
        trigger: TriggerLike = None,
        *,
        delta: Delta | None = None,
        formulation: str | Formulation = "paper",
        gamma: float | None = None,
        radius: float | None = None,
        samples: int = 5,
        seek: Literal["sharpness"] | Agreement = "sharpness",
        steps: int = 20,
        lr: float = 0.01,
        optimizer: InnerOptimizer = torch.optim.Adam,
        scaling: Literal["relative", "none"] | None = None,
        probe: ProbeLike = "recent",
        probe_batches: int = 2,
        held_out_batches: int = 2,
        guard: bool = True,
        tolerance: float = 0.05,
        history: History | None = None,
        start: int = 0,
        stop: int | None = None,
        start_step: int = 0,
        stop_step: int | None = None,
        per_epoch: int | None = None,
        cooldown: int = 10,
        budget: float | None = 0.1,
        check_every: int = 50,
        seed: int = 0,
    ) -> None:
        if delta is not None and not isinstance(delta, Delta):
            raise InputError(f"delta must be LowRank(), LoHa(), OFT() or Dense(); got {type(delta).__name__}")
        if isinstance(formulation, Formulation):
            if gamma is not None or radius is not None:
                raise InputError("gamma and radius belong to the formulation; give them to it, not to COST")
        else:
            formulation = formulation_named(formulation, gamma=gamma, radius=radius)
        for name, value in (("samples", samples), ("steps", steps), ("check_every", check_every)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number from 1 on; got {value!r}")
        if not lr > 0:
            raise InputError(f"lr must be a positive step size of the inner optimizer; got {lr}")
        if seek != "sharpness":
            check_agreement(seek)
        released = formulation.name == "released"
        scaling = scaling or ("none" if released else "relative")
        if scaling not in ("relative", "none"):
            raise InputError(f'scaling must be "relative" or "none"; got "{scaling}"')
        history = history or ("released" if released else "keep")
        if history not in get_args(History):
            raise InputError(f'history must be one of {", ".join(get_args(History))}; got "{history}"')
        self.trigger = as_trigger(trigger if trigger is not None else formulation.default_trigger)
        self.delta = delta or LowRank()
        self.search = Search(
            formulation,
            samples,
            None if seek == "sharpness" else seek,
            steps,
            lr,
            optimizer,
            scaling == "relative",
        )
        self.guard = Guard(tolerance) if guard else None
        self.history_policy: History = history
        self.check_every = check_every
        self.history: list[TeleportReport] = []
        self._schedule = Schedule(Limits(start, stop, start_step, stop_step, per_epoch, cooldown, budget))
        self._probes = Probes(probe, probe_batches, held_out_batches)
        self._generator = torch.Generator().manual_seed(seed)
        self._largest: Array | None = None
        self._pending: float | None = None
        self._moved: tuple[str, ...] = ()
        self._last_check = -check_every
        self._warned = False

    # -- what MultiTaskOptimizer calls

    def before_step(self, optimizer: MultiTaskOptimizer) -> None:
        """Applies the history's blend that a landing left for the gradients of the next step."""
        if self._pending is None:
            return
        named = dict(optimizer.objective.model.named_parameters())
        moved = [named[name] for name in self._moved if name in named]
        grads = [parameter.grad for parameter in moved if parameter.grad is not None]
        if not all(bool(torch.isfinite(grad.coalesce().values() if grad.is_sparse else grad).all()) for grad in grads):
            return  # an overflow of the gradient scaler: no step will be taken, so it is too early
        blend(optimizer.optimizer, moved, self._pending)
        self._pending, self._moved = None, ()

    def after_step(self, optimizer: MultiTaskOptimizer, batches: tuple[Any, ...]) -> TeleportReport | None:
        """Looks whether tasks conflict and, where that is due, attempts a teleport."""
        assert optimizer.last is not None
        report = optimizer.last
        self._probes.remember(batches)
        tasks = len(report.tasks)
        formed = report.gramian is not None
        backwards = 1 if optimizer.balancer.needs == "losses" else tasks
        self._schedule.count_step(len(batches) * (1.0 + 2.0 * backwards + float(optimizer.balancer.watches)))
        if tasks < 2 or not self._probes.ready:
            return None
        check = 0.0 if formed else len(batches) * (1.0 + 2.0 * tasks)
        if not formed and report.step - self._last_check < self.check_every:
            return None
        if not self._schedule.due(report.step, self._cost(tasks) + check):
            return None
        gramian = report.gramian
        if gramian is None:
            self._last_check = report.step
            self._schedule.spent += check
            gramian = optimizer.gramian(*batches)
        trigger = self.trigger or default_trigger(len(optimizer.objective.tasks))
        if not trigger(gramian.numpy()):
            return None
        return self._attempt(optimizer, trigger, tasks)

    def end_epoch(self) -> None:
        """Says that a pass over the data is over."""
        self._schedule.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how it goes on: counters, random state, held batches, a blend still to come, history."""
        return {
            "schedule": self._schedule.state_dict(),
            "probes": self._probes.state_dict(),
            "generator": self._generator.get_state(),
            "largest": None if self._largest is None else torch.from_numpy(self._largest.copy()),
            "pending": self._pending,
            "moved": list(self._moved),
            "last_check": self._last_check,
            "history": [report.as_dict() for report in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state.

        Raises:
            InputError: it is no state of a COST.
        """
        missing = self.state_dict().keys() - state.keys()
        if missing:
            raise InputError(f"this is no state of a COST: it lacks {', '.join(sorted(missing))}")
        self._schedule.load_state_dict(state["schedule"])
        self._probes.load_state_dict(state["probes"])
        self._generator.set_state(state["generator"])
        self._largest = None if state["largest"] is None else state["largest"].numpy().copy()
        self._pending = state["pending"]
        self._moved = tuple(state["moved"])
        self._last_check = state["last_check"]
        self.history = [TeleportReport.from_dict(entries) for entries in state["history"]]

    @property
    def epoch(self) -> int:
        """How many epochs are over."""
        return self._schedule.epoch

    def __repr__(self) -> str:
        trigger = self.trigger.name if self.trigger else "by the number of tasks"
        return f"COST({trigger}, {self.delta!r}, {self.search.formulation.name}; {len(self.history)} attempts)"

    # -- one attempt

    def _cost(self, tasks: int) -> float:
        """Evaluations that an attempt needs, a backward pass counted as two."""
        search, judge = self._probes.sizes
        return self.search.cost(tasks) + search + 2.0 * judge * (2.0 + 2.0 * tasks)

    def _attempt(self, mtl: MultiTaskOptimizer, trigger: Trigger, tasks: int) -> TeleportReport:
        began = time.perf_counter()
        step = mtl.last.step if mtl.last is not None else 0
        self._schedule.spent += self._cost(tasks)
        search_batches, judge_batches = self._probes.batches()
        shared = _named_shared(mtl)
        device = next(iter(shared.values())).device
        joint = JointLosses(mtl.objective.tasks, mtl.processes, device)
        seed = int(torch.randint(2**62, (), generator=self._generator))
        generator = torch.Generator(device).manual_seed(seed)
        adaptation = self.delta.adapt(shared, generator)
        names, losses_before, gram_before = self._look(mtl, judge_batches, joint)
        positions = mtl.objective.tasks.positions(names)
        found = self.search.run(
            mtl.objective,
            adaptation,
            shared,
            search_batches,
            joint,
            gram=gram_before,
            tasks=names,
            scales=self._sizes,
            generator=generator,
            loss_scale=1.0 if mtl.scaler is None else mtl.scaler.get_scale(),
        )
        sigma = distance = 0.0
        losses_after, gram_after, objection = losses_before[:0], None, found.failure
        if found.deltas is not None:
            backup = {name: shared[name].detach().clone() for name in found.deltas}
            _move(shared, found.deltas)
            try:
                _, losses_after, gram_after = self._look(mtl, judge_batches, joint)
                objection = self._objection(trigger, positions, losses_before, losses_after, gram_before, gram_after)
            except BaseException:
                _restore(shared, backup)
                raise
            sigma = _similarity(shared, found.deltas)
            distance = math.sqrt(sum(float(delta.double().square().sum()) for delta in found.deltas.values()))
            if objection:
                _restore(shared, backup)
            else:
                self._settle_history(mtl, tuple(found.deltas), sigma)
        torch.clear_autocast_cache()  # casts made of other values must not be met again
        if found.failure and not self._warned:
            self._warned = True
            warnings.warn(f"a teleport was given up and the model stays where it was: {found.failure}", stacklevel=4)
        self._schedule.count_attempt(step, accepted=not objection)
        report = TeleportReport(
            step=step,
            epoch=self._schedule.epoch,
            trigger=trigger.name,
            tasks=tuple(names),
            accepted=not objection,
            reason=objection or "equal losses and no more conflict than before" if self.guard else objection or "not guarded",
            sigma=sigma,
            distance=distance,
            cosines_before=_tuple(mean_cosines(gram_before)),
            cosines_after=_tuple(() if gram_after is None else mean_cosines(gram_after)),
            norms_before=_tuple(norms(gram_before)),
            norms_after=_tuple(() if gram_after is None else norms(gram_after)),
            losses_before=_tuple(losses_before),
            losses_after=_tuple(losses_after),
            measure_before=float(trigger.measure(gram_before)),
            measure_after=float("nan") if gram_after is None else float(trigger.measure(gram_after)),
            invariance=tuple(found.invariance),
            reward=tuple(found.reward),
            seconds=time.perf_counter() - began,
        )
        self.history.append(report)
        return report

    def _objection(
        self, trigger: Trigger, positions: list[int], before: Array, after: Array, gram_before: Array, gram_after: Array
    ) -> str:
        # Whatever the user wants, the model does not go where nothing is finite.
        if not (np.isfinite(after).all() and np.isfinite(gram_after).all()):
            return "a loss or gradient is not finite there"
        if self.guard is None:
            return ""
        full = np.zeros(len(self._largest) if self._largest is not None else max(positions) + 1)
        full[positions] = before
        sizes = np.abs(before).clip(min=1e-30) if not self.search.relative else self._sizes(full)[positions]
        measures = float(trigger.measure(gram_before)), float(trigger.measure(gram_after))
        return self.guard.objection(before, after, sizes, *measures)

    def _look(self, mtl: MultiTaskOptimizer, batches: list[Any], joint: JointLosses) -> tuple[list[str], Array, Array]:
        """Losses and Gramian of the tasks that some batches hold, at the model's present parameters."""
        values = []
        with torch.no_grad():
            for batch in batches:
                evaluated = mtl.objective.at({}, batch, random_state=mtl.objective.random_state())
                values.append(joint.means([evaluated]))
        present = np.stack([counts for _, counts in values]).clip(max=1.0)
        sums = sum(mean[0] for mean, _ in values)
        means = sums / present.sum(0).clip(min=1.0)
        torch.clear_autocast_cache()
        gram = mtl.gramian(*batches).numpy()
        held = present.sum(0) > 0
        names = [name for name, there in zip(mtl.objective.tasks.names, held, strict=True) if there]
        return names, means[held], gram

    def _sizes(self, losses: Array) -> Array:
        """What the losses ``[K]`` are divided by so that γ means the same for large and for small ones."""
        if not self.search.relative:
            return np.ones_like(losses)
        own = np.abs(losses)
        self._largest = own if self._largest is None or len(self._largest) != len(own) else np.maximum(self._largest, own)
        return np.maximum(own, _SMALLEST_SIZE * self._largest).clip(min=1e-30)

    def _settle_history(self, mtl: MultiTaskOptimizer, names: tuple[str, ...], sigma: float) -> None:
        named = dict(mtl.objective.model.named_parameters())
        moved = [named[name] for name in names]
        policy = self.history_policy
        if policy == "reset" or (policy == "released" and sigma <= 0):
            reset(mtl.optimizer, moved)
        elif policy == "mass":
            discount(mtl.optimizer, moved, sigma)
        elif policy in ("reuse", "released"):
            # The blend needs the gradient at the new point, which the next step brings.
            self._pending, self._moved = sigma, names


def _named_shared(mtl: MultiTaskOptimizer) -> dict[str, Tensor]:
    ids = {id(parameter) for parameter in mtl.shared}
    found: dict[str, Tensor] = {
        name: parameter for name, parameter in mtl.objective.model.named_parameters() if id(parameter) in ids
    }
    if not found:
        raise InputError(
            "none of the shared parameters belongs to the objective's model, so there is nothing to teleport; "
            "make the objective with the module that holds them"
        )
    return found


def _similarity(shared: dict[str, Tensor], deltas: dict[str, Tensor]) -> float:
    """σ over all shared parameters; one that is not adapted has moved by zero."""
    grads = {name: parameter.grad for name, parameter in shared.items() if parameter.grad is not None}
    return similarity((deltas.get(name, torch.zeros(())).expand(grad.shape), grad) for name, grad in grads.items())


@torch.no_grad()
def _move(shared: dict[str, Tensor], deltas: dict[str, Tensor]) -> None:
    for name, delta in deltas.items():
        shared[name].add_(delta)
    torch.clear_autocast_cache()


@torch.no_grad()
def _restore(shared: dict[str, Tensor], backup: dict[str, Tensor]) -> None:
    for name, values in backup.items():
        shared[name].copy_(values)
    torch.clear_autocast_cache()


def _tuple(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
