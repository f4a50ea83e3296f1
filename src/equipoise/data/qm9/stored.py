"""QM9 as torch_geometric or the package qm9pack has it on disk, without downloads, and its molecules as graphs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from equipoise.data.qm9.bonds import NO_BONDS, read_bonds
from equipoise.data.qm9.packed import PACKAGE, package_folder, parts_of, read_packed
from equipoise.errors import DataSetError, require
from equipoise.reading import Unreadable, read_tensors, shielded
from equipoise.store import read_json, replacing, write_json

__all__ = ["Molecules", "read_molecules"]


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

        chosen = torch.as_tensor(list(rows), device="cpu")
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
        kinds = torch.zeros(int(pairs.sum()), self.kinds.shape[1], device="cpu")
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
            batch=torch.arange(len(chosen), device="cpu").repeat_interleave(sizes),
            ptr=torch.cat([starts, starts.new_tensor([len(taken)])]),
        )


def _ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """The numbers start, start + 1, … of all ranges, one range after the other."""
    before = torch.cumsum(lengths, 0) - lengths
    return torch.arange(int(lengths.sum()), device="cpu") + (starts - before).repeat_interleave(lengths)


_COLUMNS = 19
_READY = "qm9_v3.pt"
_RAW = ("gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt")
_SOURCE = (
    "torch_geometric fetches it with torch_geometric.datasets.QM9(root); "
    "by hand, data.pyg.org/datasets/qm9_v3.zip unpacked into raw/; "
    'or give qm9pack as the folder after pip install "equipoise[qm9]"'
)


def read_molecules(root: str | Path, *, download: bool = False) -> Molecules:
    """The molecules of torch_geometric's ``QM9`` data set in a folder that holds ``raw`` or ``processed``, or those of qm9pack.

    torch_geometric would download whatever is missing, would look for other files if rdkit is installed than if it is not, and
    unpickles what lies in ``processed``, which can run any code. Here its loader is given no file: tensors, numbers and texts
    are read and nothing else. Everything that can serve is taken: ``processed/data_v3.pt``; else ``raw/qm9_v3.pt``, which it
    offers ready-made; else the raw files with rdkit. What is computed is checked, and then written to ``processed``, whole or
    not at all, with a note of the raw file it was made of: of a raw file that changes later it is made again.
    The word ``qm9pack`` stands for the package of that name, whose tables may also lie in a folder; see
    :func:`packed_molecules`. With ``download``, torch_geometric may download what is missing.

    Raises:
        MissingExtraError: torch_geometric is not installed, or what qm9pack's tables need.
        DataSetError: none of the files is there, or one cannot be read.
    """
    module = require("torch_geometric.datasets", "graphs")
    folder = Path(root).expanduser()
    if str(root) == PACKAGE and not folder.exists():
        folder = package_folder()
    if parts_of(folder):
        return packed_molecules(folder)
    processed, ready = folder / "processed" / "data_v3.pt", folder / "raw" / _READY
    computable = all((folder / "raw" / name).is_file() for name in _RAW) and find_spec("rdkit") is not None
    if not (processed.is_file() or ready.is_file() or computable or download):
        raise DataSetError(
            f"QM9 needs {processed} or {ready} (or, with rdkit installed, {', '.join(_RAW)} in {ready.parent}), "
            f"and there is none; {_SOURCE}"
        )
    try:
        with shielded():
            if processed.is_file() and not _outdated(processed, ready):
                data, slices, *_ = read_tensors(processed, {"torch_geometric.data.data.Data": _Named})
                return _molecules(data, slices)
            made = None if ready.is_file() else _made(module.QM9, folder)
            from torch_geometric.data import Data, InMemoryDataset

            data, slices = InMemoryDataset.collate(made or [Data(**one) for one in read_tensors(ready)])
            molecules = _molecules(data.to_dict(), slices)
    except Unreadable as error:
        raise DataSetError(f"what lies in {folder} cannot be read as QM9 ({error}); {_SOURCE}") from error
    with suppress(OSError):  # a folder that cannot be written is read anew each time
        with replacing(processed) as part:
            torch.save((data.to_dict(), slices, Data), part)
        write_json(processed.with_suffix(".json"), _mark(ready))
    return molecules


def packed_molecules(folder: Path) -> Molecules:
    """The molecules of qm9pack's tables, with the features that torch_geometric documents.

    Bonds are RDKit's, each molecule's checked with its atoms' places (:func:`~equipoise.data.qm9.bonds.bonds_of`); with them,
    atoms have aromaticity and hybridisation, which torch_geometric leaves at 0 where it makes them from ``gdb9.sdf`` itself.
    A molecule for which no bonds fit is kept without any, and named in a warning.

    Raises:
        MissingExtraError: RDKit is not installed.
        DataSetError: a table cannot be read.
    """
    packed = read_packed(folder)
    found = read_bonds(folder, packed)
    without = packed.number[found.source == NO_BONDS].tolist()
    if without:
        named = ", ".join(map(str, without[:20])) + (" …" if len(without) > 20 else "")
        warnings.warn(f"no bonds fit {len(without)} of {len(packed.number)} molecules; these have none: {named}", stacklevel=2)
    z = torch.from_numpy(packed.z.astype("int64"))
    first_atom, first_bond = torch.from_numpy(packed.first_atom), torch.from_numpy(found.first_bond)
    bonds = torch.from_numpy(found.bonds.astype("int64"))
    heads = bonds + first_atom[:-1].repeat_interleave(first_bond.diff())
    hydrogens = torch.zeros(len(z), device="cpu").index_add_(0, heads[0], (z[heads[1]] == 1).float())
    kinds = (z[:, None] == torch.tensor([1, 6, 7, 8, 9], device="cpu")).float()
    x = torch.cat([kinds, z[:, None].float(), torch.from_numpy(found.flags).float(), hydrogens[:, None]], dim=1)
    orders = torch.nn.functional.one_hot(torch.from_numpy(found.kinds.astype("int64")), 4).float()
    atoms = {"x": x, "pos": torch.from_numpy(packed.pos), "z": z}
    return Molecules(atoms, bonds, orders, first_atom, first_bond, torch.from_numpy(packed.targets))


class _Named:
    """Stands for torch_geometric's class, which its files name and nothing here makes."""


def _mark(ready: Path) -> list[int] | None:
    return [(about := ready.stat()).st_size, about.st_mtime_ns] if ready.is_file() else None


def _outdated(processed: Path, ready: Path) -> bool:
    """Whether the ready-made raw file is another than the one that ``processed`` was made of."""
    own = _mark(ready)
    if own is None:
        return False
    if processed.with_suffix(".json").is_file():
        return bool(read_json(processed.with_suffix(".json")) != own)
    return own[1] > processed.stat().st_mtime_ns


def _molecules(data: Any, slices: Any) -> Molecules:
    if slices is None:
        raise Unreadable("there is only one molecule")
    x, pos, z, bonds, kinds, y = (data[name] for name in ("x", "pos", "z", "edge_index", "edge_attr", "y"))
    atoms, edges = slices["x"], slices["edge_index"]
    for name, table, shape in (
        ("x", x, (len(x), 11)),
        ("pos", pos, (len(x), 3)),
        ("z", z, (len(x),)),
        ("edge_index", bonds, (2, bonds.shape[-1])),
        ("edge_attr", kinds, (bonds.shape[-1], 4)),
        ("y", y, (len(y), _COLUMNS)),
    ):
        if tuple(table.shape) != shape:
            raise Unreadable(f"{name} has the shape {tuple(table.shape)} in place of {shape}")
        # As they will be used: a double may be too large for single precision.
        if table.is_complex() or not bool(torch.isfinite(table.to(torch.float32)).all()):
            raise Unreadable(f"{name} has entries that are no finite numbers in single precision")
        if name in ("z", "edge_index") and table.is_floating_point():
            raise Unreadable(f"{name} holds no whole numbers")
    for starts, end in ((atoms, len(x)), (edges, bonds.shape[1])):
        if starts.is_floating_point() or starts.shape != (len(y) + 1,) or int(starts[0]) != 0 or int(starts[-1]) != end:
            raise Unreadable("the molecules' parts do not add up")
        if bool((starts.diff() < 0).any()):
            raise Unreadable("a molecule ends before it starts")
    sizes = atoms.diff().repeat_interleave(edges.diff())
    if bool(((bonds < 0) | (bonds >= sizes)).any()):
        raise Unreadable("a bond leads to an atom that its molecule does not have")
    tables = {"x": x.to(torch.float32), "pos": pos.to(torch.float32), "z": z}
    return Molecules(tables, bonds, kinds.to(torch.float32), atoms, edges, y.to(torch.float32))


def _made(base: Any, folder: Path) -> Any:
    """What torch_geometric makes of the raw files, which it fetches if need be; ``None`` where it fetched ready-made ones.

    It works in a folder of its own: it would unpickle what it finds in ``processed``.
    """
    found: list[Any] = []
    with TemporaryDirectory() as own:

        class Stored(base):  # type: ignore[misc]
            processed_dir = own

            def _download(self) -> None:
                if not (Path(self.raw_dir) / _READY).is_file():
                    super()._download()

            def process(self) -> None:
                if not (Path(self.raw_dir) / _READY).is_file():
                    super().process()

            @classmethod
            def save(cls, data_list: Any, path: str) -> None:
                found.append(data_list)

            def load(self, path: str, *others: Any) -> None:
                """Nothing: there is no file, and what ``save`` was given is all that is wanted."""

        Stored(str(folder))
    return found[0] if found else None
