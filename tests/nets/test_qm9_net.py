"""The QM9 network's symmetries, and what is said when its extra is missing."""

from __future__ import annotations

import sys

import pytest
import torch

import equipoise as eq
from equipoise.nets import QM9_TASKS, ContinuousFilterNet, QM9Net
from tests.nets.filled import filled, wave
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


def test_distances_alone_count() -> None:
    """Turned, reflected and moved; atoms in another order; beside larger molecules and in places that nobody needs."""
    network = filled(ContinuousFilterNet(["mu", "homo"], size=6, channels=3, radial=4, units=5))
    z = torch.tensor([[8, 1, 1, 0], [6, 7, 1, 0], [6, 1, 1, 9], [1, 1, 0, 0]])
    pos = 2 * wave(4, 4, 3)
    together = network(z, pos)
    turn = torch.linalg.qr(wave(3, 3, phase=1.0))[0]
    moved = network(z, pos @ turn.T + torch.tensor([5.0, -2.0, 1.0]))
    order = torch.tensor([2, 0, 3, 1])
    shuffled = network(z[:, order], pos[:, order])
    wider = network(torch.nn.functional.pad(z, (0, 3)), torch.nn.functional.pad(pos, (0, 0, 0, 3), value=0.5))
    stretched = network(z, 1.1 * pos)
    for task in ("mu", "homo"):
        for other in (moved, shuffled, wider):
            assert torch.allclose(together[task], other[task])
        for row in range(4):
            assert torch.allclose(together[task][row], network(z[row : row + 1], pos[row : row + 1])[task][0])
        assert not torch.isclose(together[task], stretched[task], rtol=1e-4).any()


def test_interactions_are_the_sum_that_the_docstring_says() -> None:
    network = filled(ContinuousFilterNet(["mu"], size=4, channels=2, interactions=1, radial=3, reach=4.0, units=3))
    z, pos = torch.tensor([[6, 8, 1]]), 2 * wave(1, 3, 3)
    atoms = network.features
    states = atoms.elements(z[0])
    filters = atoms.filters[0].weight.reshape(4, 3, 2)
    added = []
    for i in range(3):
        heard = atoms.filters[0].bias.clone()
        for j in range(3):
            if i != j:
                d = (pos[0, i] - pos[0, j]).norm()
                phi = torch.exp(-((d - torch.tensor([0.8, 2.4, 4.0])) ** 2) / (2 * 1.6**2))
                heard = heard + torch.einsum("r,src,c->s", phi.double(), filters, atoms.inward[0](states[j]))
        added.append(atoms.outward[0](torch.nn.functional.silu(heard)))
    summed = (states + torch.stack(added)).sum(0)
    expected = network.heads["mu"](torch.nn.functional.silu(atoms.last(summed / 18)))
    assert torch.allclose(network(z, pos)["mu"], expected, atol=1e-6)


def test_bad_sizes_of_the_small_network_are_refused() -> None:
    with pytest.raises(eq.InputError, match="channels"):
        ContinuousFilterNet(channels=0)
    with pytest.raises(eq.InputError, match=r"reach must be above 0\.8"):
        ContinuousFilterNet(reach=0.5)


@pytest.mark.parametrize("kind", [torch.half, torch.bfloat16, torch.double])
def test_other_precisions(kind: torch.dtype) -> None:
    network = filled(ContinuousFilterNet(["mu"], size=6, channels=3, radial=4, units=5)).float()
    z, pos = torch.tensor([[8, 1, 1], [9, 1, 0]]), wave(2, 3, 3).float()
    exact = network(z, pos)["mu"]
    for places in (pos, pos.to(kind)):
        rounded = network.to(kind)(z, places)["mu"]
        assert rounded.dtype == kind
        assert torch.allclose(rounded.float(), exact, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    ("z", "pos", "said"),
    [
        (torch.ones(0, 3), torch.ones(0, 3, 3), "at least one molecule; got \\[0, 3\\] and"),
        (torch.ones(2, 0), torch.ones(2, 0, 3), "at least one molecule"),
        (torch.ones(2, 3), torch.ones(2, 3), "pos \\[molecules, atoms, 3\\]"),
        (torch.tensor([[6, 17]]), torch.ones(1, 2, 3), "atomic numbers must be 1 to 9, and 0 where no atom is; got 17"),
        (torch.tensor([[6, -1]]), torch.ones(1, 2, 3), "got -1"),
    ],
)
def test_molecules_that_cannot_be_are_refused_in_one_line(z: torch.Tensor, pos: torch.Tensor, said: str) -> None:
    with pytest.raises(eq.InputError, match=said) as refused:
        ContinuousFilterNet(["mu"])(z, pos)
    assert "\n" not in str(refused.value)
