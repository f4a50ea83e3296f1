"""Molecules that a formula gives."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from tests.nets.filled import wave

__all__ = ["molecules"]


def molecules(sizes: tuple[int, ...] = (5, 9, 3)) -> SimpleNamespace:
    """A batch of complete graphs with these numbers of atoms, float64, as ``torch_geometric`` lays batches out."""
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    pairs = (batch[:, None] == batch) & ~torch.eye(len(batch), dtype=torch.bool)
    edge_index = pairs.nonzero().T
    return SimpleNamespace(
        x=wave(len(batch), 11), edge_index=edge_index, edge_attr=wave(edge_index.shape[1], 5, phase=2.0), batch=batch
    )
