"""Which parameters are shared: as the user says, or as the autograd graph tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from equipoise.engine.graph import divide, divide_leaves, leaves
from equipoise.errors import InputError
from equipoise.tasks import Loss, scalar

__all__ = ["SharedParameters"]

SharedSpec = nn.Module | Iterable[Tensor] | None


class SharedParameters:
    """The parameters whose gradients are balanced, and those that belong to one task alone.

    Attributes:
        parameters: the shared ones, whose gradients are balanced.
        own: by position of the task, the leaves that its loss alone reaches.
        undeclared: leaves that several losses reach although they are not among the parameters given as shared; they get
            the sum of the tasks' gradients.

    Args:
        given: a module, parameters, or ``None`` to take the leaves that two or more tasks reach.

    Raises:
        InputError: something else, or nothing in it that requires grad.
    """

    def __init__(self, given: SharedSpec = None) -> None:
        self._given: list[Tensor] | None = None
        if given is not None:
            if isinstance(given, Tensor):
                given = [given]
            try:
                entries = list(given.parameters() if isinstance(given, nn.Module) else given)
            except TypeError:
                raise InputError(f"shared must be a module or an iterable of parameters; got {type(given).__name__}") from None
            for entry in entries:
                if not isinstance(entry, Tensor):
                    raise InputError(
                        f"shared must hold parameters; it holds {type(entry).__name__}. "
                        f"Pass encoder.parameters(), not encoder.named_parameters()"
                    )
                if not entry.is_leaf:
                    raise InputError("shared must hold parameters (leaf tensors); it holds the result of a computation")
            if not any(entry.requires_grad for entry in entries):
                raise InputError("none of the shared parameters requires grad; there is nothing to balance")
            self._given = list(dict.fromkeys(entries))
        self.parameters: list[Tensor] = []
        self.own: dict[int, list[Tensor]] = {}
        self.undeclared: list[Tensor] = []
        self._signature: tuple[bool, ...] | None = None

    def current(self, watched: Iterable[Tensor]) -> bool:
        """Whether what was found still holds: nothing was frozen or unfrozen among the watched tensors since."""
        return self._signature is not None and self._signature == self._sign(watched)

    def find(self, losses: Mapping[int, Loss], names: Mapping[int, str], watched: Iterable[Tensor]) -> None:
        """Reads the graphs of the losses.

        Args:
            losses: by position of the task; callables are evaluated here, one after the other, and let go again.
            names: of these tasks, for error messages.
            watched: parameters of which a change of ``requires_grad`` makes the answer stale.

        Raises:
            InputError: no loss reaches a shared parameter, or no two losses reach one.
        """
        if all(isinstance(loss, Tensor) for loss in losses.values()):
            common, alone = divide([scalar(names[position], loss) for position, loss in losses.items()])
        else:
            # One graph at a time: callables exist so that there need not be more.
            common, alone = divide_leaves([leaves(scalar(names[position], loss)) for position, loss in losses.items()])
        if self._given is not None:
            self.parameters = [entry for entry in self._given if entry.requires_grad]
            anywhere = {id(leaf) for found in (common, *alone) for leaf in found}
            if not any(id(parameter) in anywhere for parameter in self.parameters):
                raise InputError(
                    f"no loss reaches any of the {len(self.parameters)} shared parameters "
                    f"(tasks: {', '.join(names.values())}); pass the parameters of the module that the tasks have in common"
                )
        else:
            # With one task alone there is nothing to tell apart, and balancing may still rescale.
            self.parameters = common if len(losses) > 1 else alone[0]
            if not self.parameters:
                raise InputError(
                    f"no parameter is reached by two or more of the losses {', '.join(names.values())}: the tasks share "
                    f"nothing that could be balanced"
                )
        ids = {id(parameter) for parameter in self.parameters}
        self.own = {
            position: [leaf for leaf in found if id(leaf) not in ids] for position, found in zip(losses, alone, strict=True)
        }
        self.undeclared = [leaf for leaf in common if id(leaf) not in ids]
        self._signature = self._sign(watched)

    def _sign(self, watched: Iterable[Tensor]) -> tuple[bool, ...]:
        return tuple(tensor.requires_grad for tensor in (*watched, *(self._given or ())))
