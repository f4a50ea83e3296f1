"""minimize: failures survived, limits, resumption bit by bit."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch

from equipoise.blackbox import OPTIMIZERS, minimize
from equipoise.errors import EquipoiseError, InputError


def quadratics(x):
    return [((x - 1) ** 2).sum(), ((x + 1) ** 2).sum()]


def fragile(x):
    if abs(x[0]) > 2.2:
        time.sleep(30)
    if x[1] > 2.5:
        raise ValueError("boom")
    if x[2] > 2.5:
        os._exit(3)
    return [((x - 1) ** 2).sum(), float("nan") if x[3] > 2.5 else 1.0]


def test_processes_survive_everything_and_count_it() -> None:
    result = minimize(fragile, np.full(4, 1.5), iterations=4, samples=10, workers=2, seed=0, evaluation_seconds=0.5)
    assert result.evaluations == 40
    assert result.failures.counts.keys() == {"crash", "not finite", "exception", "timeout"}
    assert result.failures.first["exception"] == "ValueError: boom"
    assert result.optimizer.failures == result.failures.total


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumes_bit_by_bit(name: str, tmp_path) -> None:
    options = {"samples": 10, "seed": 3}
    whole = minimize(quadratics, torch.full((4,), 1.5), name, iterations=30, **options)
    file = tmp_path / "search.npz"
    minimize(quadratics, np.full(4, 1.5), name, iterations=13, checkpoint=file, **options)
    with pytest.raises(InputError, match="another file"):
        minimize(quadratics, np.full(4, 1.5), name, iterations=30, checkpoint=file, samples=10, seed=4)
    rest = minimize(quadratics, np.full(4, 1.5), name, iterations=30, checkpoint=file, workers=2, backend="threads", **options)
    assert (whole.x == rest.x).all()
    assert (whole.std == rest.std).all()
    assert (whole.objectives == rest.objectives).all()


def test_limits_and_callback() -> None:
    assert minimize(quadratics, np.ones(2), evaluations=99, samples=10).evaluations == 90
    assert minimize(quadratics, np.ones(2), seconds=0.2).stopped == "seconds"
    assert minimize(quadratics, np.ones(2), callback=lambda at: at.iteration == 3).iterations == 3


def test_nothing_succeeds() -> None:
    def broken(x):
        raise RuntimeError("no simulator here")

    with pytest.raises(EquipoiseError, match="no simulator here"):
        minimize(broken, np.ones(2))
