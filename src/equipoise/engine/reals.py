"""Tensors as stretches of real numbers: a complex entry counts as a pair, real part first.

A complex parameter is trained as the two real ones that it consists of, so rows, inner products, directions and noise are
those of the pairs. Whoever flattens parameters or gradients does it by these functions.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["as_real", "flat", "like", "real_dtype", "shaped", "size"]


def size(tensor: Tensor) -> int:
    """How many real numbers a tensor holds.

    Example:
        >>> size(torch.zeros(3)), size(torch.zeros(3, dtype=torch.complex64))
        (3, 6)
    """
    return 2 * tensor.numel() if tensor.is_complex() else tensor.numel()


def real_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    """The real dtype that holds the entries of all of these (at least one) without loss."""
    dtypes = [tensor.dtype.to_real() for tensor in tensors]
    found = dtypes[0]
    for dtype in dtypes[1:]:
        found = torch.promote_types(found, dtype)
    return found


def as_real(tensor: Tensor) -> Tensor:
    """The tensor itself, or the pairs ``[..., 2]`` of a complex one; differentiable, and a view wherever there can be one."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def flat(tensor: Tensor) -> Tensor:
    """All real numbers of a dense tensor, ``[size(tensor)]``; differentiable.

    Example:
        >>> flat(torch.tensor([1 + 2j, 3j]))
        tensor([1., 2., 0., 3.])
    """
    return as_real(tensor).reshape(-1)


def shaped(tensor: Tensor, stretch: Tensor) -> Tensor:
    """What :func:`flat` made of a tensor of this shape: a view for a real tensor, a copy for a complex one."""
    if not tensor.is_complex():
        return stretch.view(tensor.shape)
    pairs = stretch.view(*tensor.shape, 2)
    return torch.complex(pairs[..., 0], pairs[..., 1])


def like(tensor: Tensor, stretch: Tensor) -> Tensor:
    """A view of real numbers ``[size(tensor)]`` in the shape of a tensor and, where it can be, in its memory format.

    The stretch must be contiguous; for a complex tensor it must also start at an even entry of its storage.

    Example:
        >>> like(torch.zeros(2, dtype=torch.complex64), torch.arange(4.0))
        tensor([0.+1.j, 2.+3.j])
    """
    piece = torch.view_as_complex(stretch.view(-1, 2)) if tensor.is_complex() else stretch
    if tensor.is_contiguous() or not _dense(tensor):
        return piece.view(tensor.shape)
    return piece.as_strided(tensor.shape, tensor.stride(), piece.storage_offset())


def _dense(tensor: Tensor) -> bool:
    """Whether the strides are those of a permuted contiguous tensor (channels-last, say)."""
    expected = 1
    for stride, extent in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if extent != 1:
            if stride != expected:
                return False
            expected *= extent
    return True
