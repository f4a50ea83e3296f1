"""Losses and gradients of any size that a double can hold have finite answers, or a line that says which task's have none."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import equipoise as eq
from equipoise import solvers
from equipoise.balance import Observation

TASKS = ("a", "b", "c")
SCALES = [
    10.0**e for e in (-320, -310, -308, -300, -200, -160, -155, -100, -45, -38, -20, 20, 38, 100, 154, 155, 200, 300, 305)
]
SCALES += [1e306, 1e307, 1.7e308]
ANGLES = {
    "conflict": [[1.0, 0.5, -0.2], [0.5, 1.0, -0.7], [-0.2, -0.7, 1.0]],
    "opposed": [[1.0, -1.0, 0.5], [-1.0, 1.0, -0.5], [0.5, -0.5, 1.0]],
    "equal": [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]],
}
# What evaluates the losses once more (ntk) has no answer without them.
BY_LOSSES = [info.name for info in eq.methods() if info.cost == "losses" and info.name != "ntk"]
BY_GRAMIAN = [info.name for info in eq.methods() if info.cost == "gramian"]
BY_ROWS = ["db-mtl", "excess-mtl", "graddrop", "moco"]


def gramians(scale: float) -> list[np.ndarray]:
    """One size for all tasks, and tasks whose squared lengths are the scale, 1 and its inverse."""
    found = [scale * np.array(cosines) for cosines in ANGLES.values()]
    if 1e-308 < scale < 1e308:
        lengths = np.sqrt([scale, 1.0, 1.0 / scale])
        found += [np.array(cosines) * lengths[:, None] * lengths for cosines in ANGLES.values()]
    return found


@pytest.mark.parametrize("name", BY_GRAMIAN)
def test_gramians_of_any_scale(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in SCALES:
            for gramian in gramians(scale):
                assert torch.isfinite(eq.balancer(name).weights(gramian)).all(), (scale, gramian)


SOLVERS: dict[str, Any] = {
    "aligned": lambda q: solvers.aligned_weights(q, np.ones(3)),
    "aligned, median": lambda q: solvers.aligned_weights(q, np.ones(3), "median"),
    "aligned, rmse": lambda q: solvers.aligned_weights(q, np.ones(3), "rmse"),
    "conflict-averse": lambda q: solvers.conflict_averse_weights(q, 0.4),
    "conflict-averse, far": lambda q: solvers.conflict_averse_direction(q, 5.0),
    "conflict-free": lambda q: solvers.conflict_free_weights(q, np.ones(3)),
    "constrained": lambda q: np.append(*solvers.constrained_descent(q, 0.0)),
    "dual cone": lambda q: solvers.dual_cone_projection(q, np.ones(3)),
    "unconflicting": lambda q: solvers.unconflicting_weights(q, np.ones(3)),
    "equal projections": solvers.equal_projections,
    "fair, small": lambda q: solvers.fair_weights(q, 0.1),
    "fair": lambda q: solvers.fair_weights(q, 2.0),
    "nash": solvers.nash_bargaining,
    "minimum norm": solvers.minimum_norm_point,
    "surgery": lambda q: solvers.project_conflicts(q, [[1, 2], [0, 2], [0, 1]]),
    "vaccine": lambda q: solvers.vaccinate(q, [[1, 2], [0, 2], [0, 1]], np.full((3, 3), 0.3))[0],
    "simplex programme": lambda q: solvers.simplex_quadratic_program(q, np.zeros(3)),
    "nonnegative programme": lambda q: solvers.nonnegative_quadratic_program(q, q.diagonal()),
    "simplex": lambda q: solvers.project_on_simplex(q[0]),
    "groups": lambda q: solvers.group_values(q[0], 2).astype(float),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_at_any_scale(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in SCALES:
            for gramian in gramians(scale):
                assert np.isfinite(SOLVERS[name](gramian)).all(), (scale, gramian)


@pytest.mark.parametrize("scale", [1e-300, 1e-155, 1e155, 1e300, 1e306])
def test_the_unit_of_all_gradients_does_not_turn_a_direction(scale: float) -> None:
    gramian = np.array(ANGLES["conflict"])
    for name in ("mgda", "cagrad", "aligned-mtl", "upgrad", "dualproj", "pcgrad", "config", "imtl-g"):
        expected = eq.balancer(name).weights(gramian)
        assert_allclose(eq.balancer(name).weights(scale * gramian), expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_lengths_whose_squares_no_double_holds() -> None:
    # Orthogonal gradients of lengths 1e100 and 1e-100: CAGrad's mean is the first's half, its weight all but one.
    weights = solvers.conflict_averse_direction([[1e200, 0.0], [0.0, 1e-200]], c=0.5)
    assert_allclose(weights, [0.5, 0.5 + 0.25e200], rtol=1e-6)


def taught(name: str, losses: torch.Tensor, **options: Any) -> list[torch.Tensor]:
    """What it answers in three steps."""
    balancer: Any = eq.balancer(name, **options)
    answers = []
    for step in range(3):
        shown = Observation(TASKS, (0, 1, 2), losses / 2**step, step=step)
        answers.append(balancer.decide(shown))
        balancer.update(shown)
        if balancer.watches:
            balancer.observe(losses / 2**step, losses / 2 ** (step + 1), (0, 1, 2))
        balancer.end_epoch()
    for value in balancer.state_dict().values():
        if isinstance(value, torch.Tensor):
            assert not torch.isnan(value).any()
    return answers


@pytest.mark.parametrize("name", BY_LOSSES)
def test_losses_of_any_scale(name: str) -> None:
    for scale in SCALES:
        losses = torch.tensor([scale, scale / 2, scale / 3], dtype=torch.float64)
        for options in [
            {},
            *([{"normalize": "log"}] if name == "ldc-mtl" else []),
            *([{"epsilon": 0}] if name == "famo" else []),
        ]:
            for answer in taught(name, losses, **options):
                assert torch.isfinite(answer).all(), (scale, options, answer)


@pytest.mark.parametrize("name", BY_LOSSES)
def test_tasks_of_unlike_scale_are_answered_or_named(name: str) -> None:
    for scale in SCALES:
        losses = torch.tensor([scale, 1.0, 1 / scale if scale > 1e-307 else 1.0], dtype=torch.float64)
        answer = taught(name, losses)[0]
        # What 1/ℓ times another loss makes may be no number any more, of that task alone.
        assert torch.isfinite(answer).sum() >= 2, (scale, answer)
        if torch.isfinite(answer).all():
            assert torch.isfinite(eq.balancer(name).weights(losses)).all()
        else:
            with pytest.raises(eq.InputError, match="float64 cannot hold"):
                eq.balancer(name).weights(losses)


def test_single_precision_losses_next_to_zero() -> None:
    for loss in (1e-38, 1e-44):
        losses = torch.tensor([loss, 1.0, 2.0])
        for normalize in ("rescale", "log", "none"):
            assert torch.isfinite(eq.LDCMTL(normalize=normalize).weights(losses)).all()


def test_the_first_rescaled_loss_is_one() -> None:
    losses = torch.tensor([49.0, 3.7e-5, 1e12], dtype=torch.float64)  # 49 · (1/49) is not 1
    balancer = eq.LDCMTL(penalty=1.0, tau="ones", normalize="rescale")
    balancer.weights(losses)
    assert balancer.report is not None
    assert float(balancer.report.upper) == 0.0
    assert balancer._normalized(losses, torch.arange(3))[0].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", BY_ROWS)
def test_rows_of_any_scale(name: str, dtype: torch.dtype) -> None:
    rows = torch.tensor([[1.0, 0.5, -0.25, 0.0], [-0.5, 1.0, 0.125, 0.25], [0.25, 0.25, -1.0, 1.0]], dtype=torch.float64)
    largest = torch.finfo(dtype).max / 16
    for scale in [scale for scale in [*SCALES, 1.0, 1e-7, 1e4] if scale < largest]:
        given = (scale * rows).to(dtype)
        if not given.any():
            continue
        balancer: Any = eq.balancer(name)
        for step in range(3):
            shown = Observation(TASKS, (0, 1, 2), torch.ones(3, dtype=torch.float64), gradients=given, step=step)
            assert torch.isfinite(balancer.decide(shown)).all(), (scale, step)
            balancer.update(shown)


@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.float32, 1e-40), (torch.float64, 1e-310), (torch.float16, 1e-6), (torch.float64, 1e300)]
)
def test_db_mtl_scales_short_and_long_gradients_to_one_norm(dtype: torch.dtype, scale: float) -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 10.0]], dtype=torch.float64) * scale
    direction = eq.DBMTL(beta=0.0, log_losses=False).direction(rows.to(dtype))
    assert direction.dtype == dtype
    assert_allclose(direction.double().numpy() / scale, [6.0, 18.0], rtol=0.1 if dtype == torch.float16 else 1e-3)


def test_directions_of_unlike_rows() -> None:
    rows = torch.tensor([[1e-300, 0.0], [0.0, 1e300]], dtype=torch.float64)
    assert eq.DBMTL(beta=0.0, log_losses=False).direction(rows).tolist() == pytest.approx([1e300, 1e300])


def test_what_no_number_can_hold_is_said() -> None:
    rows = torch.full((3, 2), 1.7e308, dtype=torch.float64)
    for name in ("excess-mtl", "graddrop"):
        with pytest.raises(eq.NonFiniteError, match=r"leaves the range of torch\.float64"):
            eq.balancer(name).direction(rows)
