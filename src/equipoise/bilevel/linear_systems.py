"""Systems (∇²_ωω f + diagonal) x = v of implicit hypergradients, by products with the matrix alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from equipoise.bilevel.levels import Curvature
from equipoise.bilevel.rules import Vectors
from equipoise.engine.reals import flat
from equipoise.errors import NonFiniteError

__all__ = ["conjugate_gradients", "neumann"]


def conjugate_gradients(
    curvature: Curvature, right: Vectors, diagonal: list[float], iterations: int, tolerance: float
) -> Vectors:
    """One system after the other, until the residual is ``tolerance`` of the right-hand side.

    Raises:
        NonFiniteError: the matrix is not positive along a direction.
    """
    solutions = []
    for row in right:
        x = [torch.zeros_like(v) for v in row]
        residual = [v.clone() for v in row]
        direction = residual
        square = start = _dot(residual, residual)
        for _ in range(iterations):
            if square <= tolerance**2 * start:
                break
            product = _damped(curvature, [direction], diagonal)[0]
            curve = _dot(direction, product)
            if not curve > 0.0:
                raise _unfit(
                    curvature,
                    f"the lower level's second derivative is not positive along a direction of conjugate gradients "
                    f"({curve:.3g}), so ω is no minimum there; add damping=, take more lower steps, or unroll",
                )
            rate = square / curve
            x = [v.add(d, alpha=rate) for v, d in zip(x, direction, strict=True)]
            residual = [r.sub(p, alpha=rate) for r, p in zip(residual, product, strict=True)]
            after = _dot(residual, residual)
            direction = [r.add(d, alpha=after / square) for r, d in zip(residual, direction, strict=True)]
            square = after
        solutions.append(x)
    return solutions


def neumann(curvature: Curvature, right: Vectors, diagonal: list[float], lr: float, iterations: int, batched: bool) -> Vectors:
    """η Σ_j (I − η (∇²_ωω f + diagonal))^j of the right-hand sides, j = 0 … iterations.

    Raises:
        NonFiniteError: the terms grow.
    """
    terms = right
    sums = [[lr * v for v in row] for row in right]
    for _ in range(iterations):
        products = _damped(curvature, terms, diagonal, batched)
        terms = [[v.sub(p, alpha=lr) for v, p in zip(*pair, strict=True)] for pair in zip(terms, products, strict=True)]
        sums = [[s.add(v, alpha=lr) for s, v in zip(*pair, strict=True)] for pair in zip(sums, terms, strict=True)]
    for first, last in zip(right, terms, strict=True):
        if not _dot(last, last) <= max(_dot(first, first), 1e-300):
            raise _unfit(
                curvature,
                f"the Neumann series grows at lr={lr:g}: it must be below 2 over the largest curvature of the lower level, "
                f"which must be positive definite; take a smaller lr, or add damping=",
            )
    return sums


def _unfit(curvature: Curvature, text: str) -> NonFiniteError:
    return NonFiniteError(text, tasks=("lower",), step=curvature.levels.step, what="curvature")


def _damped(curvature: Curvature, rows: Vectors, diagonal: list[float], batched: bool = False) -> Vectors:
    found = curvature.products(rows, upper=False, batched=batched)
    return [
        [v * own if p is None else p.add(v, alpha=own) for v, p, own in zip(row, products, diagonal, strict=True)]
        for row, products in zip(rows, found, strict=True)
    ]


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return math.fsum(float((flat(x).double() * flat(y).double()).sum()) for x, y in zip(a, b, strict=True))
