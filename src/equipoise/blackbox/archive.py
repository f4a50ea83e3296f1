"""Points that were evaluated, all of them or those that no other one dominates."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.arrays import Array
from equipoise.errors import InputError

__all__ = ["Archive", "Kept", "undominated"]

Kept: TypeAlias = Literal["front", "all"]


def undominated(outputs: Array) -> NDArray[np.bool_]:
    """Which rows [N, m] no other row dominates (at most as large everywhere, smaller somewhere); of equal rows the first.

    Example:
        >>> undominated(np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 2.0], [1.0, 1.0]])).tolist()
        [True, True, False, False]
    """
    alive = np.ones(len(outputs), dtype=bool)
    # By their sums, for no row is dominated by one of a larger sum: most are struck out by the first few.
    for row in np.argsort(outputs.sum(axis=1), kind="stable"):
        if alive[row]:
            worse = (outputs >= outputs[row]).all(axis=1)
            worse[row] = False
            alive &= ~worse
    return alive


class Archive:
    """Evaluated points and their outputs, failed ones left out.

    Args:
        kept: ``"front"`` for those that no other point dominates, ``"all"``, or ``None`` for none.

    Raises:
        InputError: it is none of these.
    """

    def __init__(self, kept: Kept | None) -> None:
        if kept not in (None, "front", "all"):
            raise InputError(f'archive is {kept!r}; expected "front", "all", or None')
        self.kept = kept
        self._parts: list[tuple[Array, Array]] = []

    def add(self, points: Array, outputs: Array) -> None:
        """Takes points [N, d] and their outputs [N, m]."""
        good = np.isfinite(outputs).all(axis=1)
        if self.kept is None or not good.any():
            return
        points, outputs = points[good], outputs[good]
        if self.kept == "front":
            first = undominated(outputs)
            points, outputs = points[first], outputs[first]
            if self._parts:
                (own, values) = self._parts[0]
                news = ~(values[:, None] <= outputs).all(axis=2).any(axis=0)
                points, outputs = points[news], outputs[news]
                olds = ~(outputs[:, None] <= values).all(axis=2).any(axis=0)
                points, outputs = np.concatenate([own[olds], points]), np.concatenate([values[olds], outputs])
            self._parts = []
        self._parts.append((points.copy(), outputs.copy()))

    def arrays(self) -> tuple[Array, Array]:
        """Points [A, d] and outputs [A, m]; empty where nothing was kept."""
        if not self._parts:
            return np.empty((0, 0)), np.empty((0, 0))
        return tuple(np.concatenate(parts) for parts in zip(*self._parts, strict=True))  # type: ignore[return-value]

    def state_dict(self) -> dict[str, Any]:
        """Both arrays."""
        points, outputs = self.arrays()
        return {"points": points, "outputs": outputs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from saved arrays. Raises InputError: they do not belong together."""
        points, outputs = state.get("points"), state.get("outputs")
        for array in (points, outputs):
            if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.ndim != 2 or len(array) != len(points):  # type: ignore[arg-type]
                raise InputError("the archive of the checkpoint is not one of points and outputs; take another file")
        assert isinstance(points, np.ndarray)
        assert isinstance(outputs, np.ndarray)
        self._parts = [(points, outputs)] if len(points) else []
