"""QM9 as a problem to study: eleven properties of small molecules, from the distances of their atoms, sized for two cores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.data.loading import TensorBatches, generator_of
from equipoise.data.qm9.molecules import TARGETS, TargetScaling
from equipoise.data.qm9.packed import digest_of, package_folder, read_packed
from equipoise.errors import DataSetError, InputError
from equipoise.metrics import Metric
from equipoise.nets import ContinuousFilterNet
from equipoise.study.problem import Built, Problem, Splits

__all__ = ["qm9_problem"]

_MOLECULES = 130_831
_TASKS = tuple(target.name for target in TARGETS)


def qm9_problem(
    *,
    train: int = 5000,
    val: int = 1000,
    test: int = 2000,
    batch_size: int = 100,
    epochs: int = 30,
    data_seed: int = 0,
    folder: str | Path | None = None,
) -> Problem:
    """Eleven properties of QM9's molecules (Ramakrishnan et al., 2014), learned from elements and distances alone.

    Each is brought to mean 0 and deviation 1 of the training molecules, learned by squared error, and judged by its mean
    absolute error in the units of the literature, meV for energies; those of atomisation stand for U0, U, H and G. The network
    is :class:`~equipoise.nets.ContinuousFilterNet`, 36,923 parameters; Adam 1e-3. All runs of a study have the same molecules,
    drawn from the 130,831 of the package ``qm9pack``, which are read on first use (some twenty seconds) and kept under
    ``$EQUIPOISE_CACHE``, or the user's cache folder.

    Args:
        train: molecules to train on. A smaller number gives a part of those of a larger one.
        val: molecules to validate on.
        test: molecules to test on.
        batch_size: molecules per batch.
        epochs: how long a run trains unless the study says otherwise.
        data_seed: of the choice of molecules.
        folder: of tables in the package's layout, in the place of the package's own.

    Raises:
        InputError: a number below 1, fewer than 2 molecules to train on, or more in all than there are.
        MissingExtraError: ``qm9pack`` is not installed.
        DataSetError: the folder holds no such tables.
    """
    for name, number, least in (("train", train, 2), ("val", val, 1), ("test", test, 1), ("batch_size", batch_size, 1)):
        if number < least:
            raise InputError(f"{name} is {number}; it must be at least {least}")
    if folder is None and train + val + test > _MOLECULES:
        raise InputError(f"train + val + test is {train + val + test}; QM9 has {_MOLECULES} molecules")
    where = package_folder() if folder is None else Path(folder).expanduser().absolute()
    digest_of(where)  # what is not there is refused now and not in every run
    return Problem(
        name="qm9",
        tasks=_TASKS,
        metrics=tuple(Metric(target.name, target.name, higher_is_better=False, unit=target.unit) for target in TARGETS),
        build=_build,
        data=partial(_data, where, (train, val, test), batch_size, data_seed),
        evaluate=_evaluate,
        optimizer=_optimizer,
        parts=_parts,
        epochs=epochs,
        options={
            "molecules": f"{train}/{val}/{test}, seed {data_seed}",
            "network": "ContinuousFilterNet",
            "batch_size": batch_size,
            "optimizer": "Adam, 1e-3",
        },
    )


class _Batches(TensorBatches):
    """Batches without the places that none of their molecules needs; ``scaling`` brings errors to the reported units."""

    scaling: TargetScaling

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in super().__iter__():
            atoms = int((batch["z"] > 0).sum(1).max())
            yield {"z": batch["z"][:, :atoms], "pos": batch["pos"][:, :atoms], "label": batch["label"]}


def _data(folder: Path, counts: tuple[int, int, int], batch_size: int, data_seed: int, seed: int) -> Splits:
    packed = read_packed(folder)
    count = len(packed.number)
    if sum(counts) > count:
        raise DataSetError(f"{folder} holds {count} molecules, too few for {' + '.join(map(str, counts))}; ask for fewer")
    order = torch.randperm(count, generator=generator_of(data_seed), device="cpu").numpy()
    train, val, test = counts
    # From both ends, so that the number of training molecules changes no other split; that of test molecules moves validation.
    chosen = order[count - train :][::-1], order[test : test + val], order[:test]
    sizes = np.diff(packed.first_atom)
    columns = [target.column for target in TARGETS]
    scaling = TargetScaling.of(torch.from_numpy(packed.targets[chosen[0]][:, columns]))
    made = []
    for training, rows in zip((True, False, False), chosen, strict=True):
        # Where order makes no difference, molecules of a size come together, which is faster.
        rows = rows if training else rows[np.argsort(sizes[rows], kind="stable")]
        z = np.zeros((len(rows), int(sizes[rows].max())), np.uint8)
        pos = np.zeros((*z.shape, 3), np.float32)
        for place, row in enumerate(rows):
            start, end = packed.first_atom[row : row + 2]
            z[place, : end - start] = packed.z[start:end]
            pos[place, : end - start] = packed.pos[start:end]
        label = scaling.scaled(torch.from_numpy(packed.targets[rows][:, columns]))
        tensors = {"z": torch.from_numpy(z), "pos": torch.from_numpy(pos), "label": label}
        batches = _Batches(tensors, batch_size if training else 250, shuffle=training, seed=seed)
        batches.scaling = scaling
        made.append(batches)
    return Splits(*made)


def _build(seed: int) -> Built:
    return ContinuousFilterNet(_TASKS), _losses


def _losses(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = model(batch["z"], batch["pos"])
    return {task: F.mse_loss(out[task], batch["label"][:, place]) for place, task in enumerate(_TASKS)}


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def _parts(model: nn.Module) -> dict[str, Any]:
    return {"features": model.features, "heads": dict(cast(nn.ModuleDict, model.heads))}


def _evaluate(model: nn.Module, loader: Iterable[Any]) -> dict[str, float]:
    errors = []
    for batch in loader:
        out = model(batch["z"], batch["pos"])
        errors.append((torch.stack([out[task] for task in _TASKS], dim=1) - batch["label"]).abs())
    return cast(_Batches, loader).scaling.reported(torch.cat(errors))
