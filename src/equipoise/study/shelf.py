"""Every method that a study knows by name, of whatever kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from equipoise.balance.registry import method as balancer_info
from equipoise.errors import UnknownMethodError, near_misses
from equipoise.study.task_weights import task_weights, weighted
from equipoise.study.trainers import Made, Stage, Trained, balanced

__all__ = ["Entry", "Kind", "find"]

Kind = Callable[[Made, Callable[[int], Any] | None, Stage], Trained]
"""How what a method makes, and its teleport, become a run."""


class Entry(Protocol):
    """What all kinds of methods say of themselves."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def summary(self) -> str:
        """One line on what it does."""

    @property
    def paper(self) -> str:
        """Where it comes from."""

    @property
    def cost(self) -> str:
        """What it looks at, and so what a step costs."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Options with their defaults."""

    def make(self, **options: Any) -> Made:
        """What a run is made of; refuses bad options."""


class Found(NamedTuple):
    """A method of the shelf.

    Attributes:
        entry: what it says of itself.
        kind: how its runs are made.
        teleports: whether a teleport can go on top of it.
    """

    entry: Entry
    kind: Kind
    teleports: bool


def find(name: str) -> Found:
    """Looks a method up by its name or an alias; case, ``-`` and ``_`` do not matter.

    Raises:
        UnknownMethodError: there is no such method; near misses are suggested.

    Example:
        >>> find("forum").entry.cost, find("FairGrad").entry.cost
        ('bilevel', 'gramian')
    """
    own = {info.name: info for info in task_weights()}
    key = name.strip().lower().replace("_", "-")
    if key in own:
        return Found(own[key], weighted, False)
    try:
        return Found(balancer_info(name), balanced, True)
    except UnknownMethodError as error:
        raise UnknownMethodError(f"{error}{near_misses(key, own)} On validation data learn {', '.join(sorted(own))}") from None
