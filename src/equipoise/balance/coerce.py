"""Whatever a user passes as ``balancer`` becomes a balancer here."""

from __future__ import annotations

from typing import Any

from equipoise.balance.base import Balancer
from equipoise.balance.registry import balancer
from equipoise.balance.torchjd import from_torchjd
from equipoise.errors import InputError
from equipoise.method import MethodSpec, Nested

__all__ = ["as_balancer"]


def as_balancer(thing: Any) -> Balancer:
    """Takes a balancer, the name of one (with its options, if need be), or an aggregator or weighting of TorchJD.

    Raises:
        InputError: none of these.

    Example:
        >>> as_balancer("fairgrad:alpha=2")
        FairGrad(alpha=2.0)
    """
    if isinstance(thing, Balancer):
        return thing
    if isinstance(thing, str | MethodSpec):
        return balancer(thing)
    if isinstance(thing, Nested):
        return balancer(thing.name, **thing.options)
    if isinstance(thing, type):
        raise InputError(f"balancer must be an instance; got the class {thing.__name__}, so write {thing.__name__}()")
    if type(thing).__module__.partition(".")[0] == "torchjd" or any(
        base.__module__.partition(".")[0] == "torchjd" for base in type(thing).__mro__
    ):
        return from_torchjd(thing)
    raise InputError(
        f"balancer must be a balancer such as equipoise.FairGrad(), the name of one, or a TorchJD aggregator; "
        f"got {type(thing).__name__}"
    )
