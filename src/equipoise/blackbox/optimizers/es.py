"""ES: evolution strategies as a stochastic gradient method (Salimans et al.)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.arrays import Array
from equipoise.blackbox.optimizers.base import Failed, Optimizer, Seed
from equipoise.blackbox.optimizers.checks import check_positive

__all__ = ["ES"]


class ES(Optimizer):
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

    Example:
        >>> import numpy as np
        >>> es = ES(np.full(3, 2.0), std=0.1, samples=20, lr=0.05, seed=0)
        >>> for _ in range(200):
        ...     es.tell((es.ask() ** 2).sum(1, keepdims=True))
        >>> bool(np.abs(es.mean).max() < 0.1)
        True
    """

    _memory = ("_normals", "_first", "_second", "_steps")

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
