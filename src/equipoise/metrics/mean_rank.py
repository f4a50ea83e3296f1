"""Summaries over metrics without a baseline: the mean rank MR and the plain average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from equipoise.errors import InputError
from equipoise.metrics.metric import Metric

__all__ = ["average_metric", "mean_rank"]


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


def average_metric(results: Mapping[str, float], metrics: Iterable[Metric]) -> float:
    """The mean of several metrics of one kind, such as the average accuracy over tasks.

    Args:
        results: metric name → value.
        metrics: the metrics that count; all of one unit and direction, because a mean of others means nothing.

    Raises:
        InputError: no metric, one without a value, or metrics of different kinds.

    Example:
        >>> metrics = [Metric(f"{task} accuracy", task, higher_is_better=True, unit="%") for task in ("A", "D", "W")]
        >>> average_metric({"A accuracy": 85.64, "D accuracy": 98.63, "W accuracy": 97.96}, metrics)
        94.07666666666667
    """
    metrics = tuple(metrics)
    if not metrics:
        raise InputError("an average was asked for without any metric; pass at least one")
    if len({(metric.unit, metric.higher_is_better) for metric in metrics}) > 1:
        raise InputError(f"an average over metrics of different kinds: {', '.join(metric.heading for metric in metrics)}")
    for metric in metrics:
        if metric.name not in results:
            raise InputError(f'the results have no value for metric "{metric.name}"; they have {sorted(results)}')
    return math.fsum(float(results[metric.name]) for metric in metrics) / len(metrics)
