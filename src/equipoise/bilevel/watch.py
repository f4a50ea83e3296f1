"""What a value-function method's multiplier and constraint tell about its step sizes."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise
from statistics import fmean

from equipoise.errors import warn_once

__all__ = ["Watch"]

_TURNS = 20
_WINDOW = 100
# A constraint below this part of the largest |f| so far is met as far as anybody cares.
_MET = 1e-3


class Watch:
    """Looks at ν and q̃ step by step, and warns, once each, when they say that outer steps are too long.

    ν that turns in every one of 20 steps, by no less in the second half and between two values that lie apart, is a cycle of
    period two, if q̃ does not fall meanwhile. q̃ that did not fall over 100 steps, against the 100 before: ω stays away from
    the lower level's answer. Both only while q̃ is no small part of f, and larger than what f differs by from step to step:
    where batches change, T steps fit each a little, and the q̃ of that never falls.
    """

    def __init__(self) -> None:
        self._multipliers: deque[float] = deque(maxlen=_TURNS + 1)
        self._gaps: deque[float] = deque(maxlen=2 * _WINDOW)
        self._values: deque[float] = deque(maxlen=_WINDOW)
        self._scale = 0.0

    def look(self, owner: object, multiplier: float, gap: float, lower: float) -> None:
        """After a step: ν, q̃ and f(α, ω̃^T)."""
        self._multipliers.append(multiplier)
        self._gaps.append(gap)
        self._values.append(lower)
        self._scale = max(self._scale, abs(lower))
        turns = [after - before for before, after in pairwise(self._multipliers)]
        if len(turns) == _TURNS and all(a * b < 0 for a, b in pairwise(turns)):
            sizes = [abs(turn) for turn in turns]
            early, late = fmean(sizes[: _TURNS // 2]), fmean(sizes[_TURNS // 2 :])
            gaps = list(self._gaps)[-_TURNS:]
            start, end = fmean(gaps[: _TURNS // 2]), fmean(gaps[_TURNS // 2 :])
            held = end > max(0.9 * start, self._least())
            sides = sorted(list(self._multipliers)[side::2] for side in (0, 1))
            apart = min(sides[1]) - max(sides[0]) >= 0.25 * late  # noise may turn as often, but between no two values
            if held and apart and late >= 0.9 * early and late >= 0.02 * fmean(self._multipliers):
                pair = " and ".join(f"{value:.3g}" for value in sorted(list(self._multipliers)[-2:]))
                warn_once(
                    owner,
                    "cycle",
                    f"the multiplier ν goes back and forth between {pair}: the outer steps are too long for the constraint, "
                    f"and α ends elsewhere; let them decay (equipoise.bilevel.decaying), or take smaller ones",
                )
        if len(self._gaps) == 2 * _WINDOW:
            gaps = list(self._gaps)
            before, now = fmean(gaps[:_WINDOW]), fmean(gaps[_WINDOW:])
            if now >= 0.95 * before and now > self._least():
                warn_once(
                    owner,
                    "gap",
                    f"the constraint q̃ has not fallen over {_WINDOW} steps (it is {now:.3g}, the lower level's value "
                    f"{lower:.3g}): ω stays away from the lower level's answer, so upper values are better than α "
                    f"deserves; let the outer steps decay (equipoise.bilevel.decaying), or take more lower steps or a "
                    f"larger rho, and judge α by solver.retrained()",
                )

    def _least(self) -> float:
        """The smallest q̃ that says something."""
        differences = [after - before for before, after in pairwise(self._values)]
        noise = math.sqrt(fmean(d * d for d in differences) / 2.0) if differences else 0.0
        return max(_MET * self._scale, 3.0 * noise)
