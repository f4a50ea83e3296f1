"""Gradient surgery: every task gradient loses its components against the others, which is PCGrad."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.errors import InputError
from equipoise.solvers.gramian import Array, read_number, read_square


def random_orders(tasks: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """Draws, for every task, a random order of the other tasks.

    Args:
        tasks: K, the number of tasks.
        generator: source of the randomness.

    Returns:
        Indices [K, K - 1]; row i is a permutation of all tasks but i.

    Example:
        >>> orders = random_orders(3, np.random.default_rng(0))
        >>> [sorted(order) for order in orders.tolist()]
        [[1, 2], [0, 2], [0, 1]]
    """
    tasks = int(read_number(tasks, "the number of tasks", 1, whole=True))
    if not isinstance(generator, np.random.Generator):
        raise InputError(f"orders are drawn by a numpy.random.Generator; got {type(generator).__name__}")
    others = np.arange(tasks - 1)[None, :] + (np.arange(tasks - 1)[None, :] >= np.arange(tasks)[:, None])
    return generator.permuted(others, axis=1)


def read_orders(orders: ArrayLike, tasks: int) -> NDArray[np.intp]:
    """Orders as an array, which may still be of any shape and type; ``[tasks, 0]`` for none."""
    try:
        turns = np.asarray(orders)
    except (TypeError, ValueError, RuntimeError):
        turns = np.asarray(None)
    return turns.astype(np.intp).reshape(tasks, 0) if turns.size == 0 else turns


def project_conflicts(gramian: ArrayLike, orders: ArrayLike) -> Array:
    """Coefficients of the sum of all task gradients after gradient surgery.

    Each gradient g_i visits the others in turn; wherever its current form h conflicts with g_j, hᵀg_j < 0, it is
    projected on the plane normal to g_j: h ← h - (hᵀg_j / ‖g_j‖²) g_j (Yu et al. 2020, "Gradient surgery for multi-task
    learning", algorithm 1). The results are summed, as in the paper. All h are combinations of the g_j, so only their
    coefficients are kept, and all K tasks take each turn together.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        orders: for each task, the order in which it visits others, indices [K, n]; :func:`random_orders` draws them.

    Returns:
        Coefficients [K] of Σ_i h_i in terms of the g_j. A zero gradient conflicts with none and has coefficient 1.

    Raises:
        InputError: the Gramian is not square or not finite, or orders are not indices of tasks.

    Example:
        >>> project_conflicts([[1.0, -0.5], [-0.5, 1.0]], [[1], [0]]).tolist()
        [1.5, 1.5]
    """
    array = read_square(gramian, "the Gramian")
    size = array.shape[0]
    turns = read_orders(orders, size)
    if turns.ndim != 2 or turns.shape[0] != size or turns.dtype.kind not in "iu":
        raise InputError(f"orders has shape {turns.shape} and type {turns.dtype}; expected integers [{size}, n]")
    if turns.size and (turns.min() < 0 or turns.max() >= size):
        raise InputError(f"orders has entries outside of 0 … {size - 1}, the indices of the tasks")
    squares = array.diagonal()
    live = squares >= np.finfo(np.float64).tiny
    norms = np.sqrt(np.where(live, squares, 1.0))
    # Between unit gradients a projection subtracts the product itself; rows of zero gradients never conflict.
    cosines = array / norms[:, None] / norms
    cosines = 0.5 * (cosines + cosines.T)
    cosines[~live] = 0.0
    cosines[:, ~live] = 0.0
    coefficients = np.eye(size)
    flat = coefficients.reshape(-1)
    places = turns.T + np.arange(0, size * size, size)
    against = np.empty_like(cosines)
    for visited, place in zip(turns.T, places, strict=True):
        cosines.take(visited, axis=0, out=against, mode="clip")
        products = np.einsum("ij,ij->i", coefficients, against)
        flat[place] -= np.minimum(products, 0.0)
    largest = norms.max()
    total: Array = ((norms / largest) @ coefficients) / (norms / largest)
    return total
