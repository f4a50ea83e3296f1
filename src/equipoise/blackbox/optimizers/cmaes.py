"""CMA-ES through the ``cma`` package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.arrays import Array
from equipoise.blackbox.optimizers.base import Bounds, Failed, Optimizer, Seed
from equipoise.blackbox.optimizers.packing import Packing, restored
from equipoise.errors import InputError, require
from equipoise.reading import one_line

__all__ = ["CMAES"]


class CMAES(Optimizer):
    """CMA-ES as the ``cma`` package (pycma) has it, with several objectives averaged.

    Hansen, "The CMA Evolution Strategy: A Comparing Review", 2006. Its normals come from this object's own generator;
    NumPy's global one is neither seeded nor used. A saved
    state is numbers and texts alone: what pycma is made of comes from the options, never from the state.

    Args:
        mean: starting point [d].
        std: initial standard deviation; different ones in the dimensions scale the coordinates.
        samples: population size.
        seed: of the samples.
        failed: failed samples are ranked last in both cases.
        bounds: (lower, upper); pycma keeps the samples inside. Without them, ``options`` may have pycma's own.
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
        bounds: Bounds = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(mean, std=std, samples=samples, seed=seed, failed=failed, bounds=bounds)
        self._package = require("cma", "blackbox")
        self._start = self._mean.copy()
        self._options = dict(options or {})
        free = self.dimension - len(self._options.get("fixed_variables") or ())
        if free < 2:
            what = "one dimension" if free == 1 else "no dimension"
            raise InputError(f"mean has {what} to search in; CMA-ES needs at least two, take another optimizer")
        if bounds is not None and self._options.get("bounds") is not None:
            raise InputError("bounds are given twice, as bounds= and in options; give them once")
        self._options |= {
            "popsize": self._samples,
            "seed": np.nan,
            "verbose": -9,
            "verb_disp": 0,
            "verb_log": 0,
        }  # nan seeds nothing
        if self._bounds is not None:
            self._options["bounds"] = [[None if np.isinf(own) else float(own) for own in side] for side in self._bounds]
        if np.ptp(self._std) > 0:
            self._options["CMA_stds"] = self._std / self._std.max()
        self._normals = _Normals(self._rng)
        self._strategy = self._made(self._normals)

    def _made(self, normals: _Normals) -> Any:
        settings = deepcopy(self._options) | {"randn": normals}
        return self._package.CMAEvolutionStrategy(self._start.copy(), float(self._std.max()), settings)

    @property
    def std(self) -> Array:
        """The standard deviation of the samples in each dimension [d], before pycma keeps them inside bounds; 0 where fixed."""
        own = np.asarray(self._strategy.stds, dtype=np.float64)
        fixed = self._strategy.opts["fixed_variables"] or {}
        if not fixed:
            return own.copy()
        whole = np.zeros(self.dimension)
        whole[[place for place in range(self.dimension) if place not in fixed]] = own
        return whole

    def stop(self) -> dict[str, Any]:
        """Reasons of pycma to stop, empty while it has none; nothing here obeys them."""
        return dict(self._strategy.stop())

    def _draw(self) -> Array:
        return np.asarray(self._strategy.ask(), dtype=np.float64)

    def _update(self, points: Array, outputs: Array, keep: NDArray[np.bool_]) -> None:
        strategy = self._strategy
        with _global_numbers(self.iterations):
            strategy.tell(list(points), outputs.mean(axis=1).tolist())
        # pycma's own mean is that of its coordinates, without bounds and fixed variables.
        mean = strategy.gp.pheno(strategy.mean, into_bounds=strategy.boundary_handler.repair)
        self._mean = np.array(mean, dtype=np.float64)
        if hasattr(strategy.sm, "randn"):  # a sampler that pycma changes to draws from NumPy's global generator
            strategy.sm.randn = self._normals

    def state_dict(self) -> dict[str, Any]:
        """The state, that of pycma's object included, as arrays, numbers, strings and containers of them."""
        packed = Packing()
        return super().state_dict() | {"strategy": packed(self._strategy), "parts": packed.arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state; see :meth:`Optimizer.load_state_dict`."""
        normals = _Normals(np.random.default_rng(0))
        twin = self._made(normals)
        # After one iteration it has every part that pycma makes late.
        with _global_numbers(0):
            twin.tell(twin.ask(), list(range(self._samples)))
        try:
            restored(state["strategy"], twin, state["parts"])
            usable = twin.mean.shape == self._strategy.mean.shape and np.isfinite(twin.mean).all() and 0 < twin.sigma < np.inf
            if not (usable and np.isfinite(twin.stds).all()):
                raise ValueError("its numbers are not finite")
        except Exception as error:
            raise InputError(
                f"the state of pycma cannot be used here ({one_line(error)}); give what state_dict() returned"
            ) from error
        if hasattr(twin.sm, "randn"):
            twin.sm.randn = normals
        super().load_state_dict(state)
        normals.generator = self._rng
        self._normals, self._strategy = normals, twin


@contextmanager
def _global_numbers(seed: int) -> Iterator[None]:
    """For what pycma draws from NumPy's global generator all the same (whole numbers, its checks), which stays as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


class _Normals:
    """Normal numbers from a generator, in the form that pycma asks for."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def __call__(self, *shape: int) -> Array:
        return self.generator.standard_normal(shape)
