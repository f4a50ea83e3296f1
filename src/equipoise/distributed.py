"""Data parallelism: what the processes average, so that every one of them takes the same step."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from equipoise.engine.reals import as_real
from equipoise.engine.shared import Reach

__all__ = ["Processes"]


class Processes:
    """The processes that train together; one alone where ``torch.distributed`` is not in use.

    Args:
        group: process group; the default group if left out.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group

    @property
    def count(self) -> int:
        """How many processes there are."""
        return dist.get_world_size(self.group) if dist.is_available() and dist.is_initialized() else 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Adds a tensor up over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Adds the ``.grad`` of parameters up over all processes; where one of them has none, it counts as zero.

        The gradients of equal dtype and device travel together as one message.
        """
        if self.count == 1:
            return
        buckets: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for parameter in parameters:
            buckets.setdefault((parameter.dtype, parameter.device), []).append(parameter)
        for (dtype, device), bucket in buckets.items():
            # Which parameters have a gradient anywhere: those without must stay without, for optimizers skip them.
            grads = [parameter.grad for parameter in bucket]
            flags = [[grad is not None for grad in grads], [grad is not None and grad.is_sparse for grad in grads]]
            having, sparse = self.sum(torch.tensor(flags, dtype=torch.int32, device=device)).bool().tolist()
            moved = [p for p, anywhere in zip(bucket, having, strict=True) if anywhere]
            if not moved:
                continue
            sparse = [flag for flag, anywhere in zip(sparse, having, strict=True) if anywhere]
            flat = torch.empty(sum(p.numel() for p in moved), dtype=dtype, device=device)
            pieces = [piece.view(p.shape) for p, piece in zip(moved, flat.split([p.numel() for p in moved]), strict=True)]
            for parameter, piece in zip(moved, pieces, strict=True):
                if parameter.grad is None:
                    piece.zero_()
                else:
                    piece.copy_(parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad)
            self.sum(flat)
            for parameter, piece, is_sparse in zip(moved, pieces, sparse, strict=True):
                # Optimizers of sparse tables take nothing else.
                parameter.grad = piece.to_sparse(1) if is_sparse else piece

    def alike(self, description: str) -> bool:
        """Whether all processes give the same description."""
        mine = zlib.crc32(description.encode())
        gathered = [0] * self.count
        dist.all_gather_object(gathered, mine, group=self.group)
        return len(set(gathered)) == 1

    def union(self, names: Sequence[str]) -> list[str]:
        """All names that any process has, in the order of the first process that has them."""
        if self.count == 1:
            return list(names)
        gathered: list[list[str]] = [[] for _ in range(self.count)]
        dist.all_gather_object(gathered, list(names), group=self.group)
        return list(dict.fromkeys(name for part in gathered for name in part))

    def pool(self, sightings: Sequence[Reach], parameters: Sequence[Tensor]) -> list[Reach]:
        """What all processes saw of the given parameters, in the order of the processes."""
        if self.count == 1:
            return list(sightings)
        places = {id(parameter): place for place, parameter in enumerate(parameters)}

        def numbered(leaves: Sequence[Tensor]) -> list[int]:
            return [places[id(leaf)] for leaf in leaves if id(leaf) in places]

        mine = [(numbered(s.common), {task: numbered(found) for task, found in s.alone.items()}) for s in sightings]
        gathered: list[list[tuple[list[int], dict[int, list[int]]]]] = [[] for _ in range(self.count)]
        dist.all_gather_object(gathered, mine, group=self.group)
        return [
            Reach([parameters[place] for place in common], {t: [parameters[place] for place in f] for t, f in alone.items()})
            for part in gathered
            for common, alone in part
        ]

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the first one's parameters and buffers."""
        if self.count == 1:
            return
        first = dist.get_global_rank(self.group, 0) if self.group is not None else 0
        with torch.no_grad():
            for tensor in tensors:
                # A message is the bare memory, so its layout must not differ between the processes.
                message = tensor.detach().contiguous()
                # Not every backend knows complex numbers.
                dist.broadcast(as_real(message), first, group=self.group)
                if message.data_ptr() != tensor.data_ptr():
                    tensor.copy_(message)
