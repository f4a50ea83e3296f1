"""Endless batches from a loader, with a place that can be saved and found again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from equipoise.errors import InputError
from equipoise.randomness import RandomState

__all__ = ["Validation"]


class Validation:
    """Draws batch after batch from a loader, pass after pass.

    Of a loader with a method ``set_epoch`` every pass is told its number. What a shuffling
    :class:`torch.utils.data.DataLoader` draws for its order, from its generator or torch's own, is remembered at the
    beginning of a pass, so that :meth:`load_state_dict` finds the same place in the same order.

    Raises:
        InputError: it cannot.

    Example:
        >>> batches = Validation([1, 2, 3])
        >>> [batches.draw() for _ in range(4)]
        [1, 2, 3, 1]
        >>> state = batches.state_dict()
        >>> later = Validation([1, 2, 3])
        >>> later.load_state_dict(state)
        >>> later.draw()
        2
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        if isinstance(loader, Iterator) or not isinstance(loader, Iterable):
            raise InputError(
                f"validation must be a loader that can be iterated over again and again; got {type(loader).__name__}"
            )
        self.loader = loader
        self.passes = 0
        self.position = 0
        self._batches: Iterator[Any] | None = None
        self._random: torch.Tensor | None = None
        self._generator: torch.Tensor | None = None

    def draw(self) -> Any:
        """The next batch. Raises InputError: a pass over the loader gave none."""
        if self._batches is None:
            self._batches = self._begin()
        missing = object()
        batch = next(self._batches, missing)
        if batch is missing:
            if self.position == 0:
                raise InputError("the validation loader is empty; it must give at least one batch")
            self.passes += 1
            self._batches, self.position = None, 0
            return self.draw()
        self.position += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The place, and the random state from which the present pass began."""
        return {"passes": self.passes, "position": self.position, "random": self._random, "generator": self._generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a saved place: starts the pass again, as it began then, and skips what had been drawn."""
        self.passes, self.position = state["passes"], state["position"]
        self._random, self._generator = state["random"], state["generator"]
        self._batches = None
        if self.position == 0:
            return
        generator = _generator(self.loader)
        if generator is not None and self._generator is not None:
            generator.set_state(self._generator)
        before = RandomState.capture()
        with RandomState(before.cpu if self._random is None else self._random, {}).replayed():
            self._batches = self._begin()
            for skipped in range(self.position):
                if next(self._batches, None) is None:
                    raise InputError(f"the validation loader gives {skipped} batches; the state is of one with more of them")

    def _begin(self) -> Iterator[Any]:
        self._random = torch.get_rng_state()
        generator = _generator(self.loader)
        self._generator = None if generator is None else generator.get_state()
        set_epoch = getattr(self.loader, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.passes)
        return iter(self.loader)


def _generator(loader: Any) -> torch.Generator | None:
    """The generator that decides a DataLoader's order, if it has one of its own."""
    for owner in (getattr(loader, "sampler", None), loader):
        found = getattr(owner, "generator", None)
        if isinstance(found, torch.Generator):
            return found
    return None
