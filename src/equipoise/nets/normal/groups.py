"""A step size of their own for task positions."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from equipoise.errors import InputError
from equipoise.nets.normal.positions import Positions

__all__ = ["position_groups"]


def position_groups(model: nn.Module, lr: float, **options: Any) -> list[dict[str, Any]]:
    """Parameter groups for a torch optimizer: positions with a learning rate η of their own, the rest as usual.

    Algorithm 4 of the thesis has two, μ and η. Positions get no weight decay unless you ask for it: 0 is where the features
    enter the flow, and nothing to shrink to.

    Args:
        model: any module with a :class:`TaskFlow` in it.
        lr: η.
        **options: further options of the positions' group, such as ``betas=(0.9, 0.99)``.

    Returns:
        The group of all other parameters, and, unless positions are fixed, that of the positions.

    Raises:
        InputError: a model without positions, or a learning rate that is not positive.

    Example:
        >>> import torch
        >>> from equipoise.nets import TaskFlow
        >>> flow = TaskFlow.for_vectors(["depth", "label"], 16)
        >>> optimizer = torch.optim.Adam(position_groups(flow, lr=1e-2), lr=1e-3)
        >>> [(group["lr"], len(group["params"])) for group in optimizer.param_groups]
        [(0.001, 9), (0.01, 2)]
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 < lr < math.inf:
        raise InputError(f"lr must be a finite step size above 0; got {lr!r}")
    found = [module for module in model.modules() if isinstance(module, Positions)]
    if not found:
        raise InputError("the model has no task positions; it needs a TaskFlow")
    positions = list(dict.fromkeys(parameter for module in found for parameter in module.parameters()))
    own = set(positions)
    groups: list[dict[str, Any]] = [{"params": [parameter for parameter in model.parameters() if parameter not in own]}]
    if positions:
        groups.append({"params": positions, "lr": lr, "weight_decay": 0.0, **options})
    return groups
