"""How many parameters an architecture has, as a number and as something that can be differentiated."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.errors import InputError

__all__ = ["expected_parameters", "number_of_parameters", "size_loss"]


def expected_parameters(logits: Tensor, counts: Tensor) -> Tensor:
    """N̂(α) = Σ over edges Σ over operations softmax(α)_o n_o (thesis, eq. 3.36), a scalar.

    Args:
        logits: α ``[edges, operations]``.
        counts: n_o ``[operations]``.

    Raises:
        InputError: shapes that do not fit.

    Example:
        >>> float(expected_parameters(torch.zeros(3, 2), torch.tensor([0.0, 10.0])))
        15.0
    """
    _check(logits, counts)
    return (torch.softmax(logits, 1) * counts).sum()


def number_of_parameters(logits: Tensor, counts: Tensor) -> int:
    """N(α): parameters when every edge becomes its most probable operation (thesis, section 3.8.2).

    Args:
        logits: α ``[edges, operations]``.
        counts: n_o ``[operations]``.

    Raises:
        InputError: shapes that do not fit.

    Example:
        >>> number_of_parameters(torch.tensor([[0.1, 0.2], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([0.0, 10.0]))
        20
    """
    _check(logits, counts)
    return int(counts[logits.argmax(1)].sum())


def size_loss(logits: Tensor, counts: Tensor, wished: float) -> Tensor:
    """|N̂(α) − L| / (edges · max n_o): eq. 3.37 of the thesis in units of the largest possible network.

    Eq. 3.37 counts parameters. Where gradients are orthogonal, MGDA's weights are as one over their squared lengths, so next to
    losses near 1 a count in the hundreds would hardly weigh; the unit makes it of their size and changes nothing else.

    Args:
        logits: α ``[edges, operations]``.
        counts: n_o ``[operations]``.
        wished: L, in parameters.

    Raises:
        InputError: an L that no cell can have, shapes that do not fit, or operations that all have no parameters.

    Example:
        >>> float(size_loss(torch.zeros(3, 2), torch.tensor([0.0, 10.0]), wished=6.0))
        0.30...
    """
    _check(logits, counts)
    largest = len(logits) * float(counts.max())
    if largest == 0:
        raise InputError("no operation has parameters, so all architectures are of one size")
    if not 0 <= wished <= largest:
        raise InputError(f"wished is a number of parameters from 0 to {largest:g}, those of the largest cell; got {wished:g}")
    return (expected_parameters(logits, counts) - wished).abs() / largest


def _check(logits: Tensor, counts: Tensor) -> None:
    if logits.dim() != 2 or counts.shape != logits.shape[1:]:
        raise InputError(
            f"logits must be [edges, operations] and counts [operations]; got {list(logits.shape)} and {list(counts.shape)}"
        )
