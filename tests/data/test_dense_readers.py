"""NYUv2 and Cityscapes: values, splits, and everything that can be wrong on disk."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from equipoise.data import Cityscapes, NYUv2, ZoomAndFlip, cityscapes_loaders, nyuv2_loaders
from equipoise.errors import DataSetError, InputError
from equipoise_papers.samples import write_cityscapes_sample, write_nyuv2_sample


@pytest.fixture
def nyu(tmp_path):
    return write_nyuv2_sample(tmp_path / "nyu", images=5)


@pytest.fixture
def cities(tmp_path):
    return write_cityscapes_sample(tmp_path / "cities", images=5)


@pytest.mark.parametrize("kind", [NYUv2, Cityscapes])
def test_values_are_those_of_the_files(kind, nyu, cities):
    root = nyu if kind is NYUv2 else cities
    scenes = kind(root, "train")
    assert len(scenes) == 5
    for number in range(5):
        scene = scenes[number]
        for name, array in scene.items():
            folder = "label_7" if (name, kind) == ("label", Cityscapes) else name
            stored = np.load(root / "train" / folder / f"{number}.npy")
            stored = stored.astype(np.int64) if name == "label" else np.moveaxis(stored, -1, 0)
            assert torch.equal(array, torch.from_numpy(np.ascontiguousarray(stored)))
    assert set(scenes[0]) == {"image", "label", "depth"} | ({"normal"} if kind is NYUv2 else set())
    assert scenes[0]["label"].min() == -1


def test_other_kinds_of_numbers_and_one_dimension_more_or_less(nyu):
    folder = nyu / "train"
    image, label, depth = (np.load(folder / name / "0.npy") for name in ("image", "label", "depth"))
    before = NYUv2(nyu)[0]
    np.save(folder / "image/0.npy", image.astype(np.float64))
    np.save(folder / "label/0.npy", label.astype(np.int8)[..., None])
    np.save(folder / "depth/0.npy", depth[..., 0])
    after = NYUv2(nyu)[0]
    for name, array in before.items():
        assert torch.equal(array, after[name])
        assert array.dtype == after[name].dtype
    np.save(folder / "image/0.npy", (image * 255).astype(np.uint8))
    torch.testing.assert_close(NYUv2(nyu)[0]["image"], before["image"], atol=1 / 255, rtol=0)


def test_labels_of_cityscapes(tmp_path):
    root = write_cityscapes_sample(tmp_path, classes=19)
    scenes = Cityscapes(root, classes=19)
    assert scenes.classes == 19
    assert int(scenes[0]["label"].max()) > 6
    with pytest.raises(DataSetError, match="label_7"):
        Cityscapes(root)
    label = np.load(root / "train/label_19/0.npy")
    np.save(root / "train/label_19/0.npy", np.where(label == -1, 255, label))
    assert torch.equal(Cityscapes(root, classes=19)[0]["label"], torch.from_numpy(label).long())
    (root / "train/label_19").rename(root / "train/label")
    with pytest.raises(DataSetError, match="7 classes"):
        Cityscapes(root)[0]
    with pytest.raises(InputError, match="classes is 8"):
        Cityscapes(root, classes=8)


def test_augmentation_is_a_function_of_seed_epoch_and_row(nyu):
    first, same, other = (NYUv2(nyu, augmentation=ZoomAndFlip(), seed=seed) for seed in (1, 1, 2))

    def images(scenes):
        return torch.stack([scenes.at(row, epoch)["image"] for row in range(5) for epoch in range(4)])

    assert torch.equal(images(first), images(same))
    assert not torch.equal(images(first), images(other))
    assert not torch.equal(images(first)[:4], images(first)[:1].expand(4, -1, -1, -1))


@pytest.mark.parametrize("loaders", [nyuv2_loaders, cityscapes_loaders])
def test_loaders(loaders, nyu, cities):
    root = nyu if loaders is nyuv2_loaders else cities
    train, validation, test = loaders(root, 2)
    assert validation is None
    assert (len(train), len(test)) == (3, 1)
    # Nothing is changed in the test split, and everything is batched alike.
    kind = NYUv2 if loaders is nyuv2_loaders else Cityscapes
    (batch,) = test
    for name, arrays in batch.items():
        assert torch.equal(arrays, torch.stack([kind(root, "val")[row][name] for row in range(2)]))
    helped = loaders(root, 2, workers=2)[0]
    for _ in range(2):
        for one, two in zip(train, helped, strict=True):
            assert all(torch.equal(one[name], two[name]) for name in one)


def test_validation_is_held_out_or_lies_on_disk(nyu):
    train, validation, test = nyuv2_loaders(nyu, 1, validation=0.4)
    assert (len(train), len(validation), len(test)) == (3, 2, 2)
    assert not set(train.rows.tolist()) & set(validation.rows.tolist())
    assert validation.dataset.augmentation is None
    assert torch.equal(nyuv2_loaders(nyu, 1, validation=0.4, seed=9)[1].rows, validation.rows)
    shutil.copytree(nyu / "train", nyu / "test")
    train, validation, test = nyuv2_loaders(nyu, 1, validation=0.4)
    assert (len(train), len(validation), len(test)) == (5, 2, 5)


def _without_split(root):
    shutil.rmtree(root / "train")


def _without_modality(root):
    shutil.rmtree(root / "train/depth")


def _empty(root):
    for file in (root / "train").glob("*/*.npy"):
        file.unlink()


def _without_one(root):
    (root / "train/normal/2.npy").unlink()


def _counted_from_one(root):
    for folder in (root / "train").iterdir():
        (folder / "0.npy").rename(folder / "5.npy")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_without_split, r"needs a folder .*train/image with files 0.npy"),
        (_without_modality, r"needs a folder .*train/depth"),
        (_empty, r"needs files 0.npy, 1.npy, … in .*image"),
        (_without_one, r"normal/2.npy is missing, and 0 more of the 5"),
        (_counted_from_one, r"image/0.npy is missing"),
    ],
)
def test_what_is_missing_is_named_with_the_source(nyu, break_it, message):
    break_it(nyu)
    with pytest.raises(DataSetError, match=message) as raised:
        NYUv2(nyu, "train")
    assert "github.com/lorenmt/mtan" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_another_split(nyu):
    with pytest.raises(InputError, match='split is "validation"'):
        NYUv2(nyu, "validation")
    with pytest.raises(DataSetError, match="test/image"):
        NYUv2(nyu, "test")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("image", np.zeros((32, 48)), "has the shape 32×48, but image is H×W×3"),
        ("image", np.zeros((3, 32, 48)), "has the shape 3×32×48"),
        ("label", np.zeros((32, 48, 3)), "label is H×W"),
        ("label", np.full((32, 48), 13), "labels from 13 to 13, but there are 13 classes"),
        ("label", np.full((32, 48), -2), "labels from -2"),
        ("depth", np.zeros((16, 48, 1)), "has 16×48 pixels, but the image of that number 32×48"),
        ("normal", np.zeros((32, 48, 1)), "normal is H×W×3"),
        ("depth", np.full((32, 48, 1), "far"), "something else than an array of numbers"),
        ("depth", np.full((32, 48, 1), None), "cannot be read as an array"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_wrong_content_is_one_line(nyu, name, content, message, workers):
    np.save(nyu / "train" / name / "1.npy", content)
    with pytest.raises(DataSetError, match=message) as raised:
        list(nyuv2_loaders(nyu, workers=workers)[0])
    assert f"{name}/1.npy" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_broken_files(nyu, content):
    path = nyu / "train/depth/3.npy"
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(DataSetError, match=r"3.npy cannot be read as an array"):
        NYUv2(nyu)[3]
