"""What all readers have in common."""

from __future__ import annotations

import pickle

import pytest
import torch

import equipoise_papers.samples as samples
from equipoise import data

READERS = [
    (samples.write_nyuv2_sample, lambda root: data.NYUv2(root, augmentation=data.ZoomAndFlip())),
    (samples.write_cityscapes_sample, lambda root: data.Cityscapes(root, augmentation=data.ZoomAndFlip())),
    (samples.write_celeba_sample, lambda root: data.CelebA(root, size=16, cache=root / "cache")),
    (samples.write_office31_sample, lambda root: data.Office(root, size=16)),
    (samples.write_office_home_sample, lambda root: data.Office(root, size=16, cache=root / ".cache")),
    (samples.write_mnist_sample, data.MNIST),
    (samples.write_fashion_mnist_sample, data.FashionMNIST),
    (samples.write_qm9_sample, lambda root: data.QM9Molecules(root, held_out=10)),
]


def leaves(batch):
    if isinstance(batch, dict):
        return [leaf for value in batch.values() for leaf in leaves(value)]
    return [batch] if isinstance(batch, torch.Tensor) else [batch.x, batch.edge_attr]


@pytest.mark.parametrize(("write", "opened"), READERS, ids=lambda one: getattr(one, "__name__", ""))
def test_readers_travel_to_workers_and_give_contiguous_tensors(write, opened, tmp_path):
    dataset = opened(write(tmp_path))
    rows = [2, 0]
    here = leaves(dataset.batch(rows, epoch=1))
    there = leaves(pickle.loads(pickle.dumps(dataset)).batch(rows, epoch=1))
    assert len(here) == len(there) > 1
    for one, two in zip(here, there, strict=True):
        assert torch.equal(one, two)
        assert one.is_contiguous()  # another order in memory would change a convolution's last bits
    assert sum(1 for _ in data.DatasetBatches(dataset, 2)) == -(-len(dataset) // 2)
    for name, value in dataset[0].items():
        for one, two in zip(leaves({name: value}), leaves({name: dataset.at(0, 0)[name]}), strict=True):
            assert torch.equal(one, two)
