"""The QM9 network's symmetries, and what is said when its extra is missing."""

from __future__ import annotations

import sys

import pytest
import torch

import equipoise as eq
from equipoise.nets import QM9_TASKS, QM9Net
from tests.nets.filled import filled
from tests.nets.molecules import molecules


def test_molecules_do_not_depend_on_the_batch_nor_on_the_order_of_atoms() -> None:
    network = filled(QM9Net(size=8, hidden=16))
    batch = molecules((4, 6))
    together = network(batch)
    order = torch.tensor([2, 0, 3, 1, 9, 4, 6, 5, 8, 7])
    place = torch.argsort(order)
    batch.x, batch.edge_index = batch.x[order], place[batch.edge_index]
    shuffled = network(batch)
    first = molecules((4, 6))
    inside = (first.edge_index < 4).all(0)
    first.x, first.batch = first.x[:4], first.batch[:4]
    first.edge_index, first.edge_attr = first.edge_index[:, inside], first.edge_attr[inside]
    alone = network(first)
    for task in QM9_TASKS:
        assert torch.allclose(together[task], shuffled[task])
        assert torch.allclose(together[task][:1], alone[task])


def test_messages_reach_further_with_every_step() -> None:
    """In a chain, the readout of a molecule depends on edges only if messages are passed along them."""
    network = filled(QM9Net(["mu"], size=4, hidden=8, steps=2))
    batch = molecules((3,))
    before = network(batch)["mu"]
    batch.edge_attr = batch.edge_attr + 1
    assert not torch.allclose(before, network(batch)["mu"])


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    with pytest.raises(eq.errors.MissingExtraError, match=r"equipoise\[graphs\]"):
        QM9Net()


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(eq.InputError, match="hidden"):
        QM9Net(hidden=0)
    with pytest.raises(eq.InputError, match="heads"):
        QM9Net([])
