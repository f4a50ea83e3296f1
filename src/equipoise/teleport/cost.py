"""COST: when tasks conflict, move the shared parameters to a point of equal losses and less conflict, then go on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from equipoise.engine.sparse import stored
from equipoise.errors import InputError
from equipoise.states import Anything, Fields, Form, Generator, Listed, Maybe, Number, Switch, Text, Whole, read_state
from equipoise.teleport.attempt import TeleportAttempt, TeleportReport, attempt_cost, shared_by_name
from equipoise.teleport.checks import check_whole
from equipoise.teleport.deltas import DeltaLike, LowRank, as_delta
from equipoise.teleport.guard import Guard
from equipoise.teleport.history import HistoryLike, as_history, blend
from equipoise.teleport.measure import LossSizes
from equipoise.teleport.probes import HeldBatches, Probes
from equipoise.teleport.schedule import Counters, Schedule
from equipoise.teleport.search import Search
from equipoise.teleport.triggers import TriggerLike, as_trigger, default_trigger

if TYPE_CHECKING:
    from equipoise.optimizer import MultiTaskOptimizer

__all__ = ["COST"]


class COST:
    """Continual optimization with symmetry teleportation (Zhou et al., 2025), on top of any balancer and any torch optimizer.

    After a step in which the ``trigger`` saw a conflict, and if the ``schedule`` allows it, the shared parameters θ are moved
    to θ + Δθ. In the paper that is a point where every task's loss is about the same and the landscape is sharper (section
    4.1, eq. 7 to 11); by default here it is one where no loss is higher and the neglected task's is lower. The ``delta`` gives
    Δθ its shape; a ``search`` finds it by a few steps of an inner optimizer on losses evaluated at *substituted* parameters:
    the model is not touched until it lands, parameters keep their identity, and buffers and random state stay as they are. A
    ``guard`` lets it land only if the losses allow it on batches that no inner step has seen. What the torch optimizer
    remembers is treated as ``history`` says (eq. 12 and 13).

    Several defaults depart from the paper, on the evidence in the guide's page on COST and digits: losses may fall, the
    optimizer's memory is kept, a landing is guarded, and a budget holds the cost of all teleporting to a tenth of training's.
    :meth:`paper` and :meth:`released` are other settings.

    Args:
        trigger: when to look for another point: ``"dominated"`` (eq. 3), ``"weak"`` (any pair of tasks), ``"majority"`` (eq.
            4), ``"released"``, a :class:`~equipoise.teleport.Trigger` or a function of the Gramian ``[K, K]``. Left out: the
            formulation's own if it has one, else eq. 3, and eq. 4 from ten tasks on.
        delta: along which directions: ``"lowrank"``, ``"loha"``, ``"oft"``, ``"dense"``, or a
            :class:`~equipoise.teleport.Delta` such as ``LowRank(rank=3)``. Left out: low rank, with rank 5 or the largest that
            the weights have.
        search: what is sought there, and how.
        guard: whether to land; ``None`` to land wherever everything is finite.
        schedule: when an attempt may be made, and what all attempts may cost.
        probes: the batches to search on and to judge on.
        history: what becomes of the optimizer's memory: ``"keep"`` it, ``"reuse"`` a share σ of it (eq. 13), discount it by
            ``"mass"``, ``"reset"`` it, ``"released"`` (reset where σ ≤ 0, else reuse), or a
            :class:`~equipoise.teleport.History`. Left out: the formulation's own, which is ``"keep"`` except for
            ``"released"``.
        seed: of the factors and the perturbations; the same on all processes.

    Attributes:
        attempts: a :class:`~equipoise.teleport.TeleportReport` of every attempt, in order.
        waits: why no attempt was made after a step → after how many, since this object was made.

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
        >>> cost = COST("weak", delta=LowRank(rank=2), schedule=Schedule(cooldown=5, budget=None))
        >>> mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, eq.FairGrad(), teleport=cost)
        >>> for _ in range(60):
        ...     _ = mtl.step((torch.randn(16, 4), torch.randn(16, 2)))
        >>> len(cost.attempts) > 0, cost.attempts[0].trigger
        (True, 'weak')
    """

    def __init__(
        self,
        trigger: TriggerLike = None,
        *,
        delta: DeltaLike | None = None,
        search: Search = Search(),  # noqa: B008  (it is frozen)
        guard: Guard | None = Guard(),  # noqa: B008
        schedule: Schedule = Schedule(),  # noqa: B008
        probes: Probes = Probes(),  # noqa: B008
        history: HistoryLike | None = None,
        seed: int = 0,
    ) -> None:
        if guard is not None:
            _check_kind("guard", guard, Guard, " or None")
        _check_kind("search", search, Search)
        _check_kind("schedule", schedule, Schedule)
        _check_kind("probes", probes, Probes)
        check_whole("seed", seed, 0)
        formulation = search.sought
        self.trigger = as_trigger(formulation.default_trigger if trigger is None else trigger)
        self.delta = LowRank() if delta is None else as_delta(delta)
        self.search = search
        self.guard = guard
        self.schedule = schedule
        self.probes = probes
        self.history = as_history(formulation.history if history is None else history)
        self.seed = seed
        self.attempts: list[TeleportReport] = []
        self.waits: dict[str, int] = {}
        self._delta_given = delta is not None
        self._counters = Counters(schedule)
        self._held = HeldBatches(probes)
        self._sizes = LossSizes(search.relative)
        self._generator = torch.Generator().manual_seed(seed)
        self._pending: float | None = None
        self._moved: tuple[str, ...] = ()
        self._last_check = -schedule.check_every
        self._warned = False
        self._fits = False

    @classmethod
    def paper(cls, trigger: TriggerLike = None, **settings: Any) -> Self:
        """COST that seeks what the paper seeks: ``COST(search=Search(formulation="paper"))``.

        Sets L_t - γ L_g as the objective (eq. 7 to 11) with γ = 0.1 and δ = 0.1: losses are to be kept from both sides, so the
        guard's tolerance is 5 % of the mean change. The schedule, the guard and the kept history are those of :class:`COST`.
        To the letter of the paper, a teleport is not guarded, it reuses history, it takes losses as they are, and it comes once
        per epoch::

            COST(
                search=Search(formulation="paper", scaling="none", lr=0.01),
                guard=None,
                schedule=Schedule(budget=None, per_epoch=1),
                history="reuse",
            )

        Args:
            trigger: as for :class:`COST`.
            settings: all else that :class:`COST` takes, except ``search``.

        Example:
            >>> COST.paper("weak", schedule=Schedule(per_epoch=1))
            COST(weak, LowRank(rank=5, alpha=8.0, vectors=False, targets=None), paper; 0 attempts)
        """
        return cls(trigger, search=Search(formulation="paper"), **settings)

    @classmethod
    def released(cls, trigger: TriggerLike = None, **settings: Any) -> Self:
        """COST that seeks what the paper's released code seeks: ``COST(search=Search(formulation="released"))``.

        Sets 10 L_t - 0.5 L_g as the objective, in evaluation mode and with L* averaged over the probe batches; losses as they
        are; the trigger (some task's cosine with the mean gradient is at most 0); and the history policy (reset where σ ≤ 0,
        else reuse). The guard, whose tolerance is 5 % of the mean change, and the schedule are those of :class:`COST`; the
        released code has neither a guard nor a budget: ``COST.released(guard=None, schedule=Schedule(budget=None,
        per_epoch=1))``.

        Args:
            trigger: as for :class:`COST`.
            settings: all else that :class:`COST` takes, except ``search``.

        Example:
            >>> cost = COST.released(guard=None)
            >>> cost.trigger, cost.history, cost.search.relative
            (Released(), ReleasedHistory(scope='all'), False)
        """
        return cls(trigger, search=Search(formulation="released"), **settings)

    def fresh(self, seed: int | None = None) -> Self:
        """A COST with the same settings that has seen nothing yet.

        Args:
            seed: of its random numbers; left out, the seed of this one.

        Example:
            >>> COST("weak").fresh(seed=3)
            COST(weak, LowRank(rank=5, alpha=8.0, vectors=False, targets=None), pareto; 0 attempts)
        """
        return type(self)(
            self.trigger,
            delta=self.delta if self._delta_given else None,
            search=self.search,
            guard=self.guard,
            schedule=self.schedule,
            probes=self.probes,
            history=self.history,
            seed=self.seed if seed is None else seed,
        )

    # -- what MultiTaskOptimizer calls

    def before_step(self, mtl: MultiTaskOptimizer) -> None:
        """Applies the history's blend that a landing left for the gradients of the next step."""
        if self._pending is None:
            return
        everything = (p for optimizer in mtl.optimizers for group in optimizer.param_groups for p in group["params"])
        if mtl.scaler is not None and not all(map(_finite_gradient, everything)):
            return  # an overflow: no step will be taken, so it is too early
        named = dict(mtl.objective.model.named_parameters())
        # Parameters that this step's tasks do not reach take no step, and wait for one.
        waiting = tuple(name for name in self._moved if name in named and named[name].grad is None)
        stepping = [named[name] for name in self._moved if name in named and name not in waiting]
        for optimizer in mtl.optimizers:  # each knows its own parameters
            blend(optimizer, stepping, self._pending)
        self._moved = waiting
        if not waiting:
            self._pending = None

    def after_step(self, mtl: MultiTaskOptimizer, batches: tuple[Any, ...]) -> TeleportReport | None:
        """Looks whether tasks conflict and, where that is due, attempts a teleport; returns what became of it."""
        assert mtl.last is not None
        report = mtl.last
        self._check_fit(mtl)
        self._held.remember(batches)
        tasks = len(report.tasks)
        backwards = 1 if mtl.balancer.needs == "losses" else tasks
        self._counters.count_step(len(batches) * (1.0 + 2.0 * backwards + float(mtl.balancer.watches)))
        if tasks < 2 or not self._held.ready:
            why = "one task in the batch" if tasks < 2 else "too few batches seen"
            return self._wait(self._counters.obstacle(report.step, 0.0) or why)
        gramian = report.gramian
        check = 0.0
        if gramian is None:
            if 0 <= report.step - self._last_check < self.schedule.check_every:
                return self._wait("not looked for conflict")
            check = len(batches) * (1.0 + 2.0 * tasks)
        expected = attempt_cost(self.search, self._held, tasks)
        if obstacle := self._counters.obstacle(report.step, expected + check):
            return self._wait(obstacle)
        if gramian is None:
            self._last_check = report.step
            self._counters.spent += check
            gramian = mtl.gramian(*batches)
        trigger = self.trigger or default_trigger(len(mtl.objective.tasks))
        if not trigger(gramian.numpy()):
            return self._wait("no conflict")
        self._check_fit(mtl)
        self._counters.spent += expected
        seed = int(torch.randint(2**62, (), generator=self._generator, device="cpu"))
        attempt = TeleportAttempt(self.delta, self.search, self.guard, self._held, self._sizes)
        outcome = attempt.make(mtl, trigger, seed, self._counters.epoch)
        self._counters.count_attempt(report.step, accepted=outcome.report.accepted)
        self.attempts.append(outcome.report)
        if outcome.names:
            self._settle_history(mtl, outcome.names, outcome.report.sigma)
        if outcome.failure and not self._warned:
            self._warned = True
            warnings.warn(f"a teleport was given up and the model stays where it was: {outcome.failure}", stacklevel=3)
        return outcome.report

    def _wait(self, why: str) -> TeleportReport | None:
        self.waits[why] = self.waits.get(why, 0) + 1
        return None

    def end_epoch(self) -> None:
        """Says that a pass over the data is over."""
        self._counters.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how it continues: counters, random state, held batches, a blend still to come, attempts."""
        return {
            "schedule": self._counters.state_dict(),
            "probes": self._held.state_dict(),
            "sizes": self._sizes.state_dict(),
            "generator": self._generator.get_state(),
            "pending": self._pending,
            "moved": list(self._moved),
            "last_check": self._last_check,
            "warned": self._warned,
            "attempts": [report.as_dict() for report in self.attempts],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            InputError: it is no state of a COST.
        """
        state = self.read_state(state)
        self._counters.load_state_dict(state["schedule"])
        self._held.load_state_dict(state["probes"])
        self._sizes.load_state_dict(state["sizes"])
        self._generator.set_state(state["generator"])
        self._pending = state["pending"]
        self._moved = state["moved"]
        self._last_check = state["last_check"]
        self._warned = state["warned"]
        self.attempts = list(state["attempts"])

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """A state as it is loaded; changes nothing.

        Args:
            state: from :meth:`state_dict`.
            sizes: how many tasks there are, as ``"K"``, where that is known.

        Raises:
            InputError: it is no state of a COST, of one for another number of tasks, or damaged.
        """
        missing = self.state_dict().keys() - state.keys() if isinstance(state, Mapping) else {"everything"}
        if missing:
            raise InputError(f"this is no state of a COST: it lacks {', '.join(sorted(missing))}")
        kinds: dict[str, Form] = {
            "schedule": Fields(self._counters.kinds),
            "probes": Fields(self._held.kinds),
            "sizes": Fields(self._sizes.kinds),
            "generator": Generator(),
            "pending": Maybe(Number()),
            "moved": Listed(Text()),
            "last_check": Whole(least=-(2**62)),
            "warned": Switch(),
            "attempts": Listed(Anything()),
        }
        read = read_state("COST", state, kinds, sizes)
        return {**read, "attempts": tuple(TeleportReport.from_dict(entries) for entries in read["attempts"])}

    def __repr__(self) -> str:
        trigger = self.trigger.name if self.trigger else "by the number of tasks"
        return f"COST({trigger}, {self.delta!r}, {self.search.sought.name}; {len(self.attempts)} attempts)"

    # -- inside

    def _check_fit(self, mtl: MultiTaskOptimizer) -> None:
        """Refuses a delta that does not fit as soon as the shared parameters are known, not at the first conflict."""
        if self._fits or not mtl.shared:
            return
        shared = shared_by_name(mtl)
        if not self._delta_given:
            self.delta = LowRank().limited(shared)
        self.delta.adapt(shared, torch.Generator(next(iter(shared.values())).device))
        self._fits = True

    def _settle_history(self, mtl: MultiTaskOptimizer, names: tuple[str, ...], sigma: float) -> None:
        named = dict(mtl.objective.model.named_parameters())
        names = names if self.history.scope == "moved" else tuple(named)
        shares = [self.history.settle(optimizer, [named[name] for name in names], sigma) for optimizer in mtl.optimizers]
        share = shares[0]  # a policy decides by σ alone, so all are equal
        if share is not None:
            # The blend needs the gradient at the new point, which the next step brings.
            self._pending, self._moved = share, names


def _check_kind(name: str, value: Any, kind: type, further: str = "") -> None:
    if not isinstance(value, kind):
        raise InputError(f"{name} must be a {kind.__name__}(…){further}; got {value!r}")


def _finite_gradient(parameter: Tensor) -> bool:
    gradient = parameter.grad
    if gradient is None:
        return True
    return bool(torch.isfinite(stored(gradient)).all())
