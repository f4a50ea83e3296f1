import sys

import numpy as np
import pytest
import torch

from equipoise.data import digits, digits_pair
from equipoise.errors import InputError, MissingExtraError
from equipoise.nets import DigitsNet


@pytest.fixture(scope="module")
def splits():
    return digits()


def corners(rows):
    """The parts of the canvas that belong to one digit alone, as bytes: top left without the overlap, and bottom right."""
    image = (rows["image"][:, 0] * 16).round().to(torch.uint8).numpy()
    return {one[:4, :8].tobytes() for one in image}, {one[8:, 4:].tobytes() for one in image}


def test_sizes_ranges_and_kinds(splits):
    for rows, canvases in ((splits.train, 6000), (splits.validation, 1000), (splits.test, 2000)):
        assert rows["image"].shape == (canvases, 1, 12, 12)
        assert rows["image"].dtype == torch.float32
        assert float(rows["image"].min()) == 0.0
        assert float(rows["image"].max()) == 1.0
        assert set(rows["left"].tolist()) == set(rows["right"].tolist()) == set(range(10))
        assert torch.equal(rows["sum"], (rows["left"] + rows["right"]).float())
        assert 0.5 < float(rows["ink"].min()) < 1 < float(rows["ink"].max()) < 2


def test_no_digit_occurs_in_two_splits(splits):
    parts = [corners(rows) for rows in (splits.train, splits.validation, splits.test)]
    for position in (0, 1):
        # Half a digit can look the same by chance in two different digits, hence nearly none instead of none.
        train, validation, test = (part[position] for part in parts)
        assert len(train & validation) <= 2
        assert len(train & test) <= 2
        assert len(validation & test) <= 2
    assert len(parts[0][0]) > 900  # the 1,000 training digits, nearly all of them drawn
    assert 150 < len(parts[1][0]) <= 200
    assert 500 < len(parts[2][0]) <= 597


def test_canvases_are_the_brighter_pixels_of_two_digits(splits):
    """Finds the two digits of some canvases in the bundled set, and composes them again."""
    bundled = pytest.importorskip("sklearn.datasets").load_digits()
    images = bundled.images.astype(np.float32) / 16
    ink = images.sum(axis=(1, 2))
    for row in range(0, 200, 20):
        canvas = splits.test["image"][row, 0].numpy()
        left = np.flatnonzero((images[:, :4] == canvas[:4, :8]).all(axis=(1, 2)))
        right = np.flatnonzero((images[:, 4:] == canvas[8:, 4:]).all(axis=(1, 2)))
        ratio = float(splits.test["ink"][row])
        pairs = [
            (a, b)
            for a in left
            for b in right
            if np.array_equal(np.maximum(images[a][4:, 4:], images[b][:4, :4]), canvas[4:8, 4:8])
            and abs(ink[a] / ink[b] - ratio) < 1e-6
        ]
        assert pairs
        assert any(
            (bundled.target[a], bundled.target[b]) == (int(splits.test["left"][row]), int(splits.test["right"][row]))
            for a, b in pairs
        )


def test_always_the_same(splits):
    again = digits()
    np.random.seed(3)  # noqa: NPY002  (whatever the global generators do)
    for name, tensor in splits.train.items():
        assert torch.equal(tensor, again.train[name])


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"equipoise\[study\]"):
        digits()


def test_network_has_the_stated_layers():
    net = DigitsNet()
    assert [tuple(layer.weight.shape) for layer in net.encoder if hasattr(layer, "weight")] == [
        (10, 1, 3, 3),
        (20, 10, 3, 3),
        (50, 180),
    ]
    assert {
        task: [layer.out_features for layer in head if hasattr(layer, "out_features")] for task, head in net.heads.items()
    } == {"left": [50, 10], "right": [50, 10], "sum": [50, 1], "ink": [50, 1]}
    # One canvas keeps its batch dimension.
    assert net(torch.zeros(1, 1, 12, 12))["sum"].shape == (1,)


def test_the_pair_is_the_same_digits_closer_together(splits):
    pair = digits_pair()
    for own, wide in ((pair.train, splits.train), (pair.test, splits.test)):
        assert set(own) == {"image", "left", "right"}
        assert own["image"].shape[1:] == (1, 10, 10)
        assert torch.equal(own["left"], wide["left"])
        assert torch.equal(own["right"], wide["right"])
        # Two columns and rows belong to one digit alone; where they meet the brighter pixel counts.
        assert torch.equal(own["image"][:, 0, :2, :8], wide["image"][:, 0, :2, :8])
        assert torch.equal(own["image"][:, 0, 8:, 2:], wide["image"][:, 0, 10:, 4:])
        assert torch.all(own["image"][:, 0, 2:4, 2:8] >= wide["image"][:, 0, 2:4, 2:8])
    out = DigitsNet(10, ("left", "right"))(pair.test["image"][:3])
    assert {task: tuple(own.shape) for task, own in out.items()} == {"left": (3, 10), "right": (3, 10)}


def test_other_networks_are_refused():
    for wrong in (lambda: DigitsNet(11), lambda: DigitsNet(12, ("left", "middle"))):
        with pytest.raises(InputError):
            wrong()
