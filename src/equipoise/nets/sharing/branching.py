"""Learning to branch: a network of nodes whose tree is learned, and the tree alone, to be trained anew."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.errors import InputError
from equipoise.nets.outputs import module_per_task

__all__ = ["LTB", "Branched"]


class LTB(nn.Module):
    """Learning to branch (Guo, Lee and Ulbricht, ICML 2020, arXiv 2006.01895): the search for a tree of shared stages.

    Nodes stand in rows. Each head, and each node beyond the first row, is given the output of one parent in the row before,
    drawn in every forward pass with probabilities softmax(ℓ) of its own ℓ, which are learned by the straight-through
    Gumbel-softmax:

        d = onehot(argmax_j (ℓ_j + G_j)),   ∂d ≈ ∂softmax((ℓ + G)/τ),   x = Σ_j d_j x_j,   G_j ~ Gumbel(0, 1).

    In eval mode the most probable parent is taken. With τ = ∞ nothing is drawn and every parent counts alike, which serves to
    warm up. The paper's text could not be had beyond its beginning; this follows LibMTL's implementation, whose rows have one
    node per task, whose heads do not choose, and whose warm-up sums the parents.

    Search first: train this with any balancer, lowering τ by :meth:`anneal`. Then :meth:`branched` gives the tree that was
    found, without the nodes that no task uses, for training from new initial values. Gumbel noise comes from torch's random
    state, as dropout's does.

    Args:
        rows: per row its nodes, at least one; the nodes of a row give outputs of one shape. Those of the first take the input.
        heads: task → module that takes what a node of the last row gives.
        temperature: τ, above 0.

    Attributes:
        logits: ℓ ``[children, parents]`` of each row but the first; 0 at the start.
        logits_of_heads: ℓ ``[parents]`` of each head, which belongs to its task.
        temperature: τ, a tensor that is saved with the model.
        heads: task → head.

    Raises:
        InputError: an empty row, or τ not above 0.

    Example:
        >>> rows = [[nn.Linear(4, 8)], [nn.Linear(8, 8), nn.Linear(8, 8)]]
        >>> search = LTB(rows, {"label": nn.Linear(8, 3), "size": nn.Linear(8, 1)})
        >>> for epoch in range(2):
        ...     search.anneal(epoch, 2)
        ...     out = search(torch.zeros(5, 4))
        >>> search.parents()
        [[0, 0], [0, 0]]
        >>> network = search.branched()
        >>> sum(p.numel() for p in search.parameters()), sum(p.numel() for p in network.parameters())
        (226, 148)
    """

    temperature: Tensor

    def __init__(
        self, rows: Sequence[Sequence[nn.Module]], heads: Mapping[str, nn.Module] | nn.ModuleDict, *, temperature: float = 1.0
    ) -> None:
        super().__init__()
        if not len(rows) or not all(len(row) for row in rows):
            raise InputError(f"rows must have a node each, and there must be one; got {[len(row) for row in rows]}")
        self.rows = nn.ModuleList(nn.ModuleList(row) for row in rows)
        self.heads = module_per_task("heads", heads)
        self.logits = nn.ParameterList(torch.zeros(len(row), len(above)) for above, row in pairwise(rows))
        self.logits_of_heads = nn.ParameterList(torch.zeros(len(rows[-1])) for _ in self.heads)
        self.register_buffer("temperature", torch.tensor(_temperature(temperature)))

    def anneal(self, epoch: int, epochs: int) -> None:
        """Sets τ for an epoch, counted from 0, as LibMTL does: epochs/20/√(epoch + 1), and ∞ in the first hundredth.

        Raises:
            InputError: an epoch that is none of ``epochs``.
        """
        if not 0 <= epoch < epochs:
            raise InputError(f"epoch must be from 0 to epochs - 1; got {epoch} of {epochs}")
        self.temperature.fill_(math.inf if epoch < epochs / 100 and epochs > 1 else epochs / 20 / math.sqrt(epoch + 1))

    def probabilities(self) -> list[Tensor]:
        """Per row but the first, and for the heads: softmax(ℓ) ``[children, parents]``."""
        return [torch.stack(list(logits)).detach().softmax(1) for logits in self._logits()]

    def parents(self) -> list[list[int]]:
        """Likewise, each child's most probable parent; of equal ones the first."""
        return [found.argmax(1).tolist() for found in self.probabilities()]

    def branched(self, *, fresh: bool = True) -> Branched:
        """The tree of the most probable parents, on copies of the modules, in which every node serves a task.

        Args:
            fresh: with new initial values, by each module's ``reset_parameters``; else with those found in the search.

        Raises:
            InputError: a module has parameters and no ``reset_parameters``.
        """
        choices = self.parents()
        used = [sorted(set(choices[-1]))]
        for row in reversed(choices[:-1]):
            used.insert(0, sorted({row[node] for node in used[0]}))
        kept = [[copy.deepcopy(row[node]) for node in nodes] for row, nodes in zip(self.rows, used, strict=True)]  # type: ignore[index]
        children = [*used[1:], range(len(self.heads))]
        parents = [
            [nodes.index(choice[child]) for child in below]
            for choice, nodes, below in zip(choices, used, children, strict=True)
        ]
        network = Branched(kept, parents, {task: copy.deepcopy(head) for task, head in self.heads.items()})
        if fresh:
            modules = list(network.modules())
            for module in modules:
                if next(module.parameters(recurse=False), None) is not None and not hasattr(module, "reset_parameters"):
                    raise InputError(
                        f"{type(module).__name__} has parameters and no reset_parameters; take fresh=False and set them anew"
                    )
            for module in modules:
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()  # type: ignore[operator]
        return network

    def forward(self, inputs: Any) -> dict[str, Any]:
        """Task → output, for inputs that the nodes of the first row take."""
        given: list[Any] = [inputs] * len(self.rows[0])  # type: ignore[arg-type]
        for row, logits in zip(self.rows, self._logits(), strict=True):
            outputs = torch.stack([node(own) for node, own in zip(row, given, strict=True)])  # type: ignore[call-overload]
            # One by one, so that a head's own ℓ reaches its own task alone.
            given = [torch.tensordot(self._drawn(own).to(outputs), outputs, 1) for own in logits]
        return {task: head(own) for (task, head), own in zip(self.heads.items(), given, strict=True)}

    def _logits(self) -> list[Iterable[Tensor]]:
        """ℓ of each child, row by row; the heads' come last."""
        return [*self.logits, self.logits_of_heads]

    def _drawn(self, logits: Tensor) -> Tensor:
        """Draws d ``[parents]`` of a child."""
        if not self.training:
            return nn.functional.one_hot(logits.argmax(), len(logits))
        if bool(self.temperature.isinf()):
            return torch.full_like(logits, 1 / len(logits))
        return nn.functional.gumbel_softmax(logits, tau=float(self.temperature), hard=True)


class Branched(nn.Module):
    """A tree of stages: each node runs once and gives its output to those of the next row that name it as their parent.

    Args:
        rows: per row its nodes.
        parents: per row but the first, and for the heads: each one's parent, as its place in the row before.
        heads: task → module that takes what a node of the last row gives.

    Raises:
        InputError: a parent that is not there.

    Example:
        >>> network = Branched([[nn.Linear(4, 8)]], [[0, 0]], {"label": nn.Linear(8, 3), "size": nn.Linear(8, 1)})
        >>> {task: tuple(out.shape) for task, out in network(torch.zeros(5, 4)).items()}
        {'label': (5, 3), 'size': (5, 1)}
    """

    def __init__(
        self,
        rows: Sequence[Sequence[nn.Module]],
        parents: Sequence[Sequence[int]],
        heads: Mapping[str, nn.Module] | nn.ModuleDict,
    ) -> None:
        super().__init__()
        children = [*(len(row) for row in rows[1:]), len(heads)]
        fits = len(rows) and [len(own) for own in parents] == children
        if not fits or not all(0 <= p < len(row) for row, own in zip(rows, parents, strict=True) for p in own):
            raise InputError(
                f"parents must name a place in the row before for each node and head; got {[list(own) for own in parents]} "
                f"for rows of {[len(row) for row in rows]} and {len(heads)} heads"
            )
        self.rows = nn.ModuleList(nn.ModuleList(row) for row in rows)
        self.parents = [list(own) for own in parents]
        self.heads = module_per_task("heads", heads)

    def forward(self, inputs: Any) -> dict[str, Any]:
        """Task → output, for inputs that the nodes of the first row take."""
        given: list[Any] = [inputs] * len(self.rows[0])  # type: ignore[arg-type]
        for row, parents in zip(self.rows, self.parents, strict=True):
            outputs = [node(own) for node, own in zip(row, given, strict=True)]  # type: ignore[call-overload]
            given = [outputs[parent] for parent in parents]
        return {task: head(own) for (task, head), own in zip(self.heads.items(), given, strict=True)}


def _temperature(value: float) -> float:
    if not value > 0:
        raise InputError(f"temperature must be above 0; got {value}")
    return float(value)
