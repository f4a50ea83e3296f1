"""Further batches of a step: independent draws for balancers that look at more than one batch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from equipoise.errors import InputError
from equipoise.states import Generator, Listed, Whole, read_state

__all__ = ["FurtherBatches"]


class FurtherBatches:
    """Draws batches from a loader without end, pass after pass, each only when it is asked for.

    The loader must not be the very object that the training iterates over where it counts its passes
    (:class:`equipoise.data.TensorBatches`) or keeps its workers. A loader, sampler or batch sampler with a method ``set_epoch``
    is told each pass, counted from 1,000,000, so that its order is another one than that of the training's passes with the
    same seed.

    While the loader is at work, torch's generator for the CPU runs from a state of its own that follows from the seed and the
    pass, and is put back afterwards: drawing moves no random number of the training. A ``DataLoader(…, shuffle=True)`` thus
    gives passes that follow from the seed, too.

    Under ``torch.distributed`` each process draws from a loader of its own that gives it its share of the data, as in training.

    The state is the seed, the number of passes finished and of batches drawn in the present one, and the states that the
    loader's own generators had at its beginning, if it has any. Going on from it, the present pass is begun again and that
    many batches are skipped, which meets the very same batches unless the loader's randomness comes from elsewhere (Python's
    or NumPy's global generators).

    Args:
        loader: can be iterated over again and again.
        seed: of the random numbers that the loader draws from torch; left out, what ``torch.manual_seed`` was last given.

    Raises:
        InputError: it cannot, or an iteration gives nothing.

    Example:
        >>> further = FurtherBatches(["a", "b", "c"], seed=0)
        >>> further.draw(2), further.draw(2)
        (['a', 'b'], ['c', 'a'])
        >>> further.state_dict()
        {'seed': 0, 'passes': 1, 'drawn': 1, 'generators': []}
    """

    # A loader that is told its pass draws another order than the training's own passes, even if both have the same seed.
    first_pass = 1_000_000

    def __init__(self, loader: Iterable[Any], seed: int | None = None) -> None:
        if isinstance(loader, Iterator) or not hasattr(loader, "__iter__"):
            raise InputError(
                f"batches must be something that can be iterated over again and again, such as a DataLoader; "
                f"got {type(loader).__name__}"
            )
        self.loader = loader
        self.seed = torch.initial_seed() if seed is None else seed
        self.passes = 0
        self.drawn = 0
        self._running: Iterator[Any] | None = None
        self._random: torch.Tensor | None = None
        self._began: list[torch.Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Iterators cannot be copied: a copy finds its place again as a resumed training does.
        return self.__dict__ | {"_running": None}

    def draw(self, count: int) -> list[Any]:
        """The next batches, across the end of a pass where need be."""
        return [self._next() for _ in range(count)]

    def begin_pass(self) -> None:
        """Leaves out what is left of the present pass: the next draw begins another."""
        self.passes += bool(self.drawn)
        self.drawn = 0
        self._running = self._began = None

    def state_dict(self) -> dict[str, Any]:
        """The seed, passes finished, batches drawn in the present one, and the loader's generators at its beginning."""
        began = self._generators_now() if self._began is None else self._began
        return {"seed": self.seed, "passes": self.passes, "drawn": self.drawn, "generators": [state.clone() for state in began]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from there with the next draw. Raises InputError: it is no such state; nothing has changed."""
        read = self.read_state(state)
        self.seed, self.passes, self.drawn = read["seed"], read["passes"], read["drawn"]
        self._began = [generator.clone() for generator in read["generators"]]
        self._running = None

    def read_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state as it is loaded. Raises InputError: it is none."""
        kinds = {"seed": Whole(-(2**63)), "passes": Whole(), "drawn": Whole(), "generators": Listed(Generator())}
        return read_state("FurtherBatches", state, kinds)

    def _next(self) -> Any:
        for _ in range(2):  # what is left of the present pass, then the one after
            if self._running is None:
                self._running = self._begun()
            with self._apart():
                for batch in self._running:
                    self.drawn += 1
                    return batch
            self._running = self._began = None
            self.passes += 1
            self.drawn = 0
        raise InputError("the loader of further batches gave no batch in a whole pass; it must give at least one")

    def _begun(self) -> Iterator[Any]:
        skip = self._told(self.first_pass + self.passes)
        generators = self._generators()
        if self._began is None or len(self._began) != len(generators):
            self._began = self._generators_now()
        for generator, state in zip(generators, self._began, strict=True):
            generator.set_state(state)
        mixed = np.random.SeedSequence([self.seed % 2**64, self.first_pass + self.passes]).generate_state(1, dtype=np.uint64)[0]
        self._random = torch.Generator().manual_seed(int(mixed >> np.uint64(1))).get_state()
        with self._apart():
            running = iter(self.loader)
            for _ in range(skip):
                next(running, None)
        return running

    def _told(self, number: int) -> int:
        """Tells the loader which pass begins; gives how many batches of it are still to be skipped."""
        skip = self.drawn
        for teller in self._holders():
            set_epoch = getattr(teller, "set_epoch", None)
            if set_epoch is None:
                continue
            if teller is self.loader and "skip" in inspect.signature(set_epoch).parameters:
                set_epoch(number, skip=skip)  # it need not read what is skipped
                skip = 0
            else:
                set_epoch(number)
        return skip

    def _holders(self) -> list[Any]:
        """The loader and its samplers, each once: any of them may have a generator, or count passes."""
        batches = getattr(self.loader, "batch_sampler", None)
        own = (self.loader, getattr(self.loader, "sampler", None), batches, getattr(batches, "sampler", None))
        return list({id(holder): holder for holder in own}.values())

    def _generators(self) -> list[torch.Generator]:
        """The loader's own, if it has any."""
        found = (getattr(holder, "generator", None) for holder in self._holders())
        return list({id(generator): generator for generator in found if isinstance(generator, torch.Generator)}.values())

    def _generators_now(self) -> list[torch.Tensor]:
        return [generator.get_state() for generator in self._generators()]

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Runs the body from the random state that the loader left, and keeps the one that it leaves."""
        assert self._random is not None
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            yield
            self._random = torch.get_rng_state()
