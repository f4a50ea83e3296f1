"""Putting a part of the training data aside, and cutting batches in two."""

from __future__ import annotations

import itertools
from collections import namedtuple

import pytest
import torch
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from equipoise.bilevel.weighting import halves, hold_out
from equipoise.bilevel.weighting.hold_out import Validation
from equipoise.data import Office, TensorBatches
from equipoise.data.loading import DatasetBatches, EpochDataset
from equipoise.data.office import SourceBatches
from equipoise.errors import InputError
from equipoise_papers.samples import write_office31_sample


def rows_of(loader):
    return [int(row) for batch in loader for row in (batch["x"] if isinstance(batch, dict) else batch[0])]


def tensor_batches(rows=20, **options):
    return TensorBatches({"x": torch.arange(rows), "y": torch.arange(rows) * 10}, 4, **options)


def data_loader(rows=20, **options):
    return DataLoader(TensorDataset(torch.arange(rows), torch.arange(rows) * 10), batch_size=4, **options)


class Numbers(EpochDataset):
    def __len__(self):
        return 40

    def at(self, row, epoch):
        return {"x": torch.tensor(row), "y": torch.tensor(row * 10)}


def dataset_batches(**options):
    return DatasetBatches(Numbers(), 4, rows=range(20), **options)


@pytest.mark.parametrize("make", [tensor_batches, data_loader, dataset_batches])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_two_parts_are_fixed_and_together_everything(make, shuffle):
    train, validation = hold_out(make(shuffle=shuffle), 0.3, seed=1)
    for _ in range(2):  # in every pass
        kept, aside = rows_of(train), rows_of(validation)
        assert sorted(kept + aside) == list(range(20))
        assert len(aside) == 6
    again = hold_out(make(shuffle=shuffle), 0.3, seed=1)
    assert sorted(rows_of(again.validation)) == sorted(aside)
    assert sorted(rows_of(hold_out(make(), 0.3, seed=2).validation)) != sorted(aside)
    assert (kept == sorted(kept)) is not shuffle
    first = next(iter(train))
    x, y = (first["x"], first["y"]) if isinstance(first, dict) else first
    assert torch.equal(y, 10 * x)


def test_the_order_of_the_training_part_follows_the_epoch():
    train, _ = hold_out(tensor_batches(shuffle=True, seed=3), 0.3)
    train.set_epoch(1)
    second = rows_of(train)
    train.set_epoch(0)
    assert rows_of(train) != second
    assert rows_of(train) == second


def test_a_loader_keeps_its_ways():
    def collate(items):
        return {"x": torch.stack([x for x, _ in items])}

    def init(worker):
        return None

    generator = torch.Generator().manual_seed(0)
    loader = data_loader(shuffle=True, drop_last=True, collate_fn=collate, generator=generator, worker_init_fn=init)
    train, validation = hold_out(loader, 0.1)
    assert [len(batch["x"]) for batch in train] == [4] * 4
    assert [len(batch["x"]) for batch in validation] == [2]
    assert train.generator is generator
    assert train.worker_init_fn is init


class Ordered(DatasetBatches):
    """With a plan of its own, whatever the rows."""

    def plan(self, epoch):
        return [[0, 1], [2, 3]]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(4))


@pytest.mark.parametrize(
    "loader",
    [
        [torch.arange(4)] * 3,
        Ordered(Numbers(), 4),
        DataLoader(Stream(), batch_size=2),
        DataLoader(TensorDataset(torch.arange(4)), batch_size=None),
    ],
)
def test_what_cannot_be_divided_is_left_whole(loader):
    assert hold_out(loader, 0.5) == (loader, None)


@pytest.mark.parametrize(
    "sampler",
    [
        WeightedRandomSampler(torch.ones(20), 30),
        RandomSampler(range(20), True),
        SubsetRandomSampler(range(16)),
        RandomSampler(range(20), num_samples=8),
    ],
)
def test_a_sampler_is_asked_for_the_training_part(sampler):
    train, validation = hold_out(data_loader(sampler=sampler), 0.25)
    aside = rows_of(validation)
    assert len(set(aside)) == len(aside) == 5
    drawn = rows_of(train)
    assert len(drawn) == round(0.75 * len(sampler))
    assert len(train) == len(list(train))
    assert not set(drawn) & set(aside)


def test_a_sampler_of_rows_put_aside_only():
    train, _ = hold_out(data_loader(sampler=SubsetRandomSampler([0])), 0.9, seed=1)
    if 0 not in train.sampler.kept:
        with pytest.raises(InputError, match="draws none of the rows that are left"):
            list(train)


@pytest.mark.parametrize("shuffle", [False, True])
def test_sources_of_unequal_size_are_divided_each_for_itself(tmp_path, shuffle):
    """Office's loader at a full batch size: the last batch is ragged, and cannot be cut in two by its rows."""
    folder = write_office31_sample(tmp_path, images=10)
    for source, fewer in (("dslr", 7), ("webcam", 5)):
        for label in (folder / source / "images").iterdir():
            for image in sorted(label.iterdir())[fewer:]:
                image.unlink()
    pictures = Office(folder, size=8)
    sizes = dict(zip(pictures.sources, pictures.lengths, strict=True))
    assert len(set(sizes.values())) == 3
    loader = SourceBatches(pictures, 4, shuffle=shuffle, seed=5)
    train, validation = hold_out(loader, 0.3, seed=2)
    assert isinstance(train, SourceBatches)
    for source, size in sizes.items():
        kept, aside = (set(itertools.chain(*part.plan(0))) & set(pictures.rows_of(source)) for part in (train, validation))
        assert kept | aside == set(pictures.rows_of(source))
        assert not kept & aside
        assert len(aside) == max(1, round(0.3 * size))
    first = next(iter(train))
    assert {source: len(part["label"]) for source, part in first.items()} == (
        dict.fromkeys(sizes, 4)
        if shuffle
        else {source: min(4, size - max(1, round(0.3 * size))) for source, size in sizes.items()}
    )
    assert all(set(batch) == set(sizes) for batch in validation)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, True, float("nan")])
def test_fractions_that_cannot_be(fraction):
    with pytest.raises(InputError, match="between 0 and 1; got"):
        hold_out(tensor_batches(), fraction)


def test_tiny_data():
    train, validation = hold_out(tensor_batches(2), 0.01)
    assert len(rows_of(train)) == len(rows_of(validation)) == 1
    with pytest.raises(InputError, match="1 row cannot be divided"):
        hold_out(tensor_batches(1), 0.5)


Pair = namedtuple("Pair", "x y")


def test_halves_of_all_kinds_of_batches():
    x, y = torch.arange(5), torch.arange(5) * 10
    first, second = halves(Pair(x, {"deep": [y]}))
    assert isinstance(first, Pair)
    assert first.x.tolist() == [0, 1, 2]
    assert second.y["deep"][0].tolist() == [30, 40]
    assert [half.tolist() for half in halves(x)] == [[0, 1, 2], [3, 4]]
    assert isinstance(halves((x, y))[0], tuple)
    assert isinstance(halves([x, y])[0], list)
    first, second = halves({"a": {"x": x, "y": y}, "b": {"x": x[:3], "y": y[:3]}})  # a task's rows are its own
    assert first["a"]["x"].tolist() == [0, 1, 2]
    assert first["b"]["x"].tolist() == [0, 1]
    assert second["b"]["y"].tolist() == [20]


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((torch.zeros(4), torch.zeros(5)), "first dimensions are 4, 5"),
        ((torch.zeros(4), torch.tensor(1.0)), "first dimensions are 0, 4"),
        (torch.zeros(1), "first dimensions are 1"),
        ({}, "holds no tensor"),
        ((torch.zeros(4), 3), "holds int"),
        ("text", "holds str"),
    ],
)
def test_batches_that_cannot_be_halved(batch, said):
    with pytest.raises(InputError, match=said):
        halves(batch)


@pytest.mark.parametrize(
    "make",
    [
        lambda: data_loader(7, shuffle=True),
        lambda: data_loader(7, shuffle=True, generator=torch.Generator().manual_seed(1)),
        lambda: tensor_batches(7, shuffle=True),
        lambda: dataset_batches(shuffle=True),
    ],
)
def test_endless_batches_find_their_place_again(make):
    """At every place, the end of a pass included; training draws from torch's generator in between."""
    for place in range(6):
        torch.manual_seed(place)
        batches = Validation(make())
        for _ in range(place):
            batches.draw()
            torch.rand(3)
        state, random = batches.state_dict(), torch.get_rng_state()
        torch.manual_seed(100)
        later = Validation(make())
        later.load_state_dict(state)
        torch.set_rng_state(random)
        found = [rows_of([later.draw()]) for _ in range(5)]
        torch.set_rng_state(random)
        assert [rows_of([batches.draw()]) for _ in range(5)] == found


def test_a_shorter_loader_than_that_of_the_state():
    batches = Validation([1, 2, 3])
    for _ in range(3):
        batches.draw()
    with pytest.raises(InputError, match="gives 1 batches"):
        Validation([1]).load_state_dict(batches.state_dict())
