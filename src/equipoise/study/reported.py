"""Which epochs of a run the reported numbers are from: the last one, the mean of the last few, or the best one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from equipoise.errors import InputError
from equipoise.metrics.metric import mean

__all__ = ["BestEpoch", "LastEpochs", "Reported", "Score"]

Score: TypeAlias = Callable[[Mapping[str, float]], float]
_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class LastEpochs:
    """Each metric's mean over the last few epochs; over all epochs if there were fewer.

    Args:
        count: how many; the last one alone by default. Studies of NYUv2 and Cityscapes report the mean of the last ten.

    Raises:
        InputError: fewer than one.

    Example:
        >>> history = [{"validation": None, "test": {"error": error}} for error in (9.0, 3.0, 1.0)]
        >>> LastEpochs(2).final(history)
        {'validation': None, 'test': {'error': 2.0}}
    """

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"count is {self.count}; at least one epoch has to be reported")

    @property
    def words(self) -> str:
        """For people, and for a study's folder to remember."""
        return "last epoch" if self.count == 1 else f"mean over the last {self.count} epochs"

    def final(self, history: Sequence[Mapping[str, Any]], score: Score | None = None) -> dict[str, Any]:
        """Metrics of both splits from a run's history."""
        last = history[-self.count :]
        if len(last) == 1:
            return {split: last[0][split] for split in _SPLITS}
        return {split: _means([entry[split] for entry in last]) for split in _SPLITS}


@dataclass(frozen=True)
class BestEpoch:
    """The metrics of the epoch with the lowest score, which is the problem's ``score`` of one split's metrics.

    Args:
        split: the split that is scored. The validation split, which leaves the test split out of the choice; ``"test"`` is for
            comparing with published numbers that were chosen so, where a data set has no validation split: these are too good.

    Raises:
        InputError: another split.

    Example:
        >>> history = [{"validation": {"error": error}, "test": {"error": error + 1}} for error in (9.0, 1.0, 3.0)]
        >>> BestEpoch().final(history, score=lambda metrics: metrics["error"])
        {'validation': {'error': 1.0}, 'test': {'error': 2.0}}
    """

    split: Literal["validation", "test"] = "validation"

    def __post_init__(self) -> None:
        if self.split not in _SPLITS:
            raise InputError(f'split is {self.split!r}; it must be "validation" or "test"')

    @property
    def words(self) -> str:
        """For people, and for a study's folder to remember."""
        return f"epoch that is best on the {self.split} split"

    def final(self, history: Sequence[Mapping[str, Any]], score: Score | None = None) -> dict[str, Any]:
        """Metrics of both splits from a run's history.

        Raises:
            InputError: no score, or no such split.
        """
        if score is None:
            raise InputError("the best epoch was asked for, and the problem has no score; give it score=")
        if history[0][self.split] is None:
            raise InputError(f"the best epoch on the {self.split} split was asked for, and there is no such split")
        scores = [score(entry[self.split]) for entry in history]
        # An epoch whose score is no number is never the best one, unless there is no other.
        best = min(range(len(history)), key=lambda place: (math.isnan(scores[place]), scores[place]))
        return {split: history[best][split] for split in _SPLITS}


Reported: TypeAlias = LastEpochs | BestEpoch


def _means(evaluated: Sequence[Mapping[str, float] | None]) -> dict[str, float] | None:
    there = [values for values in evaluated if values is not None]
    if not there:
        return None
    return {name: mean(values[name] for values in there) for name in there[0]}
