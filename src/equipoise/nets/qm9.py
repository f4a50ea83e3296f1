"""The network of the QM9 benchmark: message passing over complete molecular graphs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.errors import InputError, require
from equipoise.nets.outputs import module_per_task

__all__ = ["QM9_TASKS", "QM9Net"]

QM9_TASKS = ("mu", "alpha", "homo", "lumo", "r2", "zpve", "U0", "U", "H", "G", "Cv")
"""The eleven quantities of the benchmark, in its order; the gap, which is lumo − homo, is not among them."""


class _Encoder(nn.Module):
    """Molecules → ``[molecules, size]``."""

    def __init__(self, atom_features: int, bond_features: int, size: int, steps: int, hidden: int) -> None:
        super().__init__()
        with warnings.catch_warnings():
            # Its import uses what torch has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            graphs = require("torch_geometric.nn", "graphs")
        self.steps = steps
        self.embedding = nn.Linear(atom_features, size)
        edges = nn.Sequential(nn.Linear(bond_features, hidden), nn.ReLU(), nn.Linear(hidden, size * size))
        self.convolution = graphs.NNConv(size, size, edges, aggr="mean")
        self.update = nn.GRU(size, size)
        self.readout = graphs.Set2Set(size, processing_steps=3)
        self.last = nn.Linear(2 * size, size)

    def forward(self, molecules: Any) -> Tensor:
        atoms = torch.relu(self.embedding(molecules.x))
        state = atoms.unsqueeze(0)
        for _ in range(self.steps):
            message = torch.relu(self.convolution(atoms, molecules.edge_index, molecules.edge_attr))
            state = self.update(message.unsqueeze(0), state)[1]
            atoms = state.squeeze(0)
        return torch.relu(self.last(self.readout(atoms, molecules.batch)))


class QM9Net(nn.Module):
    """Messages along edges (NNConv), a GRU that takes them in, three times; Set2Set over the atoms; one linear head per task.

    The network of Nash-MTL's study of QM9 (Navon et al., 2022) after Gilmer et al. (2017), with the sizes of PyTorch
    Geometric's example: 617,675 parameters for 11 tasks. Atom v goes on with GRU(ReLU(W h_v + mean_u A(e_uv) h_u), h_v),
    A(e) a matrix that two linear layers make from the edge's features. Memory grows with edges × size² numbers.

    Args:
        tasks: names of the quantities.
        atom_features: numbers per atom, 11 in PyTorch Geometric's QM9.
        bond_features: numbers per edge: four kinds of bond and the distance.
        size: of the atoms' states and the shared features.
        steps: how often messages are passed.
        hidden: units between an edge's features and its matrix.

    Attributes:
        features: what the tasks share, molecules → ``[molecules, size]``.
        heads: task → head.

    Raises:
        InputError: no tasks, or numbers below 1.
        MissingExtraError: PyTorch Geometric is not installed.

    Example:
        >>> from torch_geometric.data import Data
        >>> molecule = Data(torch.zeros(2, 11), torch.tensor([[0, 1], [1, 0]]), torch.zeros(2, 5))
        >>> out = QM9Net(size=4, hidden=8)(molecule)
        >>> len(out), tuple(out["homo"].shape)
        (11, (1,))
    """

    def __init__(
        self,
        tasks: Sequence[str] = QM9_TASKS,
        *,
        atom_features: int = 11,
        bond_features: int = 5,
        size: int = 64,
        steps: int = 3,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        numbers = {"atom_features": atom_features, "bond_features": bond_features, "size": size, "steps": steps}
        for name, number in {**numbers, "hidden": hidden}.items():
            if number < 1:
                raise InputError(f"{name} must be a whole number from 1 on; got {number}")
        self.features = _Encoder(atom_features, bond_features, size, steps, hidden)
        self.heads = module_per_task("heads", {task: nn.Linear(size, 1) for task in tasks})

    def forward(self, molecules: Any) -> dict[str, Tensor]:
        """Computes every task's output.

        Args:
            molecules: with ``x`` ``[atoms, atom_features]``, ``edge_index`` ``[2, edges]``, ``edge_attr``
                ``[edges, bond_features]`` and ``batch`` ``[atoms]``, the molecule of each atom (``None`` for a single one):
                a ``torch_geometric.data.Batch`` or anything with these attributes.

        Returns:
            Task → ``[molecules]``.
        """
        features = self.features(molecules)
        return {task: head(features).squeeze(-1) for task, head in self.heads.items()}
