"""What the networks for dense prediction give for each task, at every pixel, and one module per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from equipoise.errors import InputError

__all__ = ["CITYSCAPES", "NYUV2", "Output", "as_outputs", "classes", "directions", "module_per_task", "values"]


def module_per_task(what: str, modules: Mapping[str, nn.Module] | nn.ModuleDict) -> nn.ModuleDict:
    """Registers the modules of several tasks under the tasks' names; ``what`` names them in error messages, as ``"heads"``.

    Raises:
        InputError: no mapping, no tasks, something that is no module, or a name that torch cannot give to a module.

    Example:
        >>> list(module_per_task("heads", {"label": nn.Linear(2, 3), "size": nn.Linear(2, 1)}))
        ['label', 'size']
    """
    if isinstance(modules, nn.ModuleDict):
        modules = dict(modules.items())
    if not isinstance(modules, Mapping) or not modules:
        raise InputError(f"{what} must be a mapping task → module with at least one task; got {modules!r}")
    registered = nn.ModuleDict()
    for task, module in modules.items():
        if not isinstance(module, nn.Module):
            raise InputError(f'{what} must hold modules; that of task "{task}" is of type {type(module).__name__}')
        try:
            registered[task] = module
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{what} cannot be named after task {task!r}: torch wants a string without a dot that is no attribute of "
                f"nn.ModuleDict (such as keys, type, train); rename the task"
            ) from error
    return registered


def _as_they_are(maps: Tensor) -> Tensor:
    return maps


def _log_probabilities(maps: Tensor) -> Tensor:
    return log_softmax(maps, dim=1)


def _unit_length(maps: Tensor) -> Tensor:
    # A vector of zeros (a dead pixel, no bias) stays one, where a bare division would give NaN.
    return normalize(maps, dim=1)


@dataclass(frozen=True)
class Output:
    """A dense task's output: how many channels its head has, and what becomes of them in the end.

    Args:
        channels: how many.
        finish: applied to the head's maps ``[N, channels, H, W]``.

    Raises:
        InputError: fewer than one channel.
    """

    channels: int
    finish: Callable[[Tensor], Tensor] = _as_they_are

    def __post_init__(self) -> None:
        if isinstance(self.channels, bool) or not isinstance(self.channels, int) or self.channels < 1:
            raise InputError(f"an output needs a whole number of channels from 1 on; got {self.channels!r}")


def classes(count: int) -> Output:
    """Log-probabilities of classes, for ``nll_loss`` (``cross_entropy`` gives the same).

    Args:
        count: how many classes.

    Example:
        >>> import torch
        >>> bool(classes(13).finish(torch.randn(2, 13, 4, 4)).exp().sum(1).allclose(torch.ones(2, 4, 4)))
        True
    """
    return Output(count, _log_probabilities)


def values(count: int = 1) -> Output:
    """Plain numbers, such as depths.

    Args:
        count: how many at every pixel.
    """
    return Output(count)


def directions(count: int = 3) -> Output:
    """Vectors of length 1, such as surface normals.

    Args:
        count: of how many dimensions.
    """
    return Output(count, _unit_length)


CITYSCAPES: Mapping[str, Output] = {"semantic": classes(7), "depth": values()}
"""The two tasks of the Cityscapes benchmark with 7 coarse classes."""

NYUV2: Mapping[str, Output] = {"semantic": classes(13), "depth": values(), "normal": directions()}
"""The three tasks of the NYUv2 benchmark with 13 classes."""


def as_outputs(tasks: Mapping[str, Output | int]) -> dict[str, Output]:
    """Takes a bare number of channels for :func:`values`.

    Raises:
        InputError: no mapping, no tasks, or a value that is neither an output nor a number of channels.
    """
    if not isinstance(tasks, Mapping) or not tasks:
        raise InputError(f"tasks must be a mapping task → output with at least one task; got {tasks!r}")
    return {task: output if isinstance(output, Output) else values(output) for task, output in tasks.items()}
