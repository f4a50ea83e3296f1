"""The products of the task gradients on the two further batches of a step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from equipoise.engine.gradients import TaskGradients
from equipoise.engine.gramian import cross_gramian
from equipoise.step.seen import SeenLosses

__all__ = ["Crossing", "Side", "crossed"]


class Side(NamedTuple):
    """One of the two batches.

    Attributes:
        engine: holds its rows ``[K, P]``.
        seen: which tasks it holds.
        factors: what each of the rows is still to be multiplied with, ``[K]``.
        overflow: whether a gradient scaler's scale was too large for them.
    """

    engine: TaskGradients
    seen: SeenLosses
    factors: Tensor
    overflow: bool


class Crossing(NamedTuple):
    """What the further batches gave.

    Attributes:
        present: positions of the c tasks that both of them hold, ascending.
        products: G(z₁) G(z₂)ᵀ ``[c, c]`` in float64 on the CPU.
        overflow: whether there was one in either of them.
    """

    present: tuple[int, ...]
    products: Tensor
    overflow: bool


def crossed(first: Side, second: Side, scale: Tensor | None) -> Crossing:
    """Multiplies the rows of one batch with those of the other.

    Args:
        first: the batch whose tasks are the rows of the products.
        second: the batch whose tasks are their columns.
        scale: of a gradient scaler, which is in the rows.
    """
    present = tuple(position for position in first.seen.present if position in second.seen.counts)
    index = torch.tensor(present, dtype=torch.long)
    products = cross_gramian(first.engine.rows, second.engine.rows).cpu() * torch.outer(first.factors, second.factors)
    if scale is not None:
        products = products / scale.cpu().double().square()
    return Crossing(present, products[index][:, index], first.overflow or second.overflow)
