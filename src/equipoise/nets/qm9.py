"""Networks for QM9: the benchmark's message passing over complete molecular graphs, and a small one of distances alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.errors import InputError, require
from equipoise.nets.outputs import module_per_task

__all__ = ["QM9_TASKS", "ContinuousFilterNet", "QM9Net"]

QM9_TASKS = ("mu", "alpha", "homo", "lumo", "r2", "zpve", "U0", "U", "H", "G", "Cv")
"""The eleven quantities of the benchmark, in its order; the gap, which is lumo − homo, is not among them."""


def _refuse_below_one(numbers: Mapping[str, int]) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"{name} must be a whole number from 1 on; got {number}")


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
        _refuse_below_one({**numbers, "hidden": hidden})
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


class _Atoms(nn.Module):
    """Molecules → ``[molecules, units]``: interactions of atoms by filters of their distance, then a sum over atoms."""

    def __init__(self, size: int, channels: int, interactions: int, radial: int, reach: float, units: int) -> None:
        super().__init__()
        self.elements = nn.Embedding(10, size)
        self.inward = nn.ModuleList([nn.Linear(size, channels) for _ in range(interactions)])
        self.filters = nn.ModuleList([nn.Linear(radial * channels, size) for _ in range(interactions)])
        self.outward = nn.ModuleList([nn.Linear(size, size) for _ in range(interactions)])
        self.last = nn.Linear(size, units)
        self.radial, self.reach = radial, reach

    def forward(self, z: Tensor, pos: Tensor) -> Tensor:
        if z.dim() != 2 or not z.numel() or pos.shape != (*z.shape, 3):
            raise InputError(
                "z must have the shape [molecules, atoms] and pos [molecules, atoms, 3], with at least one molecule; "
                f"got {list(z.shape)} and {list(pos.shape)}"
            )
        least, most = (int(end) for end in z.aminmax())
        if least < 0 or most >= self.elements.num_embeddings:
            raise InputError(f"atomic numbers must be 1 to 9, and 0 where no atom is; got {least if least < 0 else most}")
        # A molecule costs what the largest beside it does, squared: small and large ones are computed apart.
        needed = ((z > 0) * torch.arange(1, z.shape[1] + 1, device=z.device)).amax(1)
        order = needed.argsort()
        sums = []
        for rows in order.chunk(_PARTS):
            size = max(int(needed[rows[-1]]), 1)
            sums.append(self._summed(z[rows, :size], pos[rows, :size]))
        # Divided by an average molecule's atoms, so that the layer behind starts with numbers near 1.
        units: Tensor = F.silu(self.last(torch.cat(sums)[order.argsort()] / _AVERAGE))
        return units

    def _summed(self, z: Tensor, pos: Tensor) -> Tensor:
        there = z > 0
        states = self.elements(z.long())
        # Distances in at least single precision, whatever the network's.
        bases = self._bases(there, pos.to(torch.promote_types(pos.dtype, torch.float32))).to(states.dtype)
        for inward, filters, outward in zip(self.inward, self.filters, self.outward, strict=True):
            # Σ_j φ_r(d_ij) h_j for every r first, the filter's matrices after it: no number per pair and unit is ever made.
            around = torch.bmm(bases, inward(states)).reshape(*z.shape, -1)
            states = states + outward(F.silu(filters(around)))
        summed: Tensor = (states * there[..., None]).sum(1)
        return summed

    def _bases(self, there: Tensor, pos: Tensor) -> Tensor:
        """``[molecules, atoms × radial, atoms]``, 0 where an atom is missing and between an atom and itself."""
        molecules, atoms = there.shape
        step = (self.reach - _NEAREST) / max(self.radial - 1, 1)
        nowhere = ~(there[:, :, None] & there[:, None]) | torch.eye(atoms, dtype=torch.bool, device=pos.device)
        apart = (pos[:, :, None] - pos[:, None]).square().sum(-1).masked_fill(nowhere, _FAR).sqrt()
        centres = _NEAREST + step * torch.arange(self.radial, dtype=pos.dtype, device=pos.device)
        width = math.sqrt(2) * step
        away = (apart / width)[:, :, None] - (centres / width)[:, None]
        return away.square().neg_().exp_().reshape(molecules, atoms * self.radial, atoms)


_PARTS = 3
_AVERAGE = 18.0  # atoms of QM9's molecules
_NEAREST = 0.8  # Å; no two atoms of QM9 are much nearer
_FAR = 1e8  # Å², where every Gaussian is 0


class ContinuousFilterNet(nn.Module):
    """Atoms that hear each other through filters of their distance, a sum over atoms, and one linear head per task.

    A small network after the idea of SchNet (Schütt et al., 2017), for a few thousand molecules on a CPU. Atom i starts as a
    vector of its element; three times, h_i ← h_i + B₂ silu(Σ_j W(d_ij) A h_j + b₁), with W(d) = Σ_r φ_r(d) W_r a matrix that
    is linear in Gaussians φ_r of the distance. (SchNet has a diagonal of two layers there.) It sees elements and distances
    alone, so that moving, turning or reflecting a molecule changes nothing, nor does the order of its atoms.

    Args:
        tasks: names of the quantities.
        size: of the atoms' states.
        channels: of what atoms say to each other.
        interactions: how often.
        radial: Gaussians, from 0.8 Å to ``reach``, as wide as they are apart.
        reach: Å.
        units: of the shared features.

    Attributes:
        features: what the tasks share, ``z``, ``pos`` → ``[molecules, units]``.
        heads: task → head.

    Raises:
        InputError: no tasks, numbers below 1, or a reach that is not above 0.8.

    Example:
        >>> z = torch.tensor([[8, 1, 1], [9, 1, 0]])  # water, and hydrogen fluoride
        >>> out = ContinuousFilterNet()(z, torch.randn(2, 3, 3))
        >>> len(out), tuple(out["homo"].shape)
        (11, (2,))
    """

    def __init__(
        self,
        tasks: Sequence[str] = QM9_TASKS,
        *,
        size: int = 48,
        channels: int = 16,
        interactions: int = 3,
        radial: int = 10,
        reach: float = 7.0,
        units: int = 64,
    ) -> None:
        super().__init__()
        numbers = {"size": size, "channels": channels, "interactions": interactions, "radial": radial, "units": units}
        _refuse_below_one(numbers)
        if not reach > _NEAREST:
            raise InputError(f"reach must be above {_NEAREST} Å; got {reach}")
        self.features = _Atoms(size, channels, interactions, radial, reach, units)
        self.heads = module_per_task("heads", {task: nn.Linear(units, 1) for task in tasks})

    def forward(self, z: Tensor, pos: Tensor) -> dict[str, Tensor]:
        """Computes every task's output.

        Args:
            z: ``[molecules, atoms]`` atomic numbers up to 9, 0 in the places of a smaller molecule that it does not need.
            pos: ``[molecules, atoms, 3]`` places in Å.

        Returns:
            Task → ``[molecules]``.

        Raises:
            InputError: no molecules, other shapes, or another element.
        """
        features = self.features(z, pos)
        return {task: head(features).squeeze(-1) for task, head in self.heads.items()}
