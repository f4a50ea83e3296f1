"""Hard parameter sharing: any encoder, and a head a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from equipoise.errors import InputError, near_misses
from equipoise.nets.heads import module_a_task

__all__ = ["HardSharing"]


class HardSharing(nn.Module):
    """Task k's output is head_k(encoder(x)) (Caruana, 1993).

    Args:
        encoder: any module; all tasks share it.
        heads: task → module that takes what the encoder gives.
        own_inputs: every task has inputs of its own: the network is then given a mapping task → input, runs the encoder
            once for each, and leaves out tasks that the mapping lacks.

    Attributes:
        encoder: as given; ``features`` is the same.
        heads: task → head.

    Raises:
        InputError: the encoder is no module, or the heads cannot be used.

    Example:
        >>> import torch
        >>> network = HardSharing(nn.Linear(4, 8), {"label": nn.Linear(8, 3), "size": nn.Linear(8, 1)})
        >>> {task: tuple(out.shape) for task, out in network(torch.zeros(5, 4)).items()}
        {'label': (5, 3), 'size': (5, 1)}
        >>> network = HardSharing(network.encoder, network.heads, own_inputs=True)
        >>> {task: tuple(out.shape) for task, out in network({"label": torch.zeros(2, 4)}).items()}
        {'label': (2, 3)}
    """

    def __init__(self, encoder: nn.Module, heads: Mapping[str, nn.Module] | nn.ModuleDict, *, own_inputs: bool = False) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise InputError(f"encoder must be a module; got {type(encoder).__name__}")
        self.encoder = encoder
        self.heads = module_a_task("heads", heads)
        self.own_inputs = own_inputs

    @property
    def features(self) -> nn.Module:
        """The module whose output all heads start from."""
        return self.encoder

    def forward(self, inputs: Any) -> dict[str, Any]:
        """Computes every task's output.

        Args:
            inputs: what the encoder takes; with ``own_inputs`` a mapping task → that.

        Returns:
            Task → output, in the heads' order.

        Raises:
            InputError: with ``own_inputs``, something else than a mapping, or an unknown task in it.
        """
        if not self.own_inputs:
            features = self.encoder(inputs)
            return {task: head(features) for task, head in self.heads.items()}
        if not isinstance(inputs, Mapping):
            raise InputError(f"own_inputs=True needs a mapping task → input; got {type(inputs).__name__}")
        for task in inputs:
            if task not in self.heads:
                raise InputError(f'there is no head for task "{task}".{near_misses(task, self.heads)}')
        return {task: head(self.encoder(inputs[task])) for task, head in self.heads.items() if task in inputs}
