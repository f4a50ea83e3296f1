"""Who takes part in a race: plain training, fixed weights from the diagnosis, and methods of every price that apply."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from equipoise.balance.registry import MethodInfo
from equipoise.diagnosis import Diagnosis
from equipoise.diagnosis.sentences import mean_norms
from equipoise.errors import InputError
from equipoise.method import MethodSpec
from equipoise.study.methods import Method, MethodLike, parse_method, parse_methods, serves
from equipoise.study.problem import Problem
from equipoise.study.task_weights import find

__all__ = ["PLAIN", "WEIGHTS", "Candidate", "candidates"]

PLAIN = "ls"
WEIGHTS = "fixed weights"

DEFAULT = ("uw", "famo", "ldc-mtl", "fairgrad", "imtl-g", "aligned-mtl", "upgrad")
"""Beside plain training and fixed weights: of each price several, and no two that are the same method."""

_CHEAPER = 0.5  # a proxy takes the exact Gramian's place where its step costs less than this part


@dataclass(frozen=True)
class Candidate:
    """One entry of a race, with everything that is tried of it.

    Attributes:
        name: what it is called.
        variants: methods; several only of fixed weights, whose weights differ.
        needs: what it looks at: ``"losses"``, ``"gramian"``, ``"gradients"`` or ``"bilevel"``; empty if nobody knows.
    """

    name: str
    variants: tuple[Method, ...]
    needs: str = ""


def candidates(
    problem: Problem, found: Diagnosis, methods: str | Iterable[MethodLike] | Mapping[str, Any] | None = None
) -> tuple[list[Candidate], dict[str, str]]:
    """Who takes part. Plain training and fixed weights always do.

    Methods that look at the Gramian take it from a proxy where the diagnosis found one that is good and costs less than half of
    the exact one.

    Args:
        problem: what is raced on.
        found: its diagnosis.
        methods: see :func:`~equipoise.study.parse_methods`; a choice of nine entries in all if left out.

    Returns:
        The candidates, and name → why it was left out.

    Raises:
        InputError: the methods given cannot be read, or have a fixed name of their own.
    """
    asked = parse_methods(DEFAULT if methods is None else methods)
    left_out: dict[str, str] = {}
    taking_part = [Candidate(PLAIN, (parse_method(PLAIN),), "losses"), _weights(problem, found)]
    for method in asked:
        if method.label in (PLAIN, WEIGHTS):
            continue
        info = find(method.name) if method.name else None
        if not found.positive and isinstance(info, MethodInfo) and info.positive_losses:
            bad = next(task for task, own in found.losses.items() if own["not_positive"])
            left_out[method.label] = f'its losses must be positive, and that of "{bad}" is not always'
        elif reason := serves(problem, method):
            left_out[method.label] = reason
        else:
            method = _by_proxy(method, info, found) if methods is None else method
            taking_part.append(Candidate(method.label, (method,), "" if info is None else info.cost))
    if len(taking_part) == 2:
        raise InputError(
            f"no method is left to race against plain training: {'; '.join(f'{name}: {why}' for name, why in left_out.items())}"
        )
    return taking_part, left_out


def _by_proxy(method: Method, info: Any, found: Diagnosis) -> Method:
    good = found.good_proxy()
    exact, proxy = found.ratio("exact Gramian"), found.ratio("proxy Gramian")
    if info is None or info.cost != "gramian" or good is None or not proxy < _CHEAPER * exact or method.spec is None:
        return method
    word, _, layers = good.partition(" ")
    return parse_method(MethodSpec.parse(f"{method.label}@{word}" + (f"(layers={layers})" if layers else "")))


def _weights(problem: Problem, found: Diagnosis) -> Candidate:
    """Weights that level what the diagnosis measured: first losses, last losses, gradient norms; their sum is K."""
    norms = mean_norms(found)
    scales = {
        "by first losses": [found.losses[task]["first"] for task in found.tasks],
        "by last losses": [found.losses[task]["last"] for task in found.tasks],
        "by gradients": [norms.get(task, math.nan) for task in found.tasks],
    }
    variants = []
    for name, values in scales.items():
        if all(value is not None and math.isfinite(value) and value > 0 for value in values):
            raw = [1 / value for value in values]
            weights = [float(f"{len(raw) * value / sum(raw):.4g}") for value in raw]
            text = f"{PLAIN}:weights=[{', '.join(map(repr, weights))}]"
            variants.append(replace(parse_method(text), label=f"{WEIGHTS} {name}"))
    if not variants:
        variants = [replace(parse_method(PLAIN), label=f"{WEIGHTS} equal")]
    return Candidate(WEIGHTS, tuple(variants), "losses")
