"""Aligned-MTL: independent component alignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from equipoise.balance.per_task import PreferenceBalancer
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.solvers import aligned_weights
from equipoise.solvers.aligned import Scale

__all__ = ["AlignedMTL"]


@register(
    "aligned-mtl",
    summary="makes the principal components of the gradients equally strong, then takes the mean",
    paper="Senushkin et al., Independent Component Alignment for Multi-Task Learning, CVPR 2023",
    aliases=("alignedmtl",),
    price="K backward",
    promise="the system of gradients is perfectly conditioned; for full rank the direction serves every preferred task",
    serves="gradients that are dominated by one task or one common direction",
    caveats="the step is as short as the weakest component; a threshold makes it jump; weights can be negative",
    adds_up_to="1 for orthogonal gradients of one length; smaller the worse the conditioning (`min`)",
    checked="defining equations, TorchJD",
    preference="weights: the aligned gradients are added up with p",
)
class AlignedMTL(PreferenceBalancer):
    """w = σ U Σ⁻¹ Uᵀ p for gradients G = U Σ Vᵀ: the combination of gradients whose singular values all are σ.

    Senushkin et al. (2023, algorithm 1), from the eigen-decomposition of the Gramian. p is 1/K by default, as the paper's
    weights of the tasks sum to 1; the released code adds the aligned gradients up, which is p = 1.

    **Mind.** With ``scale`` = min the step is as short as the weakest component. A threshold decides which components count as
    zero, and crossing it makes the step jump. Weights can be negative.

    Args:
        preference: p, one number per task, at least 0, in the tasks' order or by name; 1/K if left out. A batch that lacks
            tasks uses the numbers of those it holds.
        scale: σ: ``"min"`` (the paper), ``"median"`` or ``"rmse"`` of the singular values that are not zero.

    Raises:
        InputError: negative, non-finite, or not one preference per task; no such scale.

    Example:
        >>> import torch
        >>> AlignedMTL().weights(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.2500, 0.5000])
    """

    def __init__(self, preference: Sequence[float] | Mapping[str, float] | None = None, scale: Scale = "min") -> None:
        super().__init__(preference)
        if scale not in get_args(Scale):
            raise InputError(f'scale must be one of {", ".join(get_args(Scale))}; got "{scale}"')
        self.scale: Scale = scale

    def combine(self, gramian: NDArray[np.float64], preference: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :func:`equipoise.solvers.aligned_weights`."""
        return aligned_weights(gramian, preference, self.scale)

    def _options(self) -> list[str]:
        return [*super()._options(), *([] if self.scale == "min" else [f"scale={self.scale!r}"])]
