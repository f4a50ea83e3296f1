"""torch_geometric's QM9 as it lies on disk, without its downloads."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch

from equipoise.data.qm9.graphs import Molecules
from equipoise.errors import DataSetError, MissingExtraError, require
from equipoise.store import replacing

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

    torch_geometric would download whatever is missing, and would look for other files if rdkit is installed than if it is
    not. Here everything that can serve is taken: ``processed/data_v3.pt``, its own result; else ``raw/qm9_v3.pt``, which it
    offers ready-made; else the raw files with rdkit. What is computed is written to ``processed``, whole or not at all.
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
    kind = _kind(module.QM9)
    try:
        return _molecules(kind(str(folder)))
    except MissingExtraError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        raise DataSetError(
            f"what lies in {folder} cannot be read as QM9 ({type(error).__name__}: {_first_line(error)}); {_SOURCE}"
        ) from error


def _molecules(stored: Any) -> Molecules:
    data, slices = stored._data, stored.slices
    if slices is None:
        raise ValueError("there is only one molecule")
    if data.y.ndim != 2 or data.y.shape[1] != _COLUMNS:
        raise ValueError(f"y has the shape {tuple(data.y.shape)} in place of [molecules, {_COLUMNS}]")
    return Molecules(
        {name: data[name] for name in ("x", "pos", "z")},
        data.edge_index,
        data.edge_attr.to(torch.float32),
        slices["x"],
        slices["edge_index"],
        data.y,
    )


def _kind(base: Any) -> Any:
    """torch_geometric's class with another order of looking for files; made here since its base is an extra."""

    class Stored(base):  # type: ignore[misc]
        def _download(self) -> None:
            if not Path(self.processed_paths[0]).is_file() and not self._ready.is_file():
                super()._download()

        def process(self) -> None:
            if not self._ready.is_file():
                super().process()
                return
            from torch_geometric.data import Data

            found = torch.load(self._ready, weights_only=True)
            self.save([Data(**molecule) for molecule in found], self.processed_paths[0])

        @property
        def _ready(self) -> Path:
            return Path(self.raw_dir) / _READY

        @classmethod
        def save(cls, data_list: Any, path: str) -> None:
            with replacing(Path(path)) as part:
                super().save(data_list, str(part))

    return cast(Any, Stored)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
