"""What a step needs beyond plain training: the task gradients, and next to nothing else."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.measure_memory import TASKS

METHODS = ["plain", "fairgrad", "pcgrad", "uw", "famo"]


@functools.cache
def peaks() -> dict[str, tuple[int, int]]:
    """For each method the peak of training in a fresh process, in bytes, and the number of shared parameters."""
    script = Path(__file__).with_name("measure_memory.py")
    environment = os.environ | {"KINETO_LOG_LEVEL": "5"}
    done = subprocess.run(
        [sys.executable, str(script), *METHODS], capture_output=True, text=True, timeout=200, check=True, env=environment
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    return {method: (int(most), int(parameters)) for method, (most, parameters) in zip(METHODS, lines, strict=True)}


def peak(method: str) -> tuple[int, int]:
    return peaks()[method]


def test_the_measurement_sees_plain_training() -> None:
    plain, parameters = peak("plain")
    assert 1.0 <= plain / (4 * parameters) <= 1.3, "the gradients, and little beside them"


@pytest.mark.parametrize("method", ["fairgrad", "pcgrad"])
def test_task_gradients_and_a_tenth(method: str) -> None:
    plain, parameters = peak("plain")
    extra = peak(method)[0] - plain
    assert extra <= 1.1 * TASKS * parameters * 4


@pytest.mark.parametrize("method", ["uw", "famo"])
def test_balancers_of_losses_need_nothing(method: str) -> None:
    plain, parameters = peak("plain")
    assert peak(method)[0] - plain <= 0.05 * parameters * 4
