"""Every method that a study knows by name, of whatever kind."""

from __future__ import annotations

from typing import TypeAlias

from equipoise.balance.registry import REGISTRY, MethodInfo
from equipoise.errors import UnknownMethodError, near_misses
from equipoise.registry import folded
from equipoise.study.task_weights import TaskWeightsInfo, task_weights

__all__ = ["Entry", "find"]

Entry: TypeAlias = MethodInfo | TaskWeightsInfo
"""What is known of the methods of both kinds: balancers, and those that learn task weights on validation data."""


def find(name: str) -> Entry:
    """Looks a method up by its name or an alias; case, ``-`` and ``_`` do not matter.

    Raises:
        UnknownMethodError: there is no such method; near misses are suggested.

    Example:
        >>> find("forum").cost, find("FairGrad").cost
        ('bilevel', 'gramian')
    """
    own = {info.name: info for info in task_weights()}
    key = folded(name)
    if key in own:
        return own[key]
    try:
        return REGISTRY.find(name)
    except UnknownMethodError as error:
        also = f"Methods that learn on validation data: {', '.join(sorted(own))}"
        raise UnknownMethodError(f"{error}{near_misses(key, own)} {also}") from None
