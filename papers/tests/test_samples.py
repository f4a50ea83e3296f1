"""The samples: the same for the same seed, another for another, and refused where they make no sense."""

from __future__ import annotations

import pytest

import equipoise_papers.samples as samples
from equipoise.errors import InputError

WRITERS = [getattr(samples, name) for name in samples.__all__]


def content(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("write", WRITERS)
def test_content_is_a_function_of_the_seed(write, tmp_path):
    first, same, other = (content(write(tmp_path / name, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == same
    assert set(first) == set(other)
    assert first != other


def test_refusals(tmp_path):
    for write in WRITERS:
        count = "molecules" if write is samples.write_qm9_sample else "images"
        with pytest.raises(InputError, match=f"{count} is 0"):
            write(tmp_path, **{count: 0})
    with pytest.raises(InputError, match='layout is "zip"'):
        samples.write_celeba_sample(tmp_path, layout="zip")
