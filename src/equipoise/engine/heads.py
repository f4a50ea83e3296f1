"""Where the graphs of several losses meet: the tasks' heads are differentiated once, together, down to that cut.

What lies above the cut is reached by one task alone, so one backward pass of all losses gives every task's gradient there: the
nodes that feed the cut tell whose it is. What lies below is shared, and can be differentiated once with the tasks' weighted
gradients, whatever K.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from equipoise.engine.batched import gradients_at_once
from equipoise.engine.graph import children, origin, roots

__all__ = ["Edge", "HeadCut", "gradients_at", "gradients_together", "is_leaf", "numbered_in_order"]

Edge = tuple[Any, int]
"""A node of the autograd graph and which of its outputs."""


class HeadCut:
    """The edges at which the graphs of several losses meet, found from the losses down.

    Nodes are visited latest operation first, so all that leads to a node was seen before it, and nothing below the cut is
    visited until :meth:`below` is asked for it.

    Attributes:
        edges: where tasks meet; leaves that several tasks reach among them.
        own: by position of the task, the leaves that it alone reaches.
        reach: for every node seen, the set of tasks that reach it, as bits.
        every: all tasks, as bits.
        several_processes: whether there are processes, whose wrappers lie in the graph.
        parents: for nodes below the cut that were seen, those that lead to them.
        weights: for operations seen that take leaves, directly or cast, transposed or reshaped: in what places, and the
            leaves' nodes.

    Args:
        losses: by the position of their task.
        shared: leaves that are shared although only one task may reach them above the cut (tied weights).
        ranked: put the operations in order by a walk over all of them, not by their numbers: those that ran in several
            threads are not :func:`numbered_in_order`.
    """

    def __init__(self, losses: Mapping[int, Tensor], shared: Iterable[Tensor] = (), *, ranked: bool = False) -> None:
        self.losses = dict(losses)
        self.edges: list[Edge] = []
        self.own: dict[int, list[Tensor]] = {position: [] for position in losses}
        self.reach: dict[Any, int] = {}
        self.every = sum(1 << position for position in losses)
        self.feeds: dict[Any, list[tuple[int, int, int]]] = {}
        self.seeded: list[tuple[int, int]] = []
        self.weights: dict[Any, list[tuple[int, Any]]] = {}
        self.parents: dict[Any, list[Any]] = {}
        self._shared = {id(leaf) for leaf in shared}
        self._heap: list[tuple[int, int, Any]] = []
        self._count = 0
        self._places: dict[Edge, int] = {}
        self._visited: dict[Any, Sequence[Edge]] = {}
        self._linked: set[Any] = set()
        self._leading: dict[Any, list[Any]] = {}
        self._led = 0
        # Without processes there is no wrapper to look through, and a walk that need not is faster.
        self.several_processes = dist.is_available() and dist.is_initialized()
        roots = {position: _edge(loss) for position, loss in losses.items()}
        self._ranks = _ranks(node for node, _ in roots.values()) if ranked else {}
        self._search(roots)
        self._find_edges(roots)

    def _search(self, roots: Mapping[int, Edge]) -> None:
        """Visits what one task alone reaches, and marks what it meets."""
        alone = 0
        for position, (node, _) in roots.items():
            alone += self._reached(node, 1 << position)
        # One task alone meets nobody: the cut is then at its leaves.
        several = len(self.losses) > 1
        reach, heap, reached, visited = self.reach, self._heap, self._reached, self._visited
        # A walk from the latest operation on is over when no task is alone. Nodes that another thread made (a device's, in a
        # differentiation that is differentiated) have numbers of their own, so nothing is sure before the end.
        since, until = (-math.inf, math.inf) if self._ranks else _numbers()
        lowest, whole = math.inf, not several
        while heap and (alone > 0 or whole or -heap[0][0] >= lowest):
            number, _, node = heapq.heappop(heap)
            number = -number
            tasks = reach[node]
            below = visited.get(node)
            if below is None:
                visited[node] = below = self._below(node)
                whole = whole or not since <= number <= until
                self._consume(node, below)
            if not tasks & (tasks - 1):
                alone -= 1
                if type(node).__name__ in _RENEWED:
                    lowest = min(lowest, number - _SLACK)
            else:
                self._link(node, below)
            for child, _ in below:
                if child is not None:
                    alone += reached(child, tasks)
            whole = whole or (not alone and any(not since <= -entry[0] <= until for entry in heap))

    def below(self) -> Iterator[tuple[Any, int]]:
        """The shared nodes with the tasks that reach them as bits, latest first."""
        while self._heap:
            node = heapq.heappop(self._heap)[2]
            tasks, below = self.reach[node], self._visited.get(node)
            if below is None:
                self._visited[node] = below = self._below(node)
                self._consume(node, below)
            self._link(node, below)
            for child, _ in below:
                if child is not None:
                    self._reached(child, tasks)
            yield node, tasks

    def _link(self, node: Any, below: Sequence[Edge]) -> None:
        """Notes a node below the cut among the parents of others."""
        if node not in self._linked:
            self._linked.add(node)
            for child, _ in below:
                if child is not None:
                    self.parents.setdefault(child, []).append(node)

    def leading(self) -> dict[Any, list[Any]]:
        """For all nodes seen, above the cut and below, those that lead to them."""
        if self._led != len(self._visited):
            self._led, self._leading = len(self._visited), {}
            for node, below in self._visited.items():
                for child, _ in below:
                    self._leading.setdefault(child, []).append(node)
        return self._leading

    def shared_leaves(self) -> list[Tensor]:
        """All leaves that several tasks reach, at and below the cut and above it, and those given as shared."""
        for _ in self.below():
            pass
        return [node.variable for node in self.reach if type(node) is _LEAF and self._meets(node)]

    def above(self, node: Any) -> bool:
        """Whether one task alone reaches an operation."""
        tasks = self.reach[node]
        return not tasks & (tasks - 1)

    def _below(self, node: Any) -> Sequence[Edge]:
        return tuple(children(node)) if self.several_processes else node.next_functions

    def _reached(self, node: Any, tasks: int) -> int:
        """Marks a node as reached; returns the change in the number of waiting nodes that one task alone reaches."""
        reach = self.reach
        before = reach.get(node)
        if before is None:
            reach[node] = tasks
            if type(node) is _LEAF:
                return 0
            self._push(node)
            return 0 if tasks & (tasks - 1) else 1
        after = before | tasks
        if after == before:
            return 0
        reach[node] = after
        if type(node) is _LEAF:
            return 0
        if node in self._visited:
            # Its number is no later than that of one it leads to: what lies below has to hear of this, too.
            self._push(node)
            return 0
        return 0 if before & (before - 1) else -1

    def _push(self, node: Any) -> None:
        self._count += 1
        rank = self._ranks[node] if self._ranks else -node._sequence_nr()
        heapq.heappush(self._heap, (rank, self._count, node))

    def _consume(self, node: Any, below: Sequence[Edge]) -> None:
        """Notes which leaves an operation takes."""
        if type(node).__name__ in _HARMLESS:
            return
        for slot, (child, _) in enumerate(below):
            while child is not None and type(child).__name__ in _HARMLESS:
                child = child.next_functions[0][0]
            if type(child) is _LEAF:
                self.weights.setdefault(node, []).append((slot, child))

    def _find_edges(self, roots: Mapping[int, Edge]) -> None:
        for position, edge in roots.items():
            if self._meets(edge[0]):
                self.seeded.append((self._place(edge), position))
            elif type(edge[0]) is _LEAF:
                self.own[position].append(edge[0].variable)
        for node, below in self._visited.items():
            if not self.above(node):
                continue
            position = self.reach[node].bit_length() - 1
            for slot, edge in enumerate(below):
                child = edge[0]
                if child is None:
                    continue
                if self._meets(child):
                    self.feeds.setdefault(node, []).append((slot, self._place(edge), position))
                elif type(child) is _LEAF:
                    self.own[position].append(child.variable)
        self.own = {position: list(dict.fromkeys(found)) for position, found in self.own.items()}

    def _meets(self, node: Any) -> bool:
        tasks = self.reach[node]
        return bool(tasks & (tasks - 1)) or (type(node) is _LEAF and id(node.variable) in self._shared)

    def _place(self, edge: Edge) -> int:
        if edge not in self._places:
            self._places[edge] = len(self.edges)
            self.edges.append(edge)
        return self._places[edge]

    @property
    def size(self) -> int:
        """Numbers in one task's gradient at the cut."""
        return sum(math.prod(node._input_metadata[place].shape) for node, place in self.edges)

    def differentiate(
        self,
        seeds: Mapping[int, Tensor | None],
        wanted: Sequence[Edge] = (),
        *,
        own: bool = True,
        tasks: Sequence[int] | None = None,
        summed: bool = False,
        at_cut: bool = True,
    ) -> tuple[list[dict[int, Tensor]], dict[int, list[Tensor | None]], list[Tensor | None]]:
        """One backward pass of the losses down to the cut; the graph stays.

        Args:
            seeds: what each task's loss is multiplied with; 1 where it is ``None``.
            wanted: further edges above the cut.
            own: take the gradients of the leaves that one task alone reaches, too.
            tasks: positions of the tasks whose losses are differentiated; all of them if left out.
            summed: add the gradients of all tasks up, under the position -1.
            at_cut: go down to the cut; else to the edges wanted and the tasks' own leaves alone, which may save most of the
                pass where tasks meet at parameters.

        Returns:
            The gradient at each edge of the cut by the position of the task, those of each task's own leaves, and those at
            the edges wanted.
        """
        chosen = list(self.losses) if tasks is None else list(tasks)
        flows: list[dict[int, Tensor]] = [{} for _ in self.edges]

        def take(place: int, position: int, gradient: Tensor) -> None:
            here, position = flows[place], -1 if summed else position
            here[position] = here[position] + gradient if position in here else gradient

        def caught(entries: list[tuple[int, int, int]]) -> Any:
            def hook(gradients: tuple[Tensor | None, ...], _: Any) -> None:
                for slot, place, position in entries:
                    gradient = gradients[slot]
                    if gradient is not None:
                        take(place, position, gradient)

            return hook

        seeded = {position for _, position in self.seeded}
        for place, position in self.seeded:
            if position in chosen:
                seed = seeds.get(position)
                take(place, position, torch.ones_like(self.losses[position]) if seed is None else seed)
        starting = [position for position in chosen if position not in seeded]
        among = set(chosen)
        feeds = self.feeds if at_cut else {}
        entries = {node: [entry for entry in found if entry[2] in among] for node, found in feeds.items()}
        fed = sorted({place for found in entries.values() for _, place, _ in found})
        leaves = [leaf for position in starting for leaf in self.own[position]] if own else []
        inputs = [*(GradientEdge(*self.edges[place]) for place in fed), *leaves, *(GradientEdge(*edge) for edge in wanted)]
        results: Sequence[Tensor | None] = [None] * len(inputs)
        if starting and inputs:
            handles = [node.register_hook(caught(found)) for node, found in entries.items() if found]
            starts, given = roots([self.losses[p] for p in starting], [seeds.get(p) for p in starting])
            try:
                results = torch.autograd.grad(starts, cast(list[Tensor], inputs), given, retain_graph=True, allow_unused=True)
            finally:
                for handle in handles:
                    handle.remove()
        start = len(fed)
        gradients: dict[int, list[Tensor | None]] = {position: [] for position in chosen}
        for position in starting if own else ():
            stop = start + len(self.own[position])
            gradients[position] = list(results[start:stop])
            start = stop
        return flows, gradients, list(results[start:])


def gradients_at(edges: Sequence[Edge], flows: Sequence[Tensor | None], wanted: Sequence[Edge | Tensor]) -> list[Tensor | None]:
    """Takes gradients at the edges of a cut further down, to other edges or leaves; the graph stays."""
    pairs = [(edge, flow) for edge, flow in zip(edges, flows, strict=True) if flow is not None]
    if not pairs:
        return [None] * len(wanted)
    starts = [GradientEdge(*edge) for edge, _ in pairs]
    inputs = [GradientEdge(*entry) if isinstance(entry, tuple) else entry for entry in wanted]
    return list(
        torch.autograd.grad(
            cast(list[Tensor], starts),
            cast(list[Tensor], inputs),
            [flow for _, flow in pairs],
            retain_graph=True,
            allow_unused=True,
        )
    )


def gradients_together(edges: Sequence[Edge], stacks: Sequence[Tensor], wanted: Sequence[Edge | Tensor]) -> list[Tensor | None]:
    """As :func:`gradients_at` for several tasks at once, whose gradients lie side by side, ``[k, …]``.

    One batched differentiation, or one after the other where an operation on the way cannot be batched.
    """
    starts = cast(list[Tensor], [GradientEdge(*edge) for edge in edges])
    inputs = cast(list[Tensor], [GradientEdge(*entry) if isinstance(entry, tuple) else entry for entry in wanted])
    if len(stacks[0]) > 1:
        together = gradients_at_once(starts, inputs, list(stacks))
        if not isinstance(together, Exception):
            return list(together)
    rows = [gradients_at(edges, [stack[place] for stack in stacks], wanted) for place in range(len(stacks[0]))]
    found: list[Tensor | None] = []
    for column in zip(*rows, strict=True):
        given = next((entry for entry in column if entry is not None), None)
        if given is None:
            found.append(None)
            continue
        zero = torch.zeros_like(given)
        found.append(torch.stack([(zero if entry is None else entry).to_dense() for entry in column]))
    return found


def is_leaf(node: Any) -> bool:
    """Whether a node of a graph is that of a leaf."""
    return type(node) is _LEAF


def numbered_in_order(losses: Iterable[Tensor]) -> bool:
    """Whether every operation has a higher number than those whose results it takes."""
    return all(
        child is None or type(child) is _LEAF or child._sequence_nr() < node._sequence_nr()
        for node in _ranks(_edge(loss)[0] for loss in losses)
        if type(node) is not _LEAF
        for child, _ in children(node)
    )


def _ranks(roots: Iterable[Any]) -> dict[Any, int]:
    """Numbers nodes such that each comes after all that lead to it."""
    found: list[Any] = []
    seen: set[Any] = set()
    waiting = [(node, False) for node in roots]
    while waiting:
        node, done = waiting.pop()
        if done:
            found.append(node)
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(child, False) for child, _ in children(node) if child is not None and child not in seen]
    return {node: place for place, node in enumerate(reversed(found))}


_LEAF: type[Any] = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]
# The gradient of what these nodes take is that of what they give, in another order or precision.
_HARMLESS = frozenset(
    f"{name}Backward0"
    for name in ("T", "Transpose", "Permute", "ToCopy", "View", "UnsafeView", "Numpy_T", "Alias", "Unsqueeze")
)


# Views of what was changed in place get their nodes anew, within the making of the operation that takes them.
_RENEWED = frozenset(("AsStridedBackward0", "ViewAsRealBackward0", "ViewAsComplexBackward0"))
_SLACK = 256
_before = threading.local()


def _numbers() -> tuple[int, int]:
    """The first and last number of nodes that this thread has made since it was asked last; none, the first time."""
    with torch.enable_grad():
        node = torch.zeros((), requires_grad=True, device="cpu").mul(1.0).grad_fn
    until = node._sequence_nr()  # type: ignore[union-attr]
    since, _before.number = getattr(_before, "number", until), until
    return since, until


def _edge(loss: Tensor) -> Edge:
    start = origin(loss)
    edge = start if isinstance(start, GradientEdge) else get_gradient_edge(start)
    return edge.node, edge.output_nr
