"""Which parameters are shared: as the user says, or as the autograd graph tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from equipoise.engine.graph import divide, divide_leaves, hides_leaves, leaves
from equipoise.errors import InputError
from equipoise.tasks import Loss, scalar

__all__ = ["Reach", "SharedParameters", "counted"]

SharedSpec = nn.Module | Iterable[Tensor] | None


def counted(leaves: Sequence[Tensor], decisive: Iterable[Tensor], declared: Sequence[Tensor] = ()) -> list[Tensor]:
    """Those leaves of a graph that are parameters: each ``nn.Parameter``, and whatever was declared.

    Other leaves are inputs that require grad (for forces, gradient penalties, adapters on a frozen model), unless there is no
    ``nn.Parameter`` among the ``decisive`` ones: then parameters are plain tensors here, and all leaves count.
    """
    if not any(isinstance(leaf, nn.Parameter) for leaf in decisive):
        return list(leaves)
    ids = {id(leaf) for leaf in declared}
    return [leaf for leaf in leaves if isinstance(leaf, nn.Parameter) or id(leaf) in ids]


class Reach:
    """Leaves that two or more tasks reach, and those that one task alone does.

    Args:
        common: leaves of several tasks.
        alone: by position of the task, the leaves of this task alone; a task that is not in it has not been seen.
    """

    def __init__(self, common: Iterable[Tensor] = (), alone: Mapping[int, Sequence[Tensor]] | None = None) -> None:
        self.common = list(common)
        self.alone = {position: list(found) for position, found in (alone or {}).items()}

    def everything(self) -> Iterator[Tensor]:
        """All leaves known, each once."""
        yield from self.common
        for found in self.alone.values():
            yield from found

    def restricted(self, to: Sequence[Tensor]) -> Reach:
        """What of this lies among some tensors, in their order."""
        order = {id(tensor): place for place, tensor in enumerate(to)}

        def kept(found: Iterable[Tensor]) -> list[Tensor]:
            return sorted((leaf for leaf in found if id(leaf) in order), key=lambda leaf: order[id(leaf)])

        return Reach(kept(self.common), {position: kept(found) for position, found in self.alone.items()})

    def trained(self) -> Reach:
        """What of this is not frozen."""
        return self.restricted([leaf for leaf in self.everything() if leaf.requires_grad])

    def learn(self, seen: Reach) -> None:
        """Takes in what some tasks were seen to reach; what is known of the others stays."""
        if seen.alone.keys() >= self.alone.keys():
            # All that was known is seen again.
            self.common, self.alone = list(seen.common), dict(seen.alone)
            return
        common = dict.fromkeys([*self.common, *seen.common])
        elsewhere = {leaf for position, found in self.alone.items() if position not in seen.alone for leaf in found}
        common |= dict.fromkeys(leaf for found in seen.alone.values() for leaf in found if leaf in elsewhere)
        self.alone = {
            position: [leaf for leaf in found if leaf not in common] for position, found in (self.alone | seen.alone).items()
        }
        self.common = list(common)


class SharedParameters:
    """The parameters whose gradients are balanced, and those that belong to one task alone.

    A batch need not hold all tasks, so what is known grows with the tasks seen: a parameter is shared as soon as a second
    task reaches it.

    Where nobody says what is trained (the drop-in without ``shared=``), the leaves that are no ``nn.Parameter`` count only if
    the tasks share no ``nn.Parameter``; see :func:`counted`. Those that do not count have their ordinary gradient.

    Attributes:
        parameters: the shared ones, whose gradients are balanced; empty if all of them are frozen.
        own: by position of the task, the leaves that its loss alone reaches.
        inputs: how many leaves did not count in the last step.
        doubtful: whether leaves count as shared that are no ``nn.Parameter``, while others are one.
        undeclared: leaves that several losses reach although they are not among the parameters given as shared; they get
            the sum of the tasks' gradients.

    Args:
        given: a module, parameters, or ``None`` to take the leaves that two or more tasks reach.

    Raises:
        InputError: something else, or nothing in it.
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
            if not entries:
                raise InputError("shared is empty: pass the parameters of the module that the tasks have in common")
            self._given = list(dict.fromkeys(entries))
        self.forget()

    def forget(self) -> None:
        """Makes everything that was seen unknown again; what was given stays."""
        self.parameters: list[Tensor] = []
        self.own: dict[int, list[Tensor]] = {}
        self.undeclared: list[Tensor] = []
        self.inputs = 0
        self.doubtful = False
        self._reach = Reach()
        self._fresh: set[int] = set()
        self._hidden = False
        self._signature: tuple[bool, ...] | None = None

    @property
    def declared(self) -> list[Tensor]:
        """What the user said is shared; empty if that is to be found."""
        return self._given or []

    def current(self, watched: Iterable[Tensor]) -> bool:
        """Whether what was found still holds: nothing was frozen or unfrozen among the watched tensors since."""
        return self._signature is not None and self._signature == self._sign(watched)

    def knows(self, positions: Iterable[int]) -> bool:
        """Whether all of these tasks have been seen since something was last frozen or unfrozen."""
        return self._fresh.issuperset(positions)

    def look(self, losses: Mapping[int, Loss], names: Mapping[int, str]) -> Reach:
        """Reads the graphs of some losses, by position of the task; callables are evaluated here, one by one, and let go again.

        Raises:
            InputError: the graph does not tell what the losses reach.
        """
        checked = self.knows(losses)

        def value_of(position: int) -> Tensor:
            value = scalar(names[position], losses[position])
            if checked or not hides_leaves(value):
                return value
            self._hidden = True
            if self._given is None:
                raise InputError(
                    "the shared parameters cannot be found, for a checkpoint with use_reentrant=True hides them from the "
                    "autograd graph; checkpoint with use_reentrant=False, as torch recommends"
                )
            return value

        if all(isinstance(loss, Tensor) for loss in losses.values()):
            common, alone = divide([value_of(position) for position in losses])
        else:
            # One graph at a time: callables exist so that there need not be more.
            common, alone = divide_leaves([leaves(value_of(position)) for position in losses])
        return Reach(common, dict(zip(losses, alone, strict=True)))

    def settle(self, sightings: Sequence[Reach], names: Mapping[int, str], watched: Sequence[Tensor]) -> None:
        """Decides what is shared, from what was seen now and before.

        Args:
            sightings: what the losses were seen to reach.
            names: of the tasks in them, for error messages.
            watched: the parameters that may be trained; a change of ``requires_grad`` makes what was known stale. Other
                leaves count only if nothing is watched.

        Raises:
            InputError: no loss reaches a shared parameter, or no two losses reach one although nothing is frozen.
        """
        if not self.current(watched):
            # What absent tasks reach is a guess from now on, and looked at again when they come.
            self._reach, self._fresh = self._reach.trained(), set()
        self.inputs = 0
        for sighting in sightings:
            self._reach.learn(sighting.restricted([*watched, *self.declared] if watched else self._counted(sighting)))
            self._fresh.update(sighting.alone)
        reach = self._reach
        if self._given is not None:
            self.parameters = [entry for entry in self._given if entry.requires_grad]
            anywhere = {id(leaf) for leaf in reach.everything()}
            reached = any(id(parameter) in anywhere for parameter in self.parameters)
            if self.parameters and not self._hidden and not reached:
                raise InputError(
                    f"no loss reaches any of the {len(self.parameters)} shared parameters "
                    f"(tasks: {', '.join(names.values())}); pass the parameters of the module that the tasks have in common"
                )
        else:
            # With one task alone there is nothing to tell apart, and balancing may still rescale.
            self.parameters = reach.common if len(reach.alone) > 1 else next(iter(reach.alone.values()))
            if not self.parameters and watched and all(tensor.requires_grad for tensor in watched):
                raise InputError(
                    f"no parameter is reached by two or more of the losses {', '.join(names.values())}: the tasks share "
                    f"nothing that could be balanced (does the loss function use the model that it is given?)"
                )
            kinds = [isinstance(leaf, nn.Parameter) for leaf in self.parameters]
            self.doubtful = bool(
                kinds and not watched and not any(kinds) and any(isinstance(leaf, nn.Parameter) for leaf in reach.everything())
            )
        ids = {id(parameter) for parameter in self.parameters}
        self.own = {position: [leaf for leaf in found if id(leaf) not in ids] for position, found in reach.alone.items()}
        self.undeclared = [leaf for leaf in reach.common if id(leaf) not in ids]
        self._signature = self._sign(watched)

    def _counted(self, sighting: Reach) -> list[Tensor]:
        """The leaves of a sighting that are parameters, as far as their kind tells."""
        every = list(sighting.everything())
        decisive = sighting.common if self._given is None and sighting.common else every
        kept = counted(every, decisive, self.declared)
        self.inputs += len(every) - len(kept)
        return kept

    def _sign(self, watched: Iterable[Tensor]) -> tuple[bool, ...]:
        return tuple(tensor.requires_grad for tensor in (*watched, *self.declared))
