"""MR: the mean rank of each method over all metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from equipoise.errors import InputError
from equipoise.metrics.metric import Metric

__all__ = ["mean_rank"]


def mean_rank(results: Mapping[str, Mapping[str, float]], metrics: Iterable[Metric]) -> dict[str, float]:
    """The mean over metrics of a method's rank among all methods; 1 is the best, lower is better.

    Methods with the same value share the mean of their ranks. A value that is not a number ranks behind all others.

    Args:
        results: method → metric name → value.
        metrics: the metrics that count.

    Returns:
        method → mean rank, in the order of ``results``.

    Raises:
        InputError: no metrics, or a method without a value for one of them.

    Example:
        >>> accuracy = Metric("accuracy", "class", higher_is_better=True)
        >>> error = Metric("error", "depth", higher_is_better=False)
        >>> mean_rank({"ls": {"accuracy": 80, "error": 0.5}, "mgda": {"accuracy": 90, "error": 0.5}}, [accuracy, error])
        {'ls': 1.75, 'mgda': 1.25}
    """
    ranks: dict[str, list[float]] = {method: [] for method in results}
    for metric in metrics:
        for method, values in results.items():
            if metric.name not in values:
                raise InputError(f'method "{method}" has no value for metric "{metric.name}"')
        badness = {method: _badness(float(values[metric.name]), metric) for method, values in results.items()}
        for method, own in badness.items():
            better = sum(other < own for other in badness.values())
            equal = sum(other == own for other in badness.values())
            ranks[method].append(better + (equal + 1) / 2)
    if any(not own for own in ranks.values()):
        raise InputError("a mean rank was asked for without any metric; pass at least one")
    return {method: math.fsum(own) / len(own) for method, own in ranks.items()}


def _badness(value: float, metric: Metric) -> float:
    if math.isnan(value):
        return math.inf
    return -value if metric.higher_is_better else value
