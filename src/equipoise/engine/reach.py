"""Which leaves the tasks are known to reach, put together from batches that each hold some of the tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import Tensor

__all__ = ["Reach"]


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
