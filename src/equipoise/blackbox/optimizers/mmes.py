"""MMES: the mixture-model-based evolution strategy (He, Zheng and Zhou), driven by ask and tell.

pypop7 has it, too, but calls the function itself, one point at a time; so this is our own, from the paper.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.arrays import Array
from equipoise.blackbox.optimizers.base import Bounds, Failed, Optimizer, Seed

__all__ = ["MMES"]


class MMES(Optimizer):
    """Samples along a mixture of past evolution paths, so that it learns covariance with O(√d · d) numbers.

    z = √(1 - γ) N(0, I) + √(γ/4) Σ_{l=1..4} r_l q_{k_l}, r_l ~ N(0, 1), with the paths q drawn by a geometric distribution
    that prefers young ones; mirrored samples; the mean is the log-weighted one of the best half; the step size follows the
    paired comparison of this generation's best with the last one's. He, Zheng and Zhou, "MMES: Mixture Model-Based Evolution
    Strategy for Large-Scale Optimization", 2020, with its defaults; the geometric distribution's parameter is 3.8/d, as in
    the authors' code, where the paper has 4/d. Below d = 4, for which it is not made, γ is at most 0.9. Several objectives
    are averaged. On functions with local minima or curved valleys the end differs by powers of ten between seeds: compare
    medians over many (``benchmarks/mmes.py``).

    Args:
        mean: starting point [d].
        std: initial step size; different ones in the dimensions scale the coordinates.
        samples: population size.
        seed: of the samples.
        failed: failed samples are ranked last in both cases.
        bounds: see :class:`Optimizer`.

    Example:
        >>> import numpy as np
        >>> mmes = MMES(np.full(5, 2.0), samples=10, seed=0)
        >>> for _ in range(300):
        ...     mmes.tell((mmes.ask() ** 2).sum(1, keepdims=True))
        >>> bool(np.abs(mmes.mean).max() < 1e-3)
        True
    """

    _memory = ("_sigma", "_path", "_paths", "_born", "_count", "_evidence", "_last", "_generation")
    _changing = ("_last",)
    _MIXED = 4
    _STEP_RATE = 0.3
    _SIGNIFICANCE = 0.05

    def __init__(
        self,
        mean: object,
        *,
        std: object = 1.0,
        samples: int = 50,
        seed: Seed = None,
        failed: Failed = "drop",
        bounds: Bounds = None,
    ) -> None:
        super().__init__(mean, std=std, samples=samples, seed=seed, failed=failed, bounds=bounds)
        size = self.dimension
        self._scale = self._std / self._std.max()
        self._sigma = float(self._std.max())
        self._rate = 0.4 / math.sqrt(size)
        self._gap = math.ceil(1 / self._rate)
        self._chance = min(3.8 / size, 1.0)
        stored = 2 * math.ceil(math.sqrt(size))
        # Below d = 4 a sample would be nothing but old paths, of which there are none at first.
        self._mixture = min(1.0 - (1.0 - self._chance) ** stored, 1.0 if size > 3 else 0.9)
        parents = self._samples // 2
        weights = math.log((self._samples + 1) / 2) - np.log(np.arange(1, parents + 1))
        self._recombination: Array = weights / weights.sum()
        self._effective = 1.0 / float((self._recombination**2).sum())
        self._path = np.zeros(size)
        self._paths = np.zeros((stored, size))  # oldest first
        self._born = np.zeros(stored)
        self._count = 0
        self._evidence = 0.0
        self._last: Array | None = None  # the best aggregates of the generation before
        self._generation = 0

    @property
    def std(self) -> Array:
        """The standard deviation of the samples in each dimension [d], that of the stored paths included."""
        stored = self._paths.shape[0]
        # P(k) of the geometric distribution modulo the number of paths, youngest first.
        chance = (1 - self._chance) ** np.arange(stored) * self._chance
        chance = np.roll(chance / chance.sum(), 1)[::-1]
        learnt = chance @ self._paths**2
        deviation: Array = self._sigma * self._scale * np.sqrt((1 - self._mixture) + self._mixture * learnt)
        return deviation

    def _draw(self) -> Array:
        half = (self._samples + 1) // 2
        stored = self._paths.shape[0]
        directions = math.sqrt(1 - self._mixture) * self._rng.standard_normal((half, self.dimension))
        chosen = stored - self._rng.geometric(self._chance, (half, self._MIXED)) % stored - 1
        lengths = self._rng.standard_normal((half, self._MIXED)) * math.sqrt(self._mixture / self._MIXED)
        # As one product [half, stored] · [stored, d].
        coefficients = np.zeros((half, stored))
        np.add.at(coefficients, (np.arange(half)[:, None], chosen), lengths)
        directions += coefficients @ self._paths
        directions *= self._sigma * self._scale
        return np.concatenate([self._mean + directions, self._mean - directions])[: self._samples]

    def _update(self, points: Array, outputs: Array, keep: NDArray[np.bool_]) -> None:
        aggregate = np.where(keep, outputs.mean(axis=1), np.inf)
        parents = self._recombination.size
        order = np.argsort(aggregate, kind="stable")[:parents]
        best = aggregate[order]
        # With many failures even a parent may be one; it is then left out and the others weigh more.
        weights = self._recombination * np.isfinite(best)
        weights = weights / weights.sum()
        mean = weights @ points[order]
        step = (mean - self._mean) / (self._sigma * self._scale)
        self._path = (1 - self._rate) * self._path + math.sqrt(self._rate * (2 - self._rate) * self._effective) * step
        self._remember()
        self._mean = mean
        if self._last is not None:
            won = float(self._recombination @ (self._last > best))
            self._evidence = (1 - self._STEP_RATE) * self._evidence + math.sqrt(
                self._STEP_RATE * (2 - self._STEP_RATE) * self._effective
            ) * (2 * won - 1)
            significance = 0.5 * (1 + math.erf(self._evidence / math.sqrt(2)))
            self._sigma *= math.exp(significance - 1 + self._SIGNIFICANCE)
            self._sigma = min(max(self._sigma, 1e-150), 1e150)
        self._last = best
        self._generation += 1

    def _remember(self) -> None:
        """Stores the evolution path in place of one that is too close to its elder, or of the eldest."""
        stored = self._paths.shape[0]
        if self._count < stored:
            self._paths[self._count] = self._path
            self._born[self._count] = self._generation
            self._count += 1
            return
        gaps = np.diff(self._born)
        closest = int(gaps.argmin())
        leaves = closest + 1 if gaps[closest] <= self._gap else 0
        self._paths[leaves:-1] = self._paths[leaves + 1 :]
        self._born[leaves:-1] = self._born[leaves + 1 :]
        self._paths[-1] = self._path
        self._born[-1] = self._generation
