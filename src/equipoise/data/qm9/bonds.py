"""Bonds of molecules that come as places and SMILES, by RDKit, checked against the places for every molecule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.data.qm9.packed import Packed, kept, rows_of
from equipoise.errors import DataSetError, require
from equipoise.reading import Unreadable

__all__ = ["IN_ORDER", "NO_BONDS", "OF_PLACES", "Bonds", "bonds_of", "read_bonds"]

IN_ORDER, OF_PLACES, NO_BONDS = 0, 1, 2
# Å, single bonds (Cordero et al. 2008). In units of the two radii's sum, the longest bond of QM9 is 1.30 and the closest pair
# without one 1.147 (strained cages); bonds of atoms put in the wrong order are beyond both.
_RADII = np.zeros(10)
_RADII[[1, 6, 7, 8, 9]] = 0.31, 0.76, 0.71, 0.66, 0.57
_LONGEST, _CLOSEST = 1.3, 1.14
_KINDS = {1.0: 1, 2.0: 2, 3.0: 3, 1.5: 4}  # RDKit's order of a bond → its column, from 1


class Bonds(NamedTuple):
    """What torch_geometric has beside places and numbers.

    Attributes:
        bonds: [2, E] the two atoms of each bond, counted within their molecule, in both directions, in ascending order.
        kinds: [E] 0 for a single bond, then double, triple, aromatic.
        first_bond: [N + 1] where each molecule's bonds start.
        flags: [A, 4] whether an atom is aromatic, and whether its hybridisation is sp, sp2, sp3.
        source: [N] 0 where the SMILES' atoms are those of the places in their order, 1 where the bonds were found from the
            places, 2 where there are none that fit.
    """

    bonds: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    first_bond: NDArray[np.int64]
    flags: NDArray[np.uint8]
    source: NDArray[np.uint8]


def read_bonds(folder: Path, packed: Packed) -> Bonds:
    """Bonds of all molecules of the tables in a folder, from the cache if this version of RDKit has made them before.

    Raises:
        MissingExtraError: RDKit is not installed.
        DataSetError: a table cannot be read.
    """
    chemistry = require("rdkit", "qm9")

    def check(arrays: Mapping[str, NDArray[Any]]) -> Bonds:
        found = Bonds(**arrays)
        ends = found.bonds.shape[-1]
        if found.bonds.shape != (2, ends) or found.kinds.shape != (ends,) or int(found.first_bond[-1]) != ends:
            raise Unreadable("the molecules' bonds do not add up")
        if (len(found.first_bond), found.flags.shape) != (len(packed.number) + 1, (len(packed.z), 4)):
            raise Unreadable("it is of other molecules")
        return found

    made: Bonds = kept(folder, f"-bonds-{chemistry.__version__}", lambda folder: _read(folder, packed), check)
    return made


def _read(folder: Path, packed: Packed) -> Bonds:
    ends: list[NDArray[np.uint8]] = []
    kinds: list[NDArray[np.uint8]] = []
    flags: list[NDArray[np.uint8]] = []
    source: list[int] = []
    texts = [row[0] for row in rows_of(folder, ["SMILES"])]
    if len(texts) != len(packed.number):
        raise DataSetError(f"the tables in {folder} changed while they were read; start again")
    for text, start, end in zip(texts, packed.first_atom[:-1], packed.first_atom[1:], strict=True):
        orders, own, how = bonds_of(text, packed.z[start:end], packed.pos[start:end])
        pairs = np.nonzero(orders)
        ends.append(np.stack(pairs).astype(np.uint8))
        kinds.append(orders[pairs] - 1)
        flags.append(own)
        source.append(how)
    first = np.concatenate([[0], np.cumsum([len(own) for own in kinds])])
    return Bonds(
        np.concatenate(ends, axis=1), np.concatenate(kinds), first, np.concatenate(flags), np.array(source, dtype=np.uint8)
    )


def bonds_of(smiles: str, z: NDArray[Any], pos: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
    """The bonds of one molecule, verified by its atoms' places.

    The heavy atoms of the SMILES are taken in their order, and a hydrogen belongs to the heavy atom that is nearest. That
    is right if elements and numbers of hydrogens agree atom by atom, every bond is at most 1.3 times as long as the two radii
    together and every other pair is at least 1.14 times as far apart. Otherwise the bonds are found from the places (RDKit's
    ``DetermineBonds``), and have to pass the same test. Either has to be one neutral molecule without unpaired electrons, whose
    valences RDKit checks.

    Args:
        smiles: of the molecule, hydrogens left out.
        z: [n] atomic numbers.
        pos: [n, 3] places in Å.

    Returns:
        Kinds [n, n], 0 for no bond, then single, double, triple, aromatic from 1; flags [n, 4] as of :class:`Bonds`; and
        its ``source``.

    Raises:
        MissingExtraError: RDKit is not installed.

    Example:
        >>> methanal = np.array([[0.0, 0, 0], [1.2, 0, 0], [-0.6, 0.9, 0], [-0.6, -0.9, 0]])
        >>> orders, flags, source = bonds_of("C=O", np.array([6, 8, 1, 1]), methanal)  # doctest: +SKIP
        >>> orders[0].tolist(), flags[0].tolist(), source  # doctest: +SKIP
        ([0, 2, 1, 1], [0, 0, 1, 0], 0)
    """
    chemistry = require("rdkit.Chem", "qm9")
    require("rdkit.RDLogger", "qm9").DisableLog("rdApp.*")
    radii = _RADII[z]
    apart = pos[:, None] - pos[None]
    ratios = np.sqrt((apart * apart).sum(2)) / (radii[:, None] + radii)
    for how, find in ((IN_ORDER, _in_order), (OF_PLACES, _of_places)):
        found = find(chemistry, smiles, z, pos, ratios)
        if found is not None:
            orders, flags = found
            without = orders == 0
            np.fill_diagonal(without, False)
            if (ratios[orders > 0] <= _LONGEST).all() and (ratios[without] >= _CLOSEST).all():
                return orders, flags, how
    return np.zeros((len(z), len(z)), np.uint8), np.zeros((len(z), 4), np.uint8), NO_BONDS


def _in_order(chemistry: Any, smiles: str, z: Any, pos: Any, ratios: Any) -> Any:
    molecule = chemistry.MolFromSmiles(smiles)
    heavy, light = np.flatnonzero(z > 1), np.flatnonzero(z == 1)
    if molecule is None or not len(heavy) or not _whole(chemistry, molecule):
        return None
    atoms = list(molecule.GetAtoms())
    if [atom.GetAtomicNum() for atom in atoms] != z[heavy].tolist():
        return None
    nearest = heavy[ratios[np.ix_(light, heavy)].argmin(1)]
    if np.bincount(nearest, minlength=len(z))[heavy].tolist() != [atom.GetTotalNumHs() for atom in atoms]:
        return None
    orders = np.zeros((len(z), len(z)), np.uint8)
    orders[np.ix_(heavy, heavy)] = _orders(chemistry, molecule)
    orders[light, nearest] = orders[nearest, light] = 1
    flags = np.zeros((len(z), 4), np.uint8)
    flags[heavy] = _flags(chemistry, atoms)
    return orders, flags


def _of_places(chemistry: Any, smiles: str, z: Any, pos: Any, ratios: Any) -> Any:
    symbols = chemistry.GetPeriodicTable().GetElementSymbol
    lines = [f"{symbols(int(number))} {x} {y} {depth}" for number, (x, y, depth) in zip(z, pos, strict=True)]
    molecule = chemistry.MolFromXYZBlock("\n".join([str(len(z)), "", *lines]))
    try:
        require("rdkit.Chem.rdDetermineBonds", "qm9").DetermineBonds(molecule, charge=0)
    except (ValueError, RuntimeError):  # valences that do not add up
        return None
    if not _whole(chemistry, molecule):
        return None
    return _orders(chemistry, molecule), _flags(chemistry, list(molecule.GetAtoms()))


def _whole(chemistry: Any, molecule: Any) -> bool:
    """Whether it is one molecule, neutral and without unpaired electrons, as all of QM9 are."""
    paired = not any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
    return paired and chemistry.GetFormalCharge(molecule) == 0 and len(chemistry.GetMolFrags(molecule)) == 1


def _orders(chemistry: Any, molecule: Any) -> NDArray[np.uint8]:
    numbers = chemistry.GetAdjacencyMatrix(molecule, useBO=True)
    orders = np.zeros(numbers.shape, np.uint8)
    for order, kind in _KINDS.items():
        orders[numbers == order] = kind
    return orders


def _flags(chemistry: Any, atoms: list[Any]) -> NDArray[np.uint8]:
    kinds = [getattr(chemistry.HybridizationType, name) for name in ("SP", "SP2", "SP3")]
    return np.array([[atom.GetIsAromatic(), *(atom.GetHybridization() == kind for kind in kinds)] for atom in atoms], np.uint8)
