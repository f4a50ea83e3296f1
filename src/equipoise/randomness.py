"""Snapshots of torch's random state, so that an evaluation can be repeated with the same dropout masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.errors import InputError

__all__ = ["RandomState"]


@dataclass(frozen=True)
class RandomState:
    """The state of the default generators of the CPU and of the CUDA devices in use.

    Example:
        >>> import torch
        >>> state = RandomState.capture()
        >>> first = torch.rand(3)
        >>> with state.replayed():
        ...     again = torch.rand(3)
        >>> bool((first == again).all())
        True
    """

    cpu: Tensor
    cuda: dict[int, Tensor]

    @classmethod
    def capture(cls, tensors: Iterable[Tensor] = ()) -> RandomState:
        """Takes a snapshot of the CPU's generator and of those of the CUDA devices that ``tensors`` lie on."""
        devices: set[int] = set()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            devices = {tensor.device.index for tensor in tensors if tensor.is_cuda}
        return cls(torch.get_rng_state(), {index: torch.cuda.get_rng_state(index) for index in sorted(devices)})

    def equals(self, other: RandomState) -> bool:
        """Whether nothing was drawn between two snapshots of the same devices."""
        return bool(torch.equal(self.cpu, other.cpu)) and all(
            index in other.cuda and torch.equal(state, other.cuda[index]) for index, state in self.cuda.items()
        )

    def restore(self) -> None:
        """Makes this the present random state. Raises InputError: it holds something else."""
        try:
            torch.set_rng_state(self.cpu)
            for index, state in self.cuda.items():
                torch.cuda.set_rng_state(state, index)
        except (TypeError, RuntimeError, AttributeError) as error:
            raise InputError(f"this RandomState does not hold states of torch's generators: {error}") from None

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Runs the body from this random state and puts the present one back afterwards."""
        with torch.random.fork_rng(devices=list(self.cuda)):
            self.restore()
            yield

    @contextmanager
    def apart(self, place: int) -> Iterator[None]:
        """Runs the body from a random state of its own, which follows from this one, and puts the present one back afterwards.

        Args:
            place: which one, from 0: bodies of different places draw independent numbers.
        """
        with self.replayed():
            # Not torch.manual_seed, which would seed devices whose state is not put back.
            seed = int(torch.randint(2**62, (place + 1,), device="cpu")[place])
            torch.default_generator.manual_seed(seed)
            for index in self.cuda:
                torch.cuda.default_generators[index].manual_seed(seed)
            yield
