"""One number per method: Δm and Δ_p against single-task training; the mean rank MR and the plain average without."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from equipoise.errors import InputError
from equipoise.metrics.metric import Metric, mean

__all__ = ["average_metric", "delta_m", "delta_p", "mean_rank"]


def delta_m(
    results: Mapping[str, float], baseline: Mapping[str, float], metrics: Iterable[Metric], *, average: str = "metrics"
) -> float:
    """The mean relative drop in performance against a baseline, in percent; below zero is better than the baseline.

    ``Δm % = 1/K Σ_k (−1)^δ_k (M_m,k − M_b,k) / M_b,k × 100``, where ``δ_k`` is 1 if a higher ``M_k`` is better and 0
    otherwise (eq. 14 of the COST paper; the same formula stands unnumbered in the experiments of the LDC-MTL paper).
    The papers' tables count every metric once, also where a task has several.

    Args:
        results: metric name → value of the method ``M_m``.
        baseline: metric name → value of the baseline ``M_b``, usually single-task training.
        metrics: the metrics that count.
        average: ``"metrics"`` gives every metric the same weight, as the papers' tables do; ``"tasks"`` averages within
            each task first, so that a task with many metrics weighs no more than one with a single metric.

    Returns:
        The drop in percent; ``nan`` if one of the method's values is not finite, because a training that went wrong has
        no mean.

    Raises:
        InputError: no metrics, a metric without a value, an unknown ``average``, or a baseline that is zero or not
            finite, against which nothing is relative.

    Example:
        >>> accuracy = Metric("accuracy", "class", higher_is_better=True)
        >>> error = Metric("error", "depth", higher_is_better=False)
        >>> round(delta_m({"accuracy": 90.0, "error": 0.6}, {"accuracy": 100.0, "error": 0.5}, [accuracy, error]), 6)
        15.0
    """
    drops: dict[str, list[float]] = {}
    for metric in metrics:
        value, base = _value(results, metric, "results"), _value(baseline, metric, "baseline")
        if base == 0 or not math.isfinite(base):
            raise InputError(
                f'the baseline of metric "{metric.name}" is {base:g}, and a relative drop needs one that is finite and '
                "not zero; leave this metric out of Δm or measure it differently"
            )
        sign = metric.sign
        # Divided by the magnitude, so that below zero (a log-likelihood, say) worse still counts as a drop.
        # Of halves, because the difference of two huge numbers may be larger than any.
        drop = sign * (value - base) / abs(base) if abs(value) < 1e300 else sign * 2 * ((value / 2 - base / 2) / abs(base))
        drops.setdefault(metric.task, []).append(drop * 100 if math.isfinite(value) else math.nan)
    if not drops:
        raise InputError("Δm was asked for without any metric; pass at least one")
    if average == "metrics":
        return _mean([drop for of_task in drops.values() for drop in of_task])
    if average == "tasks":
        return _mean([_mean(of_task) for of_task in drops.values()])
    raise InputError(f'average is {average!r}; it must be "metrics" or "tasks"')


def _value(values: Mapping[str, float], metric: Metric, which: str) -> float:
    if metric.name not in values:
        raise InputError(f'the {which} have no value for metric "{metric.name}"; they have {sorted(values)}')
    return float(values[metric.name])


def _mean(values: list[float]) -> float:
    return mean(values) if all(map(math.isfinite, values)) else math.nan


def delta_p(results: Mapping[str, float], baseline: Mapping[str, float], metrics: Iterable[Metric]) -> float:
    """The mean relative improvement over a baseline, in percent; above zero is better than the baseline.

    ``Δ_p = 100 % × 1/m Σ_i 1/N_i Σ_j (−1)^s_ij (M_ij − M_ij^STL) / M_ij^STL``, where task i has N_i metrics and ``s_ij`` is 0
    if a higher ``M_ij`` is better and 1 otherwise (eq. 3.33 of the thesis). It is :func:`~equipoise.metrics.summaries` with the
    opposite sign and averaged within each task first: with several metrics per task the two are different numbers.

    Args:
        results: metric name → value of the method.
        baseline: metric name → value of the baseline, usually single-task training.
        metrics: the metrics that count.

    Returns:
        The improvement in percent; ``nan`` if one of the method's values is not finite.

    Raises:
        InputError: as :func:`~equipoise.metrics.summaries`.

    Example:
        >>> accuracy = Metric("accuracy", "class", higher_is_better=True)
        >>> errors = [Metric(name, "depth", higher_is_better=False) for name in ("absolute", "relative")]
        >>> single = {"accuracy": 80.0, "absolute": 1.0, "relative": 1.0}
        >>> round(delta_p({"accuracy": 88.0, "absolute": 1.1, "relative": 1.3}, single, [accuracy, *errors]), 6)
        -5.0
    """
    return 0.0 - delta_m(results, baseline, metrics, average="tasks")


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
    return metric.sign * value


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
    return mean(float(results[metric.name]) for metric in metrics)
