"""The exact Gramian without K·P numbers: block by block of the graph, whose rows are multiplied and let go.

A block is a stretch of the graph in the order in which a backward pass goes through it. It starts with all tasks' gradients of
the activations at its upper edge; each task is differentiated down to the block's parameters, which gives ``[K, P_block]`` rows
and to those at its lower edge, where the next block goes on. The Gramian is the sum of those of the blocks. What
several blocks reach (tied weights, a cell that runs at every time) is added up before it is multiplied. Rows of a linear map
with few inputs are shortened without a change to their inner products.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from equipoise.engine.gramian import gramian
from equipoise.engine.graph import children
from equipoise.engine.heads import Edge, HeadCut, is_leaf
from equipoise.engine.reals import as_real, real_dtype, size
from equipoise.errors import InputError

__all__ = ["Streamed"]

# How much more than the least memory is taken where that makes fewer blocks.
_SLACK = 1.1

Flows = dict[Edge, dict[int, Tensor]]
"""Gradients of activations, by the edge that they flow along and the position of the task."""


class Streamed:
    """The graph below a cut in blocks.

    Attributes:
        peak: numbers held at once for each task: gradients of activations, and rows of parameters.
        products: ``[k]``, the inner products with what the last Gramian was asked to be taken against.

    Args:
        cut: where the tasks' graphs meet.
        leaves: whose gradients the Gramian is of.
        room: numbers of a block's rows per task that are welcome. Blocks are larger where that holds less in all, for the
            smaller they are, the more activations lie between them.
        inverses: of each leaf, 1/D of the metric that the Gramian is taken in, in pairs of real numbers for complex ones.
    """

    def __init__(self, cut: HeadCut, leaves: Sequence[Tensor], room: int, inverses: Sequence[Tensor] | None = None) -> None:
        if len({leaf.device for leaf in leaves}) > 1:
            devices = ", ".join(sorted({str(leaf.device) for leaf in leaves}))
            raise InputError(f"shared parameters must lie on one device; these lie on {devices}")
        self.leaves = list(leaves)
        self._tasks = list(cut.losses)
        self._inverses = None if inverses is None else [piece.reshape(-1) for piece in inverses]
        # The rows of a linear map keep their inner products when they are shortened, but not those in a metric.
        self._graph = _Graph(cut.edges, self.leaves, shortens=inverses is None)
        self._short = {leaf: _shortened(_inputs(node)) for leaf, node in self._graph.maps.items()}
        self._sizes = [size(leaf) for leaf in self.leaves]
        for leaf, short in self._short.items():
            self._sizes[leaf] = len(self.leaves[leaf]) * len(short)
        self._edges = list(cut.edges)
        self._against: list[Tensor | None] = [None] * len(self.leaves)
        self._outputs: dict[int, Tensor] = {}
        total = sum(self._sizes)
        plans: list[tuple[int, list[int]]] = []
        room = max(1, room, *self._sizes)
        while not plans or room < 2 * total:
            plans.append(self._plan(room, total))
            room *= 2
        least = min(peak for peak, _ in plans)
        # Every block is another start of the engine: few of them, as far as memory hardly tells.
        self.peak, self._stops = min((p for p in plans if p[0] <= _SLACK * least), key=lambda plan: len(plan[1]))

    def _plan(self, room: int, total: int) -> tuple[int, list[int]]:
        """Where blocks end that have so many numbers per task, if that can be, and how many numbers are held at once."""
        graph = self._graph
        opens, closes = [0] * len(graph.order), [0] * len(graph.order)
        for leaf, (first, last) in graph.uses.items():
            opens[first] += self._sizes[leaf]
            closes[last] += self._sizes[leaf]
        opened, closed = list(accumulate(opens)), list(accumulate(closes))
        width, numbers = graph.width, graph.numbers

        def held(start: int, stop: int) -> int:
            """Entries of the rows of a block from one operation to another."""
            return opened[stop] - (closed[start - 1] if start else 0)

        def carried(start: int) -> int:
            return numbers[start - 1] if start else numbers[0]

        stops: list[int] = []
        peak, start, end = 0, 0, len(graph.order) - 1
        for place in range(end + 1):
            while opens[place] and held(start, place) > room and place > start:
                before = closed[start - 1] if start else 0
                gain = closed[place - 1] - before
                # Where the graph is narrow little has to be carried over, and nothing below is entered twice.
                good = [j for j in range(start, place) if 2 * (closed[j] - before) >= gain > 0 and numbers[j] < total]
                if not good:
                    break
                stop = min(good, key=lambda j: (width[j], numbers[j], -j))
                peak = max(peak, held(start, stop) + max(numbers[stop], carried(start)))
                stops.append(stop)
                start = stop + 1
        return max(peak, held(start, end) + carried(start)), [*stops, end]

    @property
    def blocks(self) -> int:
        """How many there are."""
        return len(self._stops)

    def gramian(self, flows: Sequence[Mapping[int, Tensor]], against: Sequence[Tensor | None] = ()) -> Tensor:
        """All inner products of the tasks' gradients, ``[k, k]`` in float64 on the CPU.

        Args:
            flows: the gradient at each edge of the cut by the position of the task.
            against: one more gradient, an entry per leaf; the tasks' products with it are put in :attr:`products`.
        """
        count = len(self._tasks)
        self._against = list(against) or [None] * len(self.leaves)
        self._outputs = {}
        self.products = torch.zeros(count, dtype=torch.float64, device="cpu")
        if not self.leaves:
            return torch.zeros(count, count, dtype=torch.float64, device="cpu")
        total = torch.zeros(count, count, dtype=torch.float64, device=self.leaves[0].device)
        frontier: Flows = {edge: dict(flow) for edge, flow in zip(self._edges, flows, strict=True)}
        rows, uses = _Rows(self.leaves, self._sizes, self._tasks, self._inverses), self._graph.uses
        start = 0
        for stop in self._stops:
            reached = sorted(self._graph.reached(start, stop))
            fresh = [leaf for leaf in reached if uses[leaf][0] >= start]
            rows.begin([leaf for leaf in fresh if uses[leaf][1] <= stop], [leaf for leaf in fresh if uses[leaf][1] > stop])
            frontier = self._through(frontier, start, stop, reached, rows)
            total += rows.close([leaf for leaf in reached if uses[leaf][0] < start and uses[leaf][1] <= stop])
            start = stop + 1
        return total.cpu()

    def _through(self, frontier: Flows, start: int, stop: int, reached: Sequence[int], rows: _Rows) -> Flows:
        """Takes every task from the upper edge of a block to the lower one, and its gradients of the parameters to the rows."""
        graph, below, starts = self._graph, Flows(), []
        for edge, flow in frontier.items():
            leaf = graph.leaf.get(edge[0])
            if leaf is not None:  # the cut itself lies at a parameter
                for task, gradient in flow.items():
                    self._add(rows, leaf, task, gradient)
            elif edge[0] not in graph.place:
                continue
            elif graph.place[edge[0]] <= stop:
                starts.append(edge)
            else:
                below[edge] = flow
        current: list[int] = [0]

        def caught(entries: Sequence[tuple[int, Edge]]) -> Callable[..., None]:
            def hook(gradients: tuple[Tensor | None, ...], _: Any) -> None:
                for slot, edge in entries:
                    gradient = gradients[slot]
                    if gradient is not None:
                        here, task = below.setdefault(edge, {}), current[0]
                        here[task] = here[task] + gradient if task in here else gradient

            return hook

        handles, exits = [], {}
        for node in graph.order[start : stop + 1]:
            entries = [(slot, edge) for slot, edge in graph.children.get(node, ()) if graph.place[edge[0]] > stop]
            if entries and node is not None:
                handles.append(node.register_hook(caught(entries)))
                exits.update(dict.fromkeys(edge for _, edge in entries))
        # An exit may lie below another, and so may a parameter that is reached again.
        handles += [node.register_prehook(_stopped) for node in {edge[0] for edge in exits}]
        # The weight of a linear map is not differentiated: its rows follow from the gradients of the map's outputs.
        maps = [leaf for leaf in reached if leaf in self._short]
        for leaf in maps:
            weight = self._against[leaf]
            if weight is not None:  # ⟨δᵀa, W⟩ = ⟨δ, a Wᵀ⟩
                self._outputs[leaf] = _inputs(graph.maps[leaf]) @ weight.T
        outputs: dict[int, Tensor | None] = {}
        handles += [graph.maps[leaf].register_prehook(_noted(outputs, leaf)) for leaf in maps]
        reached = [leaf for leaf in reached if leaf not in self._short]
        wanted: list[Any] = [self.leaves[leaf] for leaf in reached]
        wanted += [GradientEdge(graph.maps[leaf], 0) for leaf in maps]
        inputs = [*wanted, *(GradientEdge(*edge) for edge in exits)]
        try:
            for task in self._tasks if inputs else ():
                flows = {edge: frontier[edge].pop(task) for edge in starts if task in frontier[edge]}
                if not flows:
                    continue
                current[0] = task
                outputs.clear()
                gradients = torch.autograd.grad(
                    cast(list[Tensor], [GradientEdge(*edge) for edge in flows]),
                    cast(list[Tensor], inputs),
                    list(flows.values()),
                    retain_graph=True,
                    allow_unused=True,
                )
                for leaf, gradient in zip(reached, gradients, strict=False):
                    if gradient is not None:
                        self._add(rows, leaf, task, gradient)
                for leaf, gradient in zip(maps, gradients[len(reached) :], strict=False):
                    # An operation that is run has its hooks on this gradient run after it is taken.
                    output = outputs.get(leaf, gradient)
                    if output is not None:
                        rows.add(leaf, task, output.T @ self._short[leaf])
                        if self._against[leaf] is not None:
                            self._count(task, output, self._outputs[leaf])
        finally:
            for handle in handles:
                handle.remove()
        self._outputs.clear()
        return below

    def _add(self, rows: _Rows, leaf: int, task: int, gradient: Tensor) -> None:
        rows.add(leaf, task, gradient)
        against = self._against[leaf]
        if against is not None:
            self._count(task, gradient.to_dense(), against)

    def _count(self, task: int, gradient: Tensor, against: Tensor) -> None:
        product = as_real(gradient) * as_real(against)
        self.products[self._tasks.index(task)] += product.sum(dtype=torch.float64).cpu()


class _Graph:
    """The operations below some edges that lead to leaves, in an order of a backward pass.

    Attributes:
        order: the operations; the first entry stands for what is above the edges.
        place: of each operation in the order.
        children: of each operation, which of its inputs lead on and along what edge; leaves are left out.
        leaf: of the nodes of leaves, which one that is.
        uses: of each leaf that is reached, the first and the last place of an operation that takes it.
        width: how many edges lead from what comes up to each place to what comes after it.
        numbers: how many numbers flow there.
        maps: of leaves that are the weight of a single linear map, its operation, which counts as the one that takes them.
    """

    def __init__(self, edges: Sequence[Edge], leaves: Sequence[Tensor], *, shortens: bool = True) -> None:
        numbers = {id(leaf): place for place, leaf in enumerate(leaves)}
        self.leaf: dict[Any, int] = {}
        taken: dict[Any, list[int]] = {None: []}
        every: dict[Any, list[tuple[int, Edge]]] = {None: list(enumerate(edges))}
        parents: dict[Any, int] = {}
        turned: dict[Any, list[tuple[Any, int]]] = {}
        waiting: list[Any] = [None]
        while waiting:
            node = waiting.pop()
            kept, found = [], taken.setdefault(node, [])
            for slot, edge in every[node] if node is None else enumerate(children(node)):
                child = edge[0]
                if child is None:
                    continue
                if is_leaf(child):
                    number = numbers.get(id(child.variable))
                    if number is not None:
                        self.leaf[child] = number
                        found.append(number)
                    continue
                kept.append((slot, edge))
                if node is not None and child.name() == "TBackward0":
                    turned.setdefault(child, []).append((node, slot))
                if child not in parents:
                    waiting.append(child)
                parents[child] = parents.get(child, 0) + 1
            every[node] = kept
        # An operation comes after all that lead to it, and of those that may come the latest one first.
        order: list[Any] = []
        ready: list[tuple[int, int, Any]] = [(0, 0, None)]
        count = 0
        while ready:
            node = heapq.heappop(ready)[2]
            order.append(node)
            for _, (child, _) in every[node]:
                parents[child] -= 1
                if not parents[child]:
                    count += 1
                    heapq.heappush(ready, (-child._sequence_nr(), count, child))
        self.maps: dict[int, Any] = {}
        used = Counter(leaf for found in taken.values() for leaf in found)
        for node, above in turned.items() if shortens else ():
            if len(above) == len(taken[node]) == 1 and _MAPS.get(above[0][0].name()) == above[0][1]:
                leaf = taken[node][0]
                if used[leaf] == 1 and _may_be_shortened(above[0][0], leaves[leaf]):
                    self.maps[leaf] = above[0][0]
                    taken[node] = []
                    taken[above[0][0]].append(leaf)
        leading: set[Any] = {None}
        for node in reversed(order):
            every[node] = [entry for entry in every[node] if entry[1][0] in leading]
            if every[node] or taken[node]:
                leading.add(node)
        self.order = [node for node in order if node in leading]
        self.place = {node: place for place, node in enumerate(self.order)}
        self.children = {node: every[node] for node in self.order}
        self._taken = [taken[node] for node in self.order]
        self.uses: dict[int, tuple[int, int]] = {}
        for place, found in enumerate(self._taken):
            for leaf in found:
                self.uses[leaf] = (self.uses.get(leaf, (place, place))[0], place)
        self.width, self.numbers = self._frontiers()

    def reached(self, start: int, stop: int) -> set[int]:
        """The leaves that operations from one place to another take."""
        return {leaf for found in self._taken[start : stop + 1] for leaf in found}

    def _frontiers(self) -> tuple[list[int], list[int]]:
        open_: dict[Any, dict[Edge, int]] = {}
        widths, numbers, width, number = [], [], 0, 0
        for node in self.order:
            ended = open_.pop(node, {})
            width -= len(ended)
            number -= sum(ended.values())
            for _, edge in self.children[node]:
                here = open_.setdefault(edge[0], {})
                if edge not in here:
                    here[edge] = math.prod(edge[0]._input_metadata[edge[1]].shape)
                    width += 1
                    number += here[edge]
            widths.append(width)
            numbers.append(number)
        return widths, numbers


class _Rows:
    """Rows ``[k, …]`` of a block's leaves, in one buffer that serves all blocks, and of leaves that several blocks reach."""

    def __init__(
        self, leaves: Sequence[Tensor], sizes: Sequence[int], tasks: Sequence[int], inverses: Sequence[Tensor] | None
    ) -> None:
        self._sizes = sizes
        self._inverses = inverses
        self._row = {task: row for row, task in enumerate(tasks)}
        self._dtype = real_dtype(leaves)
        self._storage = torch.empty(0, dtype=self._dtype, device=leaves[0].device)
        self._block = self._storage
        self._views: dict[int, Tensor] = {}
        self._written: dict[int, set[int]] = {}
        self._alone: dict[int, Tensor] = {}

    def begin(self, passing: Sequence[int], staying: Sequence[int]) -> None:
        """Makes room for leaves that this block alone reaches, and for others that are first reached by it."""
        sizes = [self._sizes[leaf] for leaf in passing]
        count, width = len(self._row), sum(sizes)
        # Rows a multiple of the page size apart would compete for the same places of the cache.
        stride = width + (16 if width % 1024 == 0 else 0)
        if count * stride > len(self._storage):
            self._storage = self._block = self._storage.new_empty(0)  # lets go of the smaller one first
            self._storage = self._storage.new_empty(count * stride)
        self._block = self._storage[: count * stride].view(count, stride)[:, :width]
        pieces = zip(passing, self._block.split(sizes, 1) if passing else (), strict=True)
        self._views = dict(pieces)
        for leaf in staying:
            self._alone[leaf] = self._storage.new_empty(count, self._sizes[leaf])
        self._written |= {leaf: set() for leaf in (*passing, *staying)}

    def add(self, leaf: int, task: int, gradient: Tensor) -> None:
        """Adds to a task's row."""
        row, written = self._row[task], self._written[leaf]
        piece = as_real(gradient.to_dense() if gradient.is_sparse else gradient)
        rows = self._views[leaf] if leaf in self._views else self._alone[leaf]
        place = rows[row].view(piece.shape)
        if row in written:
            place.add_(piece)
        else:
            place.copy_(piece)
            written.add(row)

    def close(self, ended: Sequence[int]) -> Tensor:
        """The Gramian of the rows of the block, and of the leaves that it ends."""
        for leaf, rows in self._views.items():
            self._fill(leaf, rows)
        total = gramian(self._block, self._metric(list(self._views)))
        for leaf in ended:
            rows = self._alone.pop(leaf)
            self._fill(leaf, rows)
            total = total + gramian(rows, self._metric([leaf]))
        return total

    def _metric(self, leaves: Sequence[int]) -> Tensor | None:
        if self._inverses is None or not leaves:
            return None
        return torch.cat([self._inverses[leaf] for leaf in leaves])

    def _fill(self, leaf: int, rows: Tensor) -> None:
        written = self._written.pop(leaf)
        for row in range(len(rows)):
            if row not in written:
                rows[row].zero_()


def _stopped(gradients: tuple[Tensor | None, ...]) -> tuple[None, ...]:
    """Lets nothing pass: what lies below is for the next block."""
    return (None,) * len(gradients)


def _noted(outputs: dict[int, Tensor | None], leaf: int) -> Callable[..., None]:
    def hook(gradients: tuple[Tensor | None, ...]) -> None:
        outputs[leaf] = gradients[0]

    return hook


def _inputs(node: Any) -> Tensor:
    """What a linear map was given, ``[n, i]``."""
    inputs: Tensor = node._saved_mat1 if node.name() == "AddmmBackward0" else node._saved_self
    return inputs.detach()


def _may_be_shortened(node: Any, weight: Tensor) -> bool:
    """Whether a linear map got fewer inputs than they have entries, so that its rows can be shorter than its weight."""
    if weight._backward_hooks or weight.is_complex() or (node.name() == "AddmmBackward0" and node._saved_alpha != 1):
        return False
    count, width = node._saved_mat1_sym_sizes if node.name() == "AddmmBackward0" else node._saved_self_sym_sizes
    return width == weight.shape[1] and 2 * count <= width and weight.dtype in (torch.float32, torch.float64)


def _shortened(inputs: Tensor) -> Tensor:
    """L with a = L V and orthonormal rows V: the rows δᵀa have the inner products of δᵀL, which has n columns and not i."""
    upper: Tensor = torch.linalg.qr(inputs.T, mode="r")[1]
    return upper.T


# Operations of linear maps, and where they take the weight.
_MAPS = {"AddmmBackward0": 2, "MmBackward0": 1}
