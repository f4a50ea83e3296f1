"""Several data sets as one epoch: per step a batch of each, or of one of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist

from equipoise.data.loading import generator_of, mixed_seed
from equipoise.errors import InputError, near_misses
from equipoise.further import FurtherBatches
from equipoise.states import Fields, Generator, Listed, Whole, read_state

__all__ = ["MixedLoaders", "alternate", "zip_loaders"]

Weights = Mapping[str, float] | Literal["equal", "proportional"]
Length = int | Literal["longest", "shortest"]


class _Passes(FurtherBatches):
    """One data set's batches without end; its passes are counted from 0, as in a plain loop over epochs."""

    first_pass = 0


class MixedLoaders:
    """What :func:`zip_loaders` and :func:`alternate` return: an iterable over steps, each a mapping from names to batches.

    A data set that is through begins its next pass at once, in the middle of an epoch if need be, and goes on where it stopped
    in the next epoch; so all of its rows come equally often. Its loader (or the loader's sampler) is told each pass by
    ``set_epoch``, counted from 0, and need not be told by you.

    While a loader is at work, torch's generator for the CPU runs from a state of its own, which follows from the seed, the
    loader's place and its pass, and is put back afterwards. So ``DataLoader(…, shuffle=True)`` repeats itself with the seed,
    and drawing moves no random number of the training.

    Under ``torch.distributed`` all processes take the same number of steps, and in each step batches of the same data sets.
    When they are made, or at the first pass if the processes meet only later, they agree on the lengths (the largest, or for
    ``"shortest"`` the smallest) and on the seed, process 0's. Give each loader a ``DistributedSampler``.

    The state is the epoch, the steps taken in it, and where each loader is; see :class:`equipoise.further.FurtherBatches` for
    what going on from it repeats. After the last step of an epoch it is that of the next one's beginning. Where the processes'
    seeds differ by their rank, one process's state serves all.

    Attributes:
        names: of the data sets, in order.
        epoch: which pass is next or under way, counted from 0.
        step: steps taken in it.
    """

    def __init__(
        self,
        loaders: Mapping[str, Iterable[Any]],
        length: Length = "longest",
        *,
        weights: Weights = "equal",
        temperature: float = 1.0,
        seed: int | None = None,
        together: bool = True,
    ) -> None:
        self._together = together
        self._called = "zip_loaders()" if together else "alternate()"
        self._own_seed = torch.initial_seed() if seed is None else seed
        if isinstance(self._own_seed, bool) or not isinstance(self._own_seed, int):
            raise InputError(f"seed must be a whole number; got {seed!r}")
        self._loaders = self._read_loaders(loaders)
        self.names = tuple(self._loaders)
        whole = isinstance(length, int) and not isinstance(length, bool) and length >= 1
        if not whole and length not in ("longest", "shortest"):
            raise InputError(f'length must be "longest", "shortest" or a number of steps from 1 on; got {length!r}')
        self._length = length
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not temperature > 0:
            raise InputError(f"temperature must be above 0, infinite for equal shares; got {temperature!r}")
        self._temperature = float(temperature)
        self._weights = self._read_weights(weights)
        self.epoch = 0
        self.step = 0
        self._going_on = False
        self._turn = 0
        self._agreed = False
        self._settle([(self.names, self._lengths(), self._own_seed)])
        self._meet()
        self._streams = self._begun()

    # -- reading what was given

    def _read_loaders(self, loaders: Any) -> dict[str, Iterable[Any]]:
        if not isinstance(loaders, Mapping) or not loaders or not all(isinstance(name, str) for name in loaders):
            given = type(loaders).__name__ if not isinstance(loaders, Mapping) else f"the keys {list(loaders)}"
            raise InputError(f'{self._called} needs loaders by name, such as {{"depth": loader, …}}; got {given}')
        seen: dict[int, str] = {}
        for name, loader in loaders.items():
            if isinstance(loader, Iterator | str | Mapping) or not hasattr(loader, "__iter__"):
                raise InputError(
                    f'the loader "{name}" must be something that can be iterated over again and again, such as a DataLoader; '
                    f"got {type(loader).__name__}"
                )
            if id(loader) in seen:
                raise InputError(
                    f'"{seen[id(loader)]}" and "{name}" are the same loader, whose passes would run into each other; make one '
                    f"for each, or take several losses of one's batches"
                )
            seen[id(loader)] = name
        return dict(loaders)

    def _lengths(self) -> dict[str, int | None]:
        """Batches per pass, where a loader knows."""
        found: dict[str, int | None] = {}
        for name, loader in self._loaders.items():
            try:
                found[name] = len(loader)  # type: ignore[arg-type]
            except (TypeError, NotImplementedError):  # an IterableDataset's loader has the method all the same
                found[name] = None
            if found[name] == 0:
                raise InputError(f'the loader "{name}" has no batch; it must give at least one (drop_last, an empty data set?)')
        return found

    def _read_weights(self, weights: Any) -> dict[str, float] | str:
        if isinstance(weights, str) and weights in ("equal", "proportional"):
            return weights
        if not isinstance(weights, Mapping):
            raise InputError(f'weights must be "equal", "proportional" or a mapping from names to numbers; got {weights!r}')
        for name in weights:
            if name not in self._loaders:
                raise InputError(f'a weight was given for "{name}", which is no loader.{near_misses(str(name), self.names)}')
        for name in self.names:
            value = weights.get(name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
                raise InputError(f'weights must give "{name}" a finite number above 0; got {value!r}')
        return {name: float(weights[name]) for name in self.names}

    # -- agreeing with the other processes

    def _meet(self) -> None:
        if self._agreed or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return
        said: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(said, (self.names, self._lengths(), self._own_seed))
        self._settle(said)
        self._agreed = True

    def _settle(self, said: list[tuple[tuple[str, ...], dict[str, int | None], int]]) -> None:
        """Lengths, shares, steps and seed from what every process has."""
        if any(names != self.names for names, _, _ in said):
            raise InputError(
                f"the processes have different data sets ({'; '.join(', '.join(names) for names, _, _ in said)}); "
                f"give {self._called} the same names in the same order everywhere"
            )
        most = min if self._length == "shortest" else max
        lengths: dict[str, int] = {}
        for name in self.names:
            counts = [found[name] for _, found, _ in said]
            known = [count for count in counts if count is not None]
            if len(known) == len(counts):
                lengths[name] = most(known)
            elif not isinstance(self._length, int) or self._weights == "proportional":
                raise InputError(
                    f'the loader "{name}" does not say how many batches it has; say how many steps an epoch has, '
                    f"{self._called[:-1]}…, length=1000), with weights by name or equal ones"
                )
        self._shares = self._shared(lengths)
        self._steps = self._counted(lengths)
        self._seed = said[0][2]
        self._per_pass = lengths

    def _shared(self, lengths: Mapping[str, int]) -> dict[str, float]:
        """Shares p of the steps; of zipped loaders the largest is 1, of alternating ones the sum."""
        if isinstance(self._weights, dict):
            raw = self._weights
        else:
            raw = {name: float(lengths[name]) if self._weights == "proportional" else 1.0 for name in self.names}
        largest = max(raw.values())
        shares = {name: (value / largest) ** (1 / self._temperature) for name, value in raw.items()}
        if not all(shares.values()):
            least = min(shares, key=lambda name: shares[name])
            raise InputError(f'temperature={self._temperature:g} leaves nothing of "{least}"; give a higher one')
        total = 1.0 if self._together else sum(shares.values())
        return {name: share / total for name, share in shares.items()}

    def _counted(self, lengths: Mapping[str, int]) -> int:
        if isinstance(self._length, int):
            return self._length
        # Rounded first: 12.000000000000002 steps are 12.
        needed = [round(lengths[name] / self._shares[name], 6) for name in self.names]
        return math.ceil(max(needed)) if self._length == "longest" else max(1, math.floor(min(needed)))

    def _begun(self, passes: Mapping[str, int] | None = None) -> dict[str, _Passes]:
        streams = {}
        for place, (name, loader) in enumerate(self._loaders.items()):
            streams[name] = _Passes(loader, mixed_seed(self._own_seed % 2**64, place))
            streams[name].passes = (passes or {}).get(name, 0)
        return streams

    # -- use

    def __len__(self) -> int:
        """Steps in one epoch."""
        return self._steps

    def counts(self, epoch: int) -> dict[str, int]:
        """How many batches of each data set that epoch holds: its share of the steps, rounded up or down by chance."""
        chance = torch.rand(len(self.names), generator=generator_of(self._seed, epoch, 0), dtype=torch.float64, device="cpu")
        exact = self._steps * np.array([self._shares[name] for name in self.names])
        if self._together:
            found = np.floor(exact.round(6) + chance.numpy())
        else:  # one draw for all, so that they add up to the steps
            ends = np.concatenate([[0.0], exact.cumsum().round(6)])
            ends[-1] = self._steps
            found = np.diff(np.floor(ends + float(chance[0])))
        return dict(zip(self.names, found.astype(int).tolist(), strict=True))

    def plan(self, epoch: int) -> list[tuple[str, ...]]:
        """Which data sets each step of that epoch has; a function of the seed and the epoch."""
        generator = generator_of(self._seed, epoch, 1)
        counts = self.counts(epoch)
        if not self._together:
            drawn = [name for name in self.names for _ in range(counts[name])]
            return [(drawn[place],) for place in torch.randperm(self._steps, generator=generator, device="cpu").tolist()]
        there: list[list[str]] = [[] for _ in range(self._steps)]
        for name, count in counts.items():
            chosen = torch.randperm(self._steps, generator=generator, device="cpu")[:count]
            for place in range(self._steps) if count == self._steps else chosen.tolist():
                there[place].append(name)
        return [tuple(step) for step in there]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields the steps of the present epoch; of one that was broken off, those of the next.

        Raises:
            InputError: a loader gave no batch in a whole pass, or another iteration was begun meanwhile.
        """
        self._meet()
        if self.step and not self._going_on:
            self.epoch, self.step = self.epoch + 1, 0
        self._going_on = False
        self._turn += 1
        return self._iterate(self._turn, self.plan(self.epoch)[self.step :])

    def _iterate(self, turn: int, planned: list[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
        for names in planned:
            if turn != self._turn:
                raise InputError("another iteration over these loaders was begun, or their state was loaded; use the later one")
            batch = {name: self._drawn(name) for name in names}
            self.step += 1
            if self.step == self._steps:
                self.epoch, self.step = self.epoch + 1, 0
            yield batch

    def _drawn(self, name: str) -> Any:
        before = self._streams[name].passes
        try:
            return self._streams[name].draw(1)[0]
        except InputError as error:
            if self._streams[name].passes < before + 2:
                raise  # the loader's own
            raise InputError(f'the loader "{name}" gave no batch in a whole pass; it must give at least one') from error

    def set_epoch(self, epoch: int) -> None:
        """Makes the next pass the one with this number, counted from 0; every data set begins a pass.

        Not needed: epochs are counted. Trainers that call it make every epoch begin anew.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise InputError(f"epoch must be a whole number from 0 on; got {epoch!r}")
        counts = {
            name: math.ceil(self._steps * share / self._per_pass.get(name, math.inf)) for name, share in self._shares.items()
        }
        self.epoch, self.step, self._going_on = epoch, 0, False
        self._turn += 1
        self._streams = self._begun({name: epoch * max(1, count) for name, count in counts.items()})

    def state_dict(self) -> dict[str, Any]:
        """Where it is: for the training to go on with the step that would have come next."""
        own = {name: stream.state_dict() for name, stream in self._streams.items()}
        places = {name: {key: state[key] for key in ("passes", "drawn", "generators")} for name, state in own.items()}
        return {"seed": self._seed, "steps": self._steps, "epoch": self.epoch, "step": self.step, "loaders": places}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there with the next iteration.

        Raises:
            InputError: it is no such state, or that of other data sets or of another number of steps; nothing has changed.
        """
        whose = f"these {self._called[:-2]} loaders" if not self._together else "these zipped loaders"
        place = Fields({"passes": Whole(), "drawn": Whole(), "generators": Listed(Generator())})
        kinds = {"seed": Whole(-(2**63)), "steps": Whole(1), "epoch": Whole(), "step": Whole()}
        read = read_state(whose, state, kinds | {"loaders": Fields(dict.fromkeys(self.names, place))})
        if read["steps"] != self._steps or read["step"] >= self._steps:
            raise InputError(
                f"the state is of epochs of {read['steps']} steps and these have {self._steps}; make the loaders with the same "
                f"data, batch sizes, weights, length and number of processes"
            )
        self._own_seed += read["seed"] - self._seed  # what a process's seed had more than process 0's, it has again
        self._seed, self.epoch, self.step = read["seed"], read["epoch"], read["step"]
        self._turn += 1
        self._going_on = True
        self._streams = self._begun()
        for name, stream in self._streams.items():
            stream.load_state_dict({"seed": stream.seed, **read["loaders"][name]})


def zip_loaders(
    loaders: Mapping[str, Iterable[Any]],
    length: Length = "longest",
    *,
    weights: Weights = "equal",
    temperature: float = 1.0,
    seed: int | None = None,
) -> MixedLoaders:
    """Several data sets side by side: per step a batch of each, by name.

    The step's losses are then ``{task: loss_of(model, batch[task]) for task in batch}``, and a balancer sees all tasks. With
    unequal shares a step holds those data sets only whose turn it is: one whose share is half of the largest comes in every
    second step on average. The share of data set k is (w_k / max_j w_j)^(1/T).

    Args:
        loaders: anything that can be iterated over again and again, by name.
        length: steps per epoch: ``"longest"`` such that every data set is seen whole, while smaller ones start over;
            ``"shortest"`` until the first is through; or a number, which loaders without a length need.
        weights: w: ``"equal"``, for a batch of each per step; ``"proportional"`` to the data sets' numbers of batches, so
            that none starts over; or numbers by name.
        temperature: T: 1 takes the weights as they are, higher ones bring the shares closer together, ``math.inf`` makes them
            equal whatever the sizes.
        seed: of the choice of data sets and of what the loaders draw from torch; left out, what ``torch.manual_seed`` was last
            given.

    Returns:
        The loaders as one; with ``state_dict`` and ``load_state_dict``.

    Raises:
        InputError: no loaders, an iterator that ends once and for all, one loader twice, one without batches, or weights,
            length or temperature that cannot be.

    Example:
        >>> both = zip_loaders({"a": ["a0", "a1", "a2"], "b": ["b0", "b1"]})
        >>> list(both)
        [{'a': 'a0', 'b': 'b0'}, {'a': 'a1', 'b': 'b1'}, {'a': 'a2', 'b': 'b0'}]
        >>> len(zip_loaders({"a": ["a0", "a1", "a2"], "b": ["b0", "b1"]}, "shortest"))
        2
    """
    return MixedLoaders(loaders, length, weights=weights, temperature=temperature, seed=seed, together=True)


def alternate(
    loaders: Mapping[str, Iterable[Any]],
    length: Length = "longest",
    *,
    weights: Weights = "proportional",
    temperature: float = 1.0,
    seed: int | None = None,
) -> MixedLoaders:
    """Several data sets one after another: per step a batch of one of them, as a mapping with one entry.

    The share of data set k is w_k^(1/T) / Σ_j w_j^(1/T). An epoch holds exactly its share of each, rounded up or down by
    chance, in random order. With one task per step there is nothing to balance: give
    :meth:`equipoise.MultiTaskOptimizer.step` several of these batches, or use :func:`zip_loaders`.

    Args:
        loaders: anything that can be iterated over again and again, by name.
        length: steps per epoch: ``"longest"`` such that every data set is seen whole at these shares; ``"shortest"`` until the
            first is through; or a number, which loaders without a length need. With proportional shares the first two are
            the sum of all batches, each of which comes once.
        weights: w: ``"proportional"`` to the data sets' numbers of batches, ``"equal"``, or numbers by name.
        temperature: T, as for :func:`zip_loaders`.
        seed: as for :func:`zip_loaders`.

    Returns:
        The loaders as one; with ``state_dict`` and ``load_state_dict``.

    Raises:
        InputError: as for :func:`zip_loaders`.

    Example:
        >>> mixed = alternate({"a": ["a0", "a1", "a2"], "b": ["b0"]}, seed=0)
        >>> sorted(batch for step in mixed for batch in step.values())
        ['a0', 'a1', 'a2', 'b0']
        >>> alternate({"large": range(1000), "small": range(10)}, weights="equal").counts(epoch=0)
        {'large': 1000, 'small': 1000}
    """
    return MixedLoaders(loaders, length, weights=weights, temperature=temperature, seed=seed, together=False)
