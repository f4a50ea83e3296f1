"""Agreement with the numbers that the methods' reference implementations return."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise import solvers

ORACLES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "oracles" / "balancers.json").read_text(encoding="utf-8")
)


@pytest.fixture(params=ORACLES, ids=lambda oracle: f"seed {oracle['seed']}, {oracle['tasks']} tasks")
def oracle(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_references(oracle: dict[str, Any]) -> None:
    gradients = np.array(oracle["gradients"])
    expected = {name: np.array(values) for name, values in oracle["expected"].items()}
    gramian = gradients @ gradients.T
    tasks = gramian.shape[0]
    assert relative(solvers.equal_projections(gramian), expected["imtl_g"]) < 1e-4
    for alpha in (1, 2):
        # The reference multiplies its solution by the number of tasks.
        assert relative(tasks * solvers.fair_weights(gramian, alpha), expected[f"fairgrad_alpha{alpha}"]) < 1e-5
    if "nash_mtl" in expected:
        assert relative(solvers.nash_bargaining(gramian), expected["nash_mtl"]) < 1e-5
    # The reference multiplies the paper's direction by K / (1 + c²).
    averse = solvers.conflict_averse_direction(gramian, 0.4) @ gradients * tasks / (1.0 + 0.4**2)
    assert relative(averse, expected["cagrad_c0.4_direction"]) < 1e-3
    if "pcgrad_sum_direction" in expected:
        surgery = solvers.project_conflicts(gramian, [[1], [0]]) @ gradients
        assert relative(surgery, expected["pcgrad_sum_direction"]) < 1e-5


def test_minimum_norm_reference(oracle: dict[str, Any]) -> None:
    gradients = np.array(oracle["gradients"])
    gramian = gradients @ gradients.T
    reference = np.array(oracle["expected"]["mgda"]) / gramian.shape[0]
    weights = solvers.minimum_norm_point(gramian)
    # An iterative reference stops before the minimum on badly scaled gradients: the exact method must never be worse.
    assert weights @ gramian @ weights <= reference @ gramian @ reference * (1.0 + 1e-6)
    if solvers.minimum_norm_residual(gramian, reference) < 1e-3:
        assert relative(weights @ gradients, reference @ gradients) < 1e-3


def test_most_minimum_norm_references_are_accurate() -> None:
    accurate = 0
    for oracle in ORACLES:
        gradients = np.array(oracle["gradients"])
        reference = np.array(oracle["expected"]["mgda"]) / oracle["tasks"]
        accurate += solvers.minimum_norm_residual(gradients @ gradients.T, reference) < 1e-3
    assert accurate == 12
