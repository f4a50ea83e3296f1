"""CelebA: three layouts on disk, two formats of lists, and what can be wrong with them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from equipoise.data import CelebA, celeba_loaders
from equipoise.data.celeba import ATTRIBUTES
from equipoise.errors import DataSetError, InputError
from equipoise_papers.samples import write_celeba_sample


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_celeba_sample(tmp_path_factory.mktemp("celeba"))


@pytest.fixture
def celeba(written, tmp_path):
    return shutil.copytree(written, tmp_path / "celeba")


def test_forty_attributes_in_the_published_order():
    assert len(ATTRIBUTES) == len(set(ATTRIBUTES)) == 40
    assert list(ATTRIBUTES) == sorted(ATTRIBUTES)


def test_images_and_labels_are_those_of_the_files(celeba):
    seen = []
    for split, part in (("train", "0"), ("val", "1"), ("test", "2")):
        faces = CelebA(celeba, split)
        partition = [line.split() for line in (celeba / "list_eval_partition.txt").read_text().splitlines()]
        names = [name for name, own in partition if own == part]
        attributes = dict(line.split(maxsplit=1) for line in (celeba / "list_attr_celeba.txt").read_text().splitlines()[2:])
        assert len(faces) == len(names)
        for row, name in enumerate(names):
            image = Image.open(celeba / "img_align_celeba" / name).resize((64, 64), Image.Resampling.BILINEAR)
            expected = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
            assert torch.equal(faces[row]["image"], expected)
            assert faces[row]["label"].tolist() == [float(value == "1") for value in attributes[name].split()]
        seen += names
    assert len(seen) == len(set(seen)) == 12


def test_all_layouts_give_the_same(celeba, tmp_path):
    batches = {
        layout: list(celeba_loaders(write_celeba_sample(tmp_path / layout, layout=layout), 4)[0])
        for layout in ("flat", "page", "kaggle")
    }
    for layout in ("page", "kaggle"):
        for one, two in zip(batches["flat"], batches[layout], strict=True):
            assert all(torch.equal(one[name], two[name]) for name in ("image", "label"))


def test_cache_and_workers_change_nothing(celeba, tmp_path):
    plain = celeba_loaders(celeba, 4, size=16)
    cached = celeba_loaders(celeba, 4, size=16, cache=tmp_path / "cache", workers=2)
    for one, two in zip(plain, cached, strict=True):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            assert first["image"].shape[1:] == (3, 16, 16)
            assert all(torch.equal(first[name], second[name]) for name in ("image", "label"))


def test_images_of_the_list_that_no_split_needs_may_be_missing(celeba):
    partition = dict(line.split() for line in (celeba / "list_eval_partition.txt").read_text().splitlines())
    for name, part in partition.items():
        if part == "0":
            (celeba / "img_align_celeba" / name).unlink()
    assert len(CelebA(celeba, "test")) == 3
    with pytest.raises(DataSetError, match=r"000001.jpg is missing, and 5 more of 6 images"):
        CelebA(celeba, "train")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", "Young", "Old", r"line 2 of .*forty names.*Old, Young"),
        ("list_attr_celeba.txt", "5_o_Clock_Shadow Arched_Eyebrows", "Arched_Eyebrows 5_o_Clock_Shadow", "differ: order"),
        ("list_attr_celeba.txt", "000002.jpg -1", "000002.jpg", r"line 4 .*found 39 values"),
        ("list_attr_celeba.txt", "000002.jpg -1", "000002.jpg 2", r'line 4 .*"2" is neither'),
        ("list_eval_partition.txt", "000003.jpg 0", "000003.jpg 3", "line 3 .*expected a file name and 0, 1 or 2"),
        ("list_eval_partition.txt", "000003.jpg 0", "000003.jpg", "line 3 "),
        ("list_eval_partition.txt", "000003.jpg 0\n", "", r"lacks 000003.jpg"),
        ("list_eval_partition.txt", " 1\n", " 2\n", 'no image of split "val"'),
    ],
)
def test_wrong_lists(celeba, file, old, new, message):
    path = celeba / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataSetError, match=message) as raised:
        CelebA(celeba, "val")
    assert "\n" not in str(raised.value)
    assert "mmlab.ie.cuhk.edu.hk" in str(raised.value)


@pytest.mark.parametrize("file", ["list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"])
def test_missing_parts(celeba, file):
    path = celeba / file
    path.rename(celeba / "elsewhere")
    with pytest.raises(DataSetError, match=rf"CelebA needs .*{file}.* in .*; to get it: .*mmlab"):
        CelebA(celeba)


@pytest.mark.parametrize("content", [b"", b"12\n", b"\xff\xfe\x00\x9f"])
def test_lists_that_are_no_lists(celeba, content):
    for file in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        original = (celeba / file).read_bytes()
        (celeba / file).write_bytes(content)
        with pytest.raises(DataSetError, match=file):
            CelebA(celeba)
        (celeba / file).write_bytes(original)


def test_broken_images_and_another_split(celeba, tmp_path):
    (celeba / "img_align_celeba/000002.jpg").write_bytes(b"no image")
    with pytest.raises(DataSetError, match=r"000002.jpg cannot be read as an image"):
        CelebA(celeba)[1]
    with pytest.raises(DataSetError, match=r"000002.jpg cannot be read as an image"):
        CelebA(celeba, cache=tmp_path / "cache")
    with pytest.raises(InputError, match='split is "valid"'):
        CelebA(celeba, "valid")
