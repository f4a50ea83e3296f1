"""ASMG: the adaptive stochastic multi-objective gradient algorithm (thesis, chapter 4, Algorithm 3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.arrays import Array, check_positive, read_array, read_vector
from equipoise.blackbox.optimizers.base import Bounds, Failed, Optimizer, Seed
from equipoise.errors import InputError
from equipoise.solvers import simplex_quadratic_program

__all__ = ["ASMG"]

# In one iteration a standard deviation grows at most to twice itself and shrinks at most to a half: far more than steps of
# a usual size ask for, and what keeps Σ positive where 1 + 2β(Σ Ĝ)_kk is not.
_LEAST, _MOST = 0.25, 4.0
_FAR = math.log(_MOST)
# Variances stay within what a double can hold.
_SMALLEST, _LARGEST = 1e-150, 1e150


class ASMG(Optimizer):
    """Descends in the mean and the diagonal covariance of a Gaussian, weighing the objectives by a quadratic programme.

    With z_j ~ N(0, I), x_j = μ + Σ^½ z_j and centred outputs δF_i(x_j), the estimates (4.12) and (4.13) are

        p_i = 1/N Σ_j z_j δF_i(x_j),    h_i = 1/(2N) Σ_j (z_j² - 1) δF_i(x_j);

    the weights solve (4.10), min over the simplex of ‖Σ λ_i p_i‖² + 2 ‖Σ λ_i h_i‖², smoothed by (4.17),
    λ ← (1 - γ_t) λ + γ_t λ̃; and (4.14) moves the distribution:

        μ ← μ - β Σ^½ Σ_i λ_i p_i / s,    Σ⁻¹ ← Σ⁻¹ (1 + 2β Σ_i λ_i h_i / s).

    By default (``shaping="standardize"``, appendix A.2.5) the outputs are centred by their mean over the samples, and s is
    the standard deviation of the weighted outputs λᵀF(x_j) over the samples: the update does not depend on the outputs'
    scale, and no evaluation of F(μ) is needed. With ``shaping="mean"`` they are centred by F(μ), which is one more row of
    ``ask``, and s = 1: Algorithm 3 as printed, for which the step size has to suit the outputs' scale.

    Two things are by default not as printed, because what is printed does worse where d is large and N small (measured in
    "Prompts of a served model"); ``covariance="printed"`` and ``scaling="none"`` are to the letter, as ``shaping="mean"`` is.

    - ``covariance="exponential"``: Σ⁻¹ ← Σ⁻¹ exp(2β Σ_i λ_i h_i / s), the same to first order. The noise of h has variance
      1/(2N) in units of s, so that the logarithm of the printed factor falls by β²/N per iteration where there is nothing to
      learn: deviations grow, a hundredfold in 200 iterations at β = 1, N = 20. The factor is kept within [1/4, 4].
    - ``scaling="standardize"``, for adaptive weights: F_i is divided by its standard deviation over the samples first. With
      d ≫ N, ⟨p_i, p_k⟩ is mostly d/N times the covariance of the outputs, and (4.10) gives nearly all weight to the output that
      varies least, in whatever unit. (On fronts that bend inwards the printed weights leave the middle sooner.)

    An iteration costs O(m N d).

    Args:
        mean: μ_0 [d].
        std: the square root of diag(Σ_0), one number or [d].
        samples: N.
        lr: β; a number, or a function of the iteration t = 0, 1, … .
        weights: ``"adaptive"`` for (4.10), ``"equal"`` for ASMG-EW, or fixed ones [m], non-negative and of sum 1.
        ideal: z [m]; with fixed weights, descend max_i λ_i (F_i - z_i) / r_i of each sample (Tchebycheff, which reaches fronts
            that bend inwards) in place of λᵀF.
        ranges: r [m], above 0, of the same; 1 if left out.
        momentum: γ_t in [0, 1]; a function of t, or a number. 1/(t + 1) if left out. Before the first iteration λ is equal.
        shaping: ``"standardize"`` or ``"mean"``, see above.
        covariance: ``"exponential"`` or ``"printed"``; the latter by default with ``shaping="mean"``.
        scaling: of the outputs under adaptive weights, ``"standardize"`` or ``"none"``; likewise.
        seed: of the samples.
        failed: ``"drop"`` or ``"penalize"``, see :class:`Optimizer`.
        bounds: see :class:`Optimizer`.

    Raises:
        InputError: an argument that cannot be used; one objective only (at ``tell``).

    Example:
        >>> import numpy as np
        >>> def f(x):  # Pareto optimal between the two points
        ...     return np.stack([((x - 1) ** 2).sum(1), ((x + 1) ** 2).sum(1)], axis=1)
        >>> optimizer = ASMG(np.full(5, 3.0), samples=20, seed=0)
        >>> for _ in range(300):
        ...     optimizer.tell(f(optimizer.ask()))
        >>> bool((np.abs(optimizer.mean) < 1.05).all()), round(float(optimizer.weights.sum()), 9)
        (True, 1.0)
    """

    smallest_objectives = 2
    _memory = ("_lambda", "_normals")
    _changing = ("_lambda", "_normals")

    def __init__(
        self,
        mean: object,
        *,
        std: object = 1.0,
        samples: int = 50,
        lr: float | Callable[[int], float] = 0.1,
        weights: Literal["adaptive", "equal"] | Any = "adaptive",
        ideal: object = None,
        ranges: object = 1.0,
        momentum: float | Callable[[int], float] | None = None,
        shaping: Literal["standardize", "mean"] = "standardize",
        covariance: Literal["exponential", "printed"] | None = None,
        scaling: Literal["standardize", "none"] | None = None,
        seed: Seed = None,
        failed: Failed = "drop",
        bounds: Bounds = None,
    ) -> None:
        super().__init__(mean, std=std, samples=samples, seed=seed, failed=failed, bounds=bounds)
        if shaping not in ("standardize", "mean"):
            raise InputError(f'shaping is {shaping!r}; expected "standardize" (appendix A.2.5) or "mean" (F(μ) as baseline)')
        if isinstance(weights, str) and weights not in ("adaptive", "equal"):
            raise InputError(f'weights is {weights!r}; expected "adaptive", "equal", or numbers [m]')
        self._fixed = None if isinstance(weights, str) else _read_weights(weights)
        self._ideal = None if ideal is None else read_vector(ideal, "ideal")
        self._ranges = read_array(ranges, "ranges")
        if self._ideal is not None and (
            self._fixed is None or self._ideal.size != self._fixed.size or not (self._ranges > 0).all()
        ):
            raise InputError("ideal= goes with as many fixed weights, and with ranges above 0; give weights=[…]")
        self._adaptive = isinstance(weights, str) and weights == "adaptive"
        covariance = covariance or ("exponential" if shaping == "standardize" else "printed")
        scaling = scaling or ("standardize" if shaping == "standardize" else "none")
        if covariance not in ("exponential", "printed"):
            raise InputError(f'covariance is {covariance!r}; expected "exponential" or "printed", the factor of (4.14)')
        if scaling not in ("standardize", "none"):
            raise InputError(f'scaling is {scaling!r}; expected "standardize" or "none"')
        self._exponential = covariance == "exponential"
        self._scaled = self._adaptive and scaling == "standardize"
        self._shaping = shaping
        self._extra = int(shaping == "mean")
        self._lr = lr
        self._momentum = momentum
        if not callable(lr):
            check_positive(lr, "lr")
        if momentum is not None and not callable(momentum):
            _share(momentum)
        self._lambda: Array | None = None
        self._normals: Array | None = None

    @property
    def weights(self) -> Array | None:
        """λ [m]: of the last iteration; ``None`` until the first ``tell``."""
        return None if self._lambda is None else self._lambda.copy()

    def _check_objectives(self, count: int) -> None:
        super()._check_objectives(count)
        if self._fixed is not None and self._fixed.size != count:
            raise InputError(f"{self._fixed.size} weights were given and outputs has {count} objectives; give one for each")

    def _score(self, outputs: Array) -> Any:
        if self._fixed is None:
            return super()._score(outputs)
        if self._ideal is None:
            return outputs @ self._fixed
        return (self._fixed * (outputs - self._ideal) / self._ranges).max(axis=-1)

    def _draw(self) -> Array:
        self._normals = self._rng.standard_normal((self._samples, self.dimension))
        rows = self._samples + self._extra
        points = np.empty((rows, self.dimension))
        np.multiply(self._normals, self._std, out=points[: self._samples])
        points[: self._samples] += self._mean
        points[self._samples :] = self._mean
        return points

    def _update(self, points: Array, outputs: Array, keep: NDArray[np.bool_]) -> None:
        assert self._normals is not None
        objectives = outputs.shape[1]
        if self._ideal is not None:
            outputs = self._score(outputs)[:, None]
        of_samples = keep[: self._samples]
        normals = self._normals if of_samples.all() else self._normals[of_samples]
        values = outputs[: self._samples][of_samples]
        # Where F(μ) itself failed, the mean over the samples, which estimates nearly the same, takes its place.
        centered_by_mean = self._shaping == "standardize" or not keep[-1]
        center = values.mean(axis=0) if centered_by_mean else outputs[-1]
        centered = values - center
        if self._scaled:
            largest = np.abs(centered).max(axis=0)
            centered = centered / np.where(largest > 0.0, largest, 1.0)
            spreads = centered.std(axis=0)
            centered = centered / np.where(spreads > 0.0, spreads, 1.0)
        count = values.shape[0]
        slope = normals.T @ centered / count
        # Σ_j (z² - 1) δF = Σ_j z² δF - Σ_j δF, so that z² is the only other array of N·d numbers.
        curvature = ((normals * normals).T @ centered - centered.sum(axis=0)) / (2 * count)
        before = np.full(objectives, 1.0 / objectives) if self._lambda is None else self._lambda
        chosen = self._mix(before, slope, curvature)
        mixed = chosen if self._ideal is None else np.ones(1)
        aggregate = centered @ mixed
        spread = float(aggregate.std()) if self._shaping == "standardize" else 1.0
        step = float(self._lr(self.iterations)) if callable(self._lr) else float(self._lr)
        check_positive(step, "lr")
        if spread > 0.0:
            mean = self._mean - step / spread * (self._std * (slope @ mixed))
            change = 2.0 * step / spread * (curvature @ mixed)
            growth = np.exp(np.clip(change, -_FAR, _FAR)) if self._exponential else np.clip(1.0 + change, _LEAST, _MOST)
            std = np.clip(self._std / np.sqrt(growth), _SMALLEST, _LARGEST)
            if np.isfinite(mean).all() and np.isfinite(std).all():
                self._mean, self._std = mean, std
        self._lambda = chosen
        self._normals = None

    def _mix(self, before: Array, slope: Array, curvature: Array) -> Array:
        """λ of this iteration: (4.10) and (4.17)."""
        if self._fixed is not None:
            return self._fixed
        if not self._adaptive:
            return before
        # Divided by the largest entry, the products neither overflow nor vanish.
        scale = max(float(np.abs(slope).max()), float(np.abs(curvature).max()))
        if scale == 0.0 or not np.isfinite(scale):
            return before
        slope, curvature = slope / scale, curvature / scale
        solution = simplex_quadratic_program(slope.T @ slope + 2.0 * (curvature.T @ curvature), np.zeros(before.size))
        if self._momentum is None:
            share = 1.0 / (self.iterations + 1)
        else:
            share = _share(self._momentum(self.iterations) if callable(self._momentum) else self._momentum)
        return (1.0 - share) * before + share * solution


def _share(value: Any) -> float:
    if not (isinstance(value, int | float | np.number) and 0 <= value <= 1):
        raise InputError(f"momentum is {value!r}; expected γ_t between 0 and 1")
    return float(value)


def _read_weights(weights: object) -> Array:
    vector = read_array(weights, "weights")
    if vector.ndim != 1 or not (vector >= 0).all() or abs(float(vector.sum()) - 1.0) > 1e-6:
        raise InputError(f"weights is {weights!r}; expected [m] non-negative numbers of sum 1")
    return vector
