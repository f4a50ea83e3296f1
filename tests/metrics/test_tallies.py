"""The tallies against hand-computed cases, against NumPy and scikit-learn, and however the set is cut into batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from equipoise.errors import InputError
from equipoise.metrics import (
    BinaryTally,
    ClassTally,
    ConfusionMatrix,
    DepthTally,
    ErrorTally,
    Evaluation,
    Metric,
    NormalTally,
    SegmentationTally,
    Tally,
)
from equipoise.metrics.tallies.regression import angles


def fed(tally: Tally, prediction: Tensor, target: Tensor, sizes: list[int] | None = None) -> dict[str, float]:
    for part in torch.split(torch.arange(len(target)), sizes or [len(target)]):
        tally.add(prediction[part], target[part])
    return tally.summary()


def segmentation(images: int = 5, classes: int = 4) -> tuple[Tensor, Tensor]:
    target = torch.randint(-1, classes, (images, 6, 7))
    scores = torch.randn(images, classes, 6, 7)
    return scores + 2 * torch.nn.functional.one_hot(target.clamp(min=0), classes).permute(0, 3, 1, 2), target


def depth(images: int = 5) -> tuple[Tensor, Tensor]:
    target = torch.rand(images, 1, 6, 7) * (torch.rand(images, 1, 6, 7) > 0.3)
    return target + 0.2 * torch.randn_like(target), target


def normals(images: int = 5) -> tuple[Tensor, Tensor]:
    target = torch.nn.functional.normalize(torch.randn(images, 3, 6, 7), dim=1) * (torch.rand(images, 1, 6, 7) > 0.3)
    return target + 0.4 * torch.randn_like(target), target


WHOLE: dict[str, tuple[Callable[[], Tally], Callable[[], tuple[Tensor, Tensor]]]] = {
    "segmentation": (lambda: SegmentationTally(4), segmentation),
    "depth": (DepthTally, depth),
    "normals": (NormalTally, normals),
    "classes": (lambda: ClassTally(3, f1=True), lambda: (torch.randn(5, 3), torch.randint(0, 3, (5,)))),
    "binary": (BinaryTally, lambda: (torch.randn(5), torch.randint(0, 2, (5,)))),
    "error": (ErrorTally, lambda: (torch.randn(5, 2), torch.randn(5, 2))),
}


@pytest.mark.parametrize("kind", WHOLE)
@given(cut=st.integers(1, 4))
def test_the_cut_into_batches_makes_no_difference(kind: str, cut: int) -> None:
    make, data = WHOLE[kind]
    torch.manual_seed(cut)
    prediction, target = data()
    assert fed(make(), prediction, target, [cut, 5 - cut]) == pytest.approx(fed(make(), prediction, target), abs=1e-9)


@pytest.mark.parametrize("kind", WHOLE)
def test_nothing_added_is_an_error(kind: str) -> None:
    with pytest.raises(InputError, match="before anything valid was added"):
        WHOLE[kind][0]().summary()


def test_segmentation_by_hand() -> None:
    """Two images of four pixels, three classes of which the third is never there; one pixel unlabelled."""
    target = torch.tensor([[[0, 0], [1, 1]], [[1, 1], [1, -1]]])
    predicted = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [1, 0]]])
    # All pixels: class 0 has 1 in common of 4, class 1 has 3 of 6; 4 of 7 are right.
    assert fed(SegmentationTally(3), predicted, target) == pytest.approx(
        {"mIoU": 100 * (1 / 4 + 3 / 6) / 2, "pixel accuracy": 400 / 7}
    )
    # Image by image: (1/2 + 2/3) / 2 and (0/2 + 1/3) / 2; 3/4 and 1/3 are right.
    by_image = {"mIoU": 50 * ((1 / 2 + 2 / 3) / 2 + (0 + 1 / 3) / 2), "pixel accuracy": 50 * (3 / 4 + 1 / 3)}
    assert fed(SegmentationTally(3, average="images"), predicted, target) == pytest.approx(by_image)
    assert fed(SegmentationTally(3, average="batches"), predicted, target, [1, 1]) == pytest.approx(by_image)
    assert fed(SegmentationTally(3, average="batches"), predicted, target) == pytest.approx(
        fed(SegmentationTally(3), predicted, target)
    )
    tally = SegmentationTally(3)
    tally.add(predicted, target)
    assert tally.of_classes()[:2] == pytest.approx([25.0, 50.0])
    assert math.isnan(tally.of_classes()[2])


def test_averages_differ_where_batches_do() -> None:
    prediction, target = segmentation(5)
    values = {
        average: fed(SegmentationTally(4, average=average), prediction, target, [2, 2, 1])["mIoU"]
        for average in ("pixels", "images", "batches", "weighted batches")
    }
    parts = [fed(SegmentationTally(4), prediction[part], target[part])["mIoU"] for part in ([0, 1], [2, 3], [4])]
    assert values["batches"] == pytest.approx(np.mean(parts))
    assert values["weighted batches"] == pytest.approx(np.average(parts, weights=[2, 2, 1]))
    assert len({round(value, 6) for value in values.values()}) == 4


def test_an_image_without_a_valid_pixel_counts_nowhere() -> None:
    prediction, target = segmentation(3)
    target[1] = -1
    for average in ("pixels", "images"):
        left_out = fed(SegmentationTally(4, average=average), prediction[[0, 2]], target[[0, 2]])
        assert fed(SegmentationTally(4, average=average), prediction, target) == pytest.approx(left_out)


def test_the_confusion_matrix_is_the_one_of_scikit_learn() -> None:
    from sklearn.metrics import confusion_matrix

    target, predicted = torch.randint(0, 5, (2, 300))
    matrix = ConfusionMatrix(5)
    matrix.add(predicted[:100], target[:100])
    matrix.add(predicted[100:], target[100:])
    assert (matrix.counts == confusion_matrix(target, predicted, labels=range(5))).all()


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_and_f1_are_those_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    torch.manual_seed(seed)
    scores, target = torch.randn(40, 6), torch.randint(0, 5, (40,))
    found = fed(ClassTally(6, f1=True), scores, target, [13, 13, 13, 1])
    assert found["accuracy"] == pytest.approx(100 * accuracy_score(target, scores.argmax(1)))
    assert found["F1"] == pytest.approx(100 * f1_score(target, scores.argmax(1), average="macro"))
    logits, truth = torch.randn(40), torch.randint(0, 2, (40,)).float()
    found = fed(BinaryTally(), logits, truth, [39, 1])
    assert found["F1"] == pytest.approx(100 * f1_score(truth, logits > 0))
    assert fed(BinaryTally(0.5), torch.sigmoid(logits), truth) == pytest.approx(found)


def test_f1_without_any_positive_is_zero() -> None:
    assert fed(BinaryTally(), -torch.ones(4), torch.zeros(4)) == {"accuracy": 100.0, "F1": 0.0}


def test_depth_by_hand() -> None:
    target = torch.tensor([[[[1.0, 2.0, 0.0, 4.0]]], [[[2.0, 0.0, 0.0, -1.0]]]])
    predicted = torch.tensor([[[[1.5, 2.0, 9.0, 2.0]]], [[[3.0, 5.0, 5.0, 5.0]]]])
    pixels = {"absolute error": (0.5 + 0 + 2 + 1) / 4, "relative error": (0.5 + 0 + 0.5 + 0.5) / 4}
    images = {"absolute error": (2.5 / 3 + 1) / 2, "relative error": (1 / 3 + 0.5) / 2}
    assert fed(DepthTally(), predicted, target) == pytest.approx(pixels)
    assert fed(DepthTally("images"), predicted, target) == pytest.approx(images)
    assert fed(DepthTally("batches"), predicted, target, [1, 1]) == pytest.approx(images)
    assert fed(DepthTally("batches"), predicted, target) == pytest.approx(pixels)


def test_targets_that_are_no_measurement_count_nowhere() -> None:
    target = torch.tensor([[1.0, math.nan, math.inf, 0.0]])
    assert fed(DepthTally(), torch.full((1, 4), 2.0), target) == {"absolute error": 1.0, "relative error": 1.0}
    tally = DepthTally()
    tally.add(torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([[True, False]]))
    assert tally.summary() == {"absolute error": 1.0, "relative error": 1.0}


@pytest.mark.parametrize("length", [1.0, 1e-3, 50.0])
def test_angles_by_hand(length: float) -> None:
    degrees = torch.tensor([0.0, 1e-4, 10.0, 20.0, 25.0, 90.0, 179.9])
    vectors = torch.stack([torch.sin(torch.deg2rad(degrees)), torch.zeros(7), torch.cos(torch.deg2rad(degrees))], 1)
    up = torch.tensor([[0.0, 0.0, 1.0]]).expand(7, 3)
    assert angles(length * vectors, up).numpy() == pytest.approx(degrees.numpy(), abs=2e-5, rel=1e-6)
    found = fed(NormalTally(), length * vectors, up, [3, 4])
    assert found["mean angle"] == pytest.approx(float(degrees.mean()), abs=1e-4)
    assert found["median angle"] == pytest.approx(20.0, abs=6e-4)
    assert [found[f"within {t}"] for t in ("11.25", "22.5", "30")] == pytest.approx([300 / 7, 400 / 7, 500 / 7])


def test_normals_against_numpy() -> None:
    prediction, target = normals(6)
    unit = torch.nn.functional.normalize(prediction.double(), dim=1)
    cosines = (unit * torch.nn.functional.normalize(target.double(), dim=1)).sum(1).clamp(-1, 1)
    per_image = [np.degrees(np.arccos(cosines[i][(target[i] != 0).any(0)].numpy())) for i in range(6)]
    everything = np.concatenate(per_image)

    def expected(parts: list[np.ndarray], of: Callable[[np.ndarray], float]) -> float:
        return float(np.mean([of(part) for part in parts]))

    pairs = [np.concatenate(per_image[i : i + 2]) for i in (0, 2, 4)]
    for average, parts in (("pixels", [everything]), ("images", per_image), ("batches", pairs)):
        found = fed(NormalTally(average=average), prediction, target, [2, 2, 2])
        assert found["mean angle"] == pytest.approx(expected(parts, np.mean), abs=1e-6)
        assert found["median angle"] == pytest.approx(expected(parts, np.median), abs=6e-4)
        for t in (11.25, 22.5, 30):
            assert found[f"within {t:g}"] == pytest.approx(expected(parts, lambda part, t=t: 100 * np.mean(part < t)))


def test_what_has_no_direction() -> None:
    up, zero, slope = [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, -1.0, 0.0]
    assert fed(NormalTally(), torch.tensor([zero]), torch.tensor([up]))["mean angle"] == 90
    with pytest.raises(InputError, match="anything valid"):
        fed(NormalTally(), torch.tensor([up]), torch.tensor([zero]))
    assert fed(NormalTally(), torch.tensor([up]), torch.tensor([slope]))["mean angle"] == pytest.approx(90)
    with pytest.raises(InputError, match="anything valid"):
        fed(NormalTally(missing="sum"), torch.tensor([up]), torch.tensor([slope]))
    broken = fed(NormalTally(), torch.tensor([up, [math.nan] * 3]), torch.tensor([up, up]))
    assert math.isnan(broken["mean angle"])
    assert math.isnan(broken["median angle"])
    assert broken["within 30"] == 50


def test_mean_absolute_error() -> None:
    target = torch.tensor([[1.0, math.nan], [3.0, 4.0]])
    assert fed(ErrorTally(10), torch.tensor([[2.0, 7.0], [3.0, 2.0]]), target, [1, 1]) == pytest.approx({"error": 10.0})


@pytest.mark.parametrize(
    ("tally", "prediction", "target", "message"),
    [
        (DepthTally(), torch.ones(4, 1), torch.ones(4), "both must have the same shape"),
        (ErrorTally(), torch.ones(4, 1), torch.ones(4), "both must have the same shape"),
        (NormalTally(), torch.ones(4, 2, 5), torch.ones(4, 2, 5), "three components in dimension 1"),
        (SegmentationTally(3), torch.ones(1, 4, 2, 2), torch.zeros(1, 2, 2), "scores of shape"),
        (
            SegmentationTally(3),
            torch.ones(1, 3, 2, 2),
            torch.full((1, 2, 2), 3),
            "has the label 3; there are the classes 0 to 2",
        ),
        (SegmentationTally(3), torch.ones(1, 3, 2, 2), torch.full((1, 2, 2), -2), "has the label -2"),
        (ClassTally(3), torch.ones(2, 3), torch.zeros(3), "do not fit targets"),
        (BinaryTally(), torch.ones(2), torch.tensor([0, 2]), "a target is 2; it must be 0 or 1"),
    ],
)
def test_bad_input(tally: Tally, prediction: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tally.add(prediction, target)


def test_bad_options() -> None:
    with pytest.raises(InputError, match='no average "pixel"'):
        DepthTally("pixel")
    with pytest.raises(InputError, match="must be at least 2"):
        SegmentationTally(1)
    with pytest.raises(InputError, match='"zero" or "sum"'):
        NormalTally(missing="none")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="neither accuracy nor f1"):
        BinaryTally(accuracy=False, f1=False)


def test_an_evaluation_takes_batches_that_lack_tasks() -> None:
    def outputs(model: torch.nn.Module, batch: dict[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
        return {task: (model(batch["x"]), target) for task, target in batch.items() if task != "x"}

    evaluation = Evaluation({"a": ErrorTally, "b": lambda: BinaryTally(f1=False)}, outputs)
    assert evaluation.metrics == (
        Metric("a error", "a", higher_is_better=False),
        Metric("b accuracy", "b", higher_is_better=True, unit="%"),
    )
    ones = torch.ones(2)
    model = torch.nn.Identity()
    loader = [{"x": ones, "a": 3 * ones}, {"x": ones, "b": ones}, {"x": ones[:1], "a": ones[:1]}]
    for _ in range(2):  # nothing is left over from one evaluation to the next
        assert evaluation(model, loader) == pytest.approx({"a error": 4 / 3, "b accuracy": 100.0})
    with pytest.raises(InputError, match='no batch of the evaluation held the task "b"'):
        evaluation(model, loader[:1])
    with pytest.raises(InputError, match='the task "c", which has no tally'):
        evaluation(model, [{"x": ones, "c": ones}])
    with pytest.raises(InputError, match="at least one task"):
        Evaluation({}, outputs)
