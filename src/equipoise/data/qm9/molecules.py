"""QM9's splits, with scaled targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from equipoise.data.loading import DatasetBatches, EpochDataset
from equipoise.data.qm9.graphs import Molecules
from equipoise.data.qm9.stored import read_molecules
from equipoise.data.qm9.targets import TARGETS, TargetScaling
from equipoise.errors import DataSetError, InputError

__all__ = ["QM9Molecules", "qm9_loaders"]


class QM9Molecules(EpochDataset):
    """One split of QM9 (Ramakrishnan et al. 2014): 130,831 molecules, of which 10,000 each are for test and validation.

    On disk: torch_geometric's layout, ``root/processed/data_v3.pt``, or ``root/raw`` with ``qm9_v3.pt``, or with ``gdb9.sdf``,
    ``gdb9.sdf.csv`` and ``uncharacterized.txt`` where rdkit is installed.

    A row is ``{"graph": torch_geometric Batch of one molecule, "label": [11] float32}``, a batch ``{"graph": Batch of n
    molecules, "label": [n, 11]}``. A graph has ``x`` [atoms, 11], ``pos``, ``z``, ``edge_index`` and ``edge_attr`` [edges, 5]
    with all atoms of a molecule connected (see :class:`~equipoise.data.qm9.graphs.Molecules`), ``batch`` and ``ptr``. Labels
    are in the order of :data:`~equipoise.data.qm9.TARGETS` and scaled by :attr:`scaling`.

    Molecules are put in a random order by ``split_seed``; the first ``held_out`` are the test split, the next as many the
    validation split. Means and deviations for the scaling are those of the training split alone. (Released code reads them
    off all molecules, since a subset's ``.data`` in torch_geometric is the whole.)

    Args:
        root: the folder that holds ``raw`` or ``processed``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        held_out: molecules in each of test and validation; 10,000 in the literature.
        split_seed: of the splits.
        scale: whether labels are scaled.
        download: whether torch_geometric may download what is missing.
        molecules: those of another split, ``other.molecules``, so that the files are read only once.

    Attributes:
        scaling: brings errors back to the units that are reported, see :class:`~equipoise.data.qm9.TargetScaling`.

    Raises:
        InputError: another split, or ``held_out`` below 1.
        DataSetError: the files are missing or broken, or there are too few molecules for the splits.
        MissingExtraError: torch_geometric is not installed.

    Example:
        >>> from tempfile import mkdtemp
        >>> from equipoise_papers.samples import write_qm9_sample
        >>> molecules = QM9Molecules(write_qm9_sample(mkdtemp(), molecules=30), "train", held_out=5)
        >>> batch = molecules.batch([0, 1, 2], epoch=0)
        >>> len(molecules), batch["graph"].num_graphs, batch["label"].shape
        (20, 3, torch.Size([3, 11]))
    """

    tasks = tuple(target.name for target in TARGETS)

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val", "test"] = "train",
        *,
        held_out: int = 10_000,
        split_seed: int = 0,
        scale: bool = True,
        download: bool = False,
        molecules: Molecules | None = None,
    ) -> None:
        if split not in ("train", "val", "test"):
            raise InputError(f'split is "{split}"; QM9 has train, val, test')
        if held_out < 1:
            raise InputError(f"held_out is {held_out}; test and validation need at least one molecule each")
        self.molecules = read_molecules(root, download=download) if molecules is None else molecules
        count = len(self.molecules)
        if count < 2 * held_out + 2:
            raise DataSetError(
                f"{root} holds {count} molecules, too few to keep back {held_out} each for test and validation; "
                "give a smaller held_out"
            )
        order = torch.randperm(count, generator=torch.Generator().manual_seed(split_seed))
        test, validation, train = order.split([held_out, held_out, count - 2 * held_out])
        targets = self.molecules.targets[:, [target.column for target in TARGETS]]
        self.scaling = TargetScaling.of(targets[train]) if scale else TargetScaling.none()
        self.split = split
        self.rows = {"train": train, "val": validation, "test": test}[split]
        self.labels = self.scaling.scaled(targets[self.rows])

    def __len__(self) -> int:
        """Molecules of the split."""
        return len(self.rows)

    def at(self, row: int, epoch: int) -> dict[str, Any]:
        """One molecule; the same in every epoch."""
        return {"graph": self.molecules.graph([int(self.rows[row])]), "label": self.labels[row]}

    def batch(self, rows: Sequence[int], epoch: int) -> Any:
        """Several molecules."""
        chosen = torch.as_tensor(list(rows))
        return {"graph": self.molecules.graph(self.rows[chosen].tolist()), "label": self.labels[chosen]}


def qm9_loaders(
    root: str | Path,
    batch_size: int = 120,
    *,
    held_out: int = 10_000,
    scale: bool = True,
    download: bool = False,
    seed: int = 0,
    split_seed: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
    drop_last: bool = False,
) -> tuple[DatasetBatches, DatasetBatches, DatasetBatches]:
    """Loaders for training, validation and test; ``loader.dataset.scaling`` brings errors back to the reported units.

    Args:
        root: the folder that holds ``raw`` or ``processed``.
        batch_size: molecules per batch; 120 in the literature.
        held_out: molecules in each of test and validation.
        scale: whether labels are scaled.
        download: whether torch_geometric may download what is missing.
        seed: of the training order.
        split_seed: of the splits, the same for all runs of a study.
        workers: processes of each loader that read ahead.
        pin_memory: whether batches lie in page-locked memory.
        drop_last: whether a last, smaller training batch is left out.

    Raises:
        DataSetError: as :class:`QM9Molecules`.
    """

    def opened(split: Literal["train", "val", "test"], molecules: Molecules | None = None) -> QM9Molecules:
        return QM9Molecules(
            root, split, held_out=held_out, split_seed=split_seed, scale=scale, download=download, molecules=molecules
        )

    train = opened("train")
    validation, test = (opened(split, train.molecules) for split in ("val", "test"))
    return (
        DatasetBatches(train, batch_size, shuffle=True, seed=seed, drop_last=drop_last, workers=workers, pin_memory=pin_memory),
        DatasetBatches(validation, batch_size, workers=workers, pin_memory=pin_memory),
        DatasetBatches(test, batch_size, workers=workers, pin_memory=pin_memory),
    )
