"""Office-31 and Office-Home: splits, lists, and batches with a part for each source."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from equipoise.data import Office, SourceBatches, office_loaders, read_office
from equipoise.errors import DataSetError, InputError
from equipoise_papers.samples import write_office31_sample, write_office_home_sample


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = write_office31_sample(tmp_path_factory.mktemp("office"), images=10, size=(8, 10))
    for number in range(4, 11):  # dslr is the smaller source
        for label in ("back_pack", "bike"):
            (root / f"dslr/images/{label}/frame_{number:04d}.jpg").unlink()
    return root


@pytest.fixture
def office(written, tmp_path):
    return shutil.copytree(written, tmp_path / "office")


def test_every_image_is_in_one_split_with_its_class(office):
    for source in read_office(office, seed=3):
        paths = [path for own in source.paths.values() for path in own]
        assert sorted(paths) == sorted((office / source.name / "images").glob("*/*.jpg"))
        for split, own in source.paths.items():
            assert [source.classes[label] for label in source.labels[split]] == [path.parent.name for path in own]
    assert read_office(office, seed=3)[0].paths != read_office(office, seed=4)[0].paths


def test_rows_are_the_images_scaled_and_normalised(office):
    plain, normalised = Office(office, "val", size=8, normalize=False), Office(office, "val", size=8)
    sources = read_office(office)
    assert plain.lengths == (4, 1, 4)
    row = 0
    for number, source in enumerate(sources):
        assert plain.rows_of(source.name) == range(row, row + len(source.paths["validation"]))
        for path, label in zip(source.paths["validation"], source.labels["validation"], strict=True):
            image = np.array(Image.open(path).resize((8, 8), Image.Resampling.BILINEAR))
            expected = torch.from_numpy(image).permute(2, 0, 1) / 255
            assert torch.equal(plain[row]["image"], expected)
            mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
            torch.testing.assert_close(normalised[row]["image"], (expected - mean[:, None, None]) / std[:, None, None])
            assert (plain[row]["label"], plain[row]["source"]) == (label, number)
            row += 1
    assert row == len(plain)


def test_training_batches_have_a_full_part_of_each_source(office):
    dataset = Office(office, "train", size=8)
    batches = SourceBatches(dataset, 5, shuffle=True, seed=1)
    assert dataset.lengths == (12, 4, 12)
    assert len(batches) == 3
    for _ in range(2):
        plan = batches.plan(batches.epoch)
        seen = list(batches)
        assert [[len(batch[name]["label"]) for name in dataset.sources] for batch in seen] == [[5, 5, 5], [5, 5, 5], [2, 5, 2]]
        rows = [row for own in plan for row in own]
        for name in ("amazon", "webcam"):
            own = dataset.rows_of(name)
            assert sorted(row for row in rows if row in own) == list(own)
        # The smaller source starts over: each of its images comes three or four times.
        own = dataset.rows_of("dslr")
        counts = [rows.count(row) for row in own]
        assert sorted(set(counts)) == [3, 4]
        for batch, planned in zip(seen, plan, strict=True):
            labels = torch.cat([batch[name]["label"] for name in dataset.sources])
            assert torch.equal(labels, dataset.labels[planned])
    assert batches.plan(0) != batches.plan(1)


def test_evaluation_goes_through_each_source_once(office):
    dataset = Office(office, "test", size=8)
    batches = list(SourceBatches(dataset, 3))
    assert [{name: len(part["label"]) for name, part in batch.items()} for batch in batches] == [
        {"amazon": 3, "dslr": 1, "webcam": 3},
        {"amazon": 1, "webcam": 1},
    ]


def test_office_loaders_with_cache_workers_and_other_seeds(office, tmp_path):
    plain = office_loaders(office, 4, size=8)
    cached = office_loaders(office, 4, size=8, cache=tmp_path / "cache", workers=1)
    for one, two in zip(plain, cached, strict=True):
        for first, second in zip(one, two, strict=True):
            assert list(first) == list(second)
            for name, part in first.items():
                assert torch.equal(part["image"], second[name]["image"])
                assert torch.equal(part["label"], second[name]["label"])
    files = sorted((tmp_path / "cache").glob("*.npy"))
    assert len(files) == 3  # one a source
    office_loaders(office, 4, size=8, cache=tmp_path / "cache", split_seed=1)
    assert sorted((tmp_path / "cache").glob("*.npy")) == files
    assert len(office_loaders(office, 5, size=8, drop_last=True)[0]) == 2
    assert list(office_loaders(office, 50, size=8, drop_last=True)[0]) == []


def test_lists_may_number_the_classes_in_their_own_order(office):
    lists = {}
    for source in ("amazon", "dslr", "webcam"):
        lists[source] = {}
        for split, number in (("train", 1), ("validation", 2), ("test", 3)):
            lines = [f"{source}/images/{label}/frame_{number:04d}.jpg {own}" for own, label in ((0, "bike"), (1, "back_pack"))]
            lists[source][split] = office / f"{source}_{split}.txt"
            lists[source][split].write_text("\n".join(lines))
    dataset = Office(office, "train", size=8, lists=lists)
    assert dataset.classes == ("back_pack", "bike")
    assert dataset.labels.tolist() == [1, 0] * 3
    lists["amazon"]["test"].write_text("amazon/images/bike/frame_0003.jpg 1\namazon/images/back_pack/frame_0003.jpg 1")
    with pytest.raises(DataSetError, match=r'line 1 .* gives "bike" the number 1, which "back_pack" has'):
        Office(office, lists=lists)
    lists["amazon"]["test"].write_text("\n")
    with pytest.raises(DataSetError, match="is empty"):
        Office(office, lists=lists)
    del lists["amazon"]["test"]
    with pytest.raises(InputError, match='no split "test" of source "amazon"'):
        Office(office, "test", lists=lists)


def test_office_home(tmp_path):
    dataset = Office(write_office_home_sample(tmp_path), size=8)
    assert dataset.sources == ("Art", "Clipart", "Product", "Real World")
    assert dataset.classes == ("Alarm_Clock", "Backpack")
    assert Office(tmp_path, sources=["Product", "Art"], size=8).sources == ("Product", "Art")
    with pytest.raises(InputError, match='no source "Sketch"'):
        dataset.rows_of("Sketch")


def test_what_can_be_wrong_with_office(office, tmp_path):
    with pytest.raises(DataSetError, match=r"holds no folders.*officehome-dataset"):
        Office(tmp_path / "none")
    with pytest.raises(DataSetError, match='no source "Art"; it has amazon, dslr, webcam; to get it'):
        Office(office, sources=["Art"])
    with pytest.raises(InputError, match='split is "validation"'):
        Office(office, "validation")
    next((office / "webcam/images/bike").glob("*.jpg")).write_bytes(b"no image")
    with pytest.raises(DataSetError, match="cannot be read as an image"):
        [batch for loader in office_loaders(office, size=8) for batch in loader]
    (office / "amazon/images/bike").rename(office / "amazon/images/bicycle")
    with pytest.raises(DataSetError, match='"amazon" and "dslr" differ in their classes: bicycle, bike'):
        Office(office)
    shutil.rmtree(office / "dslr/images/bike")
    (office / "dslr/images/bike").mkdir()
    for path in list((office / "dslr/images/back_pack").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataSetError, match="holds 1 images in folders of classes; at least 5"):
        Office(office, sources=["dslr"])
