"""COST: when tasks conflict, move the shared parameters to a point of equal losses and less conflict, then go on."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise.teleport.agreement import Agreement, check_agreement
from equipoise.teleport.attempt import Attempt, attempt_cost
from equipoise.teleport.checks import check_whole
from equipoise.teleport.deltas import Delta, LowRank
from equipoise.teleport.formulation import Formulation, formulation_named
from equipoise.teleport.guard import Guard
from equipoise.teleport.history import blend, discount, reset
from equipoise.teleport.parameters import shared_by_name
from equipoise.teleport.probe import ProbeLike, Probes
from equipoise.teleport.report import TeleportReport
from equipoise.teleport.schedule import Limits, Schedule
from equipoise.teleport.search import InnerOptimizer, Search
from equipoise.teleport.sizes import LossSizes
from equipoise.teleport.triggers import TriggerLike, as_trigger, default_trigger

if TYPE_CHECKING:
    from equipoise.optimizer import MultiTaskOptimizer

__all__ = ["COST", "History"]

History = Literal["reuse", "mass", "reset", "keep", "released"]


class COST:
    """Continual optimisation with symmetry teleportation (Zhou et al., 2025), on top of any balancer and any torch optimizer.

    After a step in which the ``trigger`` saw a conflict, and if one is due, the shared parameters θ are moved to θ + Δθ. In the
    paper that is a point where every task's loss is about the same and the landscape is sharper (section 4.1, eq. 7 to 11); by
    default here it is one where no loss is higher and the neglected task's is lower. Δθ is found by a few steps of an inner
    optimizer on an objective evaluated at *substituted* parameters: the model is not touched until it lands, parameters keep
    their identity, and buffers and random state stay as they are. A guard lets it land only if the losses allow it on batches
    that no inner step has seen. What the torch optimizer remembers is treated as ``history`` says (eq. 12 and 13).

    Several defaults depart from the paper, on the evidence in the guide's page on COST and digits: losses may fall
    (``formulation="pareto"``), the optimizer's memory is kept, a landing is guarded, and a budget holds the cost of all
    teleporting to a tenth of training's. ``COST(formulation="paper", guard=False, history="reuse", scaling="none", lr=0.01,
    budget=None, per_epoch=1)`` follows the paper to the letter, ``COST(formulation="released", guard=False, budget=None,
    per_epoch=1)`` its released code.

    Args:
        trigger: ``"dominated"`` (eq. 3), ``"weak"`` (any pair), ``"majority"`` (eq. 4), ``"released"``, a
            :class:`~equipoise.teleport.Trigger` or a function of the Gramian ``[K, K]``. Left out: eq. 3, and eq. 4 from ten
            tasks on.
        delta: along which directions: :class:`LowRank` (rank 5, or the largest that the weights have), :class:`LoHa`,
            :class:`OFT` or :class:`Dense`.
        formulation: what is sought: ``"pareto"`` (no loss may rise, the neglected tasks' are to fall), ``"paper"``,
            ``"released"``, or a :class:`~equipoise.teleport.Formulation`.
        gamma: γ of eq. 11; the formulation's own if left out: 0 for pareto's, 0.1 for the paper's.
        radius: δ of eq. 8, the norm of a perturbation; 0.1 for the paper's.
        invariance: factor of L_t in eq. 11; 1 for the paper's.
        descent: ρ of the pareto formulation, how much the fall of the neglected tasks' losses counts.
        samples: ñ of eq. 9, perturbations an inner step.
        seek: ``"sharpness"`` (eq. 9), or reward agreement of the task gradients instead, by second derivatives: ``"mean"``
            cosine with the mean gradient, the ``"smallest"`` of these, or the mean ``"pairwise"`` cosine.
        steps: inner steps.
        lr: step size of the inner optimizer.
        optimizer: makes the inner optimizer, called as ``optimizer(factors, lr=lr)``.
        scaling: ``"relative"`` divides each loss by its size before eq. 7 to 11, so that γ means the same for all;
            ``"none"`` takes them as they are. Relative by default, except in the released formulation.
        probe: batches for the search and the guard: ``"recent"`` ones (of the last steps), the ``"current"`` one (for both),
            or a loader, of which the first few are held.
        probe_batches: how many the search goes round, one an inner step.
        held_out_batches: how many others a landing is judged on.
        guard: ``"losses"``: land only if the losses on held-out batches allow it; ``True``: and only if the conflict there is
            no worse; ``False``: land wherever everything is finite.
        tolerance: the relative loss change that the guard allows. Where losses may fall, the largest rise of a task, 0.02 if
            left out; else the mean over tasks of the changes, 0.05 if left out.
        history: ``"keep"`` the optimizer's moving averages, ``"reuse"`` a share σ of them (the blend of eq. 13), discount them
            by ``"mass"``, ``"reset"`` them, or as ``"released"`` (reset where σ ≤ 0, else reuse).
        start: first epoch in which to teleport, counted from 0 by calls of ``end_epoch``.
        stop: first epoch in which not to any more.
        start_step: first step to teleport after.
        stop_step: first step not to teleport after any more.
        per_epoch: attempts an epoch at most.
        cooldown: steps from one attempt to the next at least; doubled by each refusal in a row, up to 64-fold.
        budget: the most that teleporting may cost, as a share of what training cost so far, in evaluations of the losses (a
            backward pass counts as two); ``None`` for no limit.
        check_every: with balancers that form no Gramian: form one in every so many steps in which a teleport would be due.
        seed: of the factors and the perturbations; the same on all processes.

    Attributes:
        history: a :class:`~equipoise.teleport.TeleportReport` of every attempt.

    Raises:
        InputError: an option that cannot be used. During training: nothing to adapt, a rank larger than every layer, or probe
            batches that do not fit.

    Example:
        >>> import equipoise as eq
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        >>> def losses(model, batch):
        ...     inputs, targets = batch
        ...     errors = (model(inputs) - targets).square().mean(0)
        ...     return {"near": errors[0], "far": errors[1]}
        >>> optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        >>> cost = COST("weak", delta=LowRank(rank=2), cooldown=5, budget=None)
        >>> mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, eq.FairGrad(), teleport=cost)
        >>> for _ in range(60):
        ...     _ = mtl.step((torch.randn(16, 4), torch.randn(16, 2)))
        >>> len(cost.history) > 0, cost.history[0].trigger
        (True, 'weak')
    """

    def __init__(
        self,
        trigger: TriggerLike = None,
        *,
        delta: Delta | None = None,
        formulation: str | Formulation = "pareto",
        gamma: float | None = None,
        radius: float | None = None,
        invariance: float | None = None,
        descent: float | None = None,
        samples: int = 5,
        seek: Literal["sharpness"] | Agreement = "sharpness",
        steps: int = 20,
        lr: float = 0.003,
        optimizer: InnerOptimizer = torch.optim.Adam,
        scaling: Literal["relative", "none"] | None = None,
        probe: ProbeLike = "recent",
        probe_batches: int = 8,
        held_out_batches: int = 1,
        guard: bool | Literal["losses"] = "losses",
        tolerance: float | None = None,
        history: History | None = None,
        start: int = 0,
        stop: int | None = None,
        start_step: int = 0,
        stop_step: int | None = None,
        per_epoch: int | None = None,
        cooldown: int = 10,
        budget: float | None = 0.1,
        check_every: int = 10,
        seed: int = 0,
    ) -> None:
        if delta is not None and not isinstance(delta, Delta):
            raise InputError(f"delta must be LowRank(), LoHa(), OFT() or Dense(); got {type(delta).__name__}")
        if isinstance(formulation, Formulation):
            if any(value is not None for value in (gamma, radius, invariance, descent)):
                raise InputError(
                    "gamma, radius, invariance and descent belong to the formulation; give them to it, not to COST"
                )
        else:
            formulation = formulation_named(formulation, gamma=gamma, radius=radius, invariance=invariance, descent=descent)
        for name, value in (("samples", samples), ("steps", steps), ("check_every", check_every)):
            check_whole(name, value, 1)
        if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 < lr < math.inf:
            raise InputError(f"lr must be a positive step size of the inner optimizer; got {lr!r}")
        if not callable(optimizer) or optimizer is torch.optim.LBFGS:
            raise InputError(
                f"optimizer must make a torch optimizer from factors and lr, as torch.optim.Adam; got {optimizer!r}"
                f"{' (which needs a closure)' if callable(optimizer) else ''}"
            )
        if not isinstance(guard, bool) and guard != "losses":
            raise InputError(f'guard must be True, False or "losses"; got {guard!r}')
        check_whole("seed", seed, 0)
        if seek != "sharpness":
            check_agreement(seek)
            if formulation.gamma == 0:
                raise InputError(f'seek="{seek}" is rewarded with the factor gamma, which is 0; give a positive gamma')
        released = formulation.name == "released"
        scaling = scaling or ("none" if released else "relative")
        if scaling not in ("relative", "none"):
            raise InputError(f'scaling must be "relative" or "none"; got "{scaling}"')
        history = history or ("released" if released else "keep")
        if history not in get_args(History):
            raise InputError(f'history must be one of {", ".join(get_args(History))}; got "{history}"')
        self.trigger = as_trigger(trigger if trigger is not None else formulation.default_trigger)
        self.delta = delta or LowRank()
        self.scaling = scaling
        self.search = Search(formulation, samples, None if seek == "sharpness" else seek, steps, lr, optimizer)
        # Made in any case, so that a tolerance that cannot be used is refused.
        tolerance = formulation.tolerance if tolerance is None else tolerance
        checked = Guard(tolerance, formulation.losses_may_fall, guard is True)
        self.tolerance = tolerance
        self.guard = checked if guard else None
        self.history_policy: History = history
        self.check_every = check_every
        self.history: list[TeleportReport] = []
        self._delta_given = delta is not None
        self._schedule = Schedule(Limits(start, stop, start_step, stop_step, per_epoch, cooldown, budget))
        self._probes = Probes(probe, probe_batches, held_out_batches)
        self._sizes = LossSizes(scaling == "relative")
        self._generator = torch.Generator().manual_seed(seed)
        self._pending: float | None = None
        self._moved: tuple[str, ...] = ()
        self._last_check = -check_every
        self._warned = False
        self._fits = False

    # -- what MultiTaskOptimizer calls

    def before_step(self, optimizer: MultiTaskOptimizer) -> None:
        """Applies the history's blend that a landing left for the gradients of the next step."""
        if self._pending is None:
            return
        everything = (parameter for group in optimizer.optimizer.param_groups for parameter in group["params"])
        if optimizer.scaler is not None and not all(map(_finite_gradient, everything)):
            return  # an overflow: no step will be taken, so it is too early
        named = dict(optimizer.objective.model.named_parameters())
        # Parameters that this step's tasks do not reach take no step, and wait for one.
        waiting = tuple(name for name in self._moved if name in named and named[name].grad is None)
        stepping = [named[name] for name in self._moved if name in named and name not in waiting]
        blend(optimizer.optimizer, stepping, self._pending)
        self._moved = waiting
        if not waiting:
            self._pending = None

    def after_step(self, optimizer: MultiTaskOptimizer, batches: tuple[Any, ...]) -> TeleportReport | None:
        """Looks whether tasks conflict and, where that is due, attempts a teleport; returns what became of it."""
        assert optimizer.last is not None
        report = optimizer.last
        self._check_fit(optimizer)
        self._probes.remember(batches)
        tasks = len(report.tasks)
        backwards = 1 if optimizer.balancer.needs == "losses" else tasks
        self._schedule.count_step(len(batches) * (1.0 + 2.0 * backwards + float(optimizer.balancer.watches)))
        if tasks < 2 or not self._probes.ready:
            return None
        gramian = report.gramian
        check = 0.0
        if gramian is None:
            if 0 <= report.step - self._last_check < self.check_every:
                return None
            check = len(batches) * (1.0 + 2.0 * tasks)
        expected = attempt_cost(self.search, self._probes, tasks)
        if not self._schedule.due(report.step, expected + check):
            return None
        if gramian is None:
            self._last_check = report.step
            self._schedule.spent += check
            gramian = optimizer.gramian(*batches)
        trigger = self.trigger or default_trigger(len(optimizer.objective.tasks))
        if not trigger(gramian.numpy()):
            return None
        self._check_fit(optimizer)
        self._schedule.spent += expected
        seed = int(torch.randint(2**62, (), generator=self._generator))
        attempt = Attempt(self.delta, self.search, self.guard, self._probes, self._sizes)
        outcome = attempt.make(optimizer, trigger, seed, self._schedule.epoch)
        self._schedule.count_attempt(report.step, accepted=outcome.report.accepted)
        self.history.append(outcome.report)
        if outcome.names:
            self._settle_history(optimizer, outcome.names, outcome.report.sigma)
        if outcome.failure and not self._warned:
            self._warned = True
            warnings.warn(f"a teleport was given up and the model stays where it was: {outcome.failure}", stacklevel=3)
        return outcome.report

    def end_epoch(self) -> None:
        """Says that a pass over the data is over."""
        self._schedule.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how it goes on: counters, random state, held batches, a blend still to come, history."""
        return {
            "schedule": self._schedule.state_dict(),
            "probes": self._probes.state_dict(),
            "sizes": self._sizes.state_dict(),
            "generator": self._generator.get_state(),
            "pending": self._pending,
            "moved": list(self._moved),
            "last_check": self._last_check,
            "warned": self._warned,
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
        self._sizes.load_state_dict(state["sizes"])
        self._generator.set_state(state["generator"])
        self._pending = state["pending"]
        self._moved = tuple(state["moved"])
        self._last_check = state["last_check"]
        self._warned = state["warned"]
        self.history = [TeleportReport.from_dict(entries) for entries in state["history"]]

    def __repr__(self) -> str:
        trigger = self.trigger.name if self.trigger else "by the number of tasks"
        return f"COST({trigger}, {self.delta!r}, {self.search.formulation.name}; {len(self.history)} attempts)"

    # -- inside

    def _check_fit(self, optimizer: MultiTaskOptimizer) -> None:
        """Refuses a delta that does not fit as soon as the shared parameters are known, not at the first conflict."""
        if self._fits or not optimizer.shared:
            return
        shared = shared_by_name(optimizer)
        if not self._delta_given:
            self.delta = LowRank().limited(shared)
        self.delta.adapt(shared, torch.Generator(next(iter(shared.values())).device))
        self._fits = True

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


def _finite_gradient(parameter: Tensor) -> bool:
    gradient = parameter.grad
    if gradient is None:
        return True
    return bool(torch.isfinite(gradient.coalesce().values() if gradient.is_sparse else gradient).all())
