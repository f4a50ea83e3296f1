"""BES: Bernoulli smoothing (Gao and Sener)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.arrays import Array
from equipoise.blackbox.optimizers.base import Failed, Optimizer, Seed
from equipoise.blackbox.optimizers.checks import check_positive

__all__ = ["BES"]


class BES(Optimizer):
    """Gradient descent with forward differences along random signs.

    With signs ε_j ∈ {-1, 1}^d, s_j = ε_j σ and the aggregate f = 1/m Σ_i F_i: g = 1/N Σ_j (f(μ + s_j) - f(μ)) ε_j / σ and
    μ ← μ - β g. Gao and Sener, "Generalizing Gaussian Smoothing for Random Search", 2022. The mean is the last row of
    ``ask``; should its evaluation fail, the mean over the samples takes its place. σ never changes.

    Args:
        mean: μ_0 [d].
        std: σ, the distance of the samples from the mean in each dimension.
        samples: N.
        lr: β, which has to suit the scale of the outputs.
        seed: of the signs.
        failed: ``"drop"`` or ``"penalize"``.

    Example:
        >>> import numpy as np
        >>> bes = BES(np.full(3, 2.0), std=0.1, samples=20, lr=0.05, seed=0)
        >>> for _ in range(200):
        ...     bes.tell((bes.ask() ** 2).sum(1, keepdims=True))
        >>> bool(np.abs(bes.mean).max() < 0.3)
        True
    """

    _memory = ("_signs",)

    def __init__(
        self,
        mean: object,
        *,
        std: object = 1.0,
        samples: int = 50,
        lr: float = 0.01,
        seed: Seed = None,
        failed: Failed = "drop",
    ) -> None:
        super().__init__(mean, std=std, samples=samples, seed=seed, failed=failed)
        self._lr = check_positive(lr, "lr")
        self._signs: Array | None = None

    def _draw(self) -> Array:
        signs: Array = np.where(self._rng.integers(0, 2, (self._samples, self.dimension)) > 0, 1.0, -1.0)
        self._signs = signs
        return np.concatenate([self._mean + self._std * signs, self._mean[None]])

    def _update(self, points: Array, outputs: Array, keep: NDArray[np.bool_]) -> None:
        assert self._signs is not None
        kept = keep[:-1]
        aggregate = outputs.mean(axis=1)
        values = aggregate[:-1][kept]
        base = aggregate[-1] if keep[-1] else values.mean()
        gradient = (values - base) @ self._signs[kept] / (values.size * self._std)
        mean = self._mean - self._lr * gradient
        if np.isfinite(mean).all():
            self._mean = mean
        self._signs = None
