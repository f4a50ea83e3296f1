"""The cache of decoded images: right, complete or not there, and shared by processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from equipoise.data import Images, cached_images
from equipoise.data import images as cache
from equipoise.data.images import decode
from equipoise.errors import DataSetError, InputError, MissingExtraError

SIZE = (6, 5)


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    made = [tmp_path / f"{number}.png" for number in range(70)]
    for path in made:
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(path)
    return made


def test_without_resizing_pixels_are_those_of_the_file(paths):
    assert np.array_equal(decode(paths[0], SIZE), np.asarray(Image.open(paths[0])))


def test_resizing_averages_over_what_a_pixel_covers(tmp_path):
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[:, 1::2] = 200  # stripes that a filter without antialiasing would make all dark or all bright
    Image.fromarray(pixels).save(tmp_path / "stripes.png")
    small = decode(tmp_path / "stripes.png", (8, 8))
    assert small.shape == (8, 8, 3)
    assert abs(small.astype(int) - 100).max() <= 5


def test_grey_and_palette_images_become_colour(tmp_path):
    Image.fromarray(np.full((4, 4), 7, dtype=np.uint8)).save(tmp_path / "grey.png")
    assert (decode(tmp_path / "grey.png", (4, 4)) == 7).all()
    Image.new("RGBA", (4, 4), (1, 2, 3, 4)).save(tmp_path / "transparent.png")
    assert decode(tmp_path / "transparent.png", (4, 4))[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_rows_are_the_decoded_ones(paths, tmp_path, workers):
    plain = Images(paths, SIZE)
    cached = Images(paths, SIZE, cache=tmp_path / "cache", workers=workers)
    rows = [3, 69, 0, 3]
    assert np.array_equal(plain.rows(rows), cached.rows(rows))
    assert len(cached) == 70
    # No view: whoever changes a batch does not change the cache.
    cached.rows([0])[:] = 0
    assert np.array_equal(plain.rows([0]), cached.rows([0]))
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == [".npy"]


def test_a_second_opening_decodes_nothing(paths, tmp_path, monkeypatch):
    first = cached_images(paths, SIZE, tmp_path / "cache")
    monkeypatch.setattr(cache, "decode", None)
    assert cached_images(paths, SIZE, tmp_path / "cache") == first


def test_changed_files_other_sizes_and_other_versions_are_decoded_anew(paths, tmp_path, monkeypatch):
    first = Images(paths, SIZE, cache=tmp_path / "cache")
    assert Images(paths, (3, 3), cache=tmp_path / "cache").file != first.file
    assert Images(paths[::-1], SIZE, cache=tmp_path / "cache").file != first.file
    Image.fromarray(np.full((*SIZE, 3), 9, dtype=np.uint8)).save(paths[4])
    os.utime(paths[4], ns=(1, 1))
    again = Images(paths, SIZE, cache=tmp_path / "cache")
    assert again.file != first.file
    assert (again.rows([4]) == 9).all()
    monkeypatch.setattr(cache, "_VERSION", 2)
    assert Images(paths, SIZE, cache=tmp_path / "cache").file != again.file


def test_an_interrupted_process_leaves_no_cache(paths, tmp_path):
    paths[66].write_bytes(b"no image")  # after the first chunk has been written
    with pytest.raises(DataSetError, match=r"66.png cannot be read as an image"):
        cached_images(paths, SIZE, tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.parametrize("content", [b"", b"short", None])
def test_a_broken_cache_is_written_anew(paths, tmp_path, content):
    file = cached_images(paths, SIZE, tmp_path / "cache")
    file.write_bytes(file.read_bytes()[:-5] if content is None else content)
    assert np.array_equal(Images(paths, SIZE, cache=tmp_path / "cache").rows([69]), Images(paths, SIZE).rows([69]))


def _fill(paths, folder, counted, barrier):
    original = cache.decode

    def decoding(path, size):
        with counted.get_lock():
            counted.value += 1
        return original(path, size)

    cache.decode = decoding
    barrier.wait()
    cached_images(paths, SIZE, folder)


def test_of_several_processes_one_decodes(paths, tmp_path):
    context = multiprocessing.get_context("fork")
    counted, barrier = context.Value("i", 0), context.Barrier(3)
    processes = [context.Process(target=_fill, args=(paths, tmp_path / "cache", counted, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert counted.value == len(paths)


def test_pickled_images_do_not_carry_the_cache_along(tmp_path):
    Image.fromarray(np.zeros((300, 300, 3), dtype=np.uint8)).save(tmp_path / "large.png")
    images = Images([tmp_path / "large.png"], 300, cache=tmp_path)
    images.rows([0])
    sent = pickle.dumps(images)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent).rows([0]), images.rows([0]))


def test_what_can_go_wrong_with_images(paths, tmp_path, monkeypatch):
    with pytest.raises(DataSetError, match="cannot be read as an image"):
        decode(tmp_path / "none.png", SIZE)
    with pytest.raises(DataSetError, match=r"none.png is not there"):
        cached_images([tmp_path / "none.png"], SIZE, tmp_path / "cache")
    with pytest.raises(DataSetError, match="cannot be written"):
        cached_images(paths, SIZE, paths[0])  # a file in place of the folder
    with pytest.raises(InputError, match="at least one pixel"):
        Images(paths, 0)
    paths[1].write_bytes(paths[1].read_bytes()[:60])  # cut off
    with pytest.raises(DataSetError, match=r"1.png cannot be read"):
        decode(paths[1], SIZE)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"equipoise\[images\]"):
        decode(paths[0], SIZE)
