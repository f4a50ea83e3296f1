"""Krum: the gradients that lie closest to their neighbours, chosen from the distances alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.solvers.gramian import Array, read_number, read_square, read_vector

_EPSILON = float(np.finfo(np.float64).eps)


def krum_scores(gramian: ArrayLike, outliers: int, *, squared: bool = True) -> Array:
    """How far each gradient is from its neighbours.

    s_i = Σ ‖g_i - g_j‖² over the K - f - 2 nearest j ≠ i (Blanchard et al. 2017, "Machine learning with adversaries: Byzantine
    tolerant gradient descent", section 4), f being the number of outliers; over one at least, where K allows for no more.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        outliers: f ≥ 0.
        squared: sum squared distances; else the distances themselves.

    Returns:
        Scores [K]; 0 for a single task.

    Raises:
        InputError: the Gramian is not square or not finite, or f is no whole number from 0 on.

    Example:
        >>> krum_scores([[1.0, 0.0], [0.0, 1.0]], 0).tolist()
        [2.0, 2.0]
    """
    array = _symmetric(gramian)
    largest = float(array.diagonal().max())
    with np.errstate(over="ignore"):
        scores: Array = _scores(array, outliers, squared)[0] * (largest if squared else largest**0.5)
    return scores


def krum_weights(gramian: ArrayLike, outliers: int, selected: int = 1, *, squared: bool = True) -> Array:
    """Weights of the mean of the ``selected`` gradients with the smallest :func:`krum_scores`; 1 by one each (Multi-Krum).

    Gradients whose scores are equal up to rounding share what is left for them, so that the order of the tasks does not matter:
    of three tasks with f = 0, say, the two that are nearest to each other always score the same.

    Args:
        gramian: Gramian Q of the task gradients [K, K].
        outliers: f ≥ 0.
        selected: how many gradients are averaged, at least 1; all of them where there are fewer.
        squared: as for :func:`krum_scores`.

    Returns:
        w [K], non-negative and with sum 1; :func:`krum_residual` is 0.

    Example:
        >>> krum_weights([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 9.0]], 0).tolist()
        [0.5, 0.5, 0.0]
    """
    read_number(selected, "selected", 1.0, whole=True)
    scores, errors = _scores(_symmetric(gramian), outliers, squared)
    count = min(selected, scores.size)
    border = int(np.argsort(scores, kind="stable")[count - 1])
    apart = scores - scores[border]
    tied = np.abs(apart) <= errors + errors[border]
    weights = np.where((apart < 0.0) & ~tied, 1.0, 0.0)
    weights[tied] = (count - float(weights.sum())) / float(np.count_nonzero(tied))
    weights /= count
    return weights


def krum_residual(gramian: ArrayLike, outliers: int, weights: ArrayLike, *, squared: bool = True) -> float:
    """By how much the score of a gradient with weight exceeds that of one with less, relative to the largest score.

    Differences within the rounding of the scores count as none.

    Example:
        >>> krum_residual([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 9.0]], 0, [0.0, 0.0, 1.0]) > 0.9
        True
    """
    scores, errors = _scores(_symmetric(gramian), outliers, squared)
    given = read_vector(weights, scores.size, "the weights")
    largest = float(scores.max())
    excess = scores[:, None] - scores - errors[:, None] - errors
    wrong = excess[given[:, None] > given + 1e-12]
    return max(float(wrong.max(initial=0.0)) / largest if largest > 0.0 else 0.0, abs(float(given.sum()) - 1.0) - 1e-12, 0.0)


def _symmetric(gramian: ArrayLike) -> Array:
    array = read_square(gramian, "the Gramian")
    return 0.5 * array + 0.5 * array.T


def _scores(array: Array, outliers: int, squared: bool) -> tuple[Array, Array]:
    """The scores in units of the largest gradient, and how far rounding may have moved each of them."""
    read_number(outliers, "outliers", whole=True)
    size = len(array)
    if size == 1:
        return np.zeros(1), np.zeros(1)
    count = min(max(size - outliers - 2, 1), size - 1)
    array = array / max(float(array.diagonal().max()), 1e-300)
    squares = array.diagonal()
    sums = squares[:, None] + squares
    distances = np.maximum(sums - 2.0 * array, 0.0)
    rounding = 16.0 * _EPSILON * sums
    if not squared:
        distances = np.sqrt(distances)
        rounding = np.minimum(rounding / np.maximum(distances, 1e-300), np.sqrt(rounding))
    np.fill_diagonal(distances, np.inf)
    nearest: NDArray[np.intp] = np.argsort(distances, axis=1, kind="stable")[:, :count]
    scores = np.take_along_axis(distances, nearest, axis=1).sum(axis=1)
    errors = np.take_along_axis(rounding, nearest, axis=1).sum(axis=1)
    return scores, errors
