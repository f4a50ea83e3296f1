"""The Gramian of task gradients, in float64 at the price of a float32 product.

A long float32 dot product loses digits with its length. Here the columns are cut into short chunks, each chunk is multiplied
in float32 and the chunks' products are added in float64: about as fast as one float32 product, and far more exact.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.errors import InputError
from equipoise.solvers import read_array

__all__ = ["CHUNK", "cross_gramian", "gramian"]

CHUNK = 2048
"""Columns multiplied in the gradients' own precision before float64 takes over."""
# Entries of chunks' products that are held at once: 1 MB, whatever K.
_PRODUCTS = 2**18


def gramian(rows: Tensor | ArrayLike, inverses: Tensor | None = None) -> Tensor:
    """Computes ``rows @ rows.T``, accumulated in float64; with ``inverses``, ``rows @ diag(inverses) @ rows.T``.

    Args:
        rows: task gradients ``[K, P]``: a tensor, an array or lists.
        inverses: 1/D ``[P]`` of a diagonal metric D, at least 0.

    Returns:
        The Gramian ``[K, K]`` in float64, on the device of ``rows``.

    Raises:
        InputError: no numbers, or of another shape.

    Example:
        >>> gramian(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
        tensor([[25.,  8.],
                [ 8.,  4.]], dtype=torch.float64)
    """
    if not (isinstance(rows, Tensor) and rows.layout == torch.strided and (rows.is_floating_point() or rows.is_complex())):
        rows = torch.tensor(read_array(rows, "task gradients"), device="cpu")
    if rows.dim() != 2 or len(rows) == 0:
        raise InputError(f"task gradients have the shape [K, P]; got {list(rows.shape)}")
    if inverses is not None:
        return cross_gramian(rows, rows, inverses)
    # A caller's autocast would round the products to half precision.
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        if rows.dtype == torch.float64:
            return rows @ rows.T
        if rows.is_cuda or rows.dtype != torch.float32:
            # On CUDA a float32 product may be taken in TF32; half precision is too coarse to multiply in.
            return _by_conversion(rows)
        product = _by_chunks(rows)
        diagonal = product.diagonal()
        if bool((torch.isfinite(diagonal) & ((diagonal > 1e-30) | (diagonal == 0))).all()):
            return product
        # Squares left float32's range somewhere: the gradients themselves may still be fine.
        return _by_conversion(rows)


def cross_gramian(rows: Tensor, others: Tensor, inverses: Tensor | None = None) -> Tensor:
    """``rows @ others.T``, ``[K, K]`` in float64 on the device of ``rows``: task gradients ``[K, P]`` on two batches.

    ``inverses`` is as for :func:`gramian`.
    """
    total = torch.zeros(len(rows), len(others), dtype=torch.float64, device=rows.device)
    step = 32 * CHUNK if rows.is_cuda else 4 * CHUNK
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        for start in range(0, rows.shape[1], step):
            part = slice(start, start + step)
            chunk, other = rows[:, part].double(), others[:, part].double()
            if inverses is not None:  # half on each side, so that the product of equal rows is symmetric
                root = inverses[part].double().sqrt()
                chunk, other = chunk * root, other * root
            total.addmm_(chunk, other.T)
    return total


def _by_chunks(rows: Tensor) -> Tensor:
    tasks, columns = rows.shape
    total = torch.zeros(tasks, tasks, dtype=torch.float64, device=rows.device)
    whole = columns - columns % CHUNK
    # Blocks of rows, of which those below the diagonal are left out. It pays in this range only: with fewer tasks there is
    # little to leave out, with more the products of whole chunks are that much faster.
    blocks = round(tasks / 12) if 20 <= tasks <= 64 else 1
    edges = [round(block * tasks / blocks) for block in range(blocks + 1)]
    at_once = CHUNK * max(1, _PRODUCTS // tasks**2)
    for start in range(0, whole, at_once):
        stop = min(start + at_once, whole)
        chunks = rows[:, start:stop].view(tasks, -1, CHUNK).transpose(0, 1)
        for top, bottom in pairwise(edges):
            product = torch.bmm(chunks[:, top:bottom], chunks[:, top:].transpose(1, 2))
            total[top:bottom, top:] += product.sum(0, dtype=torch.float64)
    if whole < columns:
        rest = rows[:, whole:]
        total += rest @ rest.T
    return torch.triu(total) + torch.triu(total, 1).T


def _by_conversion(rows: Tensor) -> Tensor:
    tasks, columns = rows.shape
    total = torch.zeros(tasks, tasks, dtype=torch.float64, device=rows.device)
    step = 32 * CHUNK if rows.is_cuda else 4 * CHUNK
    for start in range(0, columns, step):
        chunk = rows[:, start : start + step].double()
        total.addmm_(chunk, chunk.T)
    return total
