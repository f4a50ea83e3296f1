"""Batches of molecules as graphs in which all atoms of a molecule are connected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Molecules"]


class Molecules:
    """All molecules of a data set, atoms and bonds in one table each, from which batches are cut at once.

    Args:
        atoms: table → one row per atom: ``x`` [A, 11] features, ``pos`` [A, 3] places in Å, ``z`` [A] atomic numbers.
        bonds: [2, E] the two atoms of each bond, counted within their molecule, in both directions.
        kinds: [E, 4] the kind of each bond, one-hot.
        first_atom: [N + 1] where each molecule's atoms start.
        first_bond: [N + 1] where each molecule's bonds start.
        targets: [N, 19] all that torch_geometric has.
    """

    def __init__(
        self, atoms: Mapping[str, Tensor], bonds: Tensor, kinds: Tensor, first_atom: Tensor, first_bond: Tensor, targets: Tensor
    ) -> None:
        self.atoms = dict(atoms)
        self.bonds = bonds
        self.kinds = kinds
        self.first_atom = first_atom
        self.first_bond = first_bond
        self.targets = targets

    def __len__(self) -> int:
        """How many molecules there are."""
        return len(self.targets)

    def graph(self, rows: Sequence[int]) -> Any:
        """A ``torch_geometric.data.Batch`` of those molecules.

        Every two atoms of a molecule are joined, in both directions; ``edge_attr`` [edges, 5] has the kind of the bond,
        one-hot, all 0 where there is none, and the distance in Å. That is what the released code of Nash-MTL, FAMO, LDC-MTL
        and COST does with its ``Complete`` and ``Distance(norm=False)``, here for a whole batch at once.
        """
        from torch_geometric.data import Batch

        chosen = torch.as_tensor(list(rows))
        sizes = self.first_atom[chosen + 1] - self.first_atom[chosen]
        taken = _ranges(self.first_atom[chosen], sizes)
        starts = torch.cumsum(sizes, 0) - sizes
        # Pair p of a molecule with n atoms joins atoms p // n and p mod n.
        pairs = sizes * sizes
        first_pair = torch.cumsum(pairs, 0) - pairs
        place = _ranges(torch.zeros_like(pairs), pairs)
        size_of_pair = sizes.repeat_interleave(pairs)
        source = torch.div(place, size_of_pair, rounding_mode="floor")
        target = place % size_of_pair

        bonds = _ranges(self.first_bond[chosen], self.first_bond[chosen + 1] - self.first_bond[chosen])
        bond_count = self.first_bond[chosen + 1] - self.first_bond[chosen]
        head, tail = self.bonds[:, bonds]
        where = first_pair.repeat_interleave(bond_count) + head * sizes.repeat_interleave(bond_count) + tail
        kinds = torch.zeros(int(pairs.sum()), self.kinds.shape[1])
        kinds[where] = self.kinds[bonds]

        other = source != target
        offset = starts.repeat_interleave(pairs)[other]
        edges = torch.stack([source[other] + offset, target[other] + offset])
        atoms = {name: table[taken] for name, table in self.atoms.items()}
        away = (atoms["pos"][edges[1]] - atoms["pos"][edges[0]]).norm(dim=-1, keepdim=True)
        return Batch(
            **atoms,
            edge_index=edges,
            edge_attr=torch.cat([kinds[other], away], dim=1),
            batch=torch.arange(len(chosen)).repeat_interleave(sizes),
            ptr=torch.cat([starts, starts.new_tensor([len(taken)])]),
        )


def _ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """The numbers start, start + 1, … of all ranges, one range after the other."""
    before = torch.cumsum(lengths, 0) - lengths
    return torch.arange(int(lengths.sum())) + (starts - before).repeat_interleave(lengths)
