"""Gramians of one layer's weights in closed form, from its inputs and the tasks' gradients of its outputs.

For a linear map with inputs a ``[n, i]`` and output gradients δ_k ``[n, o]`` task k's gradient of the weight is δ_kᵀa. Where i
is large, a random sketch a S ``[n, r]`` with E[S Sᵀ] = 1 gives the inner products without bias, and no numbers K·o·i exist. A
convolution is a linear map of its patches, and a S is a convolution with r random filters. An embedding is a linear map of
indicator vectors, and a S is a choice of rows of S, which is never formed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equipoise.engine.graph import Edge, children

if TYPE_CHECKING:
    from equipoise.engine.heads import HeadCut

__all__ = ["Layer", "layer_of", "streams_of"]


class Layer:
    """One call of a layer whose weight gradients have a closed form.

    Attributes:
        node: the operation in the graph; the gradient of its only output is what :meth:`row` takes.
        weight: its weight.
        size: entries of the weight.

    Args:
        row: from the gradient of the output, or those of several tasks ``[k, …]``, and the number of columns to the weight's
            gradient, or a sketch of it.
    """

    def __init__(self, node: Any, weight: Tensor, row: Callable[[Tensor, int], Tensor]) -> None:
        self.node = node
        self.weight = weight
        self.row = row


def layer_of(node: Any, slot: int, leaf: Tensor) -> Layer | None:
    """What an operation that takes a leaf at a place is, if its gradient has a closed form.

    Args:
        node: of the graph.
        slot: which of its arguments the leaf is.
        leaf: the weight.
    """
    make = _KINDS.get(node.name())
    if make is None or leaf.is_complex():
        return None
    row = make(node, slot)
    return None if row is None else Layer(node, leaf, row)


Row = Callable[[Tensor, int], Tensor]


def stream_of(node: Any, weight: Tensor, cut: HeadCut) -> Layer | None:
    """All layers that write to the residual stream that a layer writes to, with one gradient for all.

    In x ← x + f(x) the gradient of the sum reaches every earlier sum unchanged along the identity. With this part of it, δ_k,
    instead of the whole the inner products of all layers that write to the stream are ⟨δ_k, (Σ_l a_l a_lᵀ) δ_j⟩, at the price
    of one layer's. Dropout on the way is left out; a factor on it, as a low-rank adapter's, counts with the layer's inputs.

    Args:
        node: the layer, a linear map.
        weight: its weight.
        cut: tells what leads to it.

    Returns:
        The layers as one, or ``None`` if it writes to no stream that others write to.
    """
    parents = cut.leading() if cut.above(node) else cut.parents
    edge = _taker((node, 0), parents)
    while edge and _passes(edge[0]):
        edge = _taker(edge, parents)
    if not edge or not _adds(edge[0]):
        return None
    top, above = edge[0], _taker(edge, parents)
    # A sum that goes into another sum alone, as that of a frozen layer and its adapter, has the gradient of that one.
    while above and (_adds(above[0]) or _passes(above[0])) and _taker(edge, cut.leading()):
        edge, above = above, _taker(above, parents)
        if _adds(edge[0]) and edge[0]._input_metadata[0].shape == top._input_metadata[0].shape:
            top = edge[0]
    shape = top._input_metadata[0].shape
    inputs: list[tuple[Tensor, float]] = []
    leaves, seen, waiting = [], set(), [((top, 0), 1.0)]
    while waiting:
        edge, factor = waiting.pop()
        node, place = edge
        if node is None or edge in seen:
            continue
        seen.add(edge)
        scale = 1.0 if _adds(node) else _factor(node)
        if node.name() in _BY_PLACE:
            waiting.append((list(children(node))[place], factor))
        elif scale is not None:
            waiting += [(child, factor * scale) for child in children(node)]
        elif node.name() == "MmBackward0" or (node.name() == "AddmmBackward0" and node._saved_alpha == 1):
            slot = 2 if node.name() == "AddmmBackward0" else 1
            leaf = _leaf_below(node.next_functions[slot][0])
            # What is broadcast to the stream, as a position's embedding, has another gradient.
            if leaf is not None and list(node._input_metadata[0].shape) == [math.prod(shape[:-1]), shape[-1]]:
                inputs.append((node._saved_mat1 if slot == 2 else node._saved_self, factor))
                leaves.append(id(leaf))
    return Layer(top, weight, _Stream(inputs, len(shape), leaves)) if len(inputs) > 1 else None


def streams_of(calls: Sequence[Any], weight: Tensor, cut: HeadCut) -> list[Layer] | None:
    """The residual streams that the calls of a layer write to; ``None`` unless the same layers write to all of them."""
    found: list[Layer] = []
    for node in calls:
        layer = stream_of(node, weight, cut)
        if layer is None or (found and layer.row.leaves != found[0].row.leaves):  # type: ignore[attr-defined]
            return None
        found.append(layer)
    return found


def _taker(edge: Edge, parents: Mapping[Any, Sequence[Any]]) -> Edge | None:
    """The operation that alone takes an output, and its own output that this goes into; ``None`` if several take it."""
    takers = dict.fromkeys(parents.get(edge[0], ()))
    found = [(taker, slot) for taker in takers for slot, below in enumerate(children(taker)) if below == edge]
    if len(found) != 1:
        return None
    taker, slot = found[0]
    return taker, slot if taker.name() in _BY_PLACE else 0


def _passes(node: Any) -> bool:
    return node.name() in _BY_PLACE or _factor(node) is not None


def _factor(node: Any) -> float | None:
    """What an operation that keeps the order of samples multiplies with; ``None`` for any other operation."""
    if node.name() in _IN_ORDER:
        return 1.0
    if node.name() != "MulBackward0" or node.next_functions[1][0] is not None:
        return None
    other: Tensor | None = node._saved_other
    if other is None or other.is_complex() or other.device.type != "cpu":
        return None
    if other.dim() == 0:
        return float(other)
    # On the CPU dropout multiplies with 0 or 1 / (1 - p), as stochastic depth does; a few of the numbers tell.
    few = other.flatten()[:_TOLD]
    alike = other.dim() == len(node._input_metadata[0].shape) and few.numel()
    return 1.0 if alike and few.max() > 1 and ((few == 0) | (few == few.max())).all() else None


def _adds(node: Any) -> bool:
    return node.name() == "AddBackward0" and bool(node._saved_alpha == 1)


def _leaf_below(node: Any) -> Tensor | None:
    while node is not None and not hasattr(node, "variable") and len(node.next_functions) == 1:
        node = node.next_functions[0][0]
    return getattr(node, "variable", None)


class _Stream:
    """Several linear maps with the same output gradient: their sketches, which are independent, add up."""

    def __init__(self, inputs: Sequence[tuple[Tensor, float]], dims: int, leaves: Sequence[int]) -> None:
        self.leaves = leaves
        self._inputs = inputs
        self._dims = dims
        self._sketched: Tensor | None = None

    def __call__(self, gradient: Tensor, columns: int) -> Tensor:
        if self._sketched is None:
            parts = [_single(tensor) if factor == 1.0 else _single(tensor) * factor for tensor, factor in self._inputs]
            sizes = [part.shape[1] for part in parts]
            sketch = _sketch(sum(sizes), columns, parts[0].dtype, parts[0].device)
            total = parts[0] @ sketch[: sizes[0]]
            start = sizes[0]
            for part, size in zip(parts[1:], sizes[1:], strict=True):
                total.addmm_(part, sketch[start : start + size])
                start += size
            self._sketched = total
        gradient = _single(gradient)
        if gradient.dim() > self._dims:  # of several tasks
            return self._sketched.T @ gradient.flatten(1, -2)
        return self._sketched.T @ gradient.flatten(0, -2)


def _of_product(node: Any, slot: int) -> Row | None:
    first, second = ("_saved_mat1", "_saved_mat2") if node.name() == "AddmmBackward0" else ("_saved_self", "_saved_mat2")
    offset = 1 if node.name() == "AddmmBackward0" else 0
    if slot not in (offset, offset + 1):
        return None
    factor = float(node._saved_alpha) if offset else 1.0
    transposed = slot == offset
    inputs = getattr(node, second if transposed else first)
    return _Linear(inputs if factor == 1.0 else inputs * factor, transposed=transposed)


class _Linear:
    """δᵀa for y = a Wᵀ, or δ aᵀ for y = W a."""

    def __init__(self, inputs: Tensor, transposed: bool) -> None:
        self._inputs = inputs.T if transposed else inputs
        self._transposed = transposed
        self._sketched: Tensor | None = None

    def __call__(self, gradient: Tensor, columns: int) -> Tensor:
        if self._sketched is None:
            inputs = _single(self._inputs)
            size = inputs.shape[1]
            self._sketched = inputs if size <= columns else inputs @ _sketch(size, columns, inputs.dtype, inputs.device)
        gradient = _single(gradient)
        return self._sketched.T @ (gradient.mT if self._transposed else gradient)


class _Convolution:
    """The patches' outer products with the output gradients, by a convolution with random filters."""

    def __init__(self, node: Any) -> None:
        self._inputs: Tensor = node._saved_input
        self._kernel: tuple[int, ...] = tuple(node._saved_weight.shape[1:])
        self._geometry = (node._saved_stride, node._saved_padding, node._saved_dilation)
        self._sketched: Tensor | None = None

    def __call__(self, gradient: Tensor, columns: int) -> Tensor:
        if self._sketched is None:
            inputs = _single(self._inputs)
            size = 1
            for length in self._kernel:
                size *= length
            if size <= columns:
                filters = torch.eye(size, dtype=inputs.dtype, device=inputs.device)
            else:
                filters = _sketch(size, columns, inputs.dtype, inputs.device).T
            stride, padding, dilation = self._geometry
            dims = len(self._kernel) - 1
            maps = torch.convolution(
                inputs, filters.reshape(-1, *self._kernel), None, stride, padding, dilation, False, [0] * dims, 1
            )
            self._sketched = maps.flatten(2).transpose(1, 2).flatten(0, 1)
        # [tasks,] samples, channels, places -> [tasks,] channels, samples · places
        places = _single(gradient).flatten(1 - len(self._kernel))
        return places.transpose(-3, -2).flatten(-2) @ self._sketched


def _of_convolution(node: Any, slot: int) -> Row | None:
    if slot != 1 or node._saved_transposed or node._saved_groups != 1:
        return None
    return _Convolution(node)


class _Embedding:
    """The indicators' outer products with the output gradients, the rows of S made of random signs as they are needed."""

    def __init__(self, node: Any) -> None:
        self._indices: Tensor = node._saved_indices
        self._size = int(node._saved_weight_sym_argsize_0)
        self._padding = int(node._saved_padding_idx)
        self._sketched: Tensor | None = None

    def __call__(self, gradient: Tensor, columns: int) -> Tensor:
        gradient = _single(gradient)
        if self._sketched is None:
            indices = self._indices.flatten()
            if self._size <= columns:
                self._sketched = torch.nn.functional.one_hot(indices, self._size).to(gradient.dtype)
            else:
                # Products of two rows of signs are independent in pairs, which is all that an unbiased sketch needs.
                low = _signs(0, _RANGE, columns, gradient.dtype, gradient.device)
                high = _signs(1, self._size // _RANGE + 1, columns, gradient.dtype, gradient.device)
                self._sketched = low[indices % _RANGE] * high[indices // _RANGE] / columns**0.5
            self._sketched = self._sketched * (indices != self._padding).unsqueeze(1)
        # [tasks,] indices, width -> [tasks,] columns, width
        return self._sketched.T @ gradient.flatten(gradient.dim() - 1 - self._indices.dim(), -2)


_RANGE = 4096


def _of_embedding(node: Any, slot: int) -> Row | None:
    return None if slot or node._saved_scale_grad_by_freq else _Embedding(node)


# They keep the order of samples; what dropout and another precision do to the gradient is left out.
_IN_ORDER = frozenset(
    f"{name}Backward{number}"
    for name in ("Alias", "Clone", "NativeDropout", "Squeeze", "ToCopy", "UnsafeView", "Unsqueeze", "View")
    for number in range(2)
)
_TOLD = 256

# What fully_shard puts in front of a module, and backward hooks around one: each output is the input of the same place.
_BY_PLACE = frozenset(("RegisterPostBackwardFunctionBackward", "BackwardHookFunctionBackward"))

_KINDS: dict[str, Callable[[Any, int], Row | None]] = {
    "AddmmBackward0": _of_product,
    "MmBackward0": _of_product,
    "ConvolutionBackward0": _of_convolution,
    "EmbeddingBackward0": _of_embedding,
}


def _single(tensor: Tensor) -> Tensor:
    """In float32 at least: products in half precision are too coarse."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@lru_cache(maxsize=64)
def _sketch(size: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """S ``[size, columns]`` with orthogonal columns and E[S Sᵀ] = 1; the same in every process and every run."""
    columns = min(size, columns)
    generator = torch.Generator().manual_seed(size * 8191 + columns)
    drawn = torch.randn(size, columns, generator=generator, dtype=torch.float64, device="cpu")
    orthogonal = torch.linalg.qr(drawn).Q
    sketch: Tensor = orthogonal * (size / columns) ** 0.5
    return sketch.to(device, dtype)


@lru_cache(maxsize=16)
def _signs(seed: int, count: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Independent random signs ``[count, columns]``; the same in every process and every run."""
    generator = torch.Generator().manual_seed(2 * columns + seed)
    return torch.randint(2, (count, columns), generator=generator, device="cpu").mul_(2).sub_(1).to(device, dtype)
