"""Bilevel solvers next to grid search: three problems with one upper objective, and one with three.

Every α that comes out, of a solver or of the grid, is judged by the lower level's exact minimum for it (L-BFGS to a gradient
of 1e-8): by its validation loss, and by a test loss that nobody sees. What it cost is counted in evaluations of f.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tables import table
from equipoise.bilevel import BOME, BVFIM, FORUM, MOML, BilevelProblem, Implicit, decaying

__all__ = ["run"]

STEPS = 400
DOUBLE = torch.float64


@dataclass(frozen=True)
class Case:
    """A lower level that trains, an upper level that validates, hyperparameters between them.

    Attributes:
        name: in the table.
        lower: f(α, ω).
        upper: ω → validation losses ``[m]``.
        test: ω → test loss.
        shape: of ω.
        start: of α, and its lower and upper bounds in the grid.
        points: of the grid in each dimension.
        lower_lr: of gradient descent on f.
        outer_lr: of ω, in methods that move it along the upper gradients.
    """

    name: str
    lower: Callable[[Tensor, Tensor], Tensor]
    upper: Callable[[Tensor], Tensor]
    test: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    start: tuple[float, ...]
    bounds: tuple[tuple[float, float], ...]
    points: int
    lower_lr: float
    outer_lr: float

    def answer(self, alpha: Tensor) -> tuple[Tensor, int]:
        """ω*(α), and how many evaluations that took from 0."""
        omega = torch.zeros(self.shape, dtype=DOUBLE, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [omega], max_iter=400, tolerance_grad=1e-8, tolerance_change=0, line_search_fn="strong_wolfe"
        )
        count = 0

        def closure() -> Tensor:
            nonlocal count
            count += 1
            optimizer.zero_grad()
            value = self.lower(alpha.detach(), omega)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        return omega.detach(), count

    def grid(self) -> list[Tensor]:
        """All its points."""
        axes = [torch.linspace(low, high, self.points, dtype=DOUBLE).tolist() for low, high in self.bounds]
        return [torch.tensor(point, dtype=DOUBLE) for point in itertools.product(*axes)]


def run(say: Callable[[str], None], *, budget: float) -> None:
    """Prints both tables; ``budget`` scales the outer steps."""
    steps = max(20, round(STEPS * budget))
    rows = []
    for case in (_ridge(False), _ridge(True), _sources()):
        rows += _compare(case, steps)
    head = ["problem", "method", "α", "validation", "its own report", "test", "evaluations of f"]
    say(
        f"## Hyperparameters, one upper objective\n\nBilevel solvers ({steps} outer steps, T = 10, warm start) next to grid "
        f"search. Validation and test losses are those of the lower level's exact minimum for the α found; *its own report* is "
        f"the upper value that the solver reports of its last step.\n\n" + table(head, rows)
    )
    say(
        "## Hyperparameters, three upper objectives\n\nThe two strengths again, with a validation loss per third of the "
        "patients by age. *Better grid points*: those of the grid that are better in all three; *gap*: by how much the best "
        "of them is better in the objective in which it is least so (below zero: none is).\n\n"
        + _three(_ridge(True, groups=True), steps)
    )


def _solvers(case: Case, steps: int) -> dict[str, Callable[[BilevelProblem, Tensor, Tensor], tuple[Any, Any]]]:
    common: dict[str, Any] = {"lower_steps": 10, "lower_lr": case.lower_lr}

    def nested(**options: Any) -> Callable[..., Any]:
        return lambda problem, alpha, omega: (MOML(problem, torch.optim.Adam([alpha], 0.05), **common, **options), [])

    def both(kind: Any, lr: float, decay: bool, **options: Any) -> Callable[..., Any]:
        def make(problem: BilevelProblem, alpha: Tensor, omega: Tensor) -> tuple[Any, Any]:
            # α by Adam, for its gradients are ν times differences of f, and small.
            optimizers = [torch.optim.Adam([alpha], 0.05), torch.optim.SGD([omega], lr)]
            solver = kind(problem, optimizers, **common, **options)
            return solver, [decaying(optimizer, after=20) for optimizer in optimizers] if decay else []

        return make

    return {
        "MOML, unrolled": nested(),
        "MOML, conjugate gradients": nested(hypergradient=Implicit(iterations=10, damping=1e-6)),
        "FORUM, constant": both(FORUM, case.outer_lr, False),
        "FORUM, decaying": both(FORUM, case.outer_lr, True),
        "BOME, decaying": both(BOME, case.outer_lr, True),
        "BVFIM, decaying": both(BVFIM, 0.2 * case.outer_lr, True),
    }


def _solve(case: Case, make: Callable[..., Any], steps: int) -> tuple[Tensor, Any, int, list[str]]:
    alpha = torch.tensor(case.start, dtype=DOUBLE)
    omega = torch.zeros(case.shape, dtype=DOUBLE)
    count = 0

    def lower(alpha: Tensor, omega: Tensor, batch: None) -> Tensor:
        nonlocal count
        count += 1
        return case.lower(alpha, omega)

    problem = BilevelProblem(lower, lambda alpha, omega, batch: case.upper(omega) + 0 * alpha.sum(), (alpha, omega))
    solver, schedules = make(problem, alpha, omega)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            solver.step()
            for schedule in schedules:
                schedule.step()
    return alpha.detach(), solver.last, count, [str(entry.message) for entry in caught]


def _compare(case: Case, steps: int) -> list[list[str]]:
    found = [(point, *case.answer(point)) for point in case.grid()]
    best, omega, _ = min(found, key=lambda entry: float(case.upper(entry[1]).mean()))
    rows = [[case.name, f"grid of {len(found)}", _text(best), _loss(case.upper(omega)), "", _loss(case.test(omega))]]
    rows[0].append(str(sum(entry[2] for entry in found)))
    for name, make in _solvers(case, steps).items():
        alpha, report, count, warned = _solve(case, make, steps)
        omega, _ = case.answer(alpha)
        mark = " (warned)" if warned else ""
        own = _loss(report.upper)
        rows.append([case.name, name + mark, _text(alpha), _loss(case.upper(omega)), own, _loss(case.test(omega)), str(count)])
    return rows


def _three(case: Case, steps: int) -> str:
    points = case.grid()
    found = torch.stack([case.upper(case.answer(point)[0]) for point in points])
    rows = []
    for weights in [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1 / 3, 1 / 3, 1 / 3)]:
        place = int((found @ torch.tensor(weights, dtype=DOUBLE)).argmin())
        name = "grid, weights " + ", ".join(f"{weight:.2g}" for weight in weights)
        rows.append([name, _text(points[place]), *map(_loss, found[place]), "0", ""])
    for name, make in _solvers(case, steps).items():
        if name.startswith(("MOML", "FORUM")):
            alpha, _, _, warned = _solve(case, make, steps)
            values = case.upper(case.answer(alpha)[0])
            margins = (values - found).amin(1)
            mark = " (warned)" if warned else ""
            better = int((margins > 0).sum())
            rows.append([name + mark, _text(alpha), *map(_loss, values), str(better), f"{float(margins.max()):+.4f}"])
    return table(["method", "α", "young", "middle", "old", "better grid points", "gap"], rows)


def _text(alpha: Tensor) -> str:
    return ", ".join(f"{value:.2f}" for value in alpha.tolist())


def _loss(value: Tensor) -> str:
    return f"{float(value.detach().mean()):.4f}"


def _ridge(two: bool, groups: bool = False) -> Case:
    """Diabetes with 40 features of noise; log strengths of one ridge penalty, or of one on each kind of feature."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    generator = torch.Generator().manual_seed(0)
    inputs, target = torch.tensor(data.data, dtype=DOUBLE), torch.tensor(data.target, dtype=DOUBLE)
    age = inputs[:, 0].clone()
    inputs = torch.cat([inputs, torch.randn(len(inputs), 40, generator=generator, dtype=DOUBLE)], 1)
    inputs, target = (inputs - inputs.mean(0)) / inputs.std(0), (target - target.mean()) / target.std()
    order = torch.randperm(len(inputs), generator=generator)
    train, val, test = order[:100], order[100:270], order[270:]
    thirds = [val[part] for part in age[val].argsort().tensor_split(3)] if groups else [val]

    def errors(omega: Tensor, rows: Tensor) -> Tensor:
        return 0.5 * (inputs[rows] @ omega - target[rows]).square().mean()

    def lower(alpha: Tensor, omega: Tensor) -> Tensor:
        strengths = alpha.exp()
        penalty = strengths[0] * omega[:10].square().sum() + strengths[-1] * omega[10:].square().sum()
        return errors(omega, train) + 0.5 * penalty

    return Case(
        "two ridge strengths" if two else "a ridge strength",
        lower,
        lambda omega: torch.stack([errors(omega, part) for part in thirds]),
        lambda omega: errors(omega, test),
        (50,),
        (-1.0, -1.0) if two else (-1.0,),
        ((-5.0, 3.0),) * 2 if two else ((-5.0, 3.0),),
        13 if two else 65,
        0.03,
        0.05,
    )


def _sources() -> Case:
    """Digits from a small clean source and a large one with wrong labels: log odds of the clean one, log weight decay."""
    from sklearn.datasets import load_digits

    data = load_digits()
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(data.data), generator=generator)
    inputs = torch.tensor(data.data, dtype=DOUBLE)[order] / 16.0
    labels = torch.tensor(data.target)[order]
    noisy = labels.clone()
    wrong = torch.rand(len(labels), generator=generator) < 0.5
    noisy[wrong] = (noisy[wrong] + torch.randint(1, 10, (int(wrong.sum()),), generator=generator)) % 10
    clean, large, val, test = slice(0, 40), slice(40, 440), slice(440, 740), slice(740, None)
    entropy = nn.functional.cross_entropy

    def lower(alpha: Tensor, omega: Tensor) -> Tensor:
        share = alpha[0].sigmoid()
        fit = share * entropy(inputs[clean] @ omega, labels[clean]) + (1 - share) * entropy(inputs[large] @ omega, noisy[large])
        return fit + 0.5 * alpha[1].exp() * omega.square().sum()

    return Case(
        "two sources",
        lower,
        lambda omega: entropy(inputs[val] @ omega, labels[val])[None],
        lambda omega: entropy(inputs[test] @ omega, labels[test]),
        (64, 10),
        (0.0, -5.0),
        ((-5.0, 5.0), (-8.0, -1.0)),
        13,
        0.3,
        0.5,
    )
