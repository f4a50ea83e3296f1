"""TaskWeighting: trains a model while the weights of its tasks are learned on validation data."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.balance.base import LossBalancer, Observation
from equipoise.bilevel.base import BilevelReport, BilevelSolver
from equipoise.bilevel.weighting.hold_out import Validation, halves
from equipoise.bilevel.weighting.problem import WeightProblem
from equipoise.bilevel.weighting.registry import WeightingInfo, weighting
from equipoise.distributed import Processes, together
from equipoise.engine.sparse import clip_gradients
from equipoise.errors import InputError
from equipoise.modules import load_model, read_saved_model, saved_model
from equipoise.objective import Objective
from equipoise.optimizer import MultiTaskOptimizer
from equipoise.states import Listed, Of, Text, Whole, read_entry, read_optimizer
from equipoise.step.report import StepReport
from equipoise.tasks import as_losses

__all__ = ["TaskWeighting"]


class _Learned(LossBalancer):
    """The weights as they are."""

    depends_on_losses = False

    def __init__(self) -> None:
        self.problem: WeightProblem | None = None

    def decide(self, observation: Observation) -> Tensor:
        """α of the tasks present."""
        assert self.problem is not None
        return observation.of_present(self.problem.present_weights)


class TaskWeighting:
    """Learns α in Σ α_i ℓ_i(ω; training) such that the validation losses of all tasks fall (thesis, section 3.3, eq. 3.2).

    The two levels are: min over α of (ℓ_1(ω*; validation), …, ℓ_K(ω*; validation)), where ω* minimises Σ α_i ℓ_i(ω; training).
    The weights α = softmax(a) lie on the simplex; a starts at 0 (equal weights) and is moved by Adam. LibMTL, in which the
    thesis' experiments were done, has the same parametrisation. ω are the model's parameters, moved by your torch optimizer.

    - ``"forum"``, ``"bome"`` and ``"bvfim"`` move a and ω together, along one direction made of the validation gradients and
      of the gradient of f(α, ω) − f(α, ω̃^T), f the weighted training loss and ω̃^T the model after T lower steps on the
      training batch. So the validation data are trained on, too.
    - ``"moml"`` and ``"moco-bilevel"`` move a along a combination of hypergradients of the validation losses after T virtual
      steps from the present ω, which leave the model alone; then ω takes an ordinary step on the training losses, weighted.
    - ``"auto-lambda"`` does so, too, with weights that are a itself, see
      :class:`~equipoise.bilevel.weighting.auto_lambda.AutoLambda`.

    It stands where a :class:`~equipoise.MultiTaskOptimizer` would: ``step``, ``last``, ``end_epoch``, ``gramian``,
    ``state_dict`` and ``load_state_dict`` mean the same. It moves no parameters between steps (no teleport).
    In several processes of ``torch.distributed`` the gradients of both levels are means over them; give the model itself, not
    in a wrapper.

    Args:
        objective: model and losses. Training batches may lack tasks, validation batches may not.
        optimizer: a torch optimizer that holds all parameters of the model that require gradients.
        solver: ``"forum"``, ``"bome"``, ``"bvfim"``, ``"moml"``, ``"moco-bilevel"`` or ``"auto-lambda"``.
        validation: a loader, whose batches are drawn endlessly, one per step; its place is part of the state. Left out,
            :meth:`step` takes a validation batch as well, or cuts its only batch in two.
        lr: Adam's, of the free vector a; the thesis' is 0.001. With 0 the weights stay equal: the control
            that says how much of a gain is theirs, and how much comes of training on the validation data.
        clip: clip the norm of ω's gradients to this before the optimizer steps.
        shared: a module or parameters, for :meth:`gramian`; left out, the parameters that two or more losses reach.
        scaler: a ``torch.amp.GradScaler`` for half precision. A step of the weights whose gradients overflow is repeated at
            half the scale; the ordinary training step after it is skipped then, as any other.
        options: of the solver, see :func:`~equipoise.bilevel.weighting.weighting`. Among them ``lower_steps`` (T);
            ``lower_lr`` (η, 0.01 by default; the thesis' is 0.01 on QM9 and 0.1 elsewhere); and, for ``"forum"``,
            ``"bome"`` and ``"bvfim"``, ``careful`` (on by default): a lower step that made the training loss larger than at
            the start is taken back, and η halved for the rest of the T steps. Without it, lower steps that diverge are an
            error.

    Attributes:
        objective: as given.
        optimizer: as given.
        last: the report of the last step: training losses before it and the weights in force, of the tasks present.
        steps: how many steps were taken.
        bilevel: the solver's report of the last step: validation losses, multipliers, q̃.
        teleport: always ``None``.

    Raises:
        InputError: an argument that cannot be used; the message says what was expected.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> def losses(model, batch):
        ...     inputs, targets = batch
        ...     errors = (model(inputs) - targets).square().mean(0)
        ...     return {"near": errors[0], "far": errors[1]}
        >>> optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        >>> mtl = TaskWeighting(Objective(model, losses), optimizer, "moml", lr=0.01)
        >>> train, held_out = [(torch.randn(16, 4), torch.randn(16, 2)) for _ in range(2)]
        >>> first = mtl.step(train, held_out)
        >>> for _ in range(50):
        ...     last = mtl.step(train, held_out)
        >>> bool(last["near"] < first["near"]), round(sum(mtl.weights.values()), 6)
        (True, 1.0)
    """

    teleport: None = None

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        solver: str = "forum",
        *,
        validation: Iterable[Any] | None = None,
        lr: float = 0.001,
        clip: float | None = None,
        shared: nn.Module | Iterable[Tensor] | None = None,
        scaler: Any = None,
        **options: Any,
    ) -> None:
        self.info = self.check(solver, lr, **options)
        self._learned = _Learned()
        # The ordinary training step, and the Gramian for a look at conflicts.
        self._training = MultiTaskOptimizer(objective, optimizer, self._learned, shared, clip=clip, scaler=scaler)
        if objective.fixed:
            raise InputError("task weights are learned for all losses; leave fixed= of the objective out")
        self.objective = objective
        self.optimizer = optimizer
        self.scaler = scaler
        self.processes = Processes()
        self.clip = clip
        self.validation = None if validation is None else Validation(validation)
        self.lr = lr
        self.options = dict(options)
        self.steps = 0
        self.last: StepReport | None = None
        self._solver: BilevelSolver | None = None
        self._problem: WeightProblem
        self._free: Tensor
        self._adam: torch.optim.Optimizer
        if objective.tasks.known:
            self._prepare()

    @staticmethod
    def check(solver: str, lr: float = 0.001, **options: Any) -> WeightingInfo:
        """Refuses what cannot be used, before there is a model; gives the method's entry in the registry.

        Raises:
            UnknownMethodError: there is no such method.
            UnknownOptionError: it has no such option.
            InputError: a value is out of range.
        """
        info = weighting(solver)
        info.check(**options)
        if isinstance(lr, bool) or not 0 <= lr < float("inf"):
            raise InputError(f"lr must be finite and at least 0, which keeps the weights equal; got {lr}")
        return info

    @property
    def weights(self) -> dict[str, float]:
        """The present weights by task; they sum to 1, but for Auto-λ's. Empty while the tasks are not known."""
        if self._solver is None:
            return {}
        return dict(zip(self.objective.tasks.names, self._problem.present_weights.tolist(), strict=True))

    @property
    def bilevel(self) -> BilevelReport | None:
        """The solver's report of the last step."""
        return None if self._solver is None else self._solver.last

    @together
    def step(self, batch: Any, validation_batch: Any = None) -> dict[str, Tensor]:
        """Takes one step: of the weights, and of the model.

        Args:
            batch: of training data. Where there is no validation data it is cut in two: the first half is for the lower
                level, the second for the upper one, and an ordinary training step (``"moml"``, ``"moco-bilevel"``) is
                taken on both; see :func:`~equipoise.bilevel.weighting.hold_out`.
            validation_batch: of validation data; only without a validation loader.

        Returns:
            The training losses before the step, detached, by task: of the whole batch where an ordinary training step is
            taken, else of the lower level's batch.

        Raises:
            InputError: two sources of validation data, a batch that cannot be cut, a validation batch that lacks tasks, or
                losses that cannot be used.
            UnknownTaskError: a task that was neither declared nor in the first step.
            NonFiniteError: a loss or gradient is not finite; parameters, weights and their optimizers are as before.
        """
        if validation_batch is not None and self.validation is not None:
            raise InputError(
                "step() was given a validation batch, although there is a validation loader; give only one of them"
            )
        if self.validation is not None:
            lower, upper = batch, self.validation.draw()
        elif validation_batch is not None:
            lower, upper = batch, validation_batch
        else:
            lower, upper = halves(batch)
        if self._solver is None:
            self._learn_tasks(lower)
        solver = self._prepare()
        self._problem.begin(self.steps)
        if solver.moves_both:
            report = self._together(solver, lower, upper)
        else:
            report = self._one_after_the_other(solver, batch, lower, upper)
        self.last = report
        self.steps += 1
        return dict(zip(report.tasks, report.losses.unbind(), strict=True))

    def end_epoch(self) -> None:
        """Says that a pass over the training data is over; nothing depends on it here."""

    def gramian(self, *batches: Any) -> Tensor:
        """The Gramian of the training losses' task gradients, see :meth:`equipoise.MultiTaskOptimizer.gramian`."""
        return self._training.gramian(*batches)

    def state_dict(self, *, trainable_only: bool = False) -> dict[str, Any]:
        """Everything that decides how training continues: model, optimizers, weights, solver, the validation loader's place.

        torch's random state and the training data's order are not part of it; save them beside it.

        Args:
            trainable_only: leave out the model's frozen parameters, see :meth:`equipoise.MultiTaskOptimizer.state_dict`.
        """
        known = self._solver is not None
        return {
            **saved_model(self.objective.model, [self.optimizer], trainable_only=trainable_only),
            "optimizer": self.optimizer.state_dict(),
            "solver": self.info.name,
            "free": self._free.detach().clone() if known else None,
            "adam": copy.deepcopy(self._adam.state_dict()) if known else None,
            "memory": self._solver.own_state() if self._solver is not None else None,
            "validation": None if self.validation is None else self.validation.state_dict(),
            "tasks": list(self.objective.tasks.names),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            InputError: the state is of other tasks, another method, or was saved with or without a validation loader.
        """
        present, whose = self.state_dict(), "a TaskWeighting"
        missing = [part for part in present if part not in state] if isinstance(state, Mapping) else ["everything"]
        if missing:
            raise InputError(f"this is no state of a TaskWeighting: it lacks {', '.join(missing)}")
        if state["solver"] != self.info.name:
            raise InputError(f'the state is of the method "{state["solver"]}"; this one is "{self.info.name}"')
        if (state["validation"] is None) != (self.validation is None):
            there, here = ("without", "one") if state["validation"] is None else ("with", "none")
            raise InputError(f"the state was saved {there} a validation loader; there is {here} here")
        names, tasks = read_entry(whose, "tasks", Listed(Text()), state["tasks"]), self.objective.tasks
        steps = read_entry(whose, "steps", Whole(), state["steps"])
        if names and tasks.known and tasks.names != names:
            raise InputError(f"the state is of the tasks {', '.join(names)}; the tasks here are {', '.join(tasks.names)}")
        if len({state[part] is None for part in ("free", "adam", "memory")}) > 1 or (state["memory"] is not None and not names):
            raise InputError(f"the state of {whose} must hold all of tasks, free, adam and memory, or none of them")
        read_saved_model(state, self.objective.model, [self.optimizer])
        read_optimizer("the optimizer", state["optimizer"], self.optimizer)
        known, solver = tasks.known, self._solver
        try:
            if names and not known:
                tasks.fix(names)
            if state["memory"] is not None:
                prepared = self._prepare()
                free = read_entry(whose, "free", Of(("K",), self._free.dtype), state["free"], {"K": len(names)})
                read_optimizer(f"{whose}'s Adam", state["adam"], self._adam, finite=True)
                prepared.read_own_state(state["memory"])
            if self.validation is not None:
                self.validation.load_state_dict(state["validation"])
        except BaseException:
            # Nothing was taken in yet but what had to be known to look at the rest.
            self._solver = solver
            if not known:
                tasks.forget()
            raise
        if state["memory"] is not None:
            prepared.load_own_state(state["memory"])
            with torch.no_grad():
                self._free.copy_(free)
            self._adam.load_state_dict(state["adam"])
        load_model(state, self.objective.model)
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = self._training.steps = steps

    def __repr__(self) -> str:
        tasks = ", ".join(self.objective.tasks.names) or "tasks not yet known"
        return f'TaskWeighting("{self.info.name}", {type(self.optimizer).__name__}, {tasks}; {self.steps} steps taken)'

    def _learn_tasks(self, batch: Any) -> None:
        """Fixes the tasks as a training batch has them, without a trace in the model."""
        with torch.enable_grad(), self.objective.random_state().replayed():
            self.objective.tasks.fix(self.processes.union(list(as_losses(self.objective.pending_at({}, batch)))))

    def _prepare(self) -> BilevelSolver:
        """The solver; made as soon as the tasks are known."""
        if self._solver is None:
            parameter = next(own for own in self.objective.model.parameters() if own.requires_grad)
            # At least single precision: in bfloat16 a step of 0.001 is lost where an entry is above 0.5.
            dtype = torch.promote_types(parameter.dtype.to_real(), torch.float32)
            initial = {**self.info.options, **self.options}.get("initial")
            free = torch.full((len(self.objective.tasks),), initial or 0.0, dtype=dtype, device=parameter.device)
            self._free = free
            self._problem = self._learned.problem = WeightProblem(self.objective, free, raw=initial is not None)
            self._adam = torch.optim.Adam([free], lr=self.lr)
            self._solver = self.info.solver(self._problem, self._adam, self.optimizer, self.scaler, **self.options)
        return self._solver

    def _together(self, solver: BilevelSolver, lower: Any, upper: Any) -> StepReport:
        """One outer step moves weights and model."""
        weights = self._problem.present_weights
        with self._clipped():
            solver.step(itertools.repeat(lower), upper)
        return self._report(weights)

    def _one_after_the_other(self, solver: BilevelSolver, batch: Any, lower: Any, upper: Any) -> StepReport:
        """The solver moves the weights; an ordinary training step with them moves the model, or both are taken back."""
        bring_back, memory, last = solver.optimizers.kept(), solver.own_state(), solver.last
        solver.step(itertools.repeat(lower), upper)
        try:
            self._training.step(batch)
        except BaseException:
            bring_back()
            solver.load_own_state(memory)
            solver.last = last
            raise
        assert self._training.last is not None
        return self._training.last

    def _report(self, weights: Tensor) -> StepReport:
        assert self._problem.first is not None
        losses = self._problem.first
        positions = self.objective.tasks.positions(losses)
        found = torch.stack(list(losses.values()))
        if self.processes.count > 1:
            # Each process may hold other tasks; a task's loss is the mean over those that hold it.
            sums = torch.zeros(2, len(self.objective.tasks), dtype=torch.float64, device="cpu")
            sums[0, positions], sums[1, positions] = found.double().cpu(), 1.0
            total, counts = self.processes.sum(sums, "training losses")
            positions = counts.nonzero().flatten().tolist()
            found = (total[positions] / counts[positions]).to(found)
        names = tuple(self.objective.tasks.names[position] for position in positions)
        return StepReport(names, found, weights[positions].double().cpu(), step=self.steps)

    @contextmanager
    def _clipped(self) -> Iterator[None]:
        """Clips the model's gradients just before the torch optimizer steps."""
        if self.clip is None:
            yield
            return
        limit, parameters = self.clip, list(self.objective.model.parameters())

        def clip(*_: Any) -> None:
            clip_gradients(parameters, limit)

        handle = self.optimizer.register_step_pre_hook(clip)
        try:
            yield
        finally:
            handle.remove()
