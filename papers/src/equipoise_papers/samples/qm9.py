"""QM9 in small, as the ready-made file that torch_geometric takes where rdkit is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from equipoise.errors import InputError

__all__ = ["write_qm9_sample"]

_ELEMENTS = (1, 6, 7, 8, 9)
# Roughly what the real targets' means and deviations are, so that scaling has something to do.
_MEANS = (2.7, 75, -6.5, 0.3, 6.9, 1190, 4.1, -11180, -11180, -11180, -11180, 31.6, -76, -77, -77, -71, 9.7, 1.4, 1.1)
_DEVIATIONS = (1.5, 8, 0.6, 1.3, 1.3, 280, 0.9, 1085, 1085, 1085, 1085, 4.1, 10, 10, 10, 9.5, 5, 0.3, 0.2)


def write_qm9_sample(root: str | Path, *, molecules: int = 60, seed: int = 0) -> Path:
    """Writes ``raw/qm9_v3.pt`` as :class:`~equipoise.data.QM9Molecules` reads it; the molecules are chains of random atoms.

    Args:
        root: where ``raw`` is made.
        molecules: how many.
        seed: of the content.

    Raises:
        InputError: fewer than 2 molecules.
    """
    if molecules < 2:
        raise InputError(f"molecules is {molecules}; at least 2 are needed")
    folder = Path(root)
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((len(_ELEMENTS) + 1, len(_MEANS))) / 2
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    torch.save([_molecule(rng, number, weights) for number in range(molecules)], folder / "raw" / "qm9_v3.pt")
    return folder


def _molecule(rng: np.random.Generator, number: int, weights: np.ndarray) -> dict[str, Tensor | str | int]:
    count = int(rng.integers(3, 10))
    kinds = rng.integers(0, len(_ELEMENTS), count)
    z = torch.tensor([_ELEMENTS[kind] for kind in kinds])
    # A chain: every atom is bound to the one before it, in both directions, in the order that torch_geometric sorts them.
    edges = [(a, b) for a in range(count) for b in (a - 1, a + 1) if 0 <= b < count]
    bonds = rng.integers(0, 4, count)
    edge_index = torch.tensor(edges).T.contiguous()
    edge_attr = torch.eye(4)[torch.tensor([int(bonds[min(pair)]) for pair in edges])]
    hydrogens = torch.zeros(count).index_add(0, edge_index[0], (z[edge_index[1]] == 1).float())
    hybrid = torch.eye(4)[torch.from_numpy(rng.integers(0, 4, count))]  # aromatic, sp, sp2, sp3
    x = torch.cat([torch.eye(5)[torch.from_numpy(kinds)], z[:, None].float(), hybrid, hydrogens[:, None]], dim=1)
    composition = np.append(np.bincount(kinds, minlength=len(_ELEMENTS)), count) / 4 - 0.5
    standard = composition @ weights + 0.3 * rng.standard_normal(len(_MEANS))
    return {
        "x": x,
        "z": z,
        "pos": torch.from_numpy(np.cumsum(rng.normal(0.0, 1.0, (count, 3)), axis=0).astype(np.float32)),
        "edge_index": edge_index,
        "edge_attr": edge_attr,
        "y": torch.tensor(np.array(_MEANS) + np.array(_DEVIATIONS) * standard, dtype=torch.float32)[None],
        "name": f"sample_{number}",
        "idx": number,
    }
