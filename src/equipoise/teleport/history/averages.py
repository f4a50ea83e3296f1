"""What each optimizer remembers of past gradients, under which name in its state, and of which kind."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import torch

__all__ = ["Kind", "gradient_seen", "remembered"]


class Kind(Enum):
    """How a new gradient g enters a buffer b, with decay β."""

    MEAN = "b ← β b + (1-β) g"
    MEAN_SQUARE = "b ← β b + (1-β) g²"
    MAXIMUM = "b ← max(β b, |g|)"
    CENTRE = "b ← β b + (1-β) g, whose square is taken off the mean of squares"
    ACCUMULATOR = "b ← β b + what g contributes"
    PEAK = "b ← max(b, mean of squares)"


_ADAM = {"exp_avg": Kind.MEAN, "exp_avg_sq": Kind.MEAN_SQUARE, "max_exp_avg_sq": Kind.PEAK}
_BY_CLASS: tuple[tuple[str, Mapping[str, Kind]], ...] = (
    ("Adamax", {"exp_avg": Kind.MEAN, "exp_inf": Kind.MAXIMUM}),
    ("RMSprop", {"square_avg": Kind.MEAN_SQUARE, "grad_avg": Kind.CENTRE, "momentum_buffer": Kind.ACCUMULATOR}),
    # The second average, of squared steps, is left alone: the step that would enter it is not known beforehand.
    ("Adadelta", {"square_avg": Kind.MEAN_SQUARE}),
    ("SGD", {"momentum_buffer": Kind.ACCUMULATOR}),
    ("Muon", {"momentum_buffer": Kind.MEAN}),
)


def remembered(optimizer: torch.optim.Optimizer) -> Mapping[str, Kind]:
    """Buffers of an optimizer's state that hold moving averages, by name.

    An optimizer derived from one of torch's counts as that one. Any other that keeps ``exp_avg`` or ``exp_avg_sq``, as most
    relatives of Adam do, is taken for a relative of Adam. Nothing is known of the rest (Adagrad, whose sums never fade, Rprop,
    ASGD, Adafactor): for them the mapping is empty and their state is left as it is.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
        >>> list(remembered(optimizer)), dict(remembered(torch.optim.Adagrad([torch.zeros(1, requires_grad=True)])))
        (['momentum_buffer'], {})
    """
    for name, buffers in _BY_CLASS:
        known = getattr(torch.optim, name, None)
        if known is not None and isinstance(optimizer, known):
            return buffers
    if any("exp_avg" in state or "exp_avg_sq" in state for state in optimizer.state.values()):
        return _ADAM
    return {}


def gradient_seen(optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: torch.Tensor) -> torch.Tensor:
    """The gradient as it enters the moving averages: with coupled weight decay added, and negated if maximising."""
    assert parameter.grad is not None
    gradient = parameter.grad.detach()
    if gradient.is_sparse:
        gradient = gradient.to_dense()
    if group.get("maximize", False):
        gradient = -gradient
    decay = float(group.get("weight_decay", 0.0) or 0.0)
    decoupled = group.get("decoupled_weight_decay", False) or isinstance(
        optimizer, tuple(filter(None, (torch.optim.AdamW, getattr(torch.optim, "Muon", None))))
    )
    return gradient if decoupled or not decay else gradient + decay * parameter.detach()
