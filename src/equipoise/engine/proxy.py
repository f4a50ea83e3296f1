"""Proxy Gramians: the inner products of the tasks' gradients of a few shared weights, which cost far less than those of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from equipoise.engine.gramian import gramian
from equipoise.engine.heads import Cut, Edge, gradients_at
from equipoise.engine.layers import Layer, layer_of, stream_of
from equipoise.errors import InputError

__all__ = ["Features", "LastLayers", "Places", "ProxyRows", "Weights"]

_COMPILED = "CompiledFunctionBackward"


class Places:
    """Where a proxy looks in the graphs of one evaluation of the losses.

    Attributes:
        layers: calls of layers in closed form.
        leaves: weights that are differentiated plainly.
        cut: take the gradients at the cut itself.
    """

    def __init__(self, layers: Sequence[Layer] = (), leaves: Sequence[Tensor] = (), *, cut: bool = False) -> None:
        self.layers = list(layers)
        self.leaves = list(leaves)
        self.cut = cut


class ProxySource(Protocol):
    """Says where a proxy looks."""

    def places(self, cut: Cut, allowed: Iterable[Tensor] | None) -> Places:
        """The places in the graphs of this evaluation; only weights among those allowed, if these are given.

        Raises:
            InputError: there is no such place.
        """


class Features:
    """The activations at which the tasks' graphs meet."""

    def places(self, cut: Cut, allowed: Iterable[Tensor] | None) -> Places:
        """The cut."""
        return Places(cut=True)


class LastLayers:
    """The shared layers nearest to the losses.

    Args:
        count: how many.
        stream: take all layers that write to the residual stream that the last one writes to, if it does.
    """

    def __init__(self, count: int = 1, *, stream: bool = True) -> None:
        self.count = count
        self.stream = stream

    def places(self, cut: Cut, allowed: Iterable[Tensor] | None) -> Places:
        """The layers with a weight matrix that all tasks reach and that ran last; other weights where there is none.

        Raises:
            InputError: no weight that all tasks reach, or it lies in a compiled function.
        """
        among = None if allowed is None else {id(leaf) for leaf in allowed}
        found: dict[int, list[tuple[Any, int]]] = {}
        leaves: dict[int, Tensor] = {}
        vectors: list[Tensor] = []

        def look(node: Any, everybody: Callable[[Tensor], bool]) -> None:
            for slot, leaf in cut.weights.get(node, ()):
                if not leaf.requires_grad or not everybody(leaf) or (among is not None and id(leaf) not in among):
                    continue
                if leaf.dim() < 2:
                    vectors.append(leaf)
                elif id(leaf) in found or len(found) < self.count:
                    _refuse_compiled(node)
                    leaves[id(leaf)] = leaf
                    found.setdefault(id(leaf), []).append((node, slot))

        for node in sorted(cut.weights, key=lambda node: -node._sequence_nr()):
            look(node, cut.everybody)
        if len(found) < self.count:
            for node, tasks in cut.below():
                if tasks == cut.every:
                    look(node, lambda _leaf: True)
                if len(found) == self.count:
                    break
        if found:
            if self.count == 1 and self.stream:
                (key, calls), = found.items()
                stream = stream_of(calls[0][0], leaves[key], cut.parents) if len(calls) == 1 else None
                if stream is not None:
                    return Places([stream])
            return _in_closed_form(found, leaves)
        if not vectors:
            raise InputError(
                "no shared weight that all tasks of the batch reach was found in the losses' graphs; "
                "give proxy= the module whose weights to look at, or leave it out"
            )
        return Places(leaves=vectors[:2])


class Weights:
    """Weights that the user names.

    Args:
        given: the weights.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        self.given = list(given)

    def places(self, cut: Cut, allowed: Iterable[Tensor] | None) -> Places:
        """All calls of the weights.

        Raises:
            InputError: no loss reaches one of them.
        """
        wanted = {id(leaf): leaf for leaf in self.given if leaf.requires_grad}
        for _ in cut.below():
            pass
        calls: dict[int, list[tuple[Any, int]]] = {}
        for node, entries in cut.weights.items():
            for slot, leaf in entries:
                if id(leaf) in wanted:
                    calls.setdefault(id(leaf), []).append((node, slot))
        if not calls:
            raise InputError(
                "no loss reaches the weights that proxy= names in this step (are they used, and do they require grad?)"
            )
        return _in_closed_form(calls, wanted)


def _refuse_compiled(node: Any) -> None:
    if node.name() == _COMPILED:
        raise InputError(
            "the shared layers lie in a compiled function, whose graph is one node: differentiating it once per task would "
            "cost what the exact Gramian costs. Leave the last shared layer out of torch.compile, or say proxy='features' if "
            "the compiled function ends where the tasks part"
        )


def _in_closed_form(calls: Mapping[int, Sequence[tuple[Any, int]]], leaves: Mapping[int, Tensor]) -> Places:
    """Weights by their calls: in closed form where all calls of one have it."""
    layers: list[Layer] = []
    plain: list[Tensor] = []
    for key, found in calls.items():
        made = [layer_of(node, slot, leaves[key]) for node, slot in found]
        known = [layer for layer in made if layer is not None]
        if len(known) == len(made):
            layers += known
        else:
            plain.append(leaves[key])
    return Places(layers, plain)


class ProxyRows:
    """Task gradients of a proxy's places, or sketches of them, added up over the micro-batches of a step.

    Args:
        columns: of the sketches of layers with more inputs than that.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._rows: dict[Any, dict[int, Tensor]] = {}
        self._gramian: Tensor | None = None

    def add(self, cut: Cut, places: Places, flows: Sequence[Mapping[int, Tensor]], caught: Sequence[Tensor | None]) -> None:
        """Adds one evaluation of the losses.

        Args:
            cut: of its graphs.
            places: where to look.
            flows: the tasks' gradients at the cut.
            caught: the gradients at :meth:`above`.
        """
        for layer, gradient in zip(self.above(cut, places), caught, strict=True):
            if gradient is not None:
                self._add(id(layer.weight), cut.reach[layer.node].bit_length() - 1, layer.row(gradient, self.columns))
        below = [layer for layer in places.layers if not cut.above(layer.node)]
        if places.cut:
            for place, flow in enumerate(flows):
                for position, gradient in flow.items():
                    self._add((place, tuple(gradient.shape)), position, gradient)
        if not below and not places.leaves:
            return
        wanted: list[Edge | Tensor] = [*((layer.node, 0) for layer in below), *places.leaves]
        direct = len(wanted) == 1 and cut.edges == wanted
        for position in cut.losses:
            here = [flow.get(position) for flow in flows]
            gradients = here if direct else gradients_at(cut.edges, here, wanted)
            for layer, gradient in zip(below, gradients, strict=False):
                if gradient is not None:
                    self._add(id(layer.weight), position, layer.row(gradient, self.columns))
            for leaf, gradient in zip(places.leaves, gradients[len(below) :], strict=True):
                if gradient is not None:
                    self._add(id(leaf), position, gradient.to_dense() if gradient.is_sparse else gradient)

    @staticmethod
    def above(cut: Cut, places: Places) -> list[Layer]:
        """The layers above the cut, whose gradients come with the heads'."""
        return [layer for layer in places.layers if cut.above(layer.node)]

    def _add(self, key: Any, position: int, row: Tensor) -> None:
        rows = self._rows.setdefault(key, {})
        row = (torch.view_as_real(row) if row.is_complex() else row).flatten()
        rows[position] = rows[position] + row if position in rows else row

    def stacked(self, positions: Sequence[int]) -> Tensor:
        """All of them, ``[k, columns]``, for tasks at these positions; zeros where a task does not reach a place."""
        blocks = []
        for rows in self._rows.values():
            zero = torch.zeros_like(next(iter(rows.values())))
            blocks.append(torch.stack([rows.get(position, zero) for position in positions]))
        if len({block.dtype for block in blocks}) > 1:
            blocks = [block.double() for block in blocks]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)

    def gramian(self, positions: Sequence[int]) -> Tensor:
        """The proxy Gramian ``[k, k]`` in float64."""
        return gramian(self.stacked(positions))
