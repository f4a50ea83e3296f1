"""The augmentation against its geometry: every array follows the image."""

from __future__ import annotations

import pytest
import torch

from equipoise.data import ZoomAndFlip
from equipoise.data.loading import generator_of
from equipoise.errors import InputError

HEIGHT, WIDTH = 24, 36


def scene():
    """Image and normals hold their own column and row; label and depth hold the number of the pixel."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    image = torch.stack([columns, rows, torch.zeros_like(rows)]).float()
    number = rows * WIDTH + columns
    return {"image": image, "label": number, "depth": number[None].float() + 1, "normal": image.clone() + 1}


def test_scale_one_without_mirroring_is_the_identity():
    before = scene()
    after = ZoomAndFlip(scales=(1.0,), flip=0.0)(before, generator_of(0))
    assert list(after) == list(before)
    for name, array in before.items():
        assert torch.equal(after[name], array)


def test_mirroring_alone():
    before = scene()
    after = ZoomAndFlip(scales=(1.0,), flip=1.0)(before, generator_of(0))
    for name in ("image", "label", "depth"):
        assert torch.equal(after[name].flip(-1), before[name])
    assert torch.equal(after["normal"].flip(-1)[0], -before["normal"][0])
    assert torch.equal(after["normal"].flip(-1)[1:], before["normal"][1:])
    assert torch.equal(before["normal"], scene()["normal"])  # the given arrays are left alone


@pytest.mark.parametrize("scale", [1.2, 1.5, 2.0])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_image_shows_a_part_and_all_arrays_follow(scale, flip):
    corners = set()
    for seed in range(30):
        after = ZoomAndFlip(scales=(scale,), flip=flip)(scene(), generator_of(seed))
        if flip:
            after = {name: array.flip(-1) for name, array in after.items()}
            after["normal"][0] *= -1
        columns, rows = after["image"][0, 0], after["image"][1, :, 0]
        high, wide = int(HEIGHT / scale), int(WIDTH / scale)
        top, left = round(float(rows[0])), round(float(columns[0]))
        corners.add((top, left))
        # Bilinear with the corners kept: an even ramp from the part's first to its last pixel.
        torch.testing.assert_close(columns, torch.linspace(left, left + wide - 1, WIDTH))
        torch.testing.assert_close(rows, torch.linspace(top, top + high - 1, HEIGHT))
        torch.testing.assert_close(after["normal"], after["image"] + 1)
        # The nearest value: pixel i shows pixel ⌊i·high/H⌋ of the part.
        expected_rows = top + torch.arange(HEIGHT) * high // HEIGHT
        expected_columns = left + torch.arange(WIDTH) * wide // WIDTH
        number = expected_rows[:, None] * WIDTH + expected_columns
        assert torch.equal(after["label"], number)
        assert after["label"].dtype == torch.int64
        torch.testing.assert_close(after["depth"][0], (number + 1) / scale)
        # What the image shows and what the label says are less than a pixel of the part apart.
        assert float((after["image"][0] - after["label"] % WIDTH).abs().max()) < 1
    assert all(0 <= top <= HEIGHT - high and 0 <= left <= WIDTH - wide for top, left in corners)
    assert len(corners) > 12


def test_scales_and_sides_are_drawn_evenly():
    drawn = ZoomAndFlip()
    before = {"image": torch.arange(30.0).reshape(1, 1, 30).expand(3, 24, 30), "depth": torch.ones(1, 24, 30)}
    depths, mirrored = [], 0
    for seed in range(600):
        after = drawn(before, generator_of(seed))
        depths.append(round(1 / float(after["depth"][0, 0, 0]), 4))
        mirrored += bool(after["image"][0, 0, 0] > after["image"][0, 0, -1])
    counts = [depths.count(scale) for scale in (1.0, 1.2, 1.5)]
    assert sum(counts) == 600
    assert all(150 < count < 250 for count in counts)  # 200 ± 4.3 standard deviations
    assert 247 < mirrored < 353


def test_inverse_depth_can_be_multiplied():
    after = ZoomAndFlip(scales=(1.5,), zoomed_depth="multiplied")(
        {"image": torch.zeros(3, 12, 12), "depth": torch.full((1, 12, 12), 2.0)}, generator_of(0)
    )
    assert torch.equal(after["depth"], torch.full((1, 12, 12), 3.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "at least one"),
        ({"scales": (0.5,)}, "none below 1"),
        ({"flip": 1.5}, "flip is 1.5"),
        ({"zoomed_depth": "kept"}, 'zoomed_depth is "kept"'),
    ],
)
def test_zoom_and_flip_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        ZoomAndFlip(**options)
