"""ASMG against its equations, written out anew, and against problems whose solutions are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.blackbox import ASMG, OPTIMIZERS, make_optimizer
from equipoise.errors import InputError, UnknownMethodError, UnknownOptionError
from equipoise.solvers import simplex_quadratic_program
from equipoise_papers.figures.asmg.run import problem


def quadratics(x):
    return np.stack([((x - 1) ** 2).sum(1), ((x + 1) ** 2).sum(1)], axis=1)


@pytest.mark.parametrize("shaping", ["standardize", "mean"])
def test_one_iteration_is_algorithm_3(shaping: str) -> None:
    printed = {} if shaping == "mean" else {"covariance": "printed", "scaling": "none"}
    optimizer = ASMG(np.array([0.5, -2.0, 3.0]), std=[0.3, 0.5, 0.2], samples=7, lr=0.05, shaping=shaping, seed=0, **printed)
    mean, variance = optimizer.mean, optimizer.std**2
    points = optimizer.ask()
    outputs = np.stack([((points - 1) ** 2).sum(1), np.abs(points).sum(1) * 3], axis=1)
    optimizer.tell(outputs)
    center = outputs[:7].mean(0) if shaping == "standardize" else outputs[7]
    samples, values = points[:7], outputs[:7] - center
    p = [sum((x - mean) / np.sqrt(variance) * f for x, f in zip(samples, column, strict=True)) / 7 for column in values.T]
    h = [sum(((x - mean) ** 2 / variance - 1) * f for x, f in zip(samples, column, strict=True)) / 14 for column in values.T]
    stacked = np.stack([np.concatenate([a, np.sqrt(2) * b]) for a, b in zip(p, h, strict=True)])
    weights = simplex_quadratic_program(stacked @ stacked.T, np.zeros(2))
    aggregate = values @ weights
    scale = aggregate.std() if shaping == "standardize" else 1.0
    step = sum((x - mean) * a for x, a in zip(samples, aggregate / scale, strict=True)) / 7
    bend = sum(((x - mean) ** 2 / variance - 1) / variance * a for x, a in zip(samples, aggregate / scale, strict=True)) / 7
    np.testing.assert_allclose(optimizer.weights, weights, rtol=1e-9)
    np.testing.assert_allclose(optimizer.mean, mean - 0.05 * step, rtol=1e-9)
    np.testing.assert_allclose(1 / optimizer.std**2, 1 / variance + 0.05 * bend, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_by_default_units_do_not_count_and_sigma_changes_as_the_exponential_of_what_is_printed(seed: int) -> None:
    printed, one, other = (
        ASMG(np.array([0.5, -2.0, 3.0]), std=0.3, samples=7, lr=0.4, seed=seed, scaling=scaling, covariance=covariance)
        for scaling, covariance in (("standardize", "printed"), (None, None), (None, None))
    )
    before = one.std
    outputs = quadratics(one.ask())
    one.tell(outputs)
    for optimizer, units in ((printed, 1.0), (other, [1e-3, 40.0])):
        optimizer.ask()
        optimizer.tell(units * outputs)
    factor = (before / printed.std) ** 2
    np.testing.assert_allclose((before / one.std) ** 2, np.exp(factor - 1), rtol=1e-9)
    np.testing.assert_allclose(other.mean, one.mean, rtol=1e-9)
    np.testing.assert_allclose(other.std, one.std, rtol=1e-9)


@pytest.mark.parametrize(("covariance", "low", "high"), [("exponential", 0.5, 2.0), ("printed", 10.0, np.inf)])
def test_noise_alone_does_not_make_sigma_grow(covariance: str, low: float, high: float) -> None:
    """As printed, the logarithm of a deviation grows by β²/(2N) per iteration: 3 in 120 iterations."""
    optimizer = ASMG(np.zeros(200), samples=20, lr=1.0, seed=0, covariance=covariance)
    noise = np.random.default_rng(1)
    for _ in range(120):
        optimizer.ask()
        optimizer.tell(noise.normal(size=(20, 2)))
    assert low < np.exp(np.log(optimizer.std).mean()) < high


@given(st.floats(1e-6, 1e6), st.integers(0, 1000))
def test_shaping_makes_the_outputs_scale_and_shift_irrelevant(factor: float, seed: int) -> None:
    one, other = (ASMG(np.ones(4), samples=10, seed=seed) for _ in range(2))
    for _ in range(3):
        outputs = quadratics(one.ask())
        one.tell(outputs)
        other.ask()
        other.tell(factor * outputs + factor)
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6, atol=1e-8)
    assert (other.std > 0).all()
    assert other.weights.sum() == pytest.approx(1)


@given(st.integers(0, 1000), st.sampled_from([0.1, 10.0, 1e6]))
def test_sigma_stays_positive_whatever_the_step(seed: int, lr: float) -> None:
    optimizer = ASMG(np.ones(3), samples=4, lr=lr, seed=seed)
    for _ in range(5):
        optimizer.tell(quadratics(optimizer.ask()))
    assert np.isfinite(optimizer.std).all()
    assert (optimizer.std > 0).all()


def test_converges_to_the_pareto_set_and_is_as_stationary_as_sigma_is_small() -> None:
    """Proposition 4.4: F_i has L_F = 2, so min_λ ‖Σ λ_i ∇F_i(μ)‖² ≤ 4 ‖diag Σ‖₁ where the smoothed problem is stationary."""
    optimizer = ASMG(np.linspace(2, 4, 10), samples=50, seed=0)
    accuracies = []
    for iteration in range(1, 2001):
        optimizer.tell(quadratics(optimizer.ask()))
        if iteration % 500 == 0:
            gradients = np.stack([2 * (optimizer.mean - 1), 2 * (optimizer.mean + 1)])
            weights = simplex_quadratic_program(gradients @ gradients.T, np.zeros(2))
            accuracies.append(((weights @ gradients) ** 2).sum())
            bound = 4 * (optimizer.std**2).sum()
    # The Pareto set is the segment between the two minima.
    assert accuracies[-1] < 1e-5
    assert bound < 1e-6


@pytest.mark.parametrize("name", ["shift-l1", "shift-half", "mixed"])
def test_reaches_the_solutions_of_the_thesis_problems(name: str) -> None:
    task = problem(name, 20)
    optimizer = ASMG(np.random.default_rng(0).uniform(size=20), samples=50, seed=0)
    for _ in range(2000):
        optimizer.tell(task.outputs(optimizer.ask()))
    assert task.distance(optimizer.mean) < 1e-4


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_bad_input_and_state(name: str) -> None:
    optimizer = make_optimizer(name, np.ones(4), samples=10, seed=0)
    with pytest.raises(InputError, match="tell before ask"):
        optimizer.tell(np.zeros((10, 2)))
    points = optimizer.ask()
    assert (optimizer.ask() == points).all()
    with pytest.raises(InputError, match="a row for each"):
        optimizer.tell(np.zeros((3, 2)))
    optimizer.tell(quadratics(points))
    rows = len(optimizer.ask())
    with pytest.raises(InputError, match="cannot change"):
        optimizer.tell(np.zeros((rows, 3)))
    state = optimizer.state_dict()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    other = make_optimizer(name, np.zeros(4), samples=10, seed=9)
    other.load_state_dict(state)
    for _ in range(10):
        outputs = quadratics(optimizer.ask())
        outputs[3] = np.nan
        for one in (optimizer, other):
            one.ask()
            one.tell(outputs)
    assert (optimizer.mean == other.mean).all()
    assert (optimizer.std == other.std).all()
    assert optimizer.failures == 10
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    with pytest.raises(InputError, match="make the optimizer as it was"):
        make_optimizer(name, np.ones(4), samples=11).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"std": 0.0}, "greater than 0"), ({"std": [1, 1]}, "one for each dimension"), ({"samples": 1}, "at least 2")],
)
def test_bad_options(options, message: str) -> None:
    for name in OPTIMIZERS.names():
        with pytest.raises(InputError, match=message):
            make_optimizer(name, np.ones(4), **options)


def test_bad_names_and_one_objective() -> None:
    with pytest.raises(UnknownMethodError, match="cma-es"):
        make_optimizer("cmaes", [0.0, 0.0])
    with pytest.raises(UnknownOptionError, match="no option"):
        make_optimizer("es", [0.0, 0.0], weights="equal")
    optimizer = ASMG(np.ones(3), samples=5)
    optimizer.ask()
    with pytest.raises(InputError, match="at least 2"):
        optimizer.tell(np.zeros((5, 1)))


def test_fixed_weights_of_another_length_are_refused_before_anything_changes() -> None:
    optimizer, other = (ASMG(np.ones(3), samples=5, weights=[0.25, 0.75], seed=0) for _ in range(2))
    points = optimizer.ask()
    with pytest.raises(InputError, match="2 weights were given and outputs has 3"):
        optimizer.tell(np.ones((5, 3)))
    assert (optimizer.objectives, optimizer.iterations, optimizer.weights) == (None, 0, None)
    optimizer.tell(quadratics(points))
    other.tell(quadratics(other.ask()))
    assert (optimizer.mean == other.mean).all()
    assert optimizer.weights.tolist() == [0.25, 0.75]
