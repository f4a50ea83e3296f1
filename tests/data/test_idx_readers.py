"""MNIST and Fashion-MNIST: the IDX format, names of files, splits."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch

from equipoise.data import MNIST, FashionMNIST, fashion_mnist_loaders, mnist_loaders, read_idx
from equipoise.errors import DataSetError, InputError
from equipoise_papers.samples import write_fashion_mnist_sample, write_mnist_sample

# Written by hand: 2 images of 2×3 pixels.
BYTES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(12)])


def test_the_format_byte_by_byte(tmp_path):
    (tmp_path / "plain").write_bytes(BYTES)
    (tmp_path / "packed").write_bytes(gzip.compress(BYTES))
    for name in ("plain", "packed"):
        assert np.array_equal(read_idx(tmp_path / name), np.arange(12).reshape(2, 2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with the bytes of an empty file"),
        (b"\x89PNG", "starts with the bytes 89 50 4e 47"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0]), "starts with the bytes 00 00 0d 01"),
        (BYTES[:10], "ends within its header"),
        (BYTES[:-1], "has 11 values, but its header says 2×2×3"),
        (BYTES + b"\0", "has 13 values"),
        (gzip.compress(BYTES, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(BYTES, mtime=0)[:12] + b"\xff" * 20, "cannot be read"),
    ],
)
def test_broken_idx_files(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataSetError, match=message) as raised:
        read_idx(tmp_path / "file")
    assert "\n" not in str(raised.value)
    with pytest.raises(DataSetError, match="cannot be read"):
        read_idx(tmp_path / "none")


@pytest.mark.parametrize("packed", [True, False])
def test_wherever_the_files_lie(tmp_path, packed):
    expected = MNIST(write_mnist_sample(tmp_path / "a", packed=packed))
    assert (len(expected), len(MNIST(tmp_path / "a", "test"))) == (60, 20)
    for place in ("raw", "MNIST/raw"):
        write_mnist_sample(tmp_path / "b" / place, packed=packed)
        found = MNIST(tmp_path / "b")
        assert torch.equal(found.pixels, expected.pixels)
        assert torch.equal(found.labels, expected.labels)
    for path in (tmp_path / "a").iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert torch.equal(MNIST(tmp_path / "a").pixels, expected.pixels)
    row = expected[5]
    assert torch.equal(row["image"][0], expected.pixels[5] / 255)
    assert row["label"] == expected.labels[5]


@pytest.mark.parametrize("loaders", [mnist_loaders, fashion_mnist_loaders])
def test_idx_loaders(tmp_path, loaders):
    root = write_mnist_sample(tmp_path, images=60)
    train, validation, test = loaders(root, 16)
    rows = {
        split: torch.cat([batch["image"] for batch in own]) for split, own in (("a", train), ("b", validation), ("c", test))
    }
    assert [len(own) for own in rows.values()] == [50, 10, 20]
    together = torch.cat([rows["a"], rows["b"]]).flatten(1)
    assert len(torch.unique(together, dim=0)) == 60
    assert loaders(root, validation=0.0)[1] is None
    train.set_epoch(0)
    again = loaders(root, 16)[0]
    for one, two in zip(train, again, strict=True):
        assert torch.equal(one["image"], two["image"])


def test_missing_and_mismatched_files(tmp_path):
    for kind, source in ((MNIST, "yann.lecun.com"), (FashionMNIST, "zalandoresearch")):
        with pytest.raises(DataSetError, match=rf"needs train-images-idx3-ubyte or .*gz in .*{source}"):
            kind(tmp_path)
    write_mnist_sample(tmp_path, packed=False)
    with pytest.raises(InputError, match='split is "val"'):
        MNIST(tmp_path, "val")
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 1]))
    with pytest.raises(DataSetError, match=r"holds 60×28×28 and .* 2 values"):
        MNIST(tmp_path)
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 60]) + bytes([11] * 60))
    with pytest.raises(DataSetError, match="has the label 11"):
        MNIST(tmp_path)


def test_the_two_samples_differ(tmp_path):
    one, two = write_mnist_sample(tmp_path / "a"), write_fashion_mnist_sample(tmp_path / "b")
    assert not torch.equal(MNIST(one).pixels, FashionMNIST(two).pixels)
    assert len(FashionMNIST(two).classes) == 10
