"""The plain mean of several tasks' metrics, such as an average accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from equipoise.errors import InputError
from equipoise.metrics.metric import Metric

__all__ = ["average_metric"]


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
