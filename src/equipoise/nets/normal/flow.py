"""NORMAL's block, shared features that flow along a neural ODE until each task takes them where it sits, and its network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.errors import InputError, near_misses
from equipoise.nets.normal.dynamics import HALF, Dynamics, FirstOrder, HeavyBall, pointwise_map, vector_map
from equipoise.nets.normal.positions import FixedPositions, LearnedPositions, Positions
from equipoise.nets.normal.solver import Solver

__all__ = ["NORMAL", "TaskFlow"]


class TaskFlow(nn.Module):
    """Task features z(p_i) on a flow that starts at z(0), the output of an encoder (NORMAL; thesis, section 5.4).

    The flow is one differential equation for all tasks, :class:`HeavyBall` as in eq. 5.7 to 5.9 or :class:`FirstOrder`. It is
    solved once for all positions above 0, and once for all below; what a task gets does not depend on where the others sit.

    **Gradients of positions.** d L_i/d p_i = ⟨∂L_i/∂z(p_i), z′(p_i)⟩ = −⟨∂L_i/∂z(p_i), q(p_i)⟩, eq. 5.11, exactly, with the
    q that the solver found; not the derivative of the solver's own arithmetic, which for Euler's method would have q at the
    last grid point, and which would make a task's loss depend on the grid. A position is reached by its own task's loss only,
    so the library takes it for task-specific: with every balancer it gets its own task's gradient, while the equation's
    parameters are shared. Derivatives of eq. 5.11 by z(0) and by the equation's parameters are right as well; the second
    derivative by a position itself lacks the term with z″, ⟨∂L_i/∂z(p_i), z″(p_i)⟩.

    Features in half precision are integrated in float32; where the equation itself was cast to half precision
    (``model.bfloat16()``), its maps are evaluated in that, and tasks get features of the precision that came in.

    Args:
        dynamics: the differential equation.
        positions: of the tasks.
        solver: how to integrate; Euler's method with steps of 0.25 if left out.

    Raises:
        InputError: arguments of the wrong kind; when run, features or positions that cannot be used.
        MissingExtraError: when run without torchdiffeq (extra ``normal``) by another solver than Euler's, or with the adjoint.

    Example:
        >>> flow = TaskFlow.for_vectors(["depth", "label"], 50)
        >>> {task: tuple(z.shape) for task, z in flow(torch.randn(7, 50)).items()}
        {'depth': (7, 50), 'label': (7, 50)}
        >>> flow.positions.values()
        {'depth': 1.0, 'label': 1.0}
    """

    def __init__(self, dynamics: Dynamics, positions: Positions, solver: Solver | None = None) -> None:
        super().__init__()
        for name, value, kind in (("dynamics", dynamics, Dynamics), ("positions", positions, Positions)):
            if not isinstance(value, kind):
                raise InputError(f"{name} must be a {kind.__name__}; got {type(value).__name__}")
        if solver is not None and not isinstance(solver, Solver):
            raise InputError(f'solver must be a Solver, such as Solver("rk4"); got {solver!r}')
        self.dynamics = dynamics
        self.positions = positions
        self.solver = solver or Solver()

    @classmethod
    def for_vectors(
        cls,
        tasks: Sequence[str],
        size: int,
        *,
        hidden: int | None = None,
        xi: float = 0.0,
        first_order: bool = False,
        positions: Positions | None = None,
        solver: Solver | None = None,
    ) -> TaskFlow:
        """The flow of the thesis for features ``[N, size]``: FC – LeakyReLU – FC for u and for g.

        Args:
            tasks: names, in order.
            size: entries of a feature vector.
            hidden: units within u and g; ``size`` if left out.
            xi: ξ of :class:`HeavyBall`.
            first_order: dz/dt = g(z) instead, which has no u.
            positions: of these tasks; learned ones that start at 1 if left out.
            solver: how to integrate.

        Raises:
            InputError: as the parts do; positions of other tasks.
        """
        layers = 1 if first_order else 2
        return cls._of_maps([vector_map(size, hidden) for _ in range(layers)], tasks, xi, positions, solver)

    @classmethod
    def for_maps(
        cls,
        tasks: Sequence[str],
        channels: int,
        *,
        hidden: int | None = None,
        xi: float = 0.0,
        first_order: bool = False,
        positions: Positions | None = None,
        solver: Solver | None = None,
    ) -> TaskFlow:
        """The flow of the thesis for feature maps ``[N, channels, H, W]``: 1×1 conv – LeakyReLU – 1×1 conv for u and g.

        Arguments as :meth:`for_vectors`, with ``channels`` for ``size``.
        """
        layers = 1 if first_order else 2
        return cls._of_maps([pointwise_map(channels, hidden) for _ in range(layers)], tasks, xi, positions, solver)

    @classmethod
    def _of_maps(
        cls, maps: list[nn.Sequential], tasks: Sequence[str], xi: float, positions: Positions | None, solver: Solver | None
    ) -> TaskFlow:
        dynamics: Dynamics = FirstOrder(*maps) if len(maps) == 1 else HeavyBall(*maps, xi=xi)
        if len(maps) == 1 and xi:
            raise InputError("xi belongs to the second-order flow; leave it out with first_order=True")
        if positions is not None and isinstance(positions, Positions) and positions.tasks != tuple(tasks):
            raise InputError(f"the positions are of {', '.join(positions.tasks)}; the tasks are {', '.join(tasks)}")
        return cls(dynamics, LearnedPositions(tasks) if positions is None else positions, solver)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names, in order."""
        return self.positions.tasks

    def frozen(self) -> TaskFlow:
        """The same flow with its positions where they are now: one graph for ``torch.compile(fullgraph=True)`` and export.

        Parameters of the equation and the solver are shared, not copied.
        """
        values = self.positions.values()
        own = next(chain(self.positions.parameters(), self.positions.buffers()), torch.empty(()))
        positions = FixedPositions(self.tasks, values).to(own)
        # In the flow's own precision, which the constructor's may be below.
        positions.load_state_dict({"fixed": torch.tensor(list(values.values()), dtype=own.dtype)})
        return TaskFlow(self.dynamics, positions, self.solver).train(self.training)

    def forward(self, features: Tensor, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Follows the flow to the tasks.

        Args:
            features: z(0), of any shape that the equation's maps take.
            tasks: to which; all of them if left out. The flow is followed no further than to these.

        Returns:
            z(p_i) by task, each in the shape of the features.

        Raises:
            UnknownTaskError: a task that has no position.
            InputError: features that are no floating-point tensor, or a position that is not finite.
        """
        wanted = self.tasks if tasks is None else tuple(tasks)
        if not isinstance(features, Tensor) or not features.is_floating_point():
            given = features.dtype if isinstance(features, Tensor) else type(features).__name__
            raise InputError(f"features must be a floating-point tensor; got {given}")
        given = features.dtype
        if given in HALF:
            features = features.float()
        positions = {task: self.positions(task) for task in wanted}
        if not positions:
            return {}
        compiling, fixed = torch.compiler.is_compiling(), self.positions.constants()
        if compiling and fixed is None and self.solver.method == "euler" and not self.solver.adjoint:
            reached = self.solver.compiled(self.dynamics, self.dynamics.start(features), list(positions.values()))
            found = zip(positions.items(), reached, strict=True)
            return self._given({task: self._taken(state, own.detach(), own) for (task, own), state in found}, given)
        if compiling and fixed is not None:
            times = {task: fixed[task] for task in positions}  # numbers, so that the graph is one
        else:
            # All at once: on a GPU the host waits for them, once.
            numbers = torch.stack([position.detach().reshape(()) for position in positions.values()]).tolist()
            times = dict(zip(positions, numbers, strict=True))
        for task, time in times.items():
            if not math.isfinite(time):
                raise InputError(
                    f'the position of task "{task}" is {time}; take a smaller step size for the positions (position_groups), '
                    f"or look for a loss that is not finite"
                )
        states = self.solver.states(self.dynamics, self.dynamics.start(features), list(times.values()))
        taken = {
            task: self._taken(states[times[task]], times[task], position) if position.requires_grad else states[times[task]][0]
            for task, position in positions.items()
        }
        return self._given(taken, given)

    def _given(self, taken: dict[str, Tensor], precision: torch.dtype) -> dict[str, Tensor]:
        if precision in HALF and any(parameter.dtype in HALF for parameter in self.dynamics.parameters()):
            return {task: z.to(precision) for task, z in taken.items()}
        return taken

    def _taken(self, state: tuple[Tensor, ...], time: float | Tensor, position: Tensor) -> Tensor:
        """z, with dz/dp = z′: the tangent of the flow at z, taken at the point itself."""
        z = state[0]
        offset = position - position.detach()  # 0, with derivative 1
        # Filled where it is: a copy from the host would have it wait, for every task.
        at = time.to(z) if isinstance(time, Tensor) else torch.full((), time, dtype=z.dtype, device=z.device)
        velocity = self.dynamics.velocity(at, state)
        return z + offset.to(z) * velocity


class NORMAL(nn.Module):
    """Puts a :class:`TaskFlow` between an encoder and its heads: task i gets h_i(z(p_i)), z(0) the encoder's output (eq. 5.6).

    Args:
        encoder: any module whose output is one tensor.
        flow: how its output turns into the tasks' features.
        heads: task → module; the tasks of the flow, in any order.

    Raises:
        InputError: a part of the wrong kind, or heads of other tasks than the flow's.

    Example:
        >>> import torch
        >>> flow = TaskFlow.for_vectors(["depth", "label"], 16)
        >>> model = NORMAL(nn.Linear(8, 16), flow, {"depth": nn.Linear(16, 1), "label": nn.Linear(16, 4)})
        >>> {task: tuple(out.shape) for task, out in model(torch.randn(5, 8)).items()}
        {'depth': (5, 1), 'label': (5, 4)}
        >>> list(model(torch.randn(5, 8), tasks=["label"]))
        ['label']
    """

    def __init__(self, encoder: nn.Module, flow: TaskFlow, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise InputError(f"encoder must be a torch.nn.Module; got {type(encoder).__name__}")
        if not isinstance(flow, TaskFlow):
            raise InputError(f"flow must be a TaskFlow; got {type(flow).__name__}")
        if not isinstance(heads, Mapping | nn.ModuleDict):
            raise InputError(f"heads must be a mapping task → module; got {type(heads).__name__}")
        for task, head in heads.items():
            if task not in flow.tasks:
                raise InputError(
                    f'there is a head for task "{task}", which the flow does not have.{near_misses(str(task), flow.tasks)} '
                    f"Its tasks: {', '.join(flow.tasks)}"
                )
            if not isinstance(head, nn.Module):
                raise InputError(f'the head of task "{task}" must be a torch.nn.Module; got {type(head).__name__}')
        missing = [task for task in flow.tasks if task not in heads]
        if missing:
            raise InputError(f'there is no head for task "{missing[0]}" of the flow')
        self.encoder = encoder
        self.flow = flow
        try:
            self.heads = nn.ModuleDict({task: heads[task] for task in flow.tasks})
        except KeyError as error:
            raise InputError(f"torch cannot give a module the name of this task ({error}); rename the task") from None

    def forward(self, *inputs: Any, tasks: Iterable[str] | None = None) -> dict[str, Any]:
        """Computes the tasks' outputs.

        Args:
            *inputs: what the encoder takes.
            tasks: of which tasks; all of them if left out. Where tasks have inputs of their own, one call per task.

        Returns:
            What each task's head gives, by task.

        Raises:
            UnknownTaskError: a task that has no position.
            InputError: see :class:`TaskFlow`.
        """
        features = self.flow(self.encoder(*inputs), tasks)
        return {task: self.heads[task](z) for task, z in features.items()}

    def frozen(self) -> NORMAL:
        """The same network with its positions where they are now, for deployment; see :meth:`TaskFlow.frozen`.

        Example:
            >>> flow = TaskFlow.for_vectors(["depth", "label"], 16)
            >>> model = NORMAL(nn.Linear(8, 16), flow, {"depth": nn.Linear(16, 1), "label": nn.Linear(16, 4)})
            >>> program = torch.export.export(model.frozen().eval(), (torch.randn(5, 8),))
            >>> sorted(program.module()(torch.zeros(5, 8)))
            ['depth', 'label']
        """
        return NORMAL(self.encoder, self.flow.frozen(), dict(self.heads.items())).train(self.training)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the encoder and of the flow's equation: all but those of positions and heads.

        :class:`~equipoise.MultiTaskOptimizer` finds them by itself; pass them to ``eq.backward`` as ``shared=``.
        """
        return chain(self.encoder.parameters(), self.flow.dynamics.parameters())
