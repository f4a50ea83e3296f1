"""MultiTaskOptimizer: the one place where objective, gradient engine, balancer and torch optimizer meet."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from equipoise.balance.base import Balancer
from equipoise.balance.double_sampling import further_batches
from equipoise.balance.mixins import Attached, OnFeatures, Paced
from equipoise.distributed import Processes, refuse_sharded, together
from equipoise.engine.shared import SharedParameters
from equipoise.engine.sparse import clip_gradients
from equipoise.errors import InputError, NonFiniteError, warn_once
from equipoise.groups import TaskGroups, as_groups
from equipoise.method import MethodSpec, Nested, groups_of, proxy_of, resolved
from equipoise.modes import compiled_anew, uncompiled
from equipoise.modules import RunningStatistics, find_module, load_model, read_saved_model, saved_model
from equipoise.objective import Objective
from equipoise.proxy import Proxy, as_proxy
from equipoise.randomness import RandomState
from equipoise.states import Listed, Text, Whole, like, read_entry, read_state
from equipoise.step.balancing import Balancing
from equipoise.step.by_proxy import STREAMED, check_proxied
from equipoise.step.context import Unlabelled
from equipoise.step.metric import check_metric
from equipoise.step.moving import Moving
from equipoise.step.report import StepReport
from equipoise.step.source import Batches, FurtherBatch, Repeated

__all__ = ["MultiTaskOptimizer", "Teleport"]


class Teleport(Protocol):
    """What moves the shared parameters within a step, before the torch optimizer does."""

    def teleport(self, mtl: MultiTaskOptimizer, report: StepReport, batches: tuple[Any, ...]) -> bool:
        """Moves the shared parameters in place, or leaves them; says whether it moved them.

        Called in every step that has losses and gradients, and before anything is stepped: ``report`` has the losses, the
        Gramian and the weights at the present parameters θ, and ``.grad`` the combined gradient there (times the scale of a
        scaler). The random state is that of the step's start, so that the batches draw the numbers that they drew, and it is
        put back afterwards.
        """

    def arrived(self, mtl: MultiTaskOptimizer, report: StepReport | None) -> bool:
        """Called after a move: the same as before, evaluated on the same batches at the new point.

        ``report`` is ``None`` where a loss or gradient is not finite there or overflows the scaler. Says whether to stay; if
        not, the parameters must be back where they were, and the step is taken from there.
        """

    def before_step(self, mtl: MultiTaskOptimizer) -> None:
        """Called when ``.grad`` is complete (unscaled and clipped), just before the torch optimizer steps."""

    def after_step(self, mtl: MultiTaskOptimizer, *, taken: bool) -> Any:
        """Called when the step is over, and what it has learned is to be kept.

        Where no step was ``taken`` (a scaler's overflow, an optimizer that left the parameters alone), the parameters must be
        back where they were. What this returns becomes ``mtl.last.teleport``.
        """

    def undo(self) -> None:
        """Called when a step fails: parameters and everything remembered must be as before :meth:`teleport`."""

    def end_epoch(self) -> None:
        """Says that a pass over the data is over."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how it continues."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state."""


class MultiTaskOptimizer:
    """Takes balanced steps on an objective with any torch optimizer.

    The shared parameters get the balancer's combination of the task gradients, task-specific ones their own task's gradient
    (times the task's weight where the balancer looks at losses only: that costs one ordinary backward pass). Then the
    optimizer steps; it stays yours, schedulers, parameter groups and state included.

    Args:
        objective: model and losses.
        optimizer: any torch optimizer, or several in a list, which hold different parameters. One that evaluates the loss
            several times per step (LBFGS, sharpness-aware ones) gets a closure: at each point that it tries the losses of
            the same batch are evaluated, with the same random numbers, and balanced anew; its value is the weighted sum of the
            losses. The balancer learns from the step's first evaluation alone.
        balancer: how the tasks combine: a balancer, a TorchJD aggregator or weighting, or a method by name, as text
            (``"fairgrad:alpha=2"``, ``"cost(start=3)+fairgrad"``) or as a :class:`~equipoise.MethodSpec`.
        shared: a module or parameters; left out, the parameters that two or more losses reach, found in the first step.
        features: the module whose output all tasks start from, or its dotted name in the model. The Gramian is then taken at
            its output (Sener and Koltun, 2018, section 3.3), and what lies below is differentiated once, whatever K.
        clip: clip the norm of all gradients together to this before the step.
        teleport: moves the shared parameters, where it finds reason to, before the step is taken from the new point; left out
            where the method's text has one.
        scaler: a ``torch.amp.GradScaler`` for half precision; scaling, skipped steps and its update are taken care of.
        batched: differentiate this many tasks at once with ``vmap`` (0 for all): faster on GPUs with small models, slower
            on CPUs. Left out, one task after the other.
        proxy: estimate the Gramian from a few shared weights (:class:`~equipoise.Proxy`), at about the price of plain training:
            ``"last"``, ``"auto"``, a module or its name …; left out or ``"exact"``, one backward pass per task.
        memory: ``"streamed"`` forms the exact Gramian block by block of the graph, so that nothing of K·P numbers is held: at
            most the rows of the largest layer, and K gradients of the activations between two blocks, take its place. Balancers
            of the Gramian only, one batch per step on one process; callables among the losses are all evaluated first.
        groups: which tasks a step leaves to the balancer, where not all at once: ``"conflict-groups"``,
            ``"affinity-groups(decay=0.01)"`` or such a schedule (:class:`~equipoise.groups.TaskGroups`); left out where the
            method's text has one.
        check_finite: look at losses and gradients before anything changes. On a GPU, balancers that look at losses only
            have to wait for the device then; turn it off to save that.
        process_group: under ``torch.distributed``, the processes to average over; all of them if left out. At construction
            every process is given the first one's parameters and buffers.

    Raises:
        InputError: an argument that cannot be used; the message says what was expected.

    Example:
        >>> import equipoise as eq
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> def losses(model, batch):
        ...     inputs, targets = batch
        ...     errors = (model(inputs) - targets).square().mean(0)
        ...     return {"near": errors[0], "far": errors[1]}
        >>> optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        >>> mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, eq.FairGrad())
        >>> batch = torch.randn(16, 4), torch.randn(16, 2)
        >>> first = mtl.step(batch)
        >>> for _ in range(50):
        ...     last = mtl.step(batch)
        >>> bool(last["near"] < first["near"]), mtl.last.weights.shape
        (True, torch.Size([2]))
    """

    @together
    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        balancer: Balancer | MethodSpec | str | Any,
        shared: nn.Module | Iterable[Tensor] | None = None,
        features: nn.Module | str | None = None,
        clip: float | None = None,
        teleport: Teleport | None = None,
        *,
        scaler: torch.amp.GradScaler | None = None,
        batched: int | None = None,
        proxy: Proxy | str | nn.Module | Iterable[Tensor] | None = None,
        memory: Literal["streamed"] | None = None,
        groups: TaskGroups | Nested | str | None = None,
        check_finite: bool = True,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        if not isinstance(objective, Objective):
            raise InputError(f"objective must be an equipoise.Objective; got {type(objective).__name__}")
        if isinstance(features, str):
            features = find_module(objective.model, features)
        elif features is not None and not isinstance(features, nn.Module):
            raise InputError(f"features must be a module of the model or its name; got {type(features).__name__}")
        if clip is not None and not clip > 0:
            raise InputError(f"clip must be a positive norm; got {clip}")
        if batched is not None and batched < 0:
            raise InputError(f"batched must be at least 0; got {batched}")
        if teleport is not None and (isinstance(teleport, type) or not hasattr(teleport, "arrived")):
            raise InputError(f"teleport must be an instance such as equipoise.COST(); got {teleport!r}")
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._moving = Moving(optimizer, self.scaler)
        _check_belongs(objective, self._moving.parameters())
        self.objective = objective
        self.optimizer = optimizer
        self.balancer, teleport = resolved(balancer, teleport)
        self.groups = as_groups(groups_of(balancer, groups))
        if self.groups is not None and teleport is not None:
            raise InputError(
                f"a teleport looks at all tasks, and {self.groups.name} lets some of them act at a time; leave out one"
            )
        if teleport is not None and objective.fixed:
            raise InputError(
                "a teleport looks at the tasks alone and would move away from losses with fixed weights; leave out one"
            )
        check_metric(self.balancer, self.optimizers)
        if isinstance(self.balancer, Attached):
            self.balancer.attach(objective)
        if isinstance(self.balancer, Paced):
            self.balancer.pace(*self.optimizers)
        own = self.balancer.features_module if isinstance(self.balancer, OnFeatures) else None
        if own is not None and features is not None and own is not features:
            raise InputError(f"{self.balancer!r} takes gradients at features of its own; leave features= out")
        self.proxy = as_proxy(proxy_of(balancer, proxy))
        if self.proxy is not None:
            if features is not None or own is not None:
                raise InputError("features= and proxy= are two ways to the Gramian; give one of them")
            self.proxy.attach(objective.model)
            check_proxied(self.balancer, "proxy=")
        if memory is not None:
            if memory != "streamed":
                raise InputError(f'memory must be "streamed", or left out for one row per task; got {memory!r}')
            others = {"features=": features or own, "proxy=": self.proxy, "batched=": batched}
            for name, given in others.items():
                if given is not None:
                    raise InputError(f"{STREAMED} forms the exact Gramian, one task after the other; leave {name} out")
            check_proxied(self.balancer, STREAMED)
        self.clip = clip
        self.teleport = teleport
        self.processes = Processes(process_group)
        self.steps = 0
        self.last: StepReport | None = None
        self._statistics = RunningStatistics(objective.model)
        self._optimized = self._moving.parameters()
        refuse_sharded(self._trained(), objective.model)
        self.processes.share([*self._trained(), *objective.model.buffers()])
        self._balancing = Balancing(
            objective.tasks,
            SharedParameters(shared),
            features=features if own is None else own,
            batched=batched,
            proxy=self.proxy,
            streamed=memory is not None,
            processes=self.processes,
            parameters=self._trained(),
            check_finite=check_finite,
            model=objective.model,
        )
        self._balancing.context.optimizers = self.optimizers

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The torch optimizers, one or several."""
        return self._moving.optimizers

    @property
    def unlabelled(self) -> int:
        """How many batches (and micro-batches) held no task's loss so far, and were left out."""
        return self._balancing.unlabelled

    @property
    def shared(self) -> list[Tensor]:
        """The shared parameters; empty until the first step of a balancer that needs their gradients."""
        return self._balancing.context.shared.parameters

    @uncompiled
    @together
    def step(self, *batches: Any, further: Sequence[Any] | None = None) -> dict[str, Tensor]:
        """Takes one step.

        Args:
            batches: one batch; or several micro-batches, which give one step as if they were one batch (task losses and
                gradients are averaged over the micro-batches that hold the task) with the memory of one.
            further: for balancers that look at two further batches (MoDo, SDMGrad): these, independent of each other and of
                the step's own; or four, six ... of them, the first half being micro-batches of one.
                Left out, they are drawn from the objective's ``batches``, as many for each as there are ``batches`` here.
                Drawn batches count as used even if the step fails. They are evaluated at the same parameters and leave no
                trace in ``.grad``, buffers (batch-norm statistics) or the random state.

        Returns:
            The losses before the step (in a step that teleports: at the new point), detached, by task, and those with fixed
            weights by name. Empty where no batch holds a
            label, that is where the loss function returned an empty mapping: then no step is taken, ``last.skipped`` says so
            and ``unlabelled`` counts the batches.

        Raises:
            InputError: no batch, losses that cannot be used, further batches that are missing or not looked at, or an
                optimizer that would take no step now, or has taken some inside the backward pass.
            UnknownTaskError: a task that was neither declared nor in the first step.
            NonFiniteError: a loss or gradient is not finite.

        Where it raises, no parameter, buffer or state has changed, torch's random state included.
        """
        if not batches:
            raise InputError("step() needs a batch; it got none")
        if self.groups is None:
            return self._step(batches, further)
        self.last = report = self.groups.take(GroupedStep(self, batches, further))
        return dict(zip(report.tasks, report.losses.unbind(), strict=True)) | dict(report.fixed)

    def _step(
        self, batches: tuple[Any, ...], further: Sequence[Any] | None, only: frozenset[str] | None = None
    ) -> dict[str, Tensor]:
        """Takes one step, or one update within it, with all tasks or some."""
        self._moving.check_ready()
        if isinstance(self.balancer, Paced):
            self.balancer.pace(*self.optimizers)
        source = Batches(self.objective, batches, self.processes, only)
        samples = self._further(further, len(batches), only)
        self._refresh()
        if only is not None:
            self._balancing.see(self.balancer, Batches(self.objective, batches, self.processes))
        random = RandomState.capture(self._balancing.context.parameters)
        self._clear()
        self._statistics.keep()
        teleporting = False
        try:
            report = self._balanced(source, samples, random)
            if self.teleport is not None and report.tasks and not report.skipped:
                report = self._teleported(report, source, batches, samples, random)
                teleporting = True
            moved = bool(report.tasks) and self._move(report, batches, random, only)
        except BaseException as error:
            if self.teleport is not None:
                self.teleport.undo()
            self._balancing.rollback()
            self._moving.undo()
            self._undo(random)
            if len(batches) > 1:
                error.add_note(f"step() took its {len(batches)} arguments for micro-batches; a batch is one: step((x, y))")
            raise
        if not report.tasks:
            self._undo(random)
            self.last = report
            return {}
        if moved:
            self._balancing.commit()
        else:
            self._balancing.skip()
            report = StepReport(
                report.tasks, report.losses, report.weights, None, report.step, skipped=True, fixed=report.fixed
            )
            if self.scaler is None:
                warn_once(
                    self, "idle", f"{self._moving!r} moved no parameter when told to step; such steps are reported as skipped"
                )
        if self.balancer.watches and not report.skipped:
            with random.replayed():
                self._watch(source, report)
        self.last = report
        self.steps += 1
        if self.teleport is not None and teleporting:
            happened = self.teleport.after_step(self, taken=not report.skipped)
            if happened is not None:
                self.last = replace(report, teleport=happened)
        return dict(zip(report.tasks, report.losses.unbind(), strict=True)) | dict(report.fixed)

    def end_epoch(self) -> None:
        """Says that a pass over the data is over; balancers and teleports that count epochs need it."""
        self.balancer.end_epoch()
        if self.teleport is not None:
            self.teleport.end_epoch()

    @uncompiled
    @together
    def gramian(self, *batches: Any) -> Tensor:
        """The Gramian of the task gradients at the present parameters, for a look at conflicts.

        Takes no step and leaves ``.grad``, buffers, the balancer and the random state as they are.

        Args:
            batches: one batch, or several micro-batches.

        Returns:
            ``[k, k]`` in float64 on the CPU, for the tasks that the batch holds, in their fixed order.
        """
        if not batches:
            raise InputError("gramian() needs a batch; it got none")
        self._refresh()
        source = Batches(self.objective, batches, self.processes)
        with self.objective.random_state().replayed():
            return compiled_anew(lambda: self._balancing.gramian(self.balancer, source, self._scale()))

    def state_dict(self, *, trainable_only: bool = False) -> dict[str, Any]:
        """Everything that decides how training continues: model, optimizer, balancer, scaler, teleport, tasks and step count.

        torch's random state and the data's order are not part of it; save them beside it if the model uses dropout. Where the
        objective draws further batches, the place in their loader is (see :class:`~equipoise.further.FurtherBatches`).

        Args:
            trainable_only: leave out the model's frozen parameters (a pretrained model under adapters), but for eight numbers
                of each. What is trained, was stepped or is a buffer is kept. :meth:`load_state_dict` takes such a state into a
                model with the same frozen parameters.
        """
        further = self.objective.further
        return {
            **({} if further is None else {"further": further.state_dict()}),
            **saved_model(self.objective.model, self.optimizers, trainable_only=trainable_only),
            "optimizer": self._moving.state_dict(),
            "balancer": self.balancer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "teleport": None if self.teleport is None else self.teleport.state_dict(),
            "proxy": None if self.proxy is None else self.proxy.state_dict(),
            **({} if self.groups is None else {"groups": self.groups.state_dict()}),
            "tasks": list(self.objective.tasks.names),
            "steps": self.steps,
            "unlabelled": self.unlabelled,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            InputError: the state is of other tasks, another model or balancer, was saved with or without a teleport or scaler,
                or without the frozen parameters and beside others than this model's.
        """
        whose = "a MultiTaskOptimizer"
        present = self.state_dict()
        missing = present.keys() - state.keys() if isinstance(state, Mapping) else {"everything"}
        missing -= {"further", "unlabelled", "groups"}  # a new loader begins at its start; older versions did not count
        if missing:
            raise InputError(
                f"this is no state of a MultiTaskOptimizer: it lacks {', '.join(sorted(missing))} "
                f"(a state of the model or of the torch optimizer alone is loaded by them)"
            )
        parts = {"teleport": self.teleport, "scaler": self.scaler, "proxy": self.proxy, "groups": self.groups}
        for part, own in parts.items():
            if (state.get(part) is None) != (own is None):
                raise InputError(
                    f"the state was saved {'without' if state.get(part) is None else 'with'} a {part}; "
                    f"this optimizer has {'one' if own is not None else 'none'}"
                )
        names = read_entry(whose, "tasks", Listed(Text()), state["tasks"])
        steps = read_entry(whose, "steps", Whole(), state["steps"])
        unlabelled = read_entry(whose, "unlabelled", Whole(), state.get("unlabelled", 0))
        tasks = self.objective.tasks
        if names and tasks.known and tasks.names != names:
            raise InputError(f"the state is of the tasks {', '.join(names)}; the tasks here are {', '.join(tasks.names)}")
        if len(set(names)) < len(names):
            raise InputError(f"the state names a task twice: {', '.join(names)}")
        # Everything is looked at before anything is changed; what is no part of this library, if need be, by undoing it.
        known = {"K": len(names)} if names else {}
        self.balancer.read_state(state["balancer"], dict(known))
        look = getattr(self.teleport, "read_state", None)
        if look is not None:
            look(state["teleport"], dict(known))
        if self.proxy is not None:
            self.proxy.read_state(state["proxy"], dict(known))
        if self.groups is not None:
            self.groups.read_state(state["groups"], dict(known))
        read_saved_model(state, self.objective.model, self.optimizers)
        self._moving.check_state(state["optimizer"])
        if self.scaler is not None:
            read_state("the scaler", state["scaler"], {name: like(value) for name, value in present["scaler"].items()})
        further = self.objective.further
        if further is not None and state.get("further") is not None:
            further.read_state(state["further"])
        if self.teleport is not None:
            self.teleport.load_state_dict(state["teleport"])
        try:
            self.balancer.load_state_dict(state["balancer"])
        except BaseException:
            if self.teleport is not None:
                self.teleport.load_state_dict(present["teleport"])
            raise
        if self.proxy is not None:
            self.proxy.load_state_dict(state["proxy"])
        if self.groups is not None:
            self.groups.load_state_dict(state["groups"])
        if names and not tasks.known:
            tasks.fix(names)
        load_model(state, self.objective.model)
        self._moving.load_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        if further is not None and state.get("further") is not None:
            further.load_state_dict(state["further"])
        self.steps = steps
        self._balancing.unlabelled = unlabelled

    def _further(self, given: Sequence[Any] | None, micro_batches: int, only: frozenset[str] | None) -> list[FurtherBatch]:
        """The further batches of a step, each as a source of losses."""
        count = further_batches(self.balancer)
        if not count:
            if given is not None:
                raise InputError(f"{self.balancer!r} looks at no further batches; leave further= out")
            return []
        if given is None:
            if self.objective.further is None:
                raise InputError(
                    f"{type(self.balancer).__name__} looks at {count} further batches per step: give a loader of them, "
                    f"Objective(..., batches=loader), or the batches themselves, step(batch, further=(first, second))"
                )
            given = self.objective.further.draw(count * micro_batches)
        elif not isinstance(given, tuple | list) or not given or len(given) % count:
            what = f"{len(given)} of them" if isinstance(given, tuple | list) else type(given).__name__
            raise InputError(f"further must be a tuple of {count} batches, or of a multiple of {count}; got {what}")
        size = len(given) // count
        parts = [tuple(given[start : start + size]) for start in range(0, len(given), size)]
        return [FurtherBatch(self.objective, part, self.processes, place, only) for place, part in enumerate(parts)]

    def _balanced(
        self, source: Batches, samples: Sequence[FurtherBatch], random: RandomState, *, anew: bool = False
    ) -> StepReport:
        """Fills ``.grad``; ``anew`` where the step has been there already, at other parameters."""

        def run() -> StepReport:
            if isinstance(self.balancer, Attached):
                self.balancer.begin()
            return self._balancing.run(self.balancer, source, self.steps, self._scale(), samples, anew=anew)

        return compiled_anew(run, lambda: self._undo(random))

    def _teleported(
        self,
        report: StepReport,
        source: Batches,
        batches: tuple[Any, ...],
        samples: Sequence[FurtherBatch],
        random: RandomState,
    ) -> StepReport:
        """Lets the teleport look; where it moves the parameters, the step begins again there, on the same batches."""
        assert self.teleport is not None
        held = tuple(batch for place, batch in enumerate(batches) if place not in source.unlabelled)

        def again() -> StepReport:
            # Buffers move once per step, and the same random numbers are drawn.
            self._undo(random)
            return self._balanced(Batches(self.objective, batches, self.processes), samples, random, anew=True)

        with random.replayed():
            moved = self.teleport.teleport(self, report, held)
        if not moved:
            return report
        found: StepReport | None = None
        with suppress(NonFiniteError):
            found = again()
        if found is not None and found.skipped:
            found = None
        with random.replayed():
            stays = self.teleport.arrived(self, found)
        return found if stays and found is not None else again()

    def _move(
        self, report: StepReport, batches: tuple[Any, ...], random: RandomState, only: frozenset[str] | None = None
    ) -> bool:
        """Clips and steps; says whether a step was taken."""
        self._moving.unscale()
        self._clip()
        if self.teleport is not None:
            self.teleport.before_step(self)

        def again() -> Tensor:
            source = Repeated(self.objective, batches, self.processes, only)
            with torch.enable_grad(), random.replayed(), source.compiled_or_not():
                self._clear()
                if isinstance(self.balancer, Attached):
                    self.balancer.begin()
                found = self._balancing.again(source)
                self._clip()
            return _combined(found)

        moved = self._moving.move(lambda: _combined(report), again)
        # A caller's autocast keeps casts of the parameters, which have moved.
        torch.clear_autocast_cache()
        return moved

    def _clip(self) -> None:
        if self.clip is not None:
            clip_gradients(self._balancing.context.parameters, self.clip)

    def _undo(self, random: RandomState) -> None:
        """Puts back what an evaluation has changed."""
        self._statistics.restore()
        self._clear()
        random.restore()

    def _scale(self) -> Tensor | None:
        if self.scaler is None:
            return None
        device = self._balancing.context.parameters[0].device
        scale: Tensor = self.scaler.scale(torch.ones((), device=device))
        return scale

    def _watch(self, source: Batches, report: StepReport) -> None:
        """Shows the balancer the same batches' losses after the step."""
        seen = self._balancing.context.rehearsed(source)
        self.balancer.observe(report.losses, seen.means(), seen.present)

    def __repr__(self) -> str:
        tasks = ", ".join(self.objective.tasks.names) or "tasks not yet known"
        return f"MultiTaskOptimizer({self.balancer!r}, {self._moving!r}, {tasks}; {self.steps} steps taken)"

    def _trained(self) -> list[Tensor]:
        return list(dict.fromkeys([*self._moving.parameters(), *self.objective.model.parameters()]))

    def _refresh(self) -> None:
        """Takes in parameters that were added to the optimizer since the last step."""
        optimized = self._moving.parameters()
        if list(map(id, optimized)) != list(map(id, self._optimized)):
            refuse_sharded(optimized)
            self._optimized = optimized
            self._balancing.context.parameters = self._trained()

    def _clear(self) -> None:
        for parameter in self._balancing.context.parameters:
            parameter.grad = None


class GroupedStep:
    """A step that is open for a choice of tasks; what :class:`~equipoise.groups.TaskGroups` is given."""

    def __init__(self, mtl: MultiTaskOptimizer, batches: tuple[Any, ...], further: Sequence[Any] | None) -> None:
        self._mtl, self._batches, self._further = mtl, batches, further
        self._begun, self._unlabelled = mtl.steps, mtl.unlabelled

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of all tasks; empty before they are known."""
        return self._mtl.objective.tasks.names

    @property
    def empty(self) -> bool:
        """Whether the last update met no task at all, active or not."""
        return self._mtl.unlabelled - self._unlabelled >= len(self._batches)

    def update(self, only: Sequence[int] | None) -> StepReport:
        """One balanced update of these tasks, or of all; of those, it takes the ones that the batches hold."""
        mtl, taken = self._mtl, self._mtl.steps
        mtl.steps = self._begun  # all updates are of one step
        mtl._step(self._batches, self._further, None if only is None else frozenset(self.tasks[place] for place in only))
        mtl.steps = max(taken, mtl.steps)
        assert mtl.last is not None
        return mtl.last

    def gramian(self) -> tuple[Tensor, tuple[int, ...]]:
        """The Gramian of the tasks that the batches hold, and their positions; by the proxy, if there is one."""
        mtl, source = self._mtl, self._source()
        with mtl.objective.random_state().replayed():
            return compiled_anew(lambda: mtl._balancing.look(mtl.balancer, source, mtl._scale(), proxied=True))

    def losses(self) -> dict[int, float]:
        """All losses at the present parameters, by position; without a trace, and with the same random numbers each time."""
        with self._mtl.objective.random_state().replayed(), suppress(Unlabelled):
            seen = self._mtl._balancing.context.rehearsed(self._source())
            return dict(zip(seen.present, seen.means().tolist(), strict=True))
        return {}

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Puts everything back to where it is now if the body raises."""
        mtl, random = self._mtl, self._mtl.objective.random_state()
        before, last = copy.deepcopy(mtl.state_dict()), mtl.last
        try:
            yield
        except BaseException:
            mtl.load_state_dict(before)
            mtl.last = last
            mtl._clear()
            random.restore()
            raise

    def _source(self) -> Batches:
        self._mtl._refresh()
        return Batches(self._mtl.objective, self._batches, self._mtl.processes)


def _combined(report: StepReport) -> Tensor:
    """The loss that a closure gives: weighted, or the sum where the balancer answered with a direction."""
    return report.losses.sum() if report.weights is None else (report.weights.to(report.losses) * report.losses).sum()


def _check_belongs(objective: Objective, optimized: Iterable[Tensor]) -> None:
    """Refuses an optimizer that would train another model."""
    own = {id(parameter) for parameter in objective.model.parameters() if parameter.requires_grad}
    held = {id(parameter) for parameter in optimized}
    if own and not own & held:
        raise InputError(
            "the optimizer holds none of the model's parameters, so the model would not be trained; "
            "make it with objective.model.parameters()"
        )
