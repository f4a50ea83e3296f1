"""PGD stays where it must and does what it is for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.errors import InputError
from equipoise_papers.applications.attack import PGD


def classifier() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4))


@settings(max_examples=40)
@given(radius=st.floats(0.0, 0.6), steps=st.integers(0, 4), step_size=st.none() | st.floats(1e-3, 2.0), seed=st.integers(0, 99))
def test_stays_in_the_ball_and_among_pixels(radius: float, steps: int, step_size: float | None, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.rand(3, 1, 4, 4, generator=generator), torch.randint(4, (3,), generator=generator)
    found = PGD(radius, steps, step_size)(classifier(), images, labels)
    assert float((found - images).abs().max()) <= radius + 1e-6
    assert float(found.min()) >= 0.0
    assert float(found.max()) <= 1.0
    if not steps:
        assert torch.equal(found, images)


def test_raises_the_loss_and_more_steps_raise_it_more() -> None:
    model, images, labels = classifier(), torch.rand(64, 1, 4, 4), torch.randint(4, (64,))

    def loss(steps: int) -> Tensor:
        return F.cross_entropy(model(PGD(0.3, steps)(model, images, labels)), labels)

    assert loss(0) + 0.1 < loss(1) <= loss(10) + 1e-4


def test_one_step_is_the_sign_of_the_gradient() -> None:
    images, labels = torch.full((2, 3), 0.5), torch.tensor([0, 1])
    weight = torch.tensor([[1.0, -2.0, 0.0], [0.0, 1.0, 0.0]])
    found = PGD(0.25, steps=1, step_size=0.25)(lambda pixels: pixels @ weight.T, images, labels)
    # The margin of class 0 over class 1 is x₀ − 3 x₁; x₂ is of no account.
    assert found.tolist() == [[0.25, 0.75, 0.5], [0.75, 0.25, 0.5]]


def test_leaves_no_gradients_and_works_without_a_graph_around_it() -> None:
    model, images, labels = classifier(), torch.rand(5, 1, 4, 4, requires_grad=True), torch.randint(4, (5,))
    with torch.no_grad():
        found = PGD(0.1)(model, images, labels)
    assert not found.requires_grad
    assert images.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"radius": -0.1}, "radius must be finite and at least 0; got -0.1"),
        ({"radius": float("nan")}, "radius"),
        ({"radius": 0.1, "steps": -1}, "steps must be a whole number of at least 0"),
        ({"radius": 0.1, "step_size": 0.0}, "step_size must be positive"),
        ({"radius": 0.1, "low": 1.0}, "low must be below high"),
    ],
)
def test_bad_numbers(options: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        PGD(**options)  # type: ignore[arg-type]


def test_logits_that_do_not_depend_on_the_images() -> None:
    with pytest.raises(InputError, match="do not depend on the images"):
        PGD(0.1)(lambda images: torch.zeros(2, 4), torch.rand(2, 3), torch.tensor([0, 1]))
