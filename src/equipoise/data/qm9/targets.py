"""The eleven properties that the literature on balancing predicts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """One property of a molecule.

    Attributes:
        name: as a task.
        column: where torch_geometric's QM9 has it among its 19.
        unit: in which errors are reported.
        factor: from torch_geometric's unit to that one.
        meaning: in words.
    """

    name: str
    column: int
    unit: str
    factor: float
    meaning: str


# Navon et al. 2022 (Nash-MTL) and all that followed leave out the gap between HOMO and LUMO, and take the energies of
# atomisation in place of U0, U, H and G. torch_geometric has energies in eV; they are reported in meV.
TARGETS = (
    Target("mu", 0, "D", 1.0, "dipole moment"),
    Target("alpha", 1, "a0³", 1.0, "isotropic polarisability"),
    Target("homo", 2, "meV", 1000.0, "energy of the highest occupied molecular orbital"),
    Target("lumo", 3, "meV", 1000.0, "energy of the lowest unoccupied molecular orbital"),
    Target("r2", 5, "a0²", 1.0, "electronic spatial extent"),
    Target("zpve", 6, "meV", 1000.0, "zero point vibrational energy"),
    Target("U0", 12, "meV", 1000.0, "atomisation energy at 0 K"),
    Target("U", 13, "meV", 1000.0, "atomisation energy at 298.15 K"),
    Target("H", 14, "meV", 1000.0, "atomisation enthalpy at 298.15 K"),
    Target("G", 15, "meV", 1000.0, "atomisation free energy at 298.15 K"),
    Target("Cv", 11, "cal/(mol K)", 1.0, "heat capacity at 298.15 K"),
)
