"""What benchmarks report: Markdown tables, and numbers in words."""

from __future__ import annotations

from equipoise.markdown import table

__all__ = ["duration", "small", "table", "times"]


def duration(seconds: float) -> str:
    """Seconds, with the unit that suits them."""
    if seconds >= 1.0:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds * 1e6:.0f} µs"


def times(factor: float) -> str:
    """How many times as long something takes."""
    if factor >= 100:
        return f"{factor:,.0f}×"
    return f"{factor:.1f}×" if factor >= 10 else f"{factor:.2f}×"


def small(number: float) -> str:
    """A residual."""
    return "∞" if number == float("inf") else "–" if number != number else f"{number:.0e}"
