"""L_t, L_g, R and the perturbations against the paper's equations, and the coefficients against automatic differentiation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from torch import Tensor

import equipoise as eq
from equipoise.teleport import ParetoFormulation
from equipoise.teleport.formulations import FORMULATIONS, PaperFormulation, ReleasedFormulation, as_formulation

GAMMA, RADIUS, KEPT = 0.3, 0.7, 1.7


def paper(point: Tensor, samples: Tensor, reference: Tensor, balance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 7, 9 and 11, with the factor of L_t that the ablation changes."""
    tasks = len(point)
    invariance = sum((point[i] - reference[i]).abs() for i in range(tasks)) / tasks
    rises = [(sum(balance[i] * (sample[i] - point[i]) for i in range(tasks)) / tasks).abs() for sample in samples]
    reward = torch.stack(rises).max() if rises else torch.zeros((), dtype=torch.float64)
    return torch.as_tensor(invariance), reward, KEPT * invariance - GAMMA * reward


def released(point: Tensor, samples: Tensor, reference: Tensor, balance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every task's own largest change, over the noise's norm; the perturbed copies are outside the graph."""
    tasks, samples = len(point), samples.detach()
    invariance = sum((point[i] - reference[i]).abs() for i in range(tasks)) / tasks
    largest = [
        torch.stack([balance[i] * (sample[i] - point[i]).abs() for sample in samples]).max()
        if len(samples)
        else torch.zeros((), dtype=torch.float64)
        for i in range(tasks)
    ]
    reward = torch.stack(largest).sum() / tasks / RADIUS
    return torch.as_tensor(invariance), reward, KEPT * invariance - GAMMA * reward


def pareto(point: Tensor, samples: Tensor, reference: Tensor, balance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rises only; what is rewarded is the weighted fall, by the default ρ = 0.2, and the sharpness."""
    tasks = len(point)
    rise = sum((point[i] - reference[i]).clamp(min=0.0) for i in range(tasks)) / tasks
    fall = sum(balance[i] * (reference[i] - point[i]) for i in range(tasks)) / tasks
    _, sharpness, _ = paper(point, samples, reference, balance)
    reward = 0.2 * fall + GAMMA * sharpness
    return torch.as_tensor(rise), torch.as_tensor(reward), KEPT * rise - reward


FORMULAS: dict[str, Any] = {"paper": paper, "released": released, "pareto": pareto}
losses = st.floats(-5.0, 5.0, allow_subnormal=False).map(lambda number: round(number, 3))


@st.composite
def vectors(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    tasks, samples = draw(st.integers(1, 6)), draw(st.integers(0, 4))
    return (
        draw(arrays(np.float64, tasks, elements=losses)),
        draw(arrays(np.float64, (samples, tasks), elements=losses)),
        draw(arrays(np.float64, tasks, elements=losses)),
        draw(arrays(np.float64, tasks, elements=st.floats(0.0, 3.0).map(lambda number: round(number, 2)))),
    )


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(given=vectors())
def test_terms_and_coefficients_are_those_of_the_formula(name: str, given: tuple[np.ndarray, ...]) -> None:
    formulation = FORMULATIONS.find(name)(gamma=GAMMA, radius=RADIUS, invariance=KEPT)
    terms = formulation.terms(*given)
    point, samples, reference, balance = (torch.tensor(array, dtype=torch.float64) for array in given)
    point.requires_grad_()
    samples.requires_grad_()
    invariance, reward, total = FORMULAS[name](point, samples, reference, balance)
    assert_allclose(terms.invariance, float(invariance.detach()), atol=1e-12)
    assert_allclose(terms.reward, float(reward.detach()), atol=1e-12)
    assert terms.at_point.shape == point.shape
    assert terms.at_samples.shape == samples.shape
    if not smooth(name, *given):
        return  # ties and kinks: there is no gradient to compare with
    slopes = torch.autograd.grad(total, [point, samples], allow_unused=True)
    for found, expected in zip((terms.at_point, terms.at_samples), slopes, strict=True):
        assert_allclose(found, np.zeros_like(found) if expected is None else expected.numpy(), atol=1e-12)


def smooth(name: str, point: np.ndarray, samples: np.ndarray, reference: np.ndarray, balance: np.ndarray) -> bool:
    if (np.abs(point - reference) < 1e-9).any():
        return False
    if not len(samples):
        return True
    pooled = np.abs((balance * (samples - point)).mean(1))[:, None]
    rises = np.abs(balance * (samples - point)) if name == "released" else pooled
    ordered = np.sort(rises, axis=0)
    return bool((ordered[-1] > 1e-9).all() and (len(samples) == 1 or (ordered[-1] - ordered[-2] > 1e-9).all()))


def test_equation_10() -> None:
    norms = np.array([1.0, 2.0, 5.0])
    powers = np.exp(8.0 / norms)
    assert_allclose(PaperFormulation().balance(norms), 3 * powers / powers.sum(), rtol=1e-12)


def test_the_released_weights() -> None:
    assert_allclose(ReleasedFormulation().balance(np.array([1.0, 2.0, 5.0])), 3 * (1 - np.array([1.0, 2.0, 5.0]) / 8))


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e15])
@pytest.mark.parametrize("name", FORMULAS)
def test_weights_are_finite_and_do_not_depend_on_the_scale(name: str, scale: float) -> None:
    norms = np.array([0.3, 4.0, 4.0, 1.0])
    weights = as_formulation(name).balance(norms * scale)
    assert_allclose(weights, as_formulation(name).balance(norms), rtol=1e-9)
    assert weights[0] == weights.max()
    assert weights[1] == weights[2]


@pytest.mark.parametrize("norms", [[0.0, 1.0, 1e15], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1e-10, 1e15, 1.0], [2.0]])
@pytest.mark.parametrize("name", FORMULAS)
def test_vanishing_and_badly_scaled_gradients_have_finite_weights(name: str, norms: list[float]) -> None:
    weights = as_formulation(name).balance(np.array(norms))
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()


def test_weights_of_the_paper_add_up_to_the_number_of_tasks() -> None:
    for norms in ([0.0, 1.0, 3.0], [0.0, 0.0, 0.0], [1.0], [1e-10, 1e15]):
        assert PaperFormulation().balance(np.array(norms)).sum() == pytest.approx(len(norms))


SHAPES = {"weight": (4, 3), "bias": (4,), "kernel": (2, 3, 2, 2), "scalar": ()}


def shapes(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: torch.ones(shape, dtype=dtype) for name, shape in SHAPES.items()}


def test_a_perturbation_of_the_paper_lies_on_the_sphere_of_all_parameters() -> None:
    noise = PaperFormulation(radius=RADIUS).noise(shapes(), torch.Generator().manual_seed(0))
    assert {name: tuple(tensor.shape) for name, tensor in noise.items()} == SHAPES
    assert float(torch.cat([tensor.flatten() for tensor in noise.values()]).norm()) == pytest.approx(RADIUS, rel=1e-12)


def test_a_released_perturbation_has_the_radius_in_every_tensor() -> None:
    noise = ReleasedFormulation(radius=RADIUS).noise(shapes(), torch.Generator().manual_seed(0))
    for tensor in noise.values():
        assert float(tensor.norm()) == pytest.approx(RADIUS, rel=1e-12)


def test_perturbations_have_no_favourite_direction() -> None:
    """Uniform on the sphere: the mean vanishes and the covariance is δ² / P times the identity."""
    generator = torch.Generator().manual_seed(1)
    parameters = {"a": torch.ones(2, dtype=torch.float64), "b": torch.ones(3, dtype=torch.float64)}
    formulation = PaperFormulation(radius=2.0)
    drawn = torch.stack([torch.cat(list(formulation.noise(parameters, generator).values())) for _ in range(4000)])
    covariance = drawn.T @ drawn / len(drawn)
    assert float(drawn.mean(0).abs().max()) < 5 * 2.0 / (5 * 4000) ** 0.5
    assert float((covariance - torch.eye(5) * 4.0 / 5).abs().max()) < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", FORMULAS)
def test_perturbations_have_the_parameters_precision(name: str, dtype: torch.dtype) -> None:
    noise = dataclasses.replace(as_formulation(name), radius=1e-2).noise(shapes(dtype), torch.Generator().manual_seed(0))
    assert {tensor.dtype for tensor in noise.values()} == {dtype}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in noise.values())


@pytest.mark.parametrize("name", FORMULAS)
def test_perturbations_come_from_the_generator_given(name: str) -> None:
    before = torch.get_rng_state()
    first, again = (as_formulation(name).noise(shapes(), torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in SHAPES)


def test_formulations_are_found_by_name_and_say_what_is_wrong() -> None:
    assert as_formulation("released").evaluation_mode
    assert not as_formulation("paper").evaluation_mode
    with pytest.raises(eq.InputError, match=r'there is no formulation "papre"\. Did you mean "paper"'):
        as_formulation("papre")
    for option, value in (("gamma", -0.1), ("gamma", float("nan")), ("radius", 0.0), ("invariance", -1.0)):
        with pytest.raises(eq.InputError, match=f"{option} must be"):
            PaperFormulation(**{option: value})
        with pytest.raises(eq.InputError, match=f"{option} must be"):
            ReleasedFormulation(**{option: value})


def test_descent_must_not_be_negative() -> None:
    with pytest.raises(eq.InputError, match="descent must be at least 0"):
        ParetoFormulation(descent=-0.1)
