"""torch_geometric's QM9 as it lies on disk, without its downloads."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from equipoise.data.qm9.graphs import Molecules
from equipoise.errors import DataSetError, require
from equipoise.reading import Unreadable, read_tensors, shielded
from equipoise.store import read_json, replacing, write_json

__all__ = ["read_molecules"]

_COLUMNS = 19
_READY = "qm9_v3.pt"
_RAW = ("gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt")
_SOURCE = (
    "torch_geometric fetches it with torch_geometric.datasets.QM9(root); "
    "by hand, data.pyg.org/datasets/qm9_v3.zip unpacked into raw/"
)


def read_molecules(root: str | Path, *, download: bool = False) -> Molecules:
    """The molecules of torch_geometric's ``QM9`` data set in a folder that holds ``raw`` or ``processed``.

    torch_geometric would download whatever is missing, would look for other files if rdkit is installed than if it is not, and
    unpickles what lies in ``processed``, which can run any code. Here its loader is given no file: tensors, numbers and texts
    are read and nothing else. Everything that can serve is taken: ``processed/data_v3.pt``; else ``raw/qm9_v3.pt``, which it
    offers ready-made; else the raw files with rdkit. What is computed is checked, and then written to ``processed``, whole or
    not at all, with a note of the raw file it was made of: of a raw file that changes later it is made again.
    With ``download``, torch_geometric may download what is missing.

    Raises:
        MissingExtraError: torch_geometric is not installed.
        DataSetError: none of the files is there, or one cannot be read.
    """
    module = require("torch_geometric.datasets", "graphs")
    folder = Path(root).expanduser()
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
        if table.is_complex() or not bool(torch.isfinite(table).all()):
            raise Unreadable(f"{name} has entries that are no finite numbers")
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
                pass

        Stored(str(folder))
    return found[0] if found else None
