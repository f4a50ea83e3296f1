"""The two-task problem in the plane on which several papers show their trajectories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise_papers.toys.starts import Sign

__all__ = ["TwoTasks"]

_SMALLEST_DISTANCE = 0.000005


@dataclass(frozen=True)
class TwoTasks:
    """Formula (5) of the LDC-MTL paper (appendix A.3), first used for CAGrad (Liu et al., 2021), Figure 6 of COST.

    Above ``x₂ = 0`` each task is a narrow valley, ``f_i = log(distance to it) + 6``, and the two valleys lie side by side: the
    gradients oppose each other. Below, each is a wide bowl ``g_i`` around (±7, -8). ``c_1 = max(tanh(x₂/2), 0)`` and
    ``c_2 = max(tanh(-x₂/2), 0)`` blend: ``L_i = c_1 f_i + c_2 g_i``, the first times 0.1 if asked for.

    Args:
        sign: of ``tanh(-x₂)`` in ``f_2``: ``"released"`` has ``|(3 - x₁)/2 + tanh(-x₂) + 2|``, as the code behind the published
            pictures does; ``"paper"`` has the minus of the formula.
        factor: whether ``L_1`` is multiplied by 0.1 (the LDC-MTL paper's pictures of unbalanced losses). The Pareto set does
            not depend on it.

    Raises:
        InputError: another sign.

    Example:
        >>> problem = TwoTasks()
        >>> problem.losses(torch.tensor([[0.0, -8.0], [7.0, -8.0]])).round(decimals=2)
        tensor([[-15.0900, -15.0900],
                [-19.9900,  -0.4000]])
    """

    sign: Sign = "released"
    factor: bool = False

    def __post_init__(self) -> None:
        if self.sign not in get_args(Sign):
            raise InputError(f'sign must be {" or ".join(get_args(Sign))}; got "{self.sign}"')

    def losses(self, points: Tensor) -> Tensor:
        """Losses of both tasks ``[..., 2]`` at points ``[..., 2]``, differentiable, in the points' precision.

        At ``x₂ = 0`` the blends have a kink; as with ``torch.clamp``, the derivative is that of the side where they grow.

        Raises:
            InputError: the points' last dimension is not 2.
        """
        if points.dim() == 0 or points.shape[-1] != 2:
            raise InputError(f"points have the shape [..., 2]; got {list(points.shape)}")
        first, second = points[..., 0], points[..., 1]
        bend = torch.tanh(-second)
        valleys = torch.stack(
            (0.5 * (-first - 7.0) - bend, 0.5 * (-first + 3.0) + (bend if self.sign == "released" else -bend) + 2.0), -1
        )
        upper = valleys.abs().clamp(min=_SMALLEST_DISTANCE).log() + 6.0
        centers = points.new_tensor([7.0, -7.0])
        lower = ((centers - first[..., None]).square() + 0.1 * (second[..., None] + 8.0).square()) / 10.0 - 20.0
        blend = torch.tanh(0.5 * second)[..., None]
        values = blend.clamp(min=0.0) * upper + (-blend).clamp(min=0.0) * lower
        return values * points.new_tensor([0.1, 1.0]) if self.factor else values

    def gradients(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Losses ``[..., 2]`` and the tasks' gradients ``[..., task, coordinate]`` at points ``[..., 2]``, detached."""
        # Two copies of the points, one for each task: a single backward pass then gives both gradients.
        copies = points.detach().expand(2, *points.shape).clone().requires_grad_()
        losses = self.losses(copies)
        (gradients,) = torch.autograd.grad(losses[0, ..., 0].sum() + losses[1, ..., 1].sum(), copies)
        return losses[0].detach(), gradients.movedim(0, -2)
