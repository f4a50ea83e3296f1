"""The batches on which another point is sought, and those on which it is judged."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch

from equipoise.errors import InputError
from equipoise.further import FurtherBatches
from equipoise.objective import Objective
from equipoise.states import Anything, Form, Listed, Maybe, read_state
from equipoise.teleport.checks import check_whole

__all__ = ["HeldBatches", "ProbeLike", "Probes"]

ProbeLike: TypeAlias = "str | Iterable[Any]"
Step: TypeAlias = tuple[Any, ...]
"""The micro-batches of one step."""


@dataclass(frozen=True)
class Probes:
    """The batches on which COST searches, and those on which it judges a landing.

    Args:
        probe: ``"recent"``: the batches of the last steps, the newest for the search and older ones to judge; ``"current"``:
            the batch of this step alone; a loader (any iterable of batches), of which the first few are held; or
            ``"training"``, the loader that the objective has (``Objective(…, batches=loader)``).
        probe_batches: how many batches the search takes in turn, one per inner step; ``"all"`` of a loader's, which are then
            drawn anew whenever the search goes through them, and not held.
        held_out_batches: how many others a landing is judged on; with 0, and with ``"current"``, the step's own.

    Raises:
        InputError: an unknown word, something that is not iterable, fewer than one batch for the search, or all of a loader's
            and some held out of them.

    Example:
        >>> Probes(probe_batches=4)
        Probes(probe='recent', probe_batches=4, held_out_batches=1)
    """

    probe: ProbeLike = "recent"
    probe_batches: int | Literal["all"] = 8
    held_out_batches: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.probe, str) and self.probe not in ("recent", "current", "training"):
            raise InputError(f'probe must be "recent", "current", "training" or a loader of batches; got "{self.probe}"')
        if not isinstance(self.probe, Iterable):
            raise InputError(
                f'probe must be "recent", "current", "training" or a loader of batches; got {type(self.probe).__name__}'
            )
        check_whole("held_out_batches", self.held_out_batches, 0)
        if self.probe_batches != "all":
            check_whole("probe_batches", self.probe_batches, 1)
        elif isinstance(self.probe, str) and self.probe != "training":
            raise InputError(
                f'probe_batches="all" means all of a loader\'s, and probe="{self.probe}" is none; give it a loader'
            )
        elif self.held_out_batches:
            raise InputError(
                f'probe_batches="all" leaves no batch that the search has not seen; got held_out_batches='
                f"{self.held_out_batches}. Set it to 0: a landing is then judged on the step's own"
            )


class _EachPass(Collection[Any]):
    """All batches of a loader, others whenever it is gone through."""

    def __init__(self, further: FurtherBatches, count: int) -> None:
        self._further = further
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __contains__(self, batch: object) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        self._further.begin_pass()
        for _ in range(self._count):
            with _random_numbers_kept(self._further.loader) as generators:
                # Loaders that draw from Python's or NumPy's generator, or one of their own, get a state of their own as well:
                # it follows from the place alone, so a training that goes on meets the same batches.
                place = self._further.seed + 1_000_003 * self._further.passes + self._further.drawn
                random.seed(place)
                np.random.seed(place % 2**32)  # noqa: NPY002
                for generator in generators:
                    generator.manual_seed(place % 2**63)
                (batch,) = self._further.draw(1)
            yield batch


class HeldBatches:
    """Holds a few batches, as :class:`Probes` says."""

    kinds: ClassVar[dict[str, Form]] = {"held": Listed(Listed(Anything())), "place": Maybe(Anything())}

    def __init__(self, probes: Probes) -> None:
        self._source = probes.probe
        self._all = probes.probe_batches == "all"
        self._search = 0 if probes.probe_batches == "all" else probes.probe_batches
        self._held_out = probes.held_out_batches
        self._further: FurtherBatches | None = None
        self._place: dict[str, Any] | None = None
        self._held: deque[Step] = deque(maxlen=self._search + self._held_out)

    def meet(self, objective: Objective) -> None:
        """Finds the loader. Raises InputError: there is none, or it does not say how long it is."""
        if self._source == "training":
            if objective.further is None:
                raise InputError(
                    'probe="training" draws from the loader of the objective, which has none: make it with '
                    "Objective(…, batches=loader), a loader of its own over the training data, or name a loader, probe=loader"
                )
            self._source = objective.further.loader
        if self._all and self._further is None:
            assert not isinstance(self._source, str)
            try:
                self._search = len(self._source)  # type: ignore[arg-type]
            except TypeError:
                raise InputError(
                    f'probe_batches="all" needs a loader that has a length; {type(self._source).__name__} has none. Give a '
                    f"number of batches"
                ) from None
            self._further = FurtherBatches(_beside_training(self._source))
            if self._place is not None:
                self._further.load_state_dict(self._place)

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
    def held_out(self) -> bool:
        """Whether a landing is judged on batches that the search has not seen."""
        return self._source != "current" and self._held_out > 0

    @property
    def sizes(self) -> tuple[int, int]:
        """How many batches a search goes round, and how many held-out ones a judgement looks at."""
        if not self._held:
            return self._search, self._held_out
        newest_first = list(self._held)[::-1]
        search = sum(len(step) for step in newest_first[: self._search])
        return search, sum(len(step) for step in newest_first[self._search :]) if self.held_out else 0

    def batches(self) -> tuple[Collection[Any], list[Any]]:
        """Batches for the search, and held-out ones to judge a landing on.

        Raises:
            InputError: the loader gives too few batches.
        """
        if self._further is not None:
            return _EachPass(self._further, self._search), []
        if not isinstance(self._source, str) and not self._held:
            self._draw()
        newest_first = list(self._held)[::-1]
        search = [batch for step in newest_first[: self._search] for batch in step]
        judge = [batch for step in newest_first[self._search :] for batch in step]
        return search, judge

    def kept(self) -> tuple[deque[Step], dict[str, Any] | None]:
        """What is held now, and where in its loader it is, for :meth:`take_back`."""
        return self._held.copy(), self.state_dict()["place"]

    def take_back(self, kept: tuple[deque[Step], dict[str, Any] | None]) -> None:
        """Holds again what :meth:`kept` gave."""
        self._held, place = kept
        if self._further is not None and place is not None:
            self._further.load_state_dict(place)

    def _draw(self) -> None:
        assert not isinstance(self._source, str)
        needed = self._search + self._held_out
        source = self._source
        if getattr(source, "persistent_workers", False):
            source = _beside_training(source)
        # A loader's shuffling and augmentation must not change what training draws.
        with _random_numbers_kept(source):
            # The same batches on a second start. torch.manual_seed would seed every device's generator as well.
            torch.default_generator.manual_seed(0)
            drawn = list(islice(iter(source), needed))
        if len(drawn) < needed:
            raise InputError(
                f"the probe loader gave {len(drawn)} batches; {needed} are needed ({self._search} to search on, "
                f"{self._held_out} held out to judge a landing on). Give a longer one, or set probe_batches and "
                f"held_out_batches"
            )
        self._held.extend((batch,) for batch in drawn)

    def state_dict(self) -> dict[str, Any]:
        """The batches held: training that goes on without them would not go on the same way."""
        place = self._place if self._further is None else self._further.state_dict()
        return {"held": [tuple(step) for step in self._held], "place": place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up saved batches. Raises InputError: these are none."""
        read = read_state("COST's probes", state, self.kinds)
        self._held.clear()
        self._held.extend(read["held"])
        self._place = read["place"]
        if self._further is not None and self._place is not None:
            self._further.load_state_dict(self._place)


def _beside_training(loader: Any) -> Any:
    """The same loader as another object: it may be the one that the training goes through, which counts its passes."""
    loader = copy.copy(loader)
    if hasattr(loader, "_iterator"):
        # With workers that persist it has a single iterator: asking for it once more would start an epoch under way anew.
        loader._iterator = None
    return loader


@contextmanager
def _random_numbers_kept(source: Any) -> Iterator[list[torch.Generator]]:
    """Puts back every random state that drawing from a loader may change: Python's, NumPy's, torch's and the loader's own."""
    holders = (source, getattr(source, "sampler", None), getattr(source, "batch_sampler", None))
    found = (getattr(holder, "generator", None) for holder in holders)
    generators = [generator for generator in found if isinstance(generator, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  (it is the user's)
    try:
        with torch.random.fork_rng(devices=[]):
            yield generators
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
