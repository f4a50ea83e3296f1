"""The processes that train together: what they average, so that all take the same step, and how an error of one reaches all.

Between two collectives a process runs code that may fail in it alone: the user's loss function, a backward pass. So every
collective begins with a short message of fixed length, in which each process says whether it has failed, and where in the
step it is. One that has failed sends the same message from wherever it is, so that it always meets the others'; then all
of them raise. What is small, losses say, travels in that message.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from equipoise.engine.reals import as_real
from equipoise.engine.shared import Reach
from equipoise.errors import InputError, described, rebuilt

__all__ = ["Processes", "together"]

# A message: whether its sender failed, two marks of four numbers, and room for what is small.
_MARK = 4
_HEAD = 1 + 2 * _MARK
_ROOM = 247

Function = TypeVar("Function", bound=Callable[..., Any])


class Processes:
    """The processes that train together; one alone where ``torch.distributed`` is not in use.

    Attributes:
        step: which step is under way; all processes must say the same.

    Args:
        group: process group; the default group if left out.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.step = ""

    @property
    def count(self) -> int:
        """How many processes there are."""
        return dist.get_world_size(self.group) if dist.is_available() and dist.is_initialized() else 1

    # -- meeting

    def meet(self, what: str, numbers: Tensor | None = None, *, same: str | bytes = b"") -> tuple[Tensor | None, bool]:
        """Meets the other processes: learns whether one has failed, and adds a few numbers up.

        Args:
            what: where this process is; all of them must be there.
            numbers: float64.
            same: something that the processes may say differently.

        Returns:
            The sum of the numbers, and whether all processes said the same.

        Raises:
            InputError: the processes are in different places.
            EquipoiseError: another process failed; of the class of its error, if that can be.
        """
        if self.count == 1:
            return numbers, True
        inside = numbers is not None and numbers.numel() <= _ROOM
        head, summed = self._send(0.0, f"{self.step}: {what}", same, numbers if inside else None)
        if head[0]:
            self._raise(None)
        if not _alike(head[1 : 1 + _MARK], self.count):
            places = self._gather(f"{self.step}: {what}")
            error = InputError(
                f"the processes are not in the same place of the same step ({'; '.join(dict.fromkeys(places))}); let "
                f"all call the same functions with as many micro-batches and the same tasks in order, or load one checkpoint"
            )
            raise _told(error)
        if numbers is not None:
            numbers = summed.view(numbers.shape).to(numbers.device) if inside else self.add(numbers)
        return numbers, _alike(head[1 + _MARK :], self.count)

    @contextmanager
    def together(self) -> Iterator[None]:
        """An error in the body, in this process alone, raises in all processes when they next meet; so all go on together."""
        try:
            yield
        except Exception as error:
            if self.count > 1 and not getattr(error, "_told", False):
                self._fail(error)
            raise

    def _fail(self, error: Exception) -> None:
        try:
            self._send(1.0, "", b"", None)
            self._raise(error)
        except Exception as further:
            # The others are gone, or hang elsewhere; this process's own error is the one to see.
            error.add_note(f"the other processes could not be told: {type(further).__name__}: {further}")

    def _send(self, failed: float, what: str, same: str | bytes, numbers: Tensor | None) -> tuple[list[float], Tensor]:
        message = torch.zeros(_HEAD + _ROOM, dtype=torch.float64, device="cpu")
        message[:_HEAD] = torch.tensor([failed, *_mark(what), *_mark(same)], dtype=torch.float64, device="cpu")
        message = message.to(self._device())
        size = 0 if numbers is None else numbers.numel()
        if numbers is not None:
            message[_HEAD : _HEAD + size] = numbers.flatten()
        self.add(message)
        return message[:_HEAD].tolist(), message[_HEAD : _HEAD + size]

    def _raise(self, own: Exception | None) -> None:
        """Lets everybody know what failed; raises unless it was this process."""
        found = self._gather(None if own is None else described(own))
        failed = next(place for place, description in enumerate(found) if description is not None)
        if own is not None:
            _told(own)
            return
        raise _told(rebuilt(found[failed], f"process {failed}"))

    def _device(self) -> torch.device:
        """Where messages have to lie for the group's backend."""
        config = dist.get_backend_config(self.group)
        return torch.device("cpu" if "cpu" in config or ":" not in config else config.partition(":")[0])

    def add(self, tensor: Tensor) -> Tensor:
        """Adds a tensor up in place, where the processes have met just now; :meth:`sum` lets them meet first."""
        # What travels is the bare memory, whose order must not differ between the processes.
        message = tensor.contiguous()
        with _no_peers_left():
            dist.all_reduce(message, group=self.group)
        return tensor if message is tensor else tensor.copy_(message)

    def _gather(self, mine: Any) -> list[Any]:
        gathered: list[Any] = [None] * self.count
        with _no_peers_left():
            dist.all_gather_object(gathered, mine, group=self.group)
        return gathered

    # -- what they exchange

    def sum(self, tensor: Tensor, what: str = "a sum") -> Tensor:
        """Adds a tensor up over all processes; in place, where it is not float64.

        Args:
            tensor: of equal shape everywhere.
            what: it is, for messages.
        """
        if self.count == 1:
            return tensor
        what = f"{what} of shape {list(tensor.shape)}"
        if tensor.dtype == torch.float64 and tensor.numel() <= _ROOM:
            return cast(Tensor, self.meet(what, tensor)[0])
        self.meet(what)
        return self.add(tensor)

    def sum_all(self, tensors: Sequence[Tensor], what: str, *, met: bool = False) -> list[Tensor]:
        """Tensors added up over all processes; those of equal dtype and device travel together.

        Args:
            tensors: of equal shapes everywhere.
            what: they are, for messages.
            met: the processes have met just now.
        """
        if self.count == 1:
            return list(tensors)
        kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        for place, tensor in enumerate(tensors):
            kinds.setdefault((tensor.dtype, tensor.device), []).append(place)
        flats = [(places, torch.cat([tensors[place].detach().reshape(-1) for place in places])) for places in kinds.values()]
        if not met:
            self.meet(f"{what} of sizes {[tensor.numel() for tensor in tensors]}")
        summed = list(tensors)
        for places, flat in flats:
            pieces = self.add(flat).split([tensors[place].numel() for place in places])
            for place, piece in zip(places, pieces, strict=True):
                summed[place] = piece.view(tensors[place].shape)
        return summed

    def either(self, flags: Sequence[Sequence[bool]], what: str) -> list[list[bool]]:
        """For each flag whether any process has set it."""
        if self.count == 1:
            return [list(row) for row in flags]
        rows = [bytes(row) for row in flags]
        if self.meet(f"{what} of {[len(row) for row in rows]}", same=b"".join(rows))[1]:
            return [list(map(bool, row)) for row in rows]
        joint = self.add(torch.tensor(flags, dtype=torch.int32, device=self._device()))
        return cast(list[list[bool]], joint.bool().tolist())

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Adds the ``.grad`` of parameters up over all processes; where one of them has none, it counts as zero.

        The gradients of equal dtype and device travel together as one message.
        """
        if self.count == 1:
            return
        # Which parameters have a gradient anywhere: those without must stay without, for optimizers skip them.
        grads = [parameter.grad for parameter in parameters]
        flags = [[grad is not None for grad in grads], [grad is not None and grad.is_sparse for grad in grads]]
        entries = sum(parameter.numel() for parameter in parameters)
        having, sparse = self.either(flags, f"gradients of {entries} entries")
        moved = [(p, rows) for p, anywhere, rows in zip(parameters, having, sparse, strict=True) if anywhere]
        whole = [_whole(parameter) for parameter, _ in moved]
        for (parameter, is_sparse), summed in zip(moved, self.sum_all(whole, "", met=True), strict=True):
            # Optimizers of sparse tables take nothing else.
            parameter.grad = summed.to_sparse(1) if is_sparse else summed

    def union(self, names: Sequence[str]) -> list[str]:
        """All names that any process has, in the order of the first process that has them."""
        if self.count == 1:
            return list(names)
        self.meet("the names of the tasks")
        return list(dict.fromkeys(name for part in self._gather(list(names)) for name in part))

    def pool(self, sightings: Sequence[Reach], parameters: Sequence[Tensor]) -> list[Reach]:
        """What all processes saw of the given parameters, in the order of the processes."""
        if self.count == 1:
            return list(sightings)
        places = {id(parameter): place for place, parameter in enumerate(parameters)}

        def numbered(leaves: Sequence[Tensor]) -> list[int]:
            return [places[id(leaf)] for leaf in leaves if id(leaf) in places]

        mine = [(numbered(s.common), {task: numbered(found) for task, found in s.alone.items()}) for s in sightings]
        self.meet(f"what the tasks reach of {len(parameters)} parameters")
        return [
            Reach([parameters[place] for place in common], {t: [parameters[place] for place in f] for t, f in alone.items()})
            for part in self._gather(mine)
            for common, alone in part
        ]

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the first one's parameters and buffers.

        Raises:
            InputError: the processes' tensors differ in number, shape or dtype.
        """
        if self.count == 1:
            return
        tensors = list(tensors)
        kinds = repr([(list(tensor.shape), tensor.dtype) for tensor in tensors])
        if not self.meet("the start", same=kinds)[1]:
            error = InputError(
                f"the processes' models differ in the shapes or dtypes of parameters and buffers (here: {len(tensors)} tensors "
                f"of {sum(tensor.numel() for tensor in tensors)} entries); build the same model everywhere"
            )
            raise _told(error)
        first = dist.get_global_rank(self.group, 0) if self.group is not None else 0
        with torch.no_grad():
            for tensor in tensors:
                # A message is the bare memory, so its layout must not differ between the processes.
                message = tensor.detach().contiguous()
                with _no_peers_left():
                    # Not every backend knows complex numbers.
                    dist.broadcast(as_real(message), first, group=self.group)
                if message.data_ptr() != tensor.data_ptr():
                    tensor.copy_(message)


def together(function: Function) -> Function:
    """Lets an error of a method, in this process alone, raise in all; the object's ``processes`` are those it works with.

    While there are none yet, in the constructor, its argument ``process_group`` tells.
    """

    @functools.wraps(function)
    def shared(self: Any, *args: Any, **options: Any) -> Any:
        processes = getattr(self, "processes", None) or Processes(options.get("process_group"))
        if processes.count == 1:
            return function(self, *args, **options)
        with processes.together():
            return function(self, *args, **options)

    return cast(Function, shared)


@contextmanager
def _no_peers_left() -> Iterator[None]:
    """Marks errors of the collectives themselves: where these fail, nobody can be told."""
    try:
        yield
    except Exception as error:
        _told(error)
        raise


def _told(error: Exception) -> Exception:
    error._told = True  # type: ignore[attr-defined]
    return error


def _mark(text: str | bytes) -> list[float]:
    """Four numbers whose sums tell whether all processes gave the same text: two halves of a checksum, and their squares."""
    checksum = zlib.crc32(text.encode() if isinstance(text, str) else text)
    halves = divmod(checksum, 1 << 16)
    return [float(number) for half in halves for number in (half, half * half)]


def _alike(sums: Sequence[float], count: int) -> bool:
    # By Cauchy and Schwarz; all numbers are whole, and small enough to be exact.
    return all(count * int(squares) == int(half) ** 2 for half, squares in (sums[:2], sums[2:]))


def _whole(parameter: Tensor) -> Tensor:
    """The ``.grad`` with all its zeros."""
    grad = parameter.grad
    if grad is None:
        return torch.zeros_like(parameter)
    return grad.to_dense() if grad.is_sparse else grad
