import pytest
import torch

from equipoise.data import TensorBatches
from equipoise.errors import InputError


def order(batches):
    return torch.cat([batch["x"] for batch in batches]).tolist()


def rows(n=50, **options):
    return TensorBatches({"x": torch.arange(n), "y": torch.arange(n) * 2}, 7, **options)


def test_every_row_comes_once_an_epoch_and_rows_stay_together():
    batches = rows(shuffle=True)
    seen = list(batches)
    assert [len(batch["x"]) for batch in seen] == [7] * 7 + [1]
    assert len(batches) == 8
    assert sorted(torch.cat([batch["x"] for batch in seen]).tolist()) == list(range(50))
    assert all((batch["y"] == 2 * batch["x"]).all() for batch in seen)


def test_order_depends_on_seed_and_epoch_alone():
    first = rows(shuffle=True, seed=1)
    orders = [order(first) for _ in range(3)]
    torch.manual_seed(99)
    again = rows(shuffle=True, seed=1)
    again.set_epoch(2)
    assert order(again) == orders[2]
    assert len({tuple(one) for one in orders}) == 3
    # Neighbouring pairs have nothing in common.
    other = rows(shuffle=True, seed=0)
    other.set_epoch(1)
    assert order(other) != orders[0]


def test_torch_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(rows(shuffle=True))
    assert torch.equal(torch.rand(3), expected)


def test_without_shuffling_the_order_is_that_of_the_rows():
    batches = rows()
    assert order(batches) == order(batches) == list(range(50))


def test_bad_input():
    with pytest.raises(InputError, match="no tensors"):
        TensorBatches({}, 3)
    with pytest.raises(InputError, match="one length"):
        TensorBatches({"x": torch.zeros(3), "y": torch.zeros(4)}, 3)
    with pytest.raises(InputError, match="batch_size is 0"):
        TensorBatches({"x": torch.zeros(3)}, 0)
