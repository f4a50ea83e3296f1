"""Two differential equations as problems to study: Poisson's and Burgers', each solved by a small network, exactly judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from equipoise.errors import InputError
from equipoise.metrics import Metric
from equipoise.points import SelfAdaptivePoints, mean_square
from equipoise.study.problem import Built, Problem, Splits

__all__ = ["burgers_problem", "burgers_solution", "poisson_problem"]

_STEPS = 100  # per epoch
_LR = 5e-3
_ASCENT = 5e-3  # of the weights per point, as the released code of SA-PINN has it


_Places: TypeAlias = Callable[[Tensor], Tensor]


class _Equation(NamedTuple):
    """What is solved, the residual first among its tasks; points are ``[n, 2]``.

    Attributes:
        places: for each task, from numbers in [0, 1]², the points that it looks at.
        residual: what is to be 0, from u, its first derivatives and the points, all on the graph.
        given: what u is to be where there is a condition.
        exact: the solution.
        lower: the corner opposite to (1, 1).
    """

    places: Mapping[str, _Places]
    residual: Callable[[Tensor, Tensor, Tensor], Tensor]
    given: Callable[[Tensor], Tensor]
    exact: Callable[[Tensor], Tensor]
    lower: tuple[float, float]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The losses, in order."""
        return tuple(self.places)


def poisson_problem(*, frequency: int = 2, points: int = 128, self_adaptive: bool = False, epochs: int = 30) -> Problem:
    """Δu = f on the unit square with u = 0 on its border, where u = sin(πx) sin(πny) and so f = −(1 + n²)π²u.

    Two losses, mean squares over fixed points: of the residual inside, and of u on the border. Judged by the relative error of
    u on a grid, ‖û − u‖/‖u‖ in percent, which no loss sees. Four tanh layers of 20 units, Adam at 5e-3 that fades by
    5 % per epoch of 100 steps, each on all points.

    Args:
        frequency: n.
        points: how many of them each loss is a mean over.
        self_adaptive: whether each point has a trainable weight (:class:`~equipoise.points.SelfAdaptivePoints`).
        epochs: how long a run trains unless the study says otherwise.

    Raises:
        InputError: a number below 1.
    """
    if frequency < 1:
        raise InputError(f"frequency is {frequency}; it must be at least 1")

    def exact(points: Tensor) -> Tensor:
        return torch.sin(math.pi * points[:, 0]) * torch.sin(math.pi * frequency * points[:, 1])

    def residual(u: Tensor, slopes: Tensor, points: Tensor) -> Tensor:
        curvature = _second(slopes[:, 0], points, 0) + _second(slopes[:, 1], points, 1)
        return curvature + (1 + frequency**2) * math.pi**2 * exact(points.detach())

    def on_border(drawn: Tensor) -> Tensor:
        # The first number is the place around the border, a quarter for each side.
        side, along = (4 * drawn[:, 0]).floor().clamp(max=3), 4 * drawn[:, 0] % 1
        fixed = (side >= 2).to(drawn)
        return torch.where((side % 2 == 0)[:, None], torch.stack([along, fixed], 1), torch.stack([fixed, along], 1))

    places = {"residual": lambda drawn: drawn, "border": on_border}
    equation = _Equation(places, residual, lambda points: torch.zeros_like(points[:, 0]), exact, (0.0, 0.0))
    return _problem("poisson", equation, {"frequency": frequency}, points, self_adaptive, epochs)


def burgers_problem(
    *, viscosity: float = 0.01 / math.pi, points: int = 128, self_adaptive: bool = False, epochs: int = 30
) -> Problem:
    """u_t + u u_x = ν u_xx for x in [−1, 1] and t in [0, 1], with u = −sin(πx) at t = 0 and u = 0 at x = ±1.

    Three losses, mean squares over fixed points: of the residual, of u + sin(πx) at the beginning, and of u on the border.
    A front forms at x = 0, the steeper the smaller ν. Judged, trained and optioned as :func:`poisson_problem`, by the exact
    solution (:func:`burgers_solution`).

    Args:
        viscosity: ν; 0.01/π as is usual.
        points: how many of them each loss is a mean over.
        self_adaptive: whether each point has a trainable weight (:class:`~equipoise.points.SelfAdaptivePoints`).
        epochs: how long a run trains unless the study says otherwise.

    Raises:
        InputError: a number below 1, or a viscosity below 0.001.
    """
    if not 1e-3 <= viscosity < math.inf:
        raise InputError(f"viscosity is {viscosity}; it must be at least 0.001, or the solution could not be told")

    def residual(u: Tensor, slopes: Tensor, points: Tensor) -> Tensor:
        return slopes[:, 1] + u * slopes[:, 0] - viscosity * _second(slopes[:, 0], points, 0)

    def exact(points: Tensor) -> Tensor:
        x, t = points.double().cpu().numpy().T
        return torch.from_numpy(burgers_solution(x, t, viscosity))

    places: dict[str, _Places] = {
        "residual": lambda drawn: torch.stack([2 * drawn[:, 0] - 1, drawn[:, 1]], 1),
        "initial": lambda drawn: torch.stack([2 * drawn[:, 0] - 1, torch.zeros_like(drawn[:, 0])], 1),
        "border": lambda drawn: torch.stack([torch.where(drawn[:, 0] < 0.5, -1.0, 1.0).to(drawn), drawn[:, 1]], 1),
    }
    # −sin(πx) is 0 at the ends, too.
    equation = _Equation(places, residual, lambda points: -torch.sin(math.pi * points[:, 0]), exact, (-1.0, 0.0))
    return _problem("burgers", equation, {"viscosity": viscosity}, points, self_adaptive, epochs)


def burgers_solution(x: NDArray[np.float64], t: NDArray[np.float64], viscosity: float) -> NDArray[np.float64]:
    """The solution of :func:`burgers_problem`, by the transformation of Cole and Hopf.

    u(x, t) = −∫ sin(πy) f(y) e^{−η²/4νt} dη / ∫ f(y) e^{−η²/4νt} dη with y = x − η and f(y) = e^{−cos(πy)/2πν}: Gauss-Hermite
    quadrature in η/√(4νt), 256 nodes (Basdevant et al., Computers & Fluids 1986).

    Args:
        x: places, of any shape.
        t: times from 0 on, of the same shape.
        viscosity: ν.
    """
    nodes, weights = np.polynomial.hermite.hermgauss(256)
    y = np.asarray(x)[..., None] - 2 * np.sqrt(viscosity * np.asarray(t))[..., None] * nodes
    # Relative to the largest: the exponents themselves are in the dozens, and some weights are 0 in float64.
    exponents = -np.cos(np.pi * y) / (2 * np.pi * viscosity)
    with np.errstate(divide="ignore"):
        exponents += np.log(weights)
    shares = np.exp(exponents - exponents.max(-1, keepdims=True))
    found: NDArray[np.float64] = -(np.sin(np.pi * y) * shares).sum(-1) / shares.sum(-1)
    return found


# -- what both have in common


class _Solver(nn.Module):
    """u as a network of (x, y) or (x, t), and weights per point where there are some."""

    def __init__(self, equation: _Equation, points: int, self_adaptive: bool) -> None:
        super().__init__()
        sizes = [2, 20, 20, 20, 20, 1]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.Tanh()]
            nn.init.xavier_normal_(layers[-2].weight)  # type: ignore[arg-type]
            nn.init.zeros_(layers[-2].bias)  # type: ignore[arg-type]
        self.u = nn.Sequential(*layers[:-1])
        self.points = nn.ModuleDict({task: SelfAdaptivePoints(points) for task in equation.tasks} if self_adaptive else {})

    def forward(self, points: Tensor) -> Tensor:
        """U ``[n]`` at points ``[n, 2]``."""
        out: Tensor = self.u(points)
        return out.squeeze(-1)


def _problem(
    name: str, equation: _Equation, options: Mapping[str, Any], points: int, self_adaptive: bool, epochs: int
) -> Problem:
    if points < 1:
        raise InputError(f"points is {points}; it must be at least 1")
    return Problem(
        name=name,
        tasks=equation.tasks,
        metrics=(
            Metric("error", equation.tasks[0], higher_is_better=False, unit="%"),
            *(Metric(f"{task} error", task, higher_is_better=False) for task in equation.tasks[1:]),
        ),
        build=partial(_build, equation, points, self_adaptive),
        data=partial(_data, equation, points),
        evaluate=partial(_evaluate, equation),
        optimizer=_optimizer,
        schedule=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.95),
        epochs=epochs,
        options={**options, "points": points, "self_adaptive": self_adaptive, "steps": _STEPS, "optimizer": f"Adam, {_LR}"},
    )


def _build(equation: _Equation, points: int, self_adaptive: bool, seed: int) -> Built:
    return _Solver(equation, points, self_adaptive), partial(_losses, equation)


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    solver = cast(_Solver, model)
    weights = [cast(SelfAdaptivePoints, points).ascent(_ASCENT) for points in solver.points.values()]
    return torch.optim.Adam([{"params": list(solver.u.parameters())}, *weights], lr=_LR, fused=True)


def _losses(equation: _Equation, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    inside, *conditions = equation.tasks
    points = batch[inside].detach().requires_grad_(True)
    u = model(points)
    (slopes,) = torch.autograd.grad(u.sum(), points, create_graph=True)
    residuals = {inside: equation.residual(u, slopes, points)}
    for task in conditions:
        residuals[task] = model(batch[task]) - equation.given(batch[task])
    weighted = cast(_Solver, model).points
    if weighted:
        return {task: weighted[task](values) for task, values in residuals.items()}
    return {task: mean_square(values) for task, values in residuals.items()}


class _Steps:
    """One batch, again and again: the steps of an epoch."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return _STEPS

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter([self.batch] * _STEPS)


def _data(equation: _Equation, points: int, seed: int) -> Splits:
    spread = SobolEngine(2, scramble=True, seed=seed)
    batch = {task: where(spread.draw(points)) for task, where in equation.places.items()}

    def judged(nodes: int, offset: float) -> list[dict[str, Tensor]]:
        axis = (torch.arange(nodes, dtype=torch.float64, device="cpu") + offset) / (nodes - 1 + 2 * offset)
        lower = torch.tensor(equation.lower, dtype=torch.float64, device="cpu")
        grid = lower + (1 - lower) * torch.cartesian_prod(axis, axis)
        edges = {task: equation.places[task](torch.stack([axis, axis.flip(0)], 1)).float() for task in equation.tasks[1:]}
        return [{"grid": grid.float(), "u": equation.exact(grid), **edges}]

    return Splits(_Steps(batch), judged(50, 0.5), judged(101, 0.0))


def _evaluate(equation: _Equation, model: nn.Module, loader: Iterable[Any]) -> dict[str, float]:
    (batch,) = loader
    error = (model(batch["grid"]).double() - batch["u"].to(batch["grid"].device)).norm() / batch["u"].norm()
    found = {"error": 100 * float(error)}
    for task in equation.tasks[1:]:
        off = model(batch[task]) - equation.given(batch[task])
        found[f"{task} error"] = float(off.double().square().mean().sqrt())
    return found


def _second(slope: Tensor, points: Tensor, axis: int) -> Tensor:
    """∂slope/∂(that coordinate) ``[n]``, on the graph."""
    (rows,) = torch.autograd.grad(slope.sum(), points, create_graph=True)
    return rows[:, axis]
