"""Preparing a Gramian for the solvers: validation, scaling to cosines, and the ridge.

Task gradients differ in length by many orders of magnitude, while what makes a problem hard or easy are the angles
between them. Every solver therefore works on the matrix of cosines, C = D⁻¹ Q D⁻¹ with D = diag(√Q_ii), whose entries
lie in [-1, 1] whatever the scales were, and undoes the scaling at the end.

Where tasks outnumber dimensions, or gradients coincide or oppose each other exactly, C is singular, and a Gramian that
was computed in single precision is often slightly indefinite. A ridge makes every problem well posed:

    C̃ = C + ε I,    that is    Q̃ = Q + ε diag(Q),    ε = max(0, 1e-10 - 2 λ_min(C)).

It is zero for ordinary matrices, depends continuously on Q and not on the order of the tasks, and is just large enough
to lift the matrix out of the noise. It has a geometric meaning, too: Q̃ is the Gramian of gradients that were each given
a component of their own, of relative length √ε, orthogonal to everything else. Everything that holds for Gramians thus
holds for Q̃ exactly; the residuals of the solvers are measured against it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equipoise.errors import InputError

Array = NDArray[np.float64]

# Eigenvalues of the cosines below this are not told from zero. Rounding in forming a Gramian of 100 tasks in double
# precision stays below 1e-13; and a ridge of 1e-10 keeps bargaining weights below 1e5 times their usual size, so
# that combining single-precision gradients with them still leaves two correct digits.
SMALLEST_EIGENVALUE = 1e-10
# Eigenvalues of double-precision Gramians that are zero in exact arithmetic come out within this.
_ZERO = 1e-13


@dataclass(frozen=True, slots=True)
class ScaledGramian:
    """The tasks with a non-zero gradient, their norms, and the regularised cosines between their gradients.

    Attributes:
        size: K, the number of tasks, with those of zero gradient.
        live: indices [k] of the tasks whose gradient is not zero.
        norms: √Q_ii of those [k].
        cosines: C̃ = D⁻¹ Q D⁻¹ + ε I [k, k], symmetric positive definite.
        ridge: ε ≥ 0.
    """

    size: int
    live: NDArray[np.intp]
    norms: Array
    cosines: Array
    ridge: float

    def spread(self, values: Array, missing: float = 0.0) -> Array:
        """Puts values [k] of the live tasks into their places among all tasks [K]."""
        if self.live.size == self.size:
            return values
        everywhere = np.full(self.size, missing)
        everywhere[self.live] = values
        return everywhere


def read_array(values: Any, name: str) -> Array:
    """Returns numbers as a float64 array: of NumPy, of torch on any device and with or without a graph, or in lists.

    Masked entries become not a number, for what lies under the mask is anything.

    Raises:
        InputError: it is no array of real numbers.

    Example:
        >>> read_array([[1, 2], [3, 4]], "the matrix").dtype
        dtype('float64')
    """
    if type(values) is np.ndarray and values.dtype == np.float64:
        return values
    try:
        given = np.asanyarray(_detached(values))
    except (TypeError, ValueError, RuntimeError):
        given = np.asarray(None)
    if given.dtype.kind not in "fiub":
        holds = "complex numbers" if given.dtype.kind == "c" else f"{type(values).__name__} that holds no numbers"
        raise InputError(f"{name} is {holds}; expected real numbers in a NumPy array, a torch tensor or lists")
    if isinstance(given, np.ma.MaskedArray):
        given = np.ma.filled(given.astype(np.float64), np.nan)
    return np.asarray(given, dtype=np.float64)


def _detached(values: Any) -> Any:
    # Nothing of torch is imported here; its tensors are known by what they can do.
    if hasattr(values, "detach") and hasattr(values, "to_dense"):
        values = values.detach().cpu()
        values = values.to_dense() if str(values.layout) != "torch.strided" else values
        return values.double().numpy() if values.is_floating_point() else values.numpy()
    if isinstance(values, list | tuple):
        return [_detached(entry) for entry in values]
    return values


def read_number(value: Any, name: str, least: float = 0.0, *, above: bool = False, whole: bool = False) -> float:
    """Returns a finite number that is not below ``least`` (or is ``above`` it).

    Raises:
        InputError: something else.
    """
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    fine = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or not (value > least if above else value >= least):
        what = f"whole number from {least:g} on" if whole else f"finite number {'>' if above else '≥'} {least:g}"
        raise InputError(f"{name} is {value}; expected a {what}")
    return value  # type: ignore[no-any-return]


def read_square(matrix: ArrayLike, name: str) -> Array:
    """Returns the matrix as a finite float64 array [K, K], K ≥ 1.

    Raises:
        InputError: the matrix is not square, is empty, or has an entry that is infinite or not a number.
    """
    array = read_array(matrix, name)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] == 0:
        raise InputError(f"{name} has shape {array.shape}; expected a square matrix [K, K] with K ≥ 1")
    if not np.isfinite(array).all():
        raise InputError(f"{name} has an entry that is infinite or not a number; check the gradients it comes from")
    return array


def read_vector(vector: ArrayLike, size: int, name: str) -> Array:
    """Returns the vector as a finite float64 array [size].

    Raises:
        InputError: the shape differs, or an entry is infinite or not a number.
    """
    array = read_array(vector, name)
    if array.shape != (size,):
        raise InputError(f"{name} has shape {array.shape}; expected [{size}], as the matrix has {size} rows")
    if not np.isfinite(array).all():
        raise InputError(f"{name} has an entry that is infinite or not a number")
    return array


def scale_gramian(gramian: ArrayLike) -> ScaledGramian:
    """Scales a Gramian to cosines and adds the ridge described at the top of this file.

    The matrix is symmetrised. A task whose squared norm is not a normal positive number (below 2e-308) counts as having
    a zero gradient.

    Args:
        gramian: Gramian of the task gradients [K, K].

    Raises:
        InputError: the Gramian is not square or not finite.

    Example:
        >>> scaled = scale_gramian([[4.0, 0.0, 2.0], [0.0, 0.0, 0.0], [2.0, 0.0, 4.0]])
        >>> scaled.live.tolist(), scaled.norms.tolist(), scaled.ridge
        ([0, 2], [2.0, 2.0], 0.0)
        >>> scaled.cosines.tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    array = read_square(gramian, "the Gramian")
    size = array.shape[0]
    squares = array.diagonal()
    live = (squares >= np.finfo(np.float64).tiny).nonzero()[0]
    if live.size < size:
        array = array[live[:, None], live]
        squares = squares[live]
    norms = np.sqrt(squares)
    cosines = array / norms[:, None]
    cosines /= norms
    cosines = 0.5 * (cosines + cosines.T)
    return ScaledGramian(size, live, norms, *add_ridge(cosines))


def add_ridge(cosines: Array) -> tuple[Array, float]:
    """Sets the diagonal of a symmetric matrix to 1 + ε, in place, with the ridge ε of the top of this file."""
    size = cosines.shape[0]
    if size == 0:
        return cosines, 0.0
    diagonal = cosines.reshape(-1)[:: size + 1]
    ridge = 0.0
    # Factorisations settle the common cases, positive definite and singular, at a tenth of the cost of eigenvalues.
    diagonal[:] = 1.0 - 0.5 * SMALLEST_EIGENVALUE
    if not is_positive_definite(cosines):
        diagonal[:] = 1.0 - _ZERO
        above = size > 8 and is_positive_definite(cosines)
        diagonal[:] = 1.0 + _ZERO
        if size > 8 and not above and is_positive_definite(cosines):
            ridge = SMALLEST_EIGENVALUE
        else:
            diagonal[:] = 1.0
            eigenvalues = np.linalg.eigvalsh(cosines)
            # The largest eigenvalue of cosines is at most K; it is more only if the input was no Gramian at all.
            magnitude = max(1.0, float(eigenvalues[-1]) / size)
            ridge = max(0.0, SMALLEST_EIGENVALUE * magnitude - 2.0 * float(eigenvalues[0]))
    diagonal[:] = 1.0 + ridge
    return cosines, ridge


def solve_linear(matrix: Array, right: Array) -> Array:
    """Solves A x = b for a positive definite A."""
    return np.linalg.solve(matrix, right)  # type: ignore[return-value]


def accurate_product(matrix: Array, vector: Array) -> Array:
    """A x, with the leading digits of all products summed without rounding.

    Its error is 2⁻²² of what it would be otherwise, so that cancellation between rows hardly shows. For up to 128 columns.

    Example:
        >>> accurate_product(np.array([[1.0, 1e-20, -1.0]]), np.ones(3)).tolist()
        [1e-20]
    """
    # Numbers of 22 and 24 bits on a common grid have products of 46, and 128 of those sum up within the 53 of a double.
    matrix_high, matrix_low = _split(matrix, 24)
    vector_high, vector_low = _split(vector, 22)
    product = matrix_high @ vector_low
    product += matrix_low @ vector
    product += matrix_high @ vector_high
    return product


def _split(values: Array, bits: int) -> tuple[Array, Array]:
    """Rounds to multiples of 2⁻ᵇⁱᵗˢ times a power of two that no value exceeds; the rounded values and the rest."""
    _, exponent = math.frexp(float(np.abs(values).max(initial=0.0)))
    # Adding and subtracting a large number rounds to the spacing of floating-point numbers at its size.
    shift = math.ldexp(1.5, exponent + 52 - bits)
    high = (values + shift) - shift
    return high, values - high


def is_positive_definite(matrix: Array) -> bool:
    """Whether the Cholesky factorisation of a symmetric matrix exists."""
    if matrix.shape[0] == 2:
        return bool(matrix[0, 0] > 0.0 and matrix[0, 0] * matrix[1, 1] > matrix[0, 1] * matrix[1, 0])
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
