"""What every ask/tell optimizer shares: samples on their way, failed evaluations, and state that can be saved.

The loop stays the user's: ``X = optimizer.ask()``, evaluate the rows in any way, ``optimizer.tell(F)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.arrays import Array, read_array, read_vector
from equipoise.errors import InputError

__all__ = ["Bounds", "Failed", "Optimizer", "Seed"]

Failed = Literal["drop", "penalize"]
Seed = int | np.random.Generator | None
Bounds = Sequence[object] | None


class Optimizer(ABC):
    """Base class of the ask/tell optimizers of a function with d inputs and m outputs, all to be minimised.

    Args:
        mean: where the search starts [d]; NumPy or torch.
        std: standard deviation of the samples around it; a number or one per dimension [d].
        samples: N, how many points are evaluated in an iteration.
        seed: of the samples: an integer or a NumPy generator; unpredictable if left out.
        failed: what becomes of a sample whose outputs are not all finite: ``"drop"`` leaves it out of the iteration,
            ``"penalize"`` gives it outputs that are worse than those of all others, by their range.

        bounds: (lower, upper), each a number, [d] or ``None``. What is drawn outside is mirrored at the bound until it is
            inside, and so is the mean, which is that of F ∘ mirror on all of ℝᵈ; CMA-ES leaves this to pycma.

    Raises:
        InputError: an empty or non-finite mean, a std that is not positive or does not fit, fewer than two samples, a
            mean outside the bounds.

    Attributes:
        iterations: how many times ``tell`` was called.
        evaluations: rows that were told.
        failures: rows among them whose outputs were not all finite.
    """

    smallest_objectives: ClassVar[int] = 1
    _memory: ClassVar[tuple[str, ...]] = ()
    _changing: ClassVar[tuple[str, ...]] = ()  # of the memory: what is not always there
    _always: ClassVar[tuple[str, ...]] = ("_mean", "_std", "_objectives", "_asked", "_best", "_best_outputs")
    _extra = 0  # rows of ask beside the samples
    _counters: ClassVar[tuple[str, ...]] = ("iterations", "evaluations", "failures")

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
        self._mean = read_vector(mean, "mean").copy()
        deviation = read_array(std, "std")
        if deviation.shape not in ((), self._mean.shape):
            raise InputError(
                f"std has shape {deviation.shape} and mean {self._mean.shape}; give one number or one for each dimension"
            )
        if not (np.isfinite(deviation).all() and (deviation > 0).all()):
            raise InputError(f"std is {std!r}; every standard deviation has to be finite and greater than 0")
        self._std: Array = np.broadcast_to(deviation, self._mean.shape).copy()
        if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 2:
            raise InputError(
                f"samples is {samples!r}; give a whole number of at least 2: one sample has nothing to compare with"
            )
        if failed not in get_args(Failed):
            raise InputError(f'failed is {failed!r}; expected "drop" or "penalize"')
        self._samples = int(samples)
        self._failed: Failed = failed
        self._rng = np.random.default_rng(seed)
        self._bounds = _box(bounds, self._mean)
        self._best: Array | None = None
        self._best_outputs: Array | None = None
        self._objectives: int | None = None
        self._asked: Array | None = None
        self.iterations = 0
        self.evaluations = 0
        self.failures = 0

    @property
    def dimension(self) -> int:
        """d, the number of inputs."""
        return self._mean.size

    @property
    def samples(self) -> int:
        """N, the points drawn in an iteration; some optimizers ask for the mean's outputs beside them."""
        return self._samples

    @property
    def objectives(self) -> int | None:
        """m, the number of outputs; ``None`` until the first ``tell``."""
        return self._objectives

    @property
    def mean(self) -> Array:
        """The mean of the search distribution [d], a copy."""
        return self._inside(self._mean)

    @property
    def best(self) -> Array | None:
        """The evaluated point [d] of the lowest mean of the outputs (by the weights, where fixed ones were given)."""
        return None if self._best is None else self._best.copy()

    @property
    def best_outputs(self) -> Array | None:
        """The outputs [m] of :attr:`best`."""
        return None if self._best_outputs is None else self._best_outputs.copy()

    @property
    def best_score(self) -> float:
        """What :attr:`best` is the lowest in; infinite without one."""
        return np.inf if self._best_outputs is None else float(self._score(self._best_outputs[None])[0])

    @property
    def bounds(self) -> Array | None:
        """Lower and upper bounds [2, d], infinite where there are none; ``None`` without any."""
        return None if self._bounds is None else self._bounds.copy()

    @property
    def failed(self) -> Failed:
        """What becomes of samples whose outputs are not all finite."""
        return self._failed

    @property
    def std(self) -> Array:
        """The standard deviation of the search distribution in each dimension [d], a copy."""
        return self._std.copy()

    @property
    def weights(self) -> Array | None:
        """The weights λ [m] of the objectives, of sum 1; ``None`` until the first ``tell``."""
        return None if self._objectives is None else np.full(self._objectives, 1.0 / self._objectives)

    def ask(self) -> Array:
        """Draws the points of the next iteration [N, d], or [N + 1, d] with the mean as the last row.

        Asked again before ``tell``, it gives the same points, so that an interrupted evaluation can be repeated.
        """
        if self._asked is None:
            self._asked = self._draw()
        return self._inside(self._asked)

    def tell(self, outputs: object) -> None:
        """Takes the outputs of the points that were asked for, and updates the search distribution.

        A row that is not finite counts as failed. An iteration of which fewer than two rows are left changes nothing
        but the counters.

        Args:
            outputs: F [N (+1), m], in the order of the rows of ``ask``; NumPy or torch.

        Raises:
            InputError: nothing was asked, the rows do not fit, m is too small or has changed. Nothing has changed then.
        """
        if self._asked is None:
            raise InputError("tell before ask: call ask() for the points, evaluate them, then tell() their outputs")
        table = read_array(outputs, "outputs")
        rows = self._asked.shape[0]
        if table.ndim != 2 or table.shape[0] != rows:
            raise InputError(
                f"outputs has shape {table.shape}; expected [{rows}, m], a row for each of the {rows} points asked for "
                "and a column for each objective"
            )
        count = table.shape[1]
        self._check_objectives(count)
        good: NDArray[np.bool_] = np.asarray(np.isfinite(table).all(axis=1))
        failures = rows - int(good.sum())
        self._objectives = count
        score = np.where(good, self._score(np.where(good[:, None], table, 0.0)), np.inf)
        row = int(score.argmin())
        if good[row] and (self._best_outputs is None or score[row] < self._score(self._best_outputs)):
            self._best, self._best_outputs = self._inside(self._asked[row]), table[row].copy()
        # Two samples are the fewest that can be compared; the mean's own row is no sample.
        if int(good[: self._samples].sum()) >= 2:
            if failures:
                table = _filled(table, good)
                keep = good if self._failed == "drop" else np.ones_like(good)
            else:
                keep = good
            self._update(self._asked, table, keep)
        self._asked = None
        self.iterations += 1
        self.evaluations += rows
        self.failures += failures

    def see(self, point: Array, outputs: Array) -> None:
        """Takes note of a point that was evaluated too late for its iteration: for :attr:`best` alone."""
        if np.isfinite(outputs).all() and (
            self._best_outputs is None or self._score(outputs[None])[0] < self._score(self._best_outputs)
        ):
            self._best, self._best_outputs = point.copy(), outputs.copy()

    def skip(self) -> None:
        """Gives up the points that were asked for: all of them failed, and how many objectives there are is not known yet.

        Raises:
            InputError: nothing was asked.
        """
        if self._asked is None:
            raise InputError("skip before ask: there are no points to give up")
        rows = self._asked.shape[0]
        self._asked = None
        self.iterations += 1
        self.evaluations += rows
        self.failures += rows

    def state_dict(self) -> dict[str, Any]:
        """Everything that the future depends on, as a flat dictionary of arrays, numbers, strings and bytes."""
        state: dict[str, Any] = {
            "optimizer": type(self).__name__,
            "samples": self._samples,
            "failed": self._failed,
            "generator": self._rng.bit_generator.state,
            "bounds": None if self._bounds is None else self._bounds.copy(),
        }
        for name in (*self._always, *self._counters, *self._memory):
            value = getattr(self, name)
            state[name.lstrip("_")] = value.copy() if isinstance(value, np.ndarray) else value
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state, with the same bits as if nothing had happened in between.

        Raises:
            InputError: the state is that of another kind of optimizer, dimension or number of samples.
        """
        mean, samples = state.get("mean"), state.get("samples")
        shape = mean.shape if isinstance(mean, np.ndarray) else ()
        given = (_text(state.get("optimizer")), shape, samples if type(samples) is int else None)
        own = (type(self).__name__, self._mean.shape, self._samples)
        if given != own:
            raise InputError(
                f"the state is of {given[0]} with mean {given[1]} and {given[2]} samples; this is {own[0]} with mean "
                f"{own[1]} and {own[2]} samples; make the optimizer as it was when the state was saved"
            )
        names = (*self._always, *self._counters, *self._memory)
        missing = [name for name in ("generator", "failed", "bounds", *(n.lstrip("_") for n in names)) if name not in state]
        if missing:
            raise InputError(f"the state lacks {', '.join(missing)}; give what state_dict() returned")
        for name in names:
            self._check_part(name, state)
        if _flat(state["bounds"]) != _flat(self._bounds):
            raise InputError(
                "the state is of a search with other bounds; make the optimizer as it was when the state was saved"
            )
        if _text(state["failed"]) not in get_args(Failed):
            raise InputError(f"the state's failed is {_text(state['failed'])}; give what state_dict() returned")
        before = self._rng.bit_generator.state
        kind = _text(state["generator"].get("bit_generator")) if isinstance(state["generator"], dict) else None
        if before["bit_generator"] != kind:
            raise InputError(
                f"the state's generator is {kind}; this one's is "
                f"{before['bit_generator']}; give seed= a generator of the same kind"
            )
        try:
            self._rng.bit_generator.state = state["generator"]
        except Exception as error:
            self._rng.bit_generator.state = before
            raise InputError("the state's generator cannot be used; give what state_dict() returned") from error
        self._failed = state["failed"]
        for name in names:
            value = state[name.lstrip("_")]
            setattr(self, name, value.copy() if isinstance(value, np.ndarray) else value)

    def _check_part(self, name: str, state: dict[str, Any]) -> None:
        """Refuses a part of a saved state that is of another kind or shape than this object's own."""
        own, value, asked = getattr(self, name), state[name.lstrip("_")], state["asked"] is not None
        if name in self._counters or name == "_objectives":
            good = (type(value) is int and value >= 0) or (name == "_objectives" and value is None)
        elif name in ("_asked", "_best", "_best_outputs", *self._changing):
            rows = (self._samples + (self._extra if name == "_asked" else 0), self.dimension)
            outputs = (state["objectives"],)
            shapes = {"_lambda": outputs, "_best_outputs": outputs, "_last": (self._samples // 2,), "_best": (self.dimension,)}
            good = value is None and not (asked and name not in shapes and name != "_asked")
            if isinstance(value, np.ndarray) and value.dtype == np.float64:
                good = value.shape == shapes.get(name, rows) and not np.isnan(value).any()
        elif isinstance(own, np.ndarray):
            good = isinstance(value, np.ndarray) and value.dtype == own.dtype and value.shape == own.shape
            good = good and bool(np.isfinite(value).all())
        else:
            good = type(value) is type(own) and bool(np.isfinite(value)) and not (type(value) is int and value < 0)
        if not good:
            raise InputError(
                f"the state's {name.lstrip('_')} is of another kind or shape than here; give what state_dict() returned"
            )

    def _check_objectives(self, count: int) -> None:
        """Refuses a number of objectives, before anything has changed."""
        if count < self.smallest_objectives:
            raise InputError(
                f"outputs has {count} objective{'s' if count != 1 else ''}; {type(self).__name__} weighs at least "
                f"{self.smallest_objectives}" + ("; for a single one take CMAES or ES" if count == 1 else "")
            )
        if self._objectives is not None and count != self._objectives:
            raise InputError(f"outputs has {count} objectives and had {self._objectives} before; their number cannot change")

    def _inside(self, points: Array) -> Array:
        """A copy of points [..., d], mirrored at the bounds as often as they need."""
        if self._bounds is None:
            return points.copy()
        low, high = self._bounds
        with np.errstate(invalid="ignore"):
            place = np.mod(points - low, 2 * (high - low))
            between = low + np.minimum(place, 2 * (high - low) - place)
            mirrored = np.where(np.isneginf(low), high - np.abs(points - high), low + np.abs(points - low))
            mirrored = np.where(np.isfinite(low) & np.isfinite(high), between, mirrored)
        inside = (points >= low) & (points <= high)
        found: Array = np.where(inside, points, np.clip(mirrored, low, high))
        return found

    def _score(self, outputs: Array) -> Any:
        """What :attr:`best` is the lowest in: [..., m] → [...]."""
        return (outputs / outputs.shape[-1]).sum(axis=-1)

    @abstractmethod
    def _draw(self) -> Array:
        """Draws the rows of an iteration."""

    @abstractmethod
    def _update(self, points: Array, outputs: Array, keep: NDArray[np.bool_]) -> None:
        """Takes an iteration's rows. Rows that are not kept hold a penalty and must have no more influence than the worst."""


def _box(bounds: Bounds, mean: Array) -> Array | None:
    """Lower and upper bounds [2, d], infinite where there are none."""
    if bounds is None:
        return None
    if not isinstance(bounds, list | tuple | np.ndarray) or len(bounds) != 2:
        raise InputError(f"bounds is {bounds!r}; give (lower, upper), each a number, one for each dimension, or None")
    box = np.empty((2, mean.size))
    for row, side, nothing in zip(box, bounds, (-np.inf, np.inf), strict=True):
        given = read_array(nothing if side is None else side, "bounds")
        if given.shape not in ((), mean.shape):
            raise InputError(f"bounds has a side of shape {given.shape} and mean {mean.shape}; give one number or one for each")
        row[:] = given
    if not (box[0] < box[1]).all():
        raise InputError("bounds has a lower bound that is not below the upper one; give (lower, upper)")
    if not ((mean >= box[0]) & (mean <= box[1])).all():
        raise InputError("mean is outside the bounds; start the search inside")
    return box


def _flat(bounds: Any) -> Any:
    return bounds.tolist() if isinstance(bounds, np.ndarray) else bounds


def _text(value: object) -> str:
    return " ".join(value.split())[:80] if isinstance(value, str) else f"of type {type(value).__name__}"


def _filled(table: Array, good: NDArray[np.bool_]) -> Array:
    """The table with failed rows replaced: worst value of the others plus their range, a column at a time."""
    finite = table[good]
    worst = finite.max(axis=0)
    table = table.copy()
    table[~good] = worst + (worst - finite.min(axis=0))
    return table
