"""CMA-ES through the ``cma`` package."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.arrays import Array
from equipoise.blackbox.optimizers.base import Failed, Optimizer, Seed
from equipoise.errors import InputError, require

__all__ = ["CMAES"]


class CMAES(Optimizer):
    """CMA-ES as the ``cma`` package (pycma) has it, with several objectives averaged.

    Hansen, "The CMA Evolution Strategy: A Comparing Review", 2006. Its normals come from this object's own generator;
    NumPy's global one is neither seeded nor used.

    Args:
        mean: starting point [d].
        std: initial standard deviation; different ones in the dimensions scale the coordinates.
        samples: population size.
        seed: of the samples.
        failed: failed samples are ranked last in both cases.
        options: further options of ``cma.CMAEvolutionStrategy``, such as ``{"CMA_diagonal": True}``.

    Raises:
        MissingExtraError: ``cma`` is not installed.

    Example:
        >>> import numpy as np
        >>> cmaes = CMAES(np.full(5, 2.0), samples=10, seed=0)
        >>> for _ in range(150):
        ...     cmaes.tell((cmaes.ask() ** 2).sum(1, keepdims=True))
        >>> bool(np.abs(cmaes.mean).max() < 1e-3)
        True
    """

    def __init__(
        self,
        mean: object,
        *,
        std: object = 1.0,
        samples: int = 50,
        seed: Seed = None,
        failed: Failed = "drop",
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(mean, std=std, samples=samples, seed=seed, failed=failed)
        package = require("cma", "blackbox")
        if self.dimension < 2:
            raise InputError("mean has one dimension; CMA-ES needs at least two, take another optimizer")
        settings: dict[str, Any] = {
            **(options or {}),
            "popsize": self._samples,
            "seed": np.nan,  # seeds nothing
            "randn": _Normals(self._rng),
            "verbose": -9,
            "verb_disp": 0,
            "verb_log": 0,
        }
        if np.ptp(self._std) > 0:
            settings["CMA_stds"] = self._std / self._std.max()
        self._strategy = package.CMAEvolutionStrategy(self._mean, float(self._std.max()), settings)

    @property
    def std(self) -> Array:
        """The standard deviation of the samples in each dimension [d]."""
        return np.asarray(self._strategy.stds, dtype=np.float64).copy()

    def stop(self) -> dict[str, Any]:
        """Reasons of pycma to stop, empty while it has none; nothing here obeys them."""
        return dict(self._strategy.stop())

    def _draw(self) -> Array:
        return np.asarray(self._strategy.ask(), dtype=np.float64)

    def _update(self, points: Array, outputs: Array, keep: NDArray[np.bool_]) -> None:
        self._strategy.tell(list(points), outputs.mean(axis=1).tolist())
        self._mean = np.asarray(self._strategy.mean, dtype=np.float64).copy()

    def state_dict(self) -> dict[str, Any]:
        """The state; that of ``cma`` is a pickle of its object. Load only what you trust."""
        state = super().state_dict()
        state["strategy"] = pickle.dumps(self._strategy)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state; see :meth:`Optimizer.load_state_dict`."""
        super().load_state_dict(state)
        self._strategy = pickle.loads(state["strategy"])
        # The unpickled strategy draws from a generator of its own, which is from now on ours, too.
        self._rng = self._strategy.opts["randn"].generator


class _Normals:
    """Normal numbers from a generator, in the form that pycma asks for; unlike a method it can be pickled."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def __call__(self, *shape: int) -> Array:
        return self.generator.standard_normal(shape)
