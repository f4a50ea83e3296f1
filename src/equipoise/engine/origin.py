"""Where differentiating a loss starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import Tensor
from torch.autograd.graph import GradientEdge

__all__ = ["origin", "origins"]


def origin(loss: Tensor) -> Tensor | GradientEdge:
    """The loss itself, or, for an entry of ``torch.stack(losses)``, the scalar that was stacked.

    Differentiating an entry of a stack walks all stacked losses, all but one with zeros. That is wasted work, and it hides
    which parameters belong to one task alone: the graph says that every entry reaches them all.
    """
    node = loss.grad_fn
    if node is None or node.name() != "UnbindBackward0":
        return loss
    stack = node.next_functions[0][0]
    if stack is None or stack.name() != "StackBackward0":
        return loss
    entry, output = stack.next_functions[loss.output_nr]
    return loss if entry is None else GradientEdge(entry, output)


def origins(losses: Iterable[Tensor]) -> list[Tensor]:
    """The origins of several losses, typed as ``torch.autograd`` wants them: its signatures admit no mixture, its code does."""
    return cast(list[Tensor], [origin(loss) for loss in losses])
