"""What a landing is judged by, and the cosine that the history goes by."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import equipoise as eq
from equipoise.teleport import Guard, PaperFormulation, ParetoFormulation, ReleasedFormulation
from equipoise.teleport.attempt import TeleportReport
from equipoise.teleport.history import similarity


def objection(after: list[float], measures: tuple[float, float] = (0.2, 0.1), tolerance: float = 0.05) -> str:
    before, sizes = np.array([1.0, 10.0]), np.array([1.0, 10.0])
    return Guard(tolerance, conflict=True).objection(before, np.array(after), sizes, *measures, PaperFormulation())


def test_equal_losses_and_less_conflict_pass() -> None:
    assert objection([1.0, 10.0]) == ""
    assert objection([1.04, 10.4]) == ""
    assert objection([1.0, 10.0], (0.2, 0.2)) == ""


def test_the_mean_relative_change_counts_in_both_directions() -> None:
    assert objection([1.09, 10.0]) == ""  # 4.5 % in the mean
    assert "change by 5.5%" in objection([1.11, 10.0])
    assert "change by 5.5%" in objection([0.89, 10.0])
    # A rise does not make up for a fall.
    assert "change by 10.0% on held-out batches, more than the tolerance of 5.0%" in objection([1.1, 9.0])
    assert objection([1.1, 9.0], tolerance=0.2) == ""


def test_where_losses_may_fall_the_largest_rise_counts() -> None:
    guard, pareto = Guard(0.05), ParetoFormulation()
    before = sizes = np.array([1.0, 10.0])
    assert guard.objection(before, np.array([0.2, 10.4]), sizes, 0.2, 0.1, pareto) == ""
    found = guard.objection(before, np.array([0.2, 10.6]), sizes, 0.2, 0.1, pareto)
    assert "the losses change for the worse by 6.0% on held-out batches" in found


def test_the_conflict_can_be_left_out() -> None:
    before = sizes = np.array([1.0, 10.0])
    assert Guard().objection(before, before, sizes, 0.2, 0.9, PaperFormulation()) == ""
    assert "not finite" in Guard().objection(before, before, sizes, 0.2, math.nan, PaperFormulation())


def test_left_out_the_tolerance_is_that_of_the_formulation() -> None:
    assert [Guard().tolerance_for(kind()) for kind in (ParetoFormulation, PaperFormulation, ReleasedFormulation)] == [
        0.02,
        0.05,
        0.05,
    ]
    before = sizes = np.array([1.0, 10.0])
    after = np.array([1.03, 10.0])
    assert "tolerance of 2.0%" in Guard().objection(before, after, sizes, 0.2, 0.1, ParetoFormulation())
    assert Guard().objection(before, after, sizes, 0.2, 0.1, PaperFormulation()) == ""


def test_more_conflict_is_refused() -> None:
    found = objection([1.0, 10.0], (0.2, 0.3))
    assert "conflict gets worse" in found
    assert "cosine -0.200 before, -0.300 after" in found
    assert "conflict gets worse" in objection([1.0, 10.0], (-0.5, -0.4))


@pytest.mark.parametrize("after", [[math.nan, 10.0], [math.inf, 10.0], [1.0, -math.inf]])
def test_what_is_not_finite_is_refused(after: list[float]) -> None:
    assert "not finite" in objection(after)
    assert "not finite" in objection([1.0, 10.0], (0.2, math.nan))


def test_wrong_tolerances() -> None:
    for tolerance in (0.0, -0.1, math.nan):
        with pytest.raises(eq.InputError, match="tolerance must be a positive relative loss change"):
            Guard(tolerance)


def test_similarity_is_the_cosine_of_all_pairs_together() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,))]
    a, b = (torch.cat([pair[side].double().flatten() for pair in pairs]) for side in (0, 1))
    assert similarity(pairs) == pytest.approx(float(torch.nn.functional.cosine_similarity(a, b, dim=0)), rel=1e-12)
    assert similarity([(b, a) for a, b in pairs]) == pytest.approx(similarity(pairs))
    assert similarity([(-a, b) for a, b in pairs]) == pytest.approx(-similarity(pairs))
    assert similarity([(a, a * 3) for a, _ in pairs]) == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [1e-20, 1e-10, 1e15])
def test_similarity_does_not_depend_on_the_scale(scale: float) -> None:
    a, b = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0.5, 1.0, 3.0])
    assert similarity([(a * scale, b)]) == pytest.approx(similarity([(a, b)]), rel=1e-5)
    assert similarity([(a, b * scale)]) == pytest.approx(similarity([(a, b)]), rel=1e-5)


def test_similarity_of_nothing_is_zero() -> None:
    a = torch.tensor([1.0, 2.0])
    assert similarity([]) == 0.0
    assert similarity([(a * 0, a)]) == 0.0
    assert similarity([(a, a * 0)]) == 0.0


def test_similarity_with_a_sparse_gradient() -> None:
    gradient = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    delta = torch.tensor([[5.0, 5.0], [1.0, 0.0]])
    assert similarity([(delta, gradient.to_sparse(1))]) == pytest.approx(similarity([(delta, gradient)]))


def test_similarity_in_half_precision_does_not_overflow() -> None:
    large = torch.full((4,), 3e4, dtype=torch.float16)
    assert similarity([(large, large)]) == pytest.approx(1.0)


def report(**changed: object) -> TeleportReport:
    entries: dict[str, object] = {
        "step": 3,
        "epoch": 1,
        "trigger": "weak",
        "tasks": ("a", "b"),
        "accepted": True,
        "reason": "",
        "sigma": 0.1,
        "distance": 1.0,
        "losses_before": (2.0, -4.0),
        "losses_after": (3.0, -5.0),
        "measure_before": 0.2,
        "measure_after": 0.1,
        "seconds": 0.5,
    }
    for name in ("cosines_before", "cosines_after", "norms_before", "norms_after", "invariance", "reward"):
        entries[name] = (0.5, 0.25)
    return TeleportReport(**(entries | changed))  # type: ignore[arg-type]


def test_a_report_comes_back_from_plain_entries() -> None:
    assert TeleportReport.from_dict(report().as_dict()) == report()
    assert all(isinstance(entry, int | float | str | bool | list) for entry in report().as_dict().values())


def test_relative_changes() -> None:
    assert report().changes == (0.5, -0.25)
    assert report(losses_after=()).changes == ()
