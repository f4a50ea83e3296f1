"""Error of hypergradients against their cost, on a problem whose answer is known: a quadratic lower level.

f = ½ωᵀAω − ωᵀBα with eigenvalues of A from 0.01 to 1 in 50 dimensions, F = ½‖ω − t‖². ω starts at 0; the exact hypergradient is
that of ω* = A⁻¹Bα. What a way costs is counted in evaluations of f with a backward pass: a product with its second derivatives
counts as two of them, exact or by differences.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.tables import table
from equipoise.bilevel import BilevelProblem, Implicit, Unrolled, hypergradients

__all__ = ["run"]

SIZE = 50


def run(say: Callable[[str], None]) -> None:
    """Prints the table."""
    rows = []
    for steps in (10, 100, 1000):
        for name, method, products in _methods(steps):
            found = [f"{_error(method, steps, dtype):.0e}" for dtype in (torch.float64, torch.float32)]
            rows.append([str(steps), name, str(steps + 2 * products), *found])
    head = ["T", "hypergradient", "evaluations", "relative error, float64", "float32"]
    say(
        "## Hypergradients\n\nOf a quadratic lower level in 50 dimensions, condition number 100, at the ω that T steps of "
        "gradient descent from 0 lead to, against those of the lower level's minimum.\n\n" + table(head, rows)
    )


def _methods(steps: int) -> list[tuple[str, Unrolled | Implicit, int]]:
    found: list[tuple[str, Unrolled | Implicit, int]] = [("unrolled", Unrolled(), steps)]
    if steps > 10:
        found.append(("unrolled, the last 10 steps", Unrolled(last=10), 10))
    found.append(("unrolled, differences", Unrolled(products="differences"), steps))
    for products in ("exact", "differences"):
        mark = ", differences" if products == "differences" else ""
        for iterations in (10, 40) if products == "exact" else (40,):
            method = Implicit(iterations=iterations, products=products)
            found.append((f"{iterations} conjugate gradients{mark}", method, iterations + 1))
        for iterations in (10, 100) if products == "exact" else (100,):
            method = Implicit("neumann", iterations=iterations, products=products)
            found.append((f"Neumann, {iterations} terms{mark}", method, iterations + 1))
    return found


def _error(method: Unrolled | Implicit, steps: int, dtype: torch.dtype) -> float:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    basis = torch.linalg.qr(draw(SIZE, SIZE))[0]
    a, b, target, alpha = (
        (basis * torch.logspace(-2, 0, SIZE, dtype=torch.float64)) @ basis.T,
        draw(SIZE, 5),
        draw(SIZE),
        draw(5),
    )
    jacobian = torch.linalg.solve(a, b)
    exact = (jacobian @ alpha - target) @ jacobian
    a, b, target, alpha = (tensor.to(dtype) for tensor in (a, b, target, alpha))
    problem = BilevelProblem(
        lambda alpha, omega, _: 0.5 * omega @ a @ omega - omega @ (b @ alpha),
        lambda alpha, omega, _: 0.5 * (omega - target).square().sum() + 0 * alpha.sum(),
        (alpha, torch.zeros(SIZE, dtype=dtype)),
    )
    found = hypergradients(problem, problem.here(), [None] * steps, None, 1.0, method=method)
    return float((found.rows[0].double() - exact).norm() / exact.norm())
