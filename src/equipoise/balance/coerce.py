"""Whatever a user passes as ``balancer`` becomes a balancer here, TorchJD's aggregators and weightings, too."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.balance.base import Balancer, GradientBalancer, GramianBalancer, as_numbers
from equipoise.balance.registry import balancer
from equipoise.errors import InputError, require
from equipoise.method import MethodSpec, Nested
from equipoise.solvers import read_array

__all__ = ["TorchJDAggregator", "TorchJDWeighting", "as_balancer", "for_one_call", "from_torchjd"]


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


def for_one_call(thing: Any) -> Balancer:
    """As :func:`as_balancer`, where what is made from text is gone after the call.

    Raises:
        InputError: the balancer that the text names has a memory, or see :func:`as_balancer`.
    """
    chosen = as_balancer(thing)
    if isinstance(thing, str | MethodSpec) and chosen.stateful:
        raise InputError(
            f'"{thing}" has a memory, so it must outlive the step: make it once before the loop, '
            f'balancer = equipoise.balancer("{thing}"), and pass that'
        )
    return chosen


class TorchJDWeighting(GramianBalancer):
    """Uses a TorchJD weighting of the Gramian, such as ``torchjd.aggregation.UPGradWeighting()``.

    Args:
        weighting: a module that maps a Gramian ``[K, K]`` to weights ``[K]``.
    """

    def __init__(self, weighting: Any) -> None:
        self.weighting = weighting

    def weights(self, gramian: Tensor | ArrayLike) -> Tensor:
        """What the weighting answers for each Gramian ``[..., K, K]``."""
        if not isinstance(gramian, Tensor):
            gramian = torch.tensor(read_array(gramian, "a Gramian"), device="cpu")
        if gramian.dim() == 2:
            answer: Tensor = self.weighting(gramian)
            return answer
        flat = gramian.reshape(-1, *gramian.shape[-2:])
        answers = gramian.new_empty(flat.shape[:-1])
        for position, matrix in enumerate(flat):
            answers[position] = self.weighting(matrix)
        return answers.reshape(gramian.shape[:-1])

    def __repr__(self) -> str:
        return f"TorchJDWeighting({self.weighting})"


class TorchJDAggregator(GradientBalancer):
    """Uses a TorchJD aggregator of the task gradients, such as ``torchjd.aggregation.ConFIG()``.

    Args:
        aggregator: a module that maps task gradients ``[K, P]`` to a direction ``[P]``.
    """

    def __init__(self, aggregator: Any) -> None:
        self.aggregator = aggregator

    def direction(self, gradients: Tensor | ArrayLike) -> Tensor:
        """What the aggregator answers."""
        gradients = as_numbers(gradients, "task gradients", 2)
        answer: Tensor = self.aggregator(gradients)
        return answer

    def __repr__(self) -> str:
        return f"TorchJDAggregator({self.aggregator})"


def from_torchjd(thing: Any) -> Balancer:
    """Makes a balancer of a TorchJD aggregator or weighting.

    An aggregator that only weighs by the Gramian becomes a Gramian balancer, which spares it the matrix.

    Raises:
        InputError: neither of the two, or a weighting that needs the whole matrix.
        MissingExtraError: TorchJD is not installed.
    """
    aggregation = require("torchjd.aggregation", "torchjd")
    gramian_weighting = getattr(thing, "gramian_weighting", None)
    if isinstance(gramian_weighting, aggregation.Weighting):
        return TorchJDWeighting(gramian_weighting)
    if isinstance(thing, aggregation.Aggregator):
        return TorchJDAggregator(thing)
    if isinstance(thing, aggregation.Weighting):
        return TorchJDWeighting(thing)
    raise InputError(f"expected a TorchJD aggregator or weighting; got {type(thing).__name__}")
