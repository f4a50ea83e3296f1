"""Which problem can serve which method."""

from __future__ import annotations

from equipoise.balance.mixins import OnFeatures
from equipoise.balance.registry import methods
from equipoise.study.methods import Method, parse_method
from equipoise.study.problem import Problem

__all__ = ["served", "serves"]


def serves(problem: Problem, method: Method) -> str | None:
    """Why a problem cannot be trained with a method; ``None`` if it can.

    What a method needs beyond losses is the model's parts, or its heads' targets, which the problem has to name. Further
    batches come from the problem's training data, and a teleport needs nothing more of it. A balancer of one's own is taken as
    it is: it may have been told already.
    """
    made = method.make(0) if method.name else None
    if not isinstance(made, OnFeatures) or not made.lacks_parts:
        return None
    if problem.parts is None:
        return (
            f'method "{method.label}" acts on parts of the model, and problem "{problem.name}" does not say which they are; '
            'give it parts=lambda model: {"features": module, "heads": {task: module}}'
        )
    if made.needs_targets and problem.targets is None:
        return (
            f'method "{method.label}" applies to linear heads whose targets it knows, and problem "{problem.name}" does not '
            "give them; if its heads are nn.Linear on the features, give it targets=lambda batch: {task: tensor}"
        )
    return None


def served(problem: Problem) -> tuple[Method, ...]:
    """All balancers, with their default options, that a problem can be trained with."""
    everyone = (parse_method(info.name) for info in methods())
    return tuple(method for method in everyone if serves(problem, method) is None)
