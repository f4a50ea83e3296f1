"""Proxy Gramians: the inner products of the tasks' gradients of a few shared weights, which cost far less than those of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from equipoise.engine.gramian import gramian
from equipoise.engine.graph import edge_of
from equipoise.engine.heads import Edge, HeadCut, gradients_at, gradients_together, is_leaf
from equipoise.engine.layers import Layer, layer_of, streams_of
from equipoise.engine.reals import as_real
from equipoise.engine.shared import counted
from equipoise.errors import InputError

__all__ = ["Features", "LastLayers", "NamedWeights", "Places", "ProxyRows", "ProxySource"]

_COMPILED = "CompiledFunctionBackward"


class Places:
    """Where a proxy looks in the graphs of one evaluation of the losses.

    Attributes:
        layers: calls of layers in closed form.
        leaves: weights that are differentiated plainly.
        cut: take the gradients at the cut itself.
        weights: of the layers, and the leaves.
    """

    def __init__(
        self,
        layers: Sequence[Layer] = (),
        leaves: Sequence[Tensor] = (),
        *,
        cut: bool = False,
        weights: Iterable[Tensor] | None = None,
    ) -> None:
        self.layers = list(layers)
        self.leaves = list(leaves)
        self.cut = cut
        self.weights = [*(layer.weight for layer in layers), *leaves] if weights is None else list(weights)


@runtime_checkable
class ProxySource(Protocol):
    """Says where a proxy looks; ``equipoise.Proxy`` takes one of a user's own."""

    def places(self, cut: HeadCut, allowed: Iterable[Tensor] | None) -> Places:
        """The places in the graphs of this evaluation; only weights among those allowed, if these are given.

        Raises:
            InputError: there is no such place.
        """


class Features:
    """The activations at which the tasks' graphs meet."""

    def places(self, cut: HeadCut, allowed: Iterable[Tensor] | None) -> Places:
        """The cut; one task alone parts from nobody, and its last layer has to do.

        Raises:
            InputError: no two tasks meet at one activation there, whose gradients could be compared.
        """
        if len(cut.losses) > 1:
            tasks: dict[int, set[int]] = {}
            for place, position in cut.seeded:
                tasks.setdefault(place, set()).add(position)
            for found in cut.feeds.values():
                for _, place, position in found:
                    tasks.setdefault(place, set()).add(position)
            if not any(len(positions) > 1 for positions in tasks.values()):
                raise InputError(
                    "the tasks meet at no activation that could be seen (do they part inside a compiled function, or as "
                    'outputs of one operation?); take the heads out of torch.compile, or another proxy than "features"'
                )
        if not cut.edges and cut.several_processes:
            raise InputError(
                'proxy="features" looks where tasks part, and this process holds one task alone: say what is shared (shared=), '
                'or take proxy="last"'
            )
        return Places(cut=True) if cut.edges else LastLayers().places(cut, allowed)


class LastLayers:
    """The shared layers nearest to the losses.

    Args:
        count: how many.
        stream: take all layers that write to the residual stream that the last one writes to, if it does.
    """

    def __init__(self, count: int = 1, *, stream: bool = True) -> None:
        self.count = count
        self.stream = stream
        self.pinned: list[Tensor] = []

    def places(self, cut: HeadCut, allowed: Iterable[Tensor] | None) -> Places:
        """The layers with a weight matrix that all tasks reach and that ran last; other weights where there is none.

        Raises:
            InputError: no weight that all tasks reach, or it lies in a compiled function.
        """
        # A batch that lacks tasks must not look elsewhere than the others do.
        found = self._search(cut, self.pinned, plain=True) if self.pinned else {}
        if len(found) < self.count:
            # Other leaves are inputs that require grad, where there are parameters.
            found = self._search(cut, allowed, plain=allowed is not None) or self._search(cut, allowed, plain=True)
        leaves = {id(leaf): leaf for leaf, _ in found.values()}
        calls = {key: entries for key, (_, entries) in found.items()}
        if not found:
            vectors: list[Tensor] = [
                leaf
                for node in sorted(cut.weights, key=_order)
                for _, entry in cut.weights[node]
                if cut.every in (cut.reach[node], cut.reach.get(entry)) and _among(leaf := entry.variable, allowed)
            ]
            if not vectors:
                raise InputError(
                    "no shared weight that all tasks of the batch reach was found in the losses' graphs; "
                    "give proxy= the module whose weights to look at, or leave it out"
                )
            return Places(leaves=counted(vectors, vectors)[:2])
        if len(calls) == self.count == 1 and self.stream:
            ((key, entries),) = calls.items()
            streams = streams_of([node for node, _ in entries], leaves[key], cut)
            if streams is not None:
                return Places(streams, weights=leaves.values())
        return _in_closed_form(calls, leaves)

    def _search(
        self, cut: HeadCut, allowed: Iterable[Tensor] | None, *, plain: bool
    ) -> dict[int, tuple[Tensor, list[tuple[Any, int]]]]:
        """Weights with the operations that take them, latest first."""
        among = None if allowed is None else {id(leaf) for leaf in allowed}
        found: dict[int, tuple[Tensor, list[tuple[Any, int]]]] = {}

        def look(node: Any) -> None:
            for slot, entry in cut.weights.get(node, ()):
                if cut.every not in (cut.reach[node], cut.reach.get(entry)):
                    continue
                leaf = entry.variable
                if leaf.dim() < 2 or (among is not None and id(leaf) not in among) or not (plain or _trained(leaf)):
                    continue
                if id(leaf) in found or len(found) < self.count:
                    _refuse_compiled(node)
                    found.setdefault(id(leaf), (leaf, []))[1].append((node, slot))

        # Of the operations above the cut only those count whose weights others reach, too.
        alike = [n for n, e in cut.weights.items() if cut.every in (cut.reach[n], *(cut.reach.get(leaf) for _, leaf in e))]
        for node in sorted(alike, key=_order):
            look(node)
        if len(found) < self.count:
            for node, _ in cut.below():
                _refuse_reentrant(node)
                look(node)
                if len(found) == self.count:
                    break
        return found


def _trained(leaf: Tensor) -> bool:
    return isinstance(leaf, nn.Parameter)


def _order(node: Any) -> int:
    return -int(node._sequence_nr())


def _among(leaf: Tensor, allowed: Iterable[Tensor] | None) -> bool:
    return allowed is None or any(leaf is other for other in allowed)


class NamedWeights:
    """Weights that the user names.

    Args:
        given: the weights.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        self.given = list(given)

    def places(self, cut: HeadCut, allowed: Iterable[Tensor] | None) -> Places:
        """All calls of the weights.

        Raises:
            InputError: no loss reaches one of them.
        """
        wanted = {id(leaf): leaf for leaf in self.given if leaf.requires_grad}
        for _ in cut.below():
            pass
        calls: dict[int, list[tuple[Any, int]]] = {}
        for node, entries in cut.weights.items():
            for slot, entry in entries:
                if id(entry.variable) in wanted:
                    calls.setdefault(id(entry.variable), []).append((node, slot))
        if not calls:
            raise InputError(
                "no loss reaches the weights that proxy= names in this step (are they used, and do they require grad?)"
            )
        reached = [cut.reach[entry] for found in calls.values() for node, slot in found for entry in [_taken(node, slot)[-1]]]
        together = 0
        for tasks in reached:
            together |= tasks if len(cut.losses) == 1 or tasks & (tasks - 1) else 0
        if together != cut.every:
            raise InputError(
                f"{(cut.every & ~together).bit_count()} of the {len(cut.losses)} tasks reach no weight named in proxy= "
                f"that others reach, too, so nothing compares their gradients; name weights of what all tasks share"
            )
        return _in_closed_form(calls, wanted)


def _refuse_compiled(node: Any) -> None:
    if node.name() == _COMPILED:
        raise InputError(
            "the shared layers lie in a compiled function, whose graph is one node: differentiating it once per task would "
            "cost what the exact Gramian costs. Leave the last shared layer out of torch.compile, or say proxy='features' if "
            "the compiled function ends where the tasks part"
        )


def _refuse_reentrant(node: Any) -> None:
    if node.name() == "CheckpointFunctionBackward":
        raise InputError(
            "the shared layers lie in a checkpoint with use_reentrant=True, which hides them; checkpoint with "
            "use_reentrant=False, or say proxy='features' if the checkpoint ends where the tasks part"
        )


def _taken(node: Any, slot: int) -> list[Any]:
    """The nodes from what an operation takes to the leaf that this is a view or cast of."""
    chain = [node.next_functions[slot][0]]
    while not is_leaf(chain[-1]):
        chain.append(chain[-1].next_functions[0][0])
    return chain


def _lying(node: Any, slot: int) -> tuple[Any, ...]:
    """How a weight lies in what an operation takes, such that equal answers are known to mean the same."""
    steps = [
        id(step) if step.name() in ("PermuteBackward0", "TransposeBackward0") else (step.name(), *step._input_metadata[0].shape)
        for step in _taken(node, slot)[:-1]
    ]
    return node.name(), slot, *steps


def _in_closed_form(calls: Mapping[int, Sequence[tuple[Any, int]]], leaves: Mapping[int, Tensor]) -> Places:
    """Weights by their calls: in closed form where all calls of one have it."""
    layers: list[Layer] = []
    plain: list[Tensor] = []
    for key, found in calls.items():
        # Gradients of several calls are added up, so the weight must lie the same way in all of them.
        alike = len(found) == 1 or len({_lying(node, slot) for node, slot in found}) == 1
        made = [layer_of(node, slot, leaves[key]) if alike else None for node, slot in found]
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
        inverses: 1/D of the metric that the Gramian is taken in, for a weight; then all places must be ``leaves``.
    """

    def __init__(self, columns: int, inverses: Callable[[Tensor], Tensor] | None = None) -> None:
        self.columns = columns
        self._inverses = inverses
        self._rows: dict[Any, dict[int, Tensor]] = {}
        self._blocks: dict[Any, tuple[tuple[int, ...], Tensor]] = {}
        self._by_sample: dict[Any, dict[int, Tensor]] = {}
        self._products: list[tuple[list[int], Tensor]] = []

    @torch.no_grad()  # saved inputs of layers have graphs, and products with what has one take another way
    def add(
        self,
        cut: HeadCut,
        places: Places,
        flows: Sequence[Mapping[int, Tensor]],
        caught: Sequence[Tensor | None],
        tasks: Sequence[int],
        stacks: Sequence[Tensor] | None = None,
    ) -> None:
        """Adds the gradients of some tasks.

        Args:
            cut: of the graphs of one evaluation of the losses.
            places: where to look.
            flows: the tasks' gradients at the cut.
            caught: the gradients at :meth:`above`.
            tasks: positions of these tasks.
            stacks: the same as ``flows``, side by side in the order of ``tasks``.
        """
        for (_, position, entry), gradient in zip(self.above(cut, places), caught, strict=True):
            if gradient is not None and position in tasks:
                if isinstance(entry, Layer):
                    self._add(self._rows, id(entry.weight), position, entry.row(gradient, self.columns))
                else:
                    self._add(self._rows, id(entry), position, self._measured(entry, gradient))
        if places.cut:
            for place, flow in enumerate(flows):
                for position in tasks:
                    if position in flow:
                        self._add(self._by_sample, place, position, flow[position])
        below = [layer for layer in places.layers if not cut.above(layer.node)]
        if not below and not places.leaves:
            return
        wanted: list[Edge | Tensor] = [*((layer.node, 0) for layer in below), *places.leaves]
        direct = len(wanted) == 1 and cut.edges == wanted
        if stacks is not None:
            together = list(stacks) if direct else gradients_together(cut.edges, stacks, wanted)
            for layer, several in zip(below, together, strict=False):
                if several is not None:
                    self._add_all(id(layer.weight), tasks, layer.row(several, self.columns))
            for leaf, several in zip(places.leaves, together[len(below) :], strict=True):
                if several is not None:
                    self._add_all(id(leaf), tasks, self._measured(leaf, several))
            return
        for position in tasks:
            here = [flow.get(position) for flow in flows]
            gradients = here if direct else gradients_at(cut.edges, here, wanted)
            for layer, gradient in zip(below, gradients, strict=False):
                if gradient is not None:
                    self._add(self._rows, id(layer.weight), position, layer.row(gradient, self.columns))
            for leaf, gradient in zip(places.leaves, gradients[len(below) :], strict=True):
                if gradient is not None:
                    self._add(self._rows, id(leaf), position, self._measured(leaf, gradient))

    def _measured(self, leaf: Tensor, gradient: Tensor) -> Tensor:
        """The gradient of a weight, or several ``[k, …]``, times the root of 1/D."""
        if self._inverses is None:
            return gradient
        return as_real(gradient.to_dense()) * self._inverses(leaf).sqrt()

    def close(self) -> None:
        """Ends an evaluation: gradients of activations belong to its samples, and meet no others."""
        if self._by_sample:
            # Of many tasks an evaluation may hold few; work and memory are those of these.
            held = sorted({position for rows in self._by_sample.values() for position in rows})
            self._products.append((held, gramian(self._stacked(self._by_sample, held))))
            self._by_sample = {}

    @property
    def filled(self) -> bool:
        """Whether anything was added."""
        return bool(self._rows) or bool(self._blocks) or bool(self._products)

    @property
    def uneven(self) -> bool:
        """Whether some tasks were seen at weights where others were not."""
        return len({frozenset(rows) for rows in [*self._rows.values(), *(tasks for tasks, _ in self._blocks.values())]}) > 1

    @staticmethod
    def above(cut: HeadCut, places: Places) -> list[tuple[Edge, int, Layer | Tensor]]:
        """Layers and weights above the cut, whose gradients come with the heads': where, whose, and what."""
        found: list[tuple[Edge, int, Layer | Tensor]] = [
            ((layer.node, 0), cut.reach[layer.node].bit_length() - 1, layer) for layer in places.layers if cut.above(layer.node)
        ]
        if places.leaves:
            whose = {id(leaf): position for position, leaves in cut.own.items() for leaf in leaves}
            found += [
                (edge, whose[id(leaf)], leaf)
                for edge, leaf in ((edge_of(leaf), leaf) for leaf in places.leaves if id(leaf) in whose)
                if cut.above(edge[0])
            ]
        return found

    @staticmethod
    def at_cut(cut: HeadCut, places: Places) -> bool:
        """Whether some of the places can be reached from the cut only."""
        return bool(places.cut or places.leaves) or not all(cut.above(layer.node) for layer in places.layers)

    def gramian(self, positions: Sequence[int], add_up: Callable[[Tensor], Tensor]) -> Tensor:
        """The proxy Gramian ``[k, k]`` in float64 on the CPU, for tasks at these positions.

        Args:
            positions: of the tasks present anywhere.
            add_up: adds a tensor up over all processes.
        """
        total = torch.zeros(len(positions), len(positions), dtype=torch.float64, device="cpu")
        if len(self._blocks) == 1 and not self._rows and next(iter(self._blocks.values()))[0] == tuple(positions):
            total = total + gramian(add_up(next(iter(self._blocks.values()))[1])).cpu()
        elif self._rows or self._blocks:
            for key in list(self._blocks):
                self._unpack(key)
            total = total + gramian(add_up(self._stacked(self._rows, positions))).cpu()
        if self._products:
            products = torch.zeros(len(positions), len(positions), dtype=torch.float64, device=self._products[0][1].device)
            order = {position: place for place, position in enumerate(positions)}
            for held, product in self._products:
                places = torch.tensor([order[position] for position in held], device=products.device)
                products[places[:, None], places] += product
            total = total + add_up(products).cpu()
        return total

    def _add_all(self, key: Any, tasks: Sequence[int], rows: Tensor) -> None:
        rows = (torch.view_as_real(rows) if rows.is_complex() else rows).flatten(1)
        if key not in self._rows and key not in self._blocks:
            self._blocks[key] = (tuple(tasks), rows)
            return
        self._unpack(key)
        for position, row in zip(tasks, rows, strict=True):
            self._add(self._rows, key, position, row)

    def _unpack(self, key: Any) -> None:
        """Takes rows that lie side by side apart, where others are to be added."""
        if key in self._blocks:
            tasks, rows = self._blocks.pop(key)
            for position, row in zip(tasks, rows, strict=True):
                self._add(self._rows, key, position, row)

    @staticmethod
    def _add(rows: dict[Any, dict[int, Tensor]], key: Any, position: int, row: Tensor) -> None:
        here = rows.setdefault(key, {})
        row = row.to_dense()
        row = (torch.view_as_real(row) if row.is_complex() else row).flatten()
        here[position] = here[position] + row if position in here else row

    @staticmethod
    def _stacked(found: Mapping[Any, Mapping[int, Tensor]], positions: Iterable[int]) -> Tensor:
        """All rows side by side, ``[k, columns]``; zeros where a task does not reach a place."""
        blocks = []
        for rows in found.values():
            zero = torch.zeros_like(next(iter(rows.values())))
            blocks.append(torch.stack([rows.get(position, zero) for position in positions]))
        if len({block.dtype for block in blocks}) > 1:
            blocks = [block.double() for block in blocks]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)
