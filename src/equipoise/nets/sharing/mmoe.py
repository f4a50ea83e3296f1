"""Multi-gate mixture of experts (Ma, Zhao, Yi, Chen, Hong and Chi, 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from equipoise.errors import InputError
from equipoise.nets.heads import module_a_task

__all__ = ["MMoE"]


class _Experts(nn.Module):
    """All experts' outputs on the same input, ``[E, N, …]``."""

    def __init__(self, experts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([expert(inputs) for expert in self.experts])


class MMoE(nn.Module):
    """Task k's head is given f_k(x) = Σ_i g_k(x)_i expert_i(x), with its own gate g_k(x) = softmax(W_k x).

    The experts are shared, gates and heads belong to their tasks.

    Args:
        experts: modules with outputs of one shape.
        heads: task → module that takes a mixture.
        input_size: how many numbers an input has once it is flattened; for the gates W_k, which have no bias. May be left
            out if gates are given.
        gates: task → module ``x`` → ``[N, E]``, before the softmax; linear ones of the flattened input by default.

    Attributes:
        features: the experts, whose stacked outputs ``[E, N, …]`` all tasks start from; for ``features=``. Each
            head is given a mixture of its own, so that nothing can act between the two for all tasks (``Problem.parts``).
        gates: task → gate.
        heads: task → head.

    Raises:
        InputError: no experts, gates of other tasks than the heads', or neither gates nor an input size.

    Example:
        >>> experts = [nn.Sequential(nn.Linear(4, 8), nn.ReLU()) for _ in range(3)]
        >>> network = MMoE(experts, {"label": nn.Linear(8, 3), "size": nn.Linear(8, 1)}, input_size=4)
        >>> {task: tuple(out.shape) for task, out in network(torch.zeros(5, 4)).items()}
        {'label': (5, 3), 'size': (5, 1)}
    """

    def __init__(
        self,
        experts: Sequence[nn.Module],
        heads: Mapping[str, nn.Module] | nn.ModuleDict,
        *,
        input_size: int | None = None,
        gates: Mapping[str, nn.Module] | nn.ModuleDict | None = None,
    ) -> None:
        super().__init__()
        if not len(experts):
            raise InputError("a mixture needs at least one expert; got none")
        self.features = _Experts(experts)
        self.heads = module_a_task("heads", heads)
        if gates is None:
            if input_size is None or input_size < 1:
                raise InputError(f"MMoE needs input_size, from 1 on, or gates; got input_size={input_size}")
            size = input_size
            gates = {task: nn.Sequential(nn.Flatten(), nn.Linear(size, len(experts), bias=False)) for task in heads}
        if set(gates) != set(heads):
            raise InputError(f"gates must be of the heads' tasks ({', '.join(heads)}); got {', '.join(gates)}")
        self.gates = module_a_task("gates", gates)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Computes every task's output.

        Args:
            inputs: ``[N, …]``.

        Returns:
            Task → output.

        Raises:
            InputError: a gate that does not give a number an expert.
        """
        known = self.features(inputs)
        return {task: head(self._mixture(task, inputs, known)) for task, head in self.heads.items()}

    def _mixture(self, task: str, inputs: Tensor, known: Tensor) -> Tensor:
        logits = self.gates[task](inputs)
        if logits.shape != (known.shape[1], known.shape[0]):
            raise InputError(
                f'the gate of task "{task}" must give [N, E] = {[known.shape[1], known.shape[0]]}; got {list(logits.shape)}'
            )
        return torch.einsum("ne,en...->n...", logits.softmax(1), known)
