"""Order, workers, resuming: what DatasetBatches promises, on a data set whose rows show what they were asked for."""

from __future__ import annotations

import itertools
import multiprocessing

import pytest
import torch

from equipoise.data import DatasetBatches, EpochDataset, TensorBatches
from equipoise.data.loading import generator_of, held_out, mixed_seed
from equipoise.errors import DataSetError, InputError


class Drawn(EpochDataset):
    """Rows that are random as an augmentation is: a function of (seed, epoch, row)."""

    def __init__(self, count: int = 23, broken: int | None = None) -> None:
        self.count = count
        self.broken = broken

    def __len__(self) -> int:
        return self.count

    def at(self, row, epoch):
        if row == self.broken:
            raise DataSetError(f"row {row} is broken")
        return {"row": torch.tensor(row), "noise": torch.rand(3, generator=generator_of(7, epoch, row))}


def content(batches):
    return [(batch["row"].tolist(), batch["noise"].tolist()) for batch in batches]


def test_batches_are_the_same_for_any_number_of_workers_epoch_by_epoch():
    alone = DatasetBatches(Drawn(), 5, shuffle=True, seed=1)
    helped = DatasetBatches(Drawn(), 5, shuffle=True, seed=1, workers=2)
    for _ in range(3):
        assert content(alone) == content(helped)
    assert alone.epoch == helped.epoch == 3


def test_a_pass_that_was_broken_off_does_not_spoil_the_next_one():
    helped = DatasetBatches(Drawn(), 5, shuffle=True, workers=2)
    expected = DatasetBatches(Drawn(), 5, shuffle=True)
    for _ in itertools.islice(helped, 2):
        pass
    expected.set_epoch(1)
    assert content(helped) == content(expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_training_sees_the_rest_of_the_epoch(workers):
    whole = DatasetBatches(Drawn(), 4, shuffle=True, seed=3)
    first, second = content(whole), content(whole)
    resumed = DatasetBatches(Drawn(), 4, shuffle=True, seed=3, workers=workers)
    resumed.set_epoch(0, skip=2)
    assert content(resumed) == first[2:]
    assert content(resumed) == second
    assert first[0][0] != second[0][0]


def test_the_order_is_that_of_tensor_batches():
    rows = TensorBatches({"row": torch.arange(23)}, 5, shuffle=True, seed=4)
    files = DatasetBatches(Drawn(), 5, shuffle=True, seed=4)
    for _ in range(2):
        assert [batch["row"].tolist() for batch in rows] == [batch["row"].tolist() for batch in files]


def test_chosen_rows_and_the_last_batch():
    some = DatasetBatches(Drawn(), 2, rows=[3, 1, 20, 5, 6])
    assert [batch["row"].tolist() for batch in some] == [[3, 1], [20, 5], [6]]
    dropped = DatasetBatches(Drawn(), 2, rows=[3, 1, 20, 5, 6], drop_last=True)
    assert [batch["row"].tolist() for batch in dropped] == [[3, 1], [20, 5]]
    assert (len(some), len(dropped)) == (3, 2)


@pytest.mark.parametrize("workers", [0, 1])
def test_torch_global_generator_is_left_alone(workers):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(DatasetBatches(Drawn(), 5, shuffle=True, workers=workers))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_arrives_as_it_was_raised(workers):
    batches = DatasetBatches(Drawn(broken=8), 5, workers=workers)
    with pytest.raises(DataSetError) as raised:
        list(batches)
    assert str(raised.value) == "row 8 is broken"


def test_a_plain_data_loader_works_too():
    dataset = Drawn()
    dataset.set_epoch(2)
    loader = torch.utils.data.DataLoader(dataset, batch_size=5)
    batches = DatasetBatches(Drawn(), 5)
    batches.set_epoch(2)
    assert content(loader) == content(batches)
    assert dataset[-1]["row"] == 22
    with pytest.raises(IndexError, match="row 23"):
        dataset[23]


def test_bad_input():
    for options, message in (
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1, "workers": -1}, "workers is -1"),
        ({"batch_size": 1, "rows": []}, "no rows"),
    ):
        with pytest.raises(InputError, match=message):
            DatasetBatches(Drawn(), **options)


def test_held_out_rows_are_a_partition():
    rows, kept = held_out(100, 0.25, seed=1)
    assert len(kept) == 25
    assert sorted(rows.tolist() + kept.tolist()) == list(range(100))
    assert not torch.equal(kept, held_out(100, 0.25, seed=2)[1])
    assert [len(part) for part in held_out(10, 0.0)] == [10, 0]
    assert [len(part) for part in held_out(10, 0.01)] == [9, 1]
    for fraction in (-0.1, 1.0):
        with pytest.raises(InputError, match="validation is"):
            held_out(10, fraction)
    with pytest.raises(InputError, match="at least one must be left"):
        held_out(1, 0.5)


def test_mixed_seeds_do_not_collide():
    assert len({mixed_seed(seed, epoch, row) for seed in range(5) for epoch in range(5) for row in range(5)}) == 125


@pytest.mark.parametrize("broken", [None, 8])
def test_workers_end_with_the_loader_or_with_its_error(broken):
    before = set(multiprocessing.active_children())
    batches = DatasetBatches(Drawn(broken=broken), 5, workers=2)
    if broken is None:
        list(batches)
        assert len(set(multiprocessing.active_children()) - before) == 2
        del batches
    else:
        with pytest.raises(DataSetError) as raised:
            list(batches)
        assert raised.value is not None  # kept, with all the frames of its traceback
    assert not set(multiprocessing.active_children()) - before
