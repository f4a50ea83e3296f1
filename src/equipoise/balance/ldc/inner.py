"""The double loop: an approximate solution of the lower level, beside the model (LDC-MTL paper, eq. 4, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from equipoise.balance.mixins import Elsewhere
from equipoise.errors import NonFiniteError

__all__ = ["lower_level_solution"]


def lower_level_solution(
    elsewhere: Elsewhere,
    start: Mapping[str, Tensor] | None,
    shares: Tensor,
    normalize: Callable[[Tensor], Tensor],
    *,
    steps: int,
    lr: float,
) -> tuple[dict[str, Tensor], Tensor]:
    """Takes gradient steps z ← z − β ∇_z g(W, z) by substitution; the model stays as it is.

    Args:
        elsewhere: evaluates the step's losses at other parameters.
        start: z_0; the model's own parameters if left out.
        shares: σ(W) ``[k]`` of the tasks present, fixed.
        normalize: from losses ``[k]`` to those that g adds up.
        steps: N.
        lr: what ∇_z g is multiplied with.

    Returns:
        z_N, and the normalised losses there ``[k]``, in float64.

    Raises:
        NonFiniteError: a loss at z is not finite.
    """
    own = elsewhere.parameters()
    held = {} if start is None else start
    point = {name: held.get(name, value).detach().clone().requires_grad_() for name, value in own.items()}
    values = list(point.values())
    with torch.enable_grad():
        for _ in range(steps):
            found = torch.autograd.grad((shares * normalize(elsewhere.losses(point).double())).sum(), values, allow_unused=True)
            with torch.no_grad():
                moved = [(value, gradient) for value, gradient in zip(values, found, strict=True) if gradient is not None]
                torch._foreach_add_([value for value, _ in moved], [gradient for _, gradient in moved], alpha=-lr)
    with torch.no_grad():
        there = normalize(elsewhere.average(elsewhere.losses(point).double()))
    if not bool(torch.isfinite(there).all()):
        raise NonFiniteError("the lower level of the double loop diverged; lower inner_lr", tasks=(), step=-1, what="loss")
    return {name: value.detach() for name, value in point.items()}, there
