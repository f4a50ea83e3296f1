"""ES and BES: evolution strategies as stochastic gradient methods, by Gaussian and by Bernoulli smoothing."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.arrays import Array, check_positive
from equipoise.blackbox.optimizers.base import Bounds, Failed, Optimizer, Seed

__all__ = ["BES", "ES"]


class Descent(Optimizer):
    """What ES and BES share: the mean descends, and the standard deviation stays as it is.

    Args:
        mean: μ_0 [d].
        std: σ; a number or one per dimension.
        samples: N.
        lr: of the mean.
        seed: of the samples.
        failed: ``"drop"`` or ``"penalize"``, see :class:`Optimizer`.
        bounds: see :class:`Optimizer`.
    """

    def __init__(
        self,
        mean: object,
        *,
        std: object = 1.0,
        samples: int = 50,
        lr: float = 0.01,
        seed: Seed = None,
        failed: Failed = "drop",
        bounds: Bounds = None,
    ) -> None:
        super().__init__(mean, std=std, samples=samples, seed=seed, failed=failed, bounds=bounds)
        self._lr = check_positive(lr, "lr")
        self._begin()

    @abstractmethod
    def _begin(self) -> None:
        """Sets what the method remembers."""


class ES(Descent):
    """Follows the search gradient of the mean, from mirrored samples and centred ranks, by Adam; std never changes.

    With u_j the rank of the aggregate 1/m Σ_i F_i(x_j) among the samples, spread evenly over [-½, ½],
    g = 1/(N σ) Σ_j u_j z_j, and μ follows Adam. Salimans, Ho, Chen, Sidor and Sutskever, "Evolution Strategies as a
    Scalable Alternative to Reinforcement Learning", 2017. Several objectives are averaged.

    Args:
        mean: μ_0 [d].
        std: σ, which stays as it is.
        samples: N; the second half mirrors the first.
        lr: Adam's learning rate.
        seed: of the samples.
        failed: ``"drop"`` or ``"penalize"``; ranks being relative, the second ranks failed samples last.
        bounds: see :class:`Optimizer`.

    Example:
        >>> import numpy as np
        >>> es = ES(np.full(3, 2.0), std=0.1, samples=20, lr=0.05, seed=0)
        >>> for _ in range(200):
        ...     es.tell((es.ask() ** 2).sum(1, keepdims=True))
        >>> bool(np.abs(es.mean).max() < 0.1)
        True
    """

    _memory = ("_normals", "_first", "_second", "_steps")
    _changing = ("_normals",)

    def _begin(self) -> None:
        self._normals: Array | None = None
        self._first = np.zeros(self.dimension)
        self._second = np.zeros(self.dimension)
        self._steps = 0

    def _draw(self) -> Array:
        half = (self._samples + 1) // 2
        normals = self._rng.standard_normal((half, self.dimension))
        self._normals = np.concatenate([normals, -normals])[: self._samples]
        return self._mean + self._std * self._normals

    def _update(self, points: Array, outputs: Array, keep: NDArray[np.bool_]) -> None:
        assert self._normals is not None
        aggregate = outputs[keep].mean(axis=1)
        # Equal values share the mean of their ranks, so that a flat function gives no direction.
        _, place, size = np.unique(aggregate, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(size) - (size + 1) / 2)[place]
        utility = ranks / (aggregate.size - 1) - 0.5
        gradient = utility @ self._normals[keep] / (aggregate.size * self._std)
        self._steps += 1
        self._first = 0.9 * self._first + 0.1 * gradient
        self._second = 0.999 * self._second + 0.001 * gradient * gradient
        first = self._first / (1 - 0.9**self._steps)
        second = self._second / (1 - 0.999**self._steps)
        self._mean = self._mean - self._lr * first / (np.sqrt(second) + 1e-8)
        self._normals = None


class BES(Descent):
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
        bounds: see :class:`Optimizer`.

    Example:
        >>> import numpy as np
        >>> bes = BES(np.full(3, 2.0), std=0.1, samples=20, lr=0.05, seed=0)
        >>> for _ in range(200):
        ...     bes.tell((bes.ask() ** 2).sum(1, keepdims=True))
        >>> bool(np.abs(bes.mean).max() < 0.3)
        True
    """

    _memory = ("_signs",)
    _changing = ("_signs",)
    _extra = 1

    def _begin(self) -> None:
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
