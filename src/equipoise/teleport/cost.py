"""COST: when tasks conflict, move the shared parameters to a point of equal losses and less conflict, then go on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch

from equipoise.errors import InputError, warn_once
from equipoise.states import Anything, Fields, Form, Generator, Listed, Named, Number, Switch, Whole, read_state
from equipoise.step.checking import nonfinite_gradients
from equipoise.step.fused import put_back, state_kept
from equipoise.step.report import StepReport
from equipoise.teleport.attempt import Landing, TeleportAttempt, TeleportReport, attempt_cost, optimized, shared_by_name
from equipoise.teleport.checks import check_whole
from equipoise.teleport.deltas import DeltaLike, LowRank, as_delta
from equipoise.teleport.guard import Guard
from equipoise.teleport.history import HistoryLike, as_history, blend
from equipoise.teleport.measure import LossSizes, View, seen_in
from equipoise.teleport.probes import HeldBatches, Probes
from equipoise.teleport.schedule import Counters, Schedule
from equipoise.teleport.search import Search
from equipoise.teleport.triggers import TriggerLike, as_trigger, default_trigger

if TYPE_CHECKING:
    from equipoise.optimizer import MultiTaskOptimizer

__all__ = ["COST"]

_LANDINGS, _SHRUNK = 3, 0.9
"""From so many landings on, and below that mean growth of the task gradients' norms, a search is said to go too far."""


class COST:
    """Continual optimization with symmetry teleportation (Zhou et al., 2025), on top of any balancer and any torch optimizer.

    In a step in which the ``trigger`` sees a conflict, and if the ``schedule`` allows it, the shared parameters θ are moved to
    θ + Δθ; then the balancer decides there, on the same batches, and the step is taken from there (algorithm 1). In the
    paper that is a point where every task's loss is about the same and the landscape is sharper (section 4.1, eq. 7 to 11);
    by default here it is one where no loss is higher and the neglected task's is lower. The ``delta`` gives Δθ its shape; a
    ``search`` finds it by a few steps of an inner optimizer on losses evaluated at *substituted* parameters: the model is not
    touched until it lands, parameters keep their identity, and buffers and random state stay as they are. A ``guard`` lets it
    land only if the losses allow it on batches that no inner step has seen. What the torch optimizer remembers is treated as
    ``history`` says (eq. 12 and 13), before the step.

    A step that does not teleport costs what it costs without a COST, except that a Gramian is formed for the trigger now and
    then where the balancer forms none. In one that does, ``mtl.last`` and the losses that ``step`` gives are those at the new
    point, ``mtl.last.teleport`` has those before; the balancer learns once, buffers (batch-norm statistics) move once, and
    both evaluations draw the same random numbers (dropout masks). A step that fails or is not taken does not teleport.

    Several defaults depart from the paper, on the evidence in the guide's page "COST, judged": losses may fall, the
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
        history: what becomes of the optimizer's memory: ``"keep"`` it, ``"reuse"`` a share σ of it (eq. 13), ``"reset"``
            it, ``"released"`` (reset where σ ≤ 0, else reuse), or a
            :class:`~equipoise.teleport.History`. Left out: the formulation's own, which is ``"keep"`` except for
            ``"released"``.
        seed: of the factors and the perturbations; the same on all processes.

    Attributes:
        attempts: a :class:`~equipoise.teleport.TeleportReport` of every attempt, in order.
        waits: why no attempt was made in a step → in how many, since this object was made.

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
        self._pending: dict[str, float] = {}
        self._under_way: _UnderWay | None = None
        self._last_check = -schedule.check_every
        self._warned = False
        self._fits = False

    @classmethod
    def paper(cls, trigger: TriggerLike = None, **settings: Any) -> Self:
        """COST to the letter of the paper.

        The objective is L_t - γ L_g (eq. 7 to 11) with γ = 0.1, of losses as they are and with L* of the same batches as L_t;
        R is that of the triggering batches' gradients. A landing is not guarded and no batch is held out to judge it (where
        one is, a guard may be given). History is reused (eq. 13). There is one attempt per epoch and no budget (appendix A.6
        says that frequency is controlled and the start delayed, not how much). The paper does not print δ, ñ, and the inner
        optimizer with its steps and lr: they are those of :class:`PaperFormulation` and :class:`Search`.

        Args:
            trigger: as for :class:`COST`.
            settings: all else that :class:`COST` takes, in place of the above.

        Example:
            >>> cost = COST.paper("weak", schedule=Schedule(start=3, per_epoch=1, budget=None))
            >>> cost.search.sought, cost.history, cost.guard
            (PaperFormulation(gamma=0.1, radius=0.1, invariance=1.0, pooled_reference=False), ReuseHistory(scope='moved'), None)
        """
        letter: dict[str, Any] = {
            "search": Search(formulation="paper", scaling="none"),
            "guard": None,
            "schedule": Schedule(budget=None, per_epoch=1),
            "probes": Probes(held_out_batches=0),
            "history": "reuse",
        }
        return cls(trigger, **(letter | settings))

    @classmethod
    def released(cls, trigger: TriggerLike = None, *, epochs: int = 200, **settings: Any) -> Self:
        """COST as the paper's released code computes it.

        The objective is :class:`~equipoise.teleport.ReleasedFormulation`'s, searched for by Adam in two passes over the
        training set at the step size with which the training began, in evaluation mode; L* is the mean over a pass of its own.
        The batches come from ``Objective(…, batches=loader)`` (a study gives its training loader). The trigger is any cosine
        with the mean gradient at most 0; attempts begin in epoch 50 of 200, one per epoch; a landing is neither judged nor paid
        for by a budget; where σ ≤ 0 the optimizer begins afresh for every parameter, else history is reused. There the layers
        that are adapted are chosen by hand, here all are unless ``delta=LowRank(targets=…)`` says which.

        What differs: σ takes the combined gradient at θ as eq. 12 has it, there it is that of the step before; reuse keeps the
        mass that Adam divides by (:func:`~equipoise.teleport.blend`), there it does not; and there a fresh optimizer has the
        first step size again, outside the schedule.

        Args:
            trigger: as for :class:`COST`.
            epochs: of the whole training; attempts begin after a quarter of them.
            settings: all else that :class:`COST` takes, in place of the above.

        Example:
            >>> cost = COST.released(epochs=60)
            >>> cost.trigger, cost.schedule.start, cost.search.passes, cost.search.lr
            (Released(), 15, 2, 'training')
        """
        check_whole("epochs", epochs, 1)
        theirs: dict[str, Any] = {
            "search": Search(formulation="released", passes=2, lr="training"),
            "guard": None,
            "schedule": Schedule(start=epochs // 4, budget=None, per_epoch=1, cooldown=1, check_every=1),
            "probes": Probes("training", probe_batches="all", held_out_batches=0),
        }
        return cls(trigger, **(theirs | settings))

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

    def teleport(self, mtl: MultiTaskOptimizer, report: StepReport, batches: tuple[Any, ...]) -> bool:
        """Looks whether tasks conflict and, where that is due, searches and moves; says whether the parameters have moved."""
        self._held.meet(mtl.objective)
        self._under_way = under_way = _UnderWay(self._kept(), batches)
        self._check_fit(mtl)
        self._held.remember(batches)
        tasks = len(report.tasks)
        backwards = 1 if mtl.balancer.needs == "losses" or mtl.proxy is not None else tasks
        again = len(batches) * (1.0 + 2.0 * backwards)
        self._counters.count_step(again + len(batches) * float(mtl.balancer.watches))
        if tasks < 2 or not self._held.ready:
            why = "one task in the batch" if tasks < 2 else "too few batches seen"
            return self._wait(self._counters.obstacle(report.step, 0.0) or why)
        check = 0.0
        if report.gramian is None:
            if 0 <= report.step - self._last_check < self.schedule.check_every:
                return self._wait("not looked for conflict")
            check = len(batches) * (1.0 + 2.0 * tasks)
        expected = attempt_cost(self.search, self._held, tasks)
        under_way.again = again + check
        if obstacle := self._counters.obstacle(report.step, expected + check + under_way.again):
            return self._wait(obstacle)
        if report.gramian is None:
            self._last_check = report.step
            self._counters.spent += check
        under_way.seen = seen = seen_in(mtl, report, batches)
        trigger = self.trigger or default_trigger(len(mtl.objective.tasks))
        if seen.gramian is None or not trigger(seen.gramian):
            return self._wait("no conflict")
        if not _finite(mtl, report):
            return self._wait("a loss or gradient is not finite")
        self._check_fit(mtl)
        self._counters.spent += expected
        seed = int(torch.randint(2**62, (), generator=self._generator, device="cpu"))
        under_way.attempt = TeleportAttempt(self.delta, self.search, self.guard, self._held, self._sizes, trigger)
        under_way.landing = under_way.attempt.make(mtl, seen, batches, report.step, seed, self._counters.epoch)
        return bool(under_way.landing.moved)

    def arrived(self, mtl: MultiTaskOptimizer, report: StepReport | None) -> bool:
        """Judges the step's batches at the new point; says whether to stay."""
        under_way = self._under_way
        assert under_way is not None
        assert under_way.seen is not None
        assert under_way.attempt is not None
        assert under_way.landing is not None
        self._counters.spent += under_way.again
        there = None if report is None or not _finite(mtl, report) else seen_in(mtl, report, under_way.batches)
        under_way.landing = under_way.attempt.arrive(mtl, under_way.landing, under_way.seen, there)
        return bool(under_way.landing.moved)

    def before_step(self, mtl: MultiTaskOptimizer) -> None:
        """Does with the optimizer's memory what the history policy says; a reuse takes in the gradients at the new point."""
        landing = None if self._under_way is None else self._under_way.landing
        moved = landing.moved if landing is not None else {}
        if not moved and not self._pending:
            return
        everything = optimized(mtl)
        if mtl.scaler is not None and nonfinite_gradients(everything):
            return  # an overflow: no step will be taken
        named = dict(mtl.objective.model.named_parameters())
        if self._under_way is not None:
            self._under_way.states = [(optimizer, state_kept(optimizer.state)) for optimizer in mtl.optimizers]
        shares = {id(named[name]): share for name, share in self._pending.items() if name in named}
        if moved and landing is not None:
            scope = everything if self.history.scope == "all" else [named[name] for name in moved]
            settled = [self.history.settle(optimizer, scope, landing.report.sigma) for optimizer in mtl.optimizers]
            # A policy decides by σ alone, so all optimizers are told the same.
            shares |= {id(parameter): settled[0] for parameter in scope if settled[0] is not None}
        for share in dict.fromkeys(shares.values()):
            reused = [
                parameter for parameter in everything if shares.get(id(parameter)) == share and parameter.grad is not None
            ]
            for optimizer in mtl.optimizers:  # each knows its own parameters
                blend(optimizer, reused, share)
        # Parameters that this step's tasks do not reach take no step, and wait for one.
        self._pending = {name: shares[id(own)] for name, own in named.items() if id(own) in shares and own.grad is None}

    def after_step(self, mtl: MultiTaskOptimizer, *, taken: bool) -> TeleportReport | None:
        """Keeps what the step has brought; returns what became of an attempt."""
        under_way, landing = self._under_way, None if self._under_way is None else self._under_way.landing
        if under_way is None or landing is None:
            if not taken:
                self.undo()
            self._under_way = None
            return None
        self._under_way = None
        if not taken:
            put_back({}, under_way.states)
            *_, self._pending, _ = under_way.kept
            landing = landing.taken_back("the step was not taken") if landing.moved else landing
        report = landing.report
        self._counters.count_attempt(report.step, accepted=report.accepted)
        self.attempts.append(report)
        if landing.failure and not self._warned:
            self._warned = True
            warnings.warn(f"a teleport was given up and the model stays where it was: {landing.failure}", stacklevel=3)
        if report.accepted and self.search.sought.sharper:
            self._look_at_growth()
        return report

    def undo(self) -> None:
        """Makes the step under way one that has never been."""
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return
        if under_way.landing is not None:
            under_way.landing.taken_back("")
        put_back({}, under_way.states)
        counters, held, sizes, generator, waits, *rest = under_way.kept
        vars(self._counters).update(counters)
        self._held.take_back(held)
        self._sizes.take_back(sizes)
        self._generator.set_state(generator)
        self.waits = waits
        self._pending, self._last_check = rest

    def _kept(self) -> tuple[Any, ...]:
        """All that a step changes, for :meth:`undo`."""
        return (
            self._counters.state_dict(),
            self._held.kept(),
            self._sizes.kept(),
            self._generator.get_state(),
            dict(self.waits),
            dict(self._pending),
            self._last_check,
        )

    def _look_at_growth(self) -> None:
        landed = [report.growth for report in self.attempts if report.accepted and math.isfinite(report.growth)]
        if len(landed) < _LANDINGS:
            return
        mean = math.exp(sum(map(math.log, landed)) / len(landed))
        if mean < _SHRUNK:
            warn_once(
                self,
                "shrunk",
                f"over {len(landed)} teleports the norms of the task gradients became {mean:.2f} of what they were, while eq. "
                f"6 of the COST paper seeks larger ones: the search goes too far. Give it a smaller lr (it is "
                f"{self.search.lr}) or fewer steps",
            )

    def _wait(self, why: str) -> bool:
        self.waits[why] = self.waits.get(why, 0) + 1
        return False

    def end_epoch(self) -> None:
        """Says that a pass over the data is over."""
        self._counters.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how it continues: counters, random state, held batches, blends still to come, attempts."""
        return {
            "schedule": self._counters.state_dict(),
            "probes": self._held.state_dict(),
            "sizes": self._sizes.state_dict(),
            "generator": self._generator.get_state(),
            "pending": dict(self._pending),
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
            "pending": Named(Number()),
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


@dataclass
class _UnderWay:
    """What a step in progress has come to.

    Attributes:
        kept: all that was remembered when it began.
        batches: the step's own, labelled ones.
        again: evaluations that it takes to evaluate them at the new point.
        seen: losses and Gramian at θ.
        attempt: what an attempt consists of.
        landing: how it stands.
        states: the optimizers' states before the history policy changed them.
    """

    kept: tuple[Any, ...]
    batches: tuple[Any, ...]
    again: float = 0.0
    seen: View | None = None
    attempt: TeleportAttempt | None = None
    landing: Landing | None = None
    states: list[tuple[torch.optim.Optimizer, dict[Any, Any]]] = field(default_factory=list)


def _check_kind(name: str, value: Any, kind: type, further: str = "") -> None:
    if not isinstance(value, kind):
        raise InputError(f"{name} must be a {kind.__name__}(…){further}; got {value!r}")


def _finite(mtl: MultiTaskOptimizer, report: StepReport) -> bool:
    """Whether the losses and ``.grad`` are finite; over several processes both are what all of them share."""
    return bool(torch.isfinite(report.losses).all()) and not nonfinite_gradients(optimized(mtl))
