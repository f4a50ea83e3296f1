"""One module per task, under its name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from equipoise.errors import InputError

__all__ = ["module_a_task"]


def module_a_task(what: str, modules: Mapping[str, nn.Module] | nn.ModuleDict) -> nn.ModuleDict:
    """Registers the modules of several tasks under the tasks' names.

    Args:
        what: names them in error messages, such as ``"heads"``.
        modules: task → module.

    Returns:
        The same, in the same order.

    Raises:
        InputError: no mapping, no tasks, something that is no module, or a name that torch cannot give to a module.

    Example:
        >>> list(module_a_task("heads", {"label": nn.Linear(2, 3), "size": nn.Linear(2, 1)}))
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
