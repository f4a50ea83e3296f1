"""Reading the autograd graph: where differentiating a loss starts, which leaf tensors it reaches, and so what is shared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.parallel import distributed as _parallel

__all__ = [
    "Edge",
    "divide",
    "divide_leaves",
    "edge_of",
    "hides_division",
    "hides_leaves",
    "is_compiled",
    "leaves",
    "leaves_above",
    "leaves_of_all",
    "nodes_below",
    "origin",
    "origins",
    "roots",
]

Edge: TypeAlias = tuple[Any, int]
"""A node of the graph, and which of its outputs is meant: several tensors may be outputs of one node."""


def edge_of(tensor: Tensor) -> Edge:
    """Where a tensor lies in the graph; tensors of one edge are one and the same to autograd."""
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


_SINK: Any = getattr(getattr(_parallel, "_DDPSink", None), "_backward_cls", "not in this torch")


def children(node: Any) -> Iterator[Edge]:
    """The edges below a node.

    DistributedDataParallel may lead all outputs of a model through one node, which hides what each of them reaches; it hands
    every gradient on, so the walk passes through it from an output to the same input.
    """
    for edge in node.next_functions:
        yield _through(edge)


def _through(edge: Edge) -> Edge:
    while type(edge[0]) is _SINK:
        node, output = edge
        # Its inputs are the module that it belongs to and the outputs, some of which may be no tensors or carry no graph.
        before = sum(node.needs_input_grad[1 : output + 1])
        edge = [below for below in node.next_functions if below[0] is not None][before]
    return edge


def origin(loss: Tensor) -> Tensor | GradientEdge:
    """The loss itself, or, for an entry of ``torch.stack(losses)``, the scalar that was stacked.

    Differentiating an entry of a stack walks all stacked losses, all but one with zeros. That is wasted work, and it hides
    which parameters belong to one task alone: the graph says that every entry reaches them all.
    """
    node = loss.grad_fn
    if type(node) is _SINK:
        return GradientEdge(*_through((node, loss.output_nr)))
    if node is None or node.name() != "UnbindBackward0":
        return loss
    stack = node.next_functions[0][0]
    if stack is None or stack.name() != "StackBackward0":
        return loss
    entry, output = stack.next_functions[loss.output_nr]
    return loss if entry is None else GradientEdge(entry, output)


def origins(losses: Iterable[Tensor]) -> list[Tensor]:
    """The origins of several losses, typed as ``torch.autograd`` wants them: its signatures admit no mixture, its code does."""
    return cast(list[Tensor], [origin(loss) for loss in losses])


def roots(losses: Sequence[Tensor], seeds: Tensor | Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """Where a backward pass of several losses starts, and with what.

    At their stack where they need no :func:`origins`, for many roots take torch long to check.

    Args:
        losses: scalars.
        seeds: what each is multiplied with, ``[k]`` or one by one; 1 where it is ``None``.
    """
    starts, first = origins(losses), losses[0]
    if not isinstance(seeds, Tensor):
        if any(seed is not None for seed in seeds):
            return starts, [torch.ones_like(loss) if seed is None else seed for loss, seed in zip(losses, seeds, strict=True)]
        seeds = torch.ones(len(losses), dtype=first.dtype, device=first.device)
    alike = all(loss.dtype == first.dtype and loss.device == first.device for loss in losses)
    if alike and all(start is loss for start, loss in zip(starts, losses, strict=True)):
        with torch.enable_grad():  # the losses have graphs, whatever the caller's mode
            return [torch.stack(list(losses))], [seeds.to(first.device, first.dtype)]
    return starts, [seed.to(loss.device, loss.dtype) for seed, loss in zip(seeds.unbind(), losses, strict=True)]


def leaves(loss: Tensor) -> list[Tensor]:
    """Leaf tensors that gradients of ``loss`` flow to, each once, in the order of the walk."""
    return _walk(loss, set())[0]


def leaves_above(loss: Tensor, stop: Collection[Edge]) -> tuple[list[Tensor], list[Edge]]:
    """Leaf tensors that gradients of ``loss`` flow to without passing the edges ``stop``, and those edges that they meet."""
    start = origin(loss)
    return _descend([(start.node, start.output_nr) if isinstance(start, GradientEdge) else edge_of(start)], stop)


def nodes_below(edges: Iterable[Edge]) -> set[Any]:
    """All nodes that gradients at these edges flow to, the edges' own nodes only if another of them leads there."""
    found: set[Any] = set()
    waiting = [node for node, _ in edges]
    while waiting:
        for child, _ in children(waiting.pop()):
            if child is not None and child not in found:
                found.add(child)
                waiting.append(child)
    return found


def leaves_of_all(losses: Iterable[Tensor]) -> list[Tensor]:
    """Leaf tensors that gradients of any of the losses flow to, each node being visited once."""
    seen: set[Any] = set()
    return [leaf for loss in losses for leaf in _walk(loss, seen)[0]]


def divide(losses: Sequence[Tensor]) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Divides the leaves of several losses into shared ones and those of one task alone.

    Each node is visited twice at most, however many losses there are: what lies below the first node that two losses have
    in common is shared as a whole.

    Returns:
        The leaves that two or more losses reach, and for each loss those that it alone reaches.
    """
    seen: set[Any] = set()
    below_meeting: set[Any] = set()
    shared: list[Tensor] = []
    reached: list[list[Tensor]] = []
    for loss in losses:
        found, meeting = _walk(loss, seen)
        reached.append(found)
        for node in meeting:
            shared.extend(_collect(node, below_meeting))
    shared = list(dict.fromkeys(shared))
    ids = {id(leaf) for leaf in shared}
    return shared, [[leaf for leaf in found if id(leaf) not in ids] for found in reached]


def divide_leaves(reached: Sequence[Sequence[Tensor]]) -> tuple[list[Tensor], list[list[Tensor]]]:
    """As :func:`divide`, from the leaves that each loss reaches, for losses whose graphs are not alive at the same time."""
    count: dict[Tensor, int] = {}
    for found in reached:
        for leaf in found:
            count[leaf] = count.get(leaf, 0) + 1
    shared = [leaf for leaf, tasks in count.items() if tasks > 1]
    return shared, [[leaf for leaf in found if count[leaf] == 1] for found in reached]


def hides_leaves(loss: Tensor) -> bool:
    """Whether the graph holds a re-entrant checkpoint, whose own graph is made in the backward pass only."""
    return _holds(loss, "CheckpointFunctionBackward")


def is_compiled(loss: Tensor) -> bool:
    """Whether the graph holds a compiled function: a single node, every output of which seems to reach all its inputs."""
    return _holds(loss, "CompiledFunctionBackward")


def hides_division(losses: Iterable[Tensor]) -> bool:
    """Whether losses start from different outputs of one compiled function, so that what each reaches cannot be told."""
    entered: dict[Any, int] = {}
    waiting = [(loss.grad_fn, loss.output_nr) for loss in losses if loss.grad_fn is not None]
    seen: set[Any] = set()
    while waiting:
        node, output = waiting.pop()
        if node.name() == "CompiledFunctionBackward" and entered.setdefault(node, output) != output:
            return True
        if node not in seen:
            seen.add(node)
            waiting.extend((child, number) for child, number in node.next_functions if child is not None)
    return False


def _holds(loss: Tensor, name: str) -> bool:
    waiting = [loss.grad_fn] if loss.grad_fn is not None else []
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name() == name:
            return True
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                waiting.append(child)
    return False


def _descend(starts: Iterable[Edge], stop: Collection[Edge]) -> tuple[list[Tensor], list[Edge]]:
    """Leaves at and below some edges, the walk ending at those of ``stop``, and which of these it met."""
    found: list[Tensor] = []
    met: dict[Edge, None] = {}
    visited: set[Any] = set()
    waiting = list(starts)
    while waiting:
        edge = waiting.pop()
        node = edge[0]
        if edge in stop:
            met[edge] = None
            continue
        if node is None or node in visited:
            continue
        visited.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.append(variable)
        waiting.extend(children(node))
    return found, list(met)


def _walk(loss: Tensor, seen: set[Any]) -> tuple[list[Tensor], list[Any]]:
    """Leaves below a loss that were not seen before, and the seen nodes it ran into; marks what it visits as seen."""
    start = origin(loss)
    root = start.node if isinstance(start, GradientEdge) else start.grad_fn
    if root is None:
        return ([loss], []) if loss.requires_grad else ([], [])
    if root in seen:
        return [], [root]
    mine = {root}
    found: list[Tensor] = []
    meeting: list[Any] = []
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        # Only the nodes that accumulate into a leaf have this attribute.
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.append(variable)
        for child, _ in children(node):
            if child is None or child in mine:
                continue
            mine.add(child)
            if child in seen:
                meeting.append(child)
            else:
                waiting.append(child)
    seen |= mine
    return found, meeting


def _collect(node: Any, visited: set[Any]) -> list[Tensor]:
    """All leaves at and below a node that were not visited before."""
    if node in visited:
        return []
    visited.add(node)
    found: list[Tensor] = []
    waiting = [node]
    while waiting:
        node = waiting.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.append(variable)
        for child, _ in children(node):
            if child is not None and child not in visited:
                visited.add(child)
                waiting.append(child)
    return found
