"""Ways to share a whole encoder, or columns of stages with cross-stitch units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.errors import InputError, near_misses
from equipoise.nets.outputs import module_per_task

__all__ = ["CrossStitch", "CrossStitchUnit", "HardSharing"]


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
        self.heads = module_per_task("heads", heads)
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


class CrossStitchUnit(nn.Module):
    """x̃_k = Σ_j α_kj x_j: what each task goes on with is a learned combination of all tasks' activations (eq. 1).

    Args:
        tasks: K.
        channels: how many the activations have, for an α of each channel's own, as in the paper; left out, one α serves
            them all.
        own: what α_kk starts from; the other tasks' start from (1 − own) / (K − 1) each. The paper found 0.9 to serve.

    Attributes:
        alpha: α, ``[K, K]`` or ``[K, K, channels]``.

    Raises:
        InputError: fewer than one task or channel.

    Example:
        >>> unit = CrossStitchUnit(2, own=0.75)
        >>> [x.tolist() for x in unit([torch.tensor([[1.0]]), torch.tensor([[5.0]])])]
        [[[2.0]], [[4.0]]]
    """

    def __init__(self, tasks: int, channels: int | None = None, *, own: float = 0.9) -> None:
        super().__init__()
        if tasks < 1 or (channels is not None and channels < 1):
            raise InputError(f"a cross-stitch unit needs tasks and channels from 1 on; got tasks={tasks}, channels={channels}")
        eye = torch.eye(tasks)
        alpha = eye if tasks == 1 else own * eye + (1 - own) / (tasks - 1) * (1 - eye)
        self.alpha = nn.Parameter(alpha if channels is None else alpha.unsqueeze(-1).repeat(1, 1, channels))

    def forward(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """Combines.

        Args:
            activations: one per task, all of one shape ``[N, channels, …]``.

        Returns:
            As many, of that shape.

        Raises:
            InputError: activations of different shapes, or of another number of channels.
        """
        if len({each.shape for each in activations}) != 1 or len(activations) != len(self.alpha):
            shapes = ", ".join(str(list(each.shape)) for each in activations)
            raise InputError(
                f"a cross-stitch unit of {len(self.alpha)} tasks needs as many activations of one shape; got {shapes}"
            )
        stacked = torch.stack(list(activations))
        if self.alpha.dim() == 2:
            return list(torch.einsum("kj,j...->k...", self.alpha, stacked))
        if stacked.shape[2:3] != self.alpha.shape[2:]:
            raise InputError(f"this cross-stitch unit is for {self.alpha.shape[2]} channels; got {list(activations[0].shape)}")
        return list(torch.einsum("kjc,jnc...->knc...", self.alpha, stacked))


class CrossStitch(nn.Module):
    """A column of stages for each task, with a cross-stitch unit after every stage but the last, and a head on each column.

    The columns before the last unit reach every task, so they and the units are shared parameters; the last stage of each
    column and its head belong to its task. The paper trains α with step sizes 100 to 1000 times those of the columns: give
    ``network.units.parameters()`` a parameter group of their own for that.

    Args:
        columns: task → its stages, equally many for all tasks; their activations must agree in shape.
        heads: task → module that takes what the last stage gives.
        channels: how many the activations after each stage but the last have, for one α per channel; left out, one α serves
            all channels.
        own: what α_kk starts from, see :class:`CrossStitchUnit`.

    Attributes:
        columns: task → list of stages.
        units: one after each stage but the last.
        heads: task → head.

    Raises:
        InputError: columns of different lengths, heads of other tasks, or channels that do not go with the stages.

    Example:
        >>> columns = {task: [nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8)] for task in ("label", "size")}
        >>> network = CrossStitch(columns, {"label": nn.Linear(8, 3), "size": nn.Linear(8, 1)})
        >>> {task: tuple(out.shape) for task, out in network(torch.zeros(5, 4)).items()}
        {'label': (5, 3), 'size': (5, 1)}
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[nn.Module]],
        heads: Mapping[str, nn.Module] | nn.ModuleDict,
        *,
        channels: Sequence[int] | None = None,
        own: float = 0.9,
    ) -> None:
        super().__init__()
        lengths = {len(stages) for stages in columns.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise InputError(f"columns must have equally many stages, at least one; got {sorted(lengths)}")
        if list(heads) != list(columns):
            raise InputError(f"heads must be of the columns' tasks ({', '.join(columns)}); got {', '.join(heads)}")
        between = lengths.pop() - 1
        if channels is not None and len(channels) != between:
            raise InputError(f"channels must be {between} numbers, one after each stage but the last; got {list(channels)}")
        self.columns = module_per_task("columns", {task: nn.ModuleList(stages) for task, stages in columns.items()})
        self.units = nn.ModuleList(
            CrossStitchUnit(len(columns), None if channels is None else channels[place], own=own) for place in range(between)
        )
        self.heads = module_per_task("heads", heads)

    def forward(self, inputs: Any) -> dict[str, Any]:
        """Computes every task's output.

        Args:
            inputs: what the first stages take; all columns are given the same.

        Returns:
            Task → output.

        Raises:
            InputError: activations that a unit cannot combine.
        """
        activations = [inputs] * len(self.columns)
        for place, stages in enumerate(zip(*self.columns.values(), strict=True)):
            activations = [stage(activation) for stage, activation in zip(stages, activations, strict=True)]
            if place < len(self.units):
                activations = self.units[place](activations)
        return {task: head(activation) for (task, head), activation in zip(self.heads.items(), activations, strict=True)}
