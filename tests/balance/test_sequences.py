"""Methods with a memory, and those of released code, step by step against what their reference implementations return."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import equipoise as eq

ORACLE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "oracles" / "sequences.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("expected", ORACLE["expected"], ids=lambda expected: f"{expected['method']}, {expected['options']}")
def test_directions_of_references(expected: dict[str, Any]) -> None:
    balancer = eq.balancer(expected["method"], **expected["options"])
    steps = zip(ORACLE["gradients"], ORACLE["losses"], expected["directions"], strict=True)
    # Losses that are linear in the parameters, which stay at 0, have just these gradients and values.
    parameters = torch.zeros(len(expected["directions"][0]), dtype=torch.float64, requires_grad=True)
    for gradients, values, direction in steps:
        parameters.grad = None
        rows, losses = torch.tensor(gradients, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
        eq.backward(list(rows @ parameters + losses), balancer, shared=[parameters])
        wanted = torch.tensor(direction, dtype=torch.float64)
        # References add 1e-8 to norms that they divide by.
        assert float((parameters.grad - wanted).norm() / wanted.norm()) < 1e-6
