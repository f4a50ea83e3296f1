"""QM9's targets and their scales, and its splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from equipoise.data.loading import DatasetBatches, EpochDataset
from equipoise.data.qm9.stored import Molecules, read_molecules
from equipoise.errors import DataSetError, InputError

__all__ = ["TARGETS", "QM9Molecules", "Target", "TargetScaling", "qm9_loaders"]


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


@dataclass(frozen=True)
class TargetScaling:
    """What turns the targets of QM9, y, into what is trained on, (y − mean) / std, for each of the eleven.

    Attributes:
        mean: [11], in torch_geometric's units.
        std: [11], with n − 1 in the denominator, as ``torch.std`` has it.

    Example:
        >>> y = torch.randn(100, 11) * 3 + 5
        >>> scaling = TargetScaling.of(y)
        >>> bool(torch.allclose(scaling.unscaled(scaling.scaled(y)), y, atol=1e-5))
        True
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, targets: Tensor) -> TargetScaling:
        """The scaling of the training split's targets ``[N, 11]``.

        Raises:
            DataSetError: fewer than two molecules, or a target that is the same for all of them.
        """
        exact = targets.double()
        std = exact.std(dim=0) if len(exact) > 1 else torch.zeros(exact.shape[1], device="cpu")
        if not bool((std > 0).all()):
            constant = [target.name for target, own in zip(TARGETS, std.tolist(), strict=True) if not own > 0]
            raise DataSetError(
                f"the targets {', '.join(constant)} are the same for all of {len(exact)} training molecules "
                "and cannot be scaled"
            )
        return cls(exact.mean(dim=0).float(), std.float())

    @classmethod
    def none(cls) -> TargetScaling:
        """The scaling that changes nothing."""
        return cls(torch.zeros(len(TARGETS), device="cpu"), torch.ones(len(TARGETS), device="cpu"))

    def scaled(self, targets: Tensor) -> Tensor:
        """From torch_geometric's units to what is trained on, ``[…, 11]``."""
        return (targets - self.mean.to(targets)) / self.std.to(targets)

    def unscaled(self, outputs: Tensor) -> Tensor:
        """From what is trained on to torch_geometric's units, ``[…, 11]``."""
        return outputs * self.std.to(outputs) + self.mean.to(outputs)

    def reported(self, errors: Tensor) -> dict[str, float]:
        """Mean absolute errors in the units that are reported, meV for energies.

        Args:
            errors: absolute errors of what is trained on, ``[N, 11]``, of any number of molecules.

        Returns:
            Name of the target → its mean absolute error in :attr:`Target.unit <equipoise.data.qm9.Target>`.
        """
        means = errors.double().mean(dim=0).cpu() * self.std.double()
        return {target.name: float(mean) * target.factor for target, mean in zip(TARGETS, means, strict=True)}


class QM9Molecules(EpochDataset):
    """One split of QM9 (Ramakrishnan et al. 2014): 130,831 molecules, of which 10,000 each are for test and validation.

    On disk: torch_geometric's layout, ``root/processed/data_v3.pt``, or ``root/raw`` with ``qm9_v3.pt``, or with ``gdb9.sdf``,
    ``gdb9.sdf.csv`` and ``uncharacterized.txt`` where rdkit is installed. Or in the package ``qm9pack``, whose name is then the
    ``root``: the same molecules in the same order, with bonds by RDKit, see
    :func:`~equipoise.data.qm9.stored.packed_molecules`.

    A row is ``{"graph": torch_geometric Batch of one molecule, "label": [11] float32}``, a batch ``{"graph": Batch of n
    molecules, "label": [n, 11]}``. A graph has ``x`` [atoms, 11], ``pos``, ``z``, ``edge_index`` and ``edge_attr`` [edges, 5]
    with all atoms of a molecule connected (see :class:`~equipoise.data.qm9.stored.Molecules`), ``batch`` and ``ptr``. Labels
    are in the order of :data:`~equipoise.data.qm9.TARGETS` and scaled by :attr:`scaling`.

    Molecules are put in a random order by ``split_seed``; the first ``held_out`` are the test split, the next as many the
    validation split. Means and deviations for the scaling are those of the training split alone. (Released code reads them
    off all molecules, since a subset's ``.data`` in torch_geometric is the whole.)

    Args:
        root: the folder that holds ``raw`` or ``processed``, or ``"qm9pack"``.
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
        MissingExtraError: torch_geometric is not installed; of the package, ``qm9pack`` or RDKit.

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
        order = torch.randperm(count, generator=torch.Generator().manual_seed(split_seed), device="cpu")
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
        chosen = torch.as_tensor(list(rows), device="cpu")
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
        root: the folder that holds ``raw`` or ``processed``, or ``"qm9pack"``.
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
