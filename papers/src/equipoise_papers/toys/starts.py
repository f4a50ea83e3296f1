"""What the two-task problem can be asked for, without torch: the sign in its second loss, and where trajectories start."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["STARTS", "Sign"]

Sign: TypeAlias = Literal["released", "paper"]

STARTS: tuple[tuple[float, float], ...] = ((-8.5, 7.5), (-8.5, 5.0), (0.0, 0.0), (9.0, 9.0), (10.0, -8.0))
"""The five starting points of the LDC-MTL paper (appendix A.3), which are those of the papers before it."""
