"""Δ_p %: how much better than single-task training, every task counting the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from equipoise.metrics.delta_m import delta_m
from equipoise.metrics.metric import Metric

__all__ = ["delta_p"]


def delta_p(results: Mapping[str, float], baseline: Mapping[str, float], metrics: Iterable[Metric]) -> float:
    """The mean relative improvement over a baseline, in percent; above zero is better than the baseline.

    ``Δ_p = 100 % × 1/m Σ_i 1/N_i Σ_j (−1)^s_ij (M_ij − M_ij^STL) / M_ij^STL``, where task i has N_i metrics and ``s_ij`` is 0
    if a higher ``M_ij`` is better and 1 otherwise (eq. 3.33 of the thesis). It is :func:`~equipoise.metrics.delta_m` with the
    opposite sign and averaged within each task first: with several metrics a task the two are different numbers.

    Args:
        results: metric name → value of the method.
        baseline: metric name → value of the baseline, usually single-task training.
        metrics: the metrics that count.

    Returns:
        The improvement in percent; ``nan`` if one of the method's values is not finite.

    Raises:
        InputError: as :func:`~equipoise.metrics.delta_m`.

    Example:
        >>> accuracy = Metric("accuracy", "class", higher_is_better=True)
        >>> errors = [Metric(name, "depth", higher_is_better=False) for name in ("absolute", "relative")]
        >>> single = {"accuracy": 80.0, "absolute": 1.0, "relative": 1.0}
        >>> round(delta_p({"accuracy": 88.0, "absolute": 1.1, "relative": 1.3}, single, [accuracy, *errors]), 6)
        -5.0
    """
    return 0.0 - delta_m(results, baseline, metrics, average="tasks")
