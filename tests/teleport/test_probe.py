"""Which batches a point is sought and judged on, and that drawing them disturbs nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

import equipoise as eq
from equipoise.teleport.probes import HeldBatches, Probes
from tests import problems
from tests.states import assert_same_state
from tests.teleport.helpers import eager_cost, optimizer_with, train


def held(probes: HeldBatches) -> tuple[list[Any], list[Any]]:
    return probes.batches()


def test_recent_steps_the_newest_for_the_search() -> None:
    probes = HeldBatches(Probes("recent", 2, 3))
    for step in range(8):
        assert probes.ready == (step >= 5)
        probes.remember((step,))
    assert held(probes) == ([7, 6], [5, 4, 3])
    assert probes.sizes == (2, 3)


def test_recent_steps_of_micro_batches() -> None:
    probes = HeldBatches(Probes("recent", 1, 1))
    probes.remember(("a", "b"))
    probes.remember(("c", "d"))
    assert held(probes) == (["c", "d"], ["a", "b"])


def test_no_others_held_out() -> None:
    probes = HeldBatches(Probes("recent", 2, 0))
    probes.remember((1,))
    probes.remember((2,))
    assert held(probes) == ([2, 1], [])
    assert probes.sizes == (2, 0)
    assert not probes.held_out


def test_the_current_batch() -> None:
    probes = HeldBatches(Probes("current", 2, 2))
    for step in range(3):
        probes.remember((step, step + 0.5))
        assert probes.ready
        assert held(probes) == ([step, step + 0.5], [])
    assert probes.sizes == (2, 0)  # micro-batches
    assert not probes.held_out


def test_a_loader_is_drawn_from_once() -> None:
    drawn = []

    def batches() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    class Loader:
        def __iter__(self) -> Iterator[int]:
            return batches()

    probes = HeldBatches(Probes(Loader(), 2, 3))
    assert probes.ready
    assert drawn == []  # only when it is needed
    probes.remember(("not these",))
    search, judge = held(probes)
    assert (len(search), len(judge)) == (2, 3)
    assert sorted(search + judge) == [0, 1, 2, 3, 4]
    assert held(probes) == (search, judge)
    assert drawn == [0, 1, 2, 3, 4]


def test_state() -> None:
    probes, other = HeldBatches(Probes("recent", 1, 2)), HeldBatches(Probes("recent", 1, 2))
    for step in range(5):
        probes.remember((step, -step))
    other.load_state_dict(probes.state_dict())
    assert held(other) == held(probes)
    other.remember((9,))
    assert held(other) == ([9], [4, -4, 3, -3])
    assert held(probes) == ([4, -4], [3, -3, 2, -2])


def test_the_place_in_a_loader_that_all_batches_are_taken_of() -> None:
    class Shuffled:
        def __len__(self) -> int:
            return 6

        def __iter__(self) -> Iterator[int]:
            order = list(range(6))
            random.shuffle(order)
            return iter(order)

    def fresh() -> HeldBatches:
        probes = HeldBatches(Probes(Shuffled(), "all", 0))
        probes.meet(optimizer_with(None).objective)
        return probes

    straight, resumed = fresh(), fresh()
    for stopped in (6, 2):  # at the end of a pass, and in the middle of one
        list(zip(straight.batches()[0], range(stopped), strict=False))
        resumed.load_state_dict(straight.state_dict())
        for _ in range(3):
            here, there = list(straight.batches()[0]), list(resumed.batches()[0])
            assert here == there
            assert sorted(here) == list(range(6))


def test_a_loader_that_is_too_short() -> None:
    with pytest.raises(eq.InputError, match=r"the probe loader gave 2 batches; 5 are needed \(2 to search on, 3 held out"):
        held(HeldBatches(Probes([1, 2], 2, 3)))
    with pytest.raises(eq.InputError, match="the probe loader gave 0 batches; 1 are needed"):
        held(HeldBatches(Probes([], 1, 0)))


def test_wrong_sources() -> None:
    with pytest.raises(eq.InputError, match='"recent", "current", "training" or a loader of batches; got "recnt"'):
        Probes(probe="recnt")
    with pytest.raises(eq.InputError, match="or a loader of batches; got int"):
        Probes(probe=3)  # type: ignore[arg-type]
    with pytest.raises(eq.InputError, match="probe_batches must be a whole number from 1 on; got 0"):
        Probes(probe_batches=0)
    with pytest.raises(eq.InputError, match="held_out_batches must be a whole number from 0 on; got -1"):
        Probes(held_out_batches=-1)
    for probe in ("recent", "current"):
        with pytest.raises(eq.InputError, match=f'means all of a loader.s, and probe="{probe}" is none'):
            Probes(probe, "all", 0)
    with pytest.raises(eq.InputError, match=r"got held_out_batches=1\. Set it to 0"):
        Probes([1, 2], "all")
    objective = optimizer_with(None).objective
    with pytest.raises(eq.InputError, match="draws from the loader of the objective, which has none"):
        HeldBatches(Probes("training")).meet(objective)
    with pytest.raises(eq.InputError, match="needs a loader that has a length; map has none"):
        HeldBatches(Probes(map(str, [1, 2]), "all", 0)).meet(objective)


# -- with torch's loaders


def data() -> TensorDataset:
    return TensorDataset(*problems.batch(64))


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Draws from every global generator there is."""

    def __init__(self) -> None:
        self.inputs, self.targets = problems.batch(64)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002
        return self.inputs[index] + 0.1 * noise, self.targets[index]


def global_states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def test_drawing_disturbs_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[Any] = []
    # Seeding torch as a whole would seed the generators of all other devices as well.
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = global_states()
    held(HeldBatches(Probes(DataLoader(Augmented(), batch_size=8, shuffle=True), 2, 2)))
    assert_same_state(global_states(), before)
    assert seeded == []


def test_drawing_from_the_training_loader_does_not_change_its_order() -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(data(), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(5))

    plain, probed = loader(), loader()
    first = [batch[0] for batch in plain]
    held(HeldBatches(Probes(probed, 2, 2)))
    again = [batch[0] for batch in probed]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_drawing_does_not_restart_an_epoch_under_way() -> None:
    """A loader whose workers persist has a single iterator."""
    loader = DataLoader(data(), batch_size=8, num_workers=1, persistent_workers=True)
    probes = HeldBatches(Probes(loader, 1, 1))
    seen = []
    for number, batch in enumerate(loader):
        seen.append(batch[0])
        if number == 2:
            held(probes)
        assert number < 8
    assert torch.equal(torch.cat(seen), data().tensors[0])


def test_every_start_draws_the_same_batches() -> None:
    first, second = (held(HeldBatches(Probes(DataLoader(data(), batch_size=8, shuffle=True), 2, 0)))[0] for _ in range(2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))


def test_a_training_run_with_a_loader() -> None:
    loader = DataLoader(data(), batch_size=8, shuffle=True)
    cost = eager_cost(probe=loader, probe_batches=2, held_out_batches=2)
    train(optimizer_with(cost), range(3))
    assert [report.step for report in cost.attempts] == [0, 1, 2]  # there is no need to wait for batches
    assert all(report.accepted for report in cost.attempts)
    with pytest.raises(eq.InputError, match="the probe loader gave 3 batches"):
        train(optimizer_with(eager_cost(probe=list(loader)[:3], probe_batches=2, held_out_batches=2)), range(1))


@pytest.mark.parametrize("probe", ["current", "recent"])
def test_a_training_run_with_its_own_batches(probe: str) -> None:
    cost = eager_cost(probe=probe, held_out_batches=1)
    train(optimizer_with(cost), range(4))
    assert [report.step for report in cost.attempts] == ([0, 1, 2, 3] if probe == "current" else [1, 2, 3])
