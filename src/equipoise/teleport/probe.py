"""The batches on which another point is sought, and those on which it is judged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeAlias

import torch

from equipoise.errors import InputError

__all__ = ["ProbeLike", "Probes"]

ProbeLike: TypeAlias = "str | Iterable[Any]"
Step: TypeAlias = tuple[Any, ...]
"""The micro-batches of one step."""


class Probes:
    """Holds a few batches.

    Args:
        source: ``"recent"``: the batches of the last steps, the newest for the search and older ones to judge; ``"current"``:
            this step's batch for both; or a loader (any iterable of batches), of which the first few are held.
        search: how many batches the search goes round.
        held_out: how many others a landing is judged on.

    Raises:
        InputError: an unknown source, or fewer than one batch for the search.
    """

    def __init__(self, source: ProbeLike, search: int, held_out: int) -> None:
        if isinstance(source, str) and source not in ("recent", "current"):
            raise InputError(f'probe must be "recent", "current" or a loader of batches; got "{source}"')
        if not isinstance(source, str) and not isinstance(source, Iterable):
            raise InputError(f'probe must be "recent", "current" or a loader of batches; got {type(source).__name__}')
        for name, value, least in (("probe_batches", search, 1), ("held_out_batches", held_out, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number from {least} on; got {value!r}")
        self._source = source
        self._search = search
        self._held_out = held_out
        self._held: deque[Step] = deque(maxlen=search + held_out)

    def remember(self, batches: Step) -> None:
        """Takes note of the batches of a step."""
        if self._source == "current":
            self._held.clear()
        if isinstance(self._source, str):
            self._held.append(batches)

    @property
    def ready(self) -> bool:
        """Whether there are enough batches for an attempt."""
        return self._source != "recent" or len(self._held) == self._search + self._held_out

    @property
    def sizes(self) -> tuple[int, int]:
        """How many batches a search takes, and how many a judgement."""
        if self._source == "current":
            return 1, 1
        return self._search, self._held_out or self._search

    def batches(self) -> tuple[list[Any], list[Any]]:
        """Batches for the search, and batches to judge a landing on (the same ones where no others are held).

        Raises:
            InputError: the loader gives too few batches.
        """
        if not isinstance(self._source, str) and not self._held:
            self._draw()
        if self._source == "current":
            own = [batch for step in self._held for batch in step]
            return own, own
        newest_first = list(self._held)[::-1]
        search = [batch for step in newest_first[: self._search] for batch in step]
        judge = [batch for step in newest_first[self._search :] for batch in step]
        return search, judge or search

    def _draw(self) -> None:
        assert not isinstance(self._source, str)
        needed = self._search + self._held_out
        # A loader's own shuffling must not change what training draws, and be the same on a second start.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            drawn = list(islice(iter(self._source), needed))
        if len(drawn) < needed:
            raise InputError(
                f"the probe loader gave {len(drawn)} batches; {needed} are needed ({self._search} to search on, "
                f"{self._held_out} held out to judge a landing on). Give a longer one, or set probe_batches and "
                f"held_out_batches"
            )
        self._held.extend((batch,) for batch in drawn)

    def state_dict(self) -> dict[str, Any]:
        """The batches held: training that goes on without them would not go on the same way."""
        return {"held": [tuple(step) for step in self._held]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up saved batches."""
        self._held.clear()
        self._held.extend(tuple(step) for step in state["held"])
